"""Learning curves are read as far as they go, and thinned without changing a point."""

from pathlib import Path

from genbench.report import curves
from genbench.report.curves import folder_of, read, thinned


def test_the_run_of_a_record_is_the_parent_of_its_folder():
    assert folder_of(Path("runs/a/records/x.json")) == Path("runs/a")
    assert folder_of(Path("runs/a/records/2026/x.json")) == Path("runs/a")
    assert folder_of(Path("somewhere/x.json")) is None


def test_incomplete_lines_and_non_numbers_are_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(
        b"images_seen,a/loss,a/lr,val/fid,speed\n100,0.5,0.1,,9\n200,nan,0.1,7.25,9\nx,1,1,1,1\n300,0.25,0.1,inf,9\n"
        b"400,0.125,0.1,6.5,9\n500,\xff,0.1,\n600,0.0625"
    )
    (found,) = thinned([read(path)])
    series = {name: list(zip(found["at"][at], values, strict=True)) for name, (at, values) in found["series"].items()}
    assert series == {"a/loss": [(100, 0.5), (300, 0.25), (400, 0.125)], "val/fid": [(200, 7.25), (400, 6.5)]}


def test_what_a_spreadsheet_saved_is_read_as_it_was_logged(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes("\ufeffval/fid;images_seen;a/loss\r\n1,5;1E+05;0,25\r\n".encode())
    assert read(path) == {"val/fid": [("100000", "1.5")], "a/loss": [("100000", "0.25")]}


def test_a_missing_or_empty_file_has_no_curve(tmp_path):
    assert read(tmp_path / "metrics.csv") == {}
    for text in ("", "images_seen", "a/b\n1\n", "images_seen,a/b\n", "images_seen,a/b\n1,"):
        (tmp_path / "metrics.csv").write_text(text)
        assert read(tmp_path / "metrics.csv") == {}, text


def test_long_curves_keep_their_ends_and_are_not_interpolated():
    points = [(str(k), str(k * k % 97)) for k in range(5000)]
    (found,) = thinned([{"a/b": points}])
    at, values = found["at"][0], found["series"]["a/b"][1]
    assert len(at) == curves.MOST and at[0] == 0 and at[-1] == 4999
    assert all(v == x * x % 97 for x, v in zip(at, values, strict=True))


def test_many_curves_are_shown_by_fewer_points_each():
    run = {f"a/{k}": [(str(x), "1") for x in range(1000)] for k in range(100)}
    found = thinned([run] * 100)
    assert sum(len(values) for one in found for _, values in one["series"].values()) <= curves.VALUES
    assert all(len(one["at"]) == 1 for one in found)  # logged together
