"""report: a page from folders of runs, and a sentence where there can be none."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from genbench.leaderboard.record import write
from tests.helpers.records import many, record
from tests.helpers.run_folders import leave


def test_a_page_is_written_and_its_size_printed(cli):
    for made in many(3, 2, 1):
        leave(made, Path("runs"), curve=20, kinds=("samples",), size=8)
    status, out, err = cli("report")
    page = Path("report.html")
    assert (status, err) == (0, "")
    assert out == f"Report: report.html ({page.stat().st_size / 1e6:.1f} MB, 13 records)\n"
    assert cli("report", "runs", "--out", "again.html")[0] == 0
    assert Path("again.html").read_bytes() == page.read_bytes()
    assert page.read_text().startswith("<!doctype html>") and sorted(os.listdir()) == [
        "again.html",
        "report.html",
        "runs",
    ]


def test_neither_torch_nor_lightning_nor_numpy_is_imported(cli, tmp_path):
    leave(record(), Path("runs"), curve=5, kinds=("samples",), size=8)
    script = (
        "import sys; from genbench.cli import main; assert main(['report']) == 0;"
        "heavy = {'torch', 'lightning', 'torchvision', 'numpy', 'scipy', 'pandas'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unreadable_files_are_listed_and_the_page_is_written(cli):
    path = leave(record(), Path("runs"), kinds=("samples",), size=8)
    (path.parent / "cut.json").write_text('{"schema": 1')
    (path.with_suffix("") / "samples.png").write_text("no picture")
    status, out, err = cli("report", "runs")
    assert status == 0 and "1 record)" in out and len(err.splitlines()) == 2
    assert f"skipped {path.parent}/cut.json: " in err
    assert f"skipped {path.with_suffix('')}/samples.png: not a PNG, or damaged." in err


def test_a_page_is_replaced_whole_or_not_at_all(cli, monkeypatch):
    write(record(), "runs/a/records")
    Path("report.html").write_text("before")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    assert cli("report")[0] == 2
    assert Path("report.html").read_text() == "before" and sorted(os.listdir()) == ["report.html", "runs"]


def test_a_page_that_does_not_fit_on_the_disk_is_saved_elsewhere(cli, tmp_path, elsewhere, full):
    write(record(), "runs/a/records")
    assert cli("report", "--out", "whole.html")[0] == 0
    (tmp_path / "full").mkdir()
    full(tmp_path / "full")
    status, out, err = cli("report", "--out", "full/report.html")
    assert status == 2 and out == "" and "full/report.html could not be written: No space left on device." in err
    (kept,) = elsewhere.rglob("report.html")
    assert f"It was written to {kept} instead." in err and kept.read_bytes() == Path("whole.html").read_bytes()


def test_paths_that_are_not_files_are_skipped_or_not_replaced(cli):
    write(record(), "runs/a/records")
    os.mkfifo("runs/a/records/pipe.json")
    os.mkfifo("runs/a/metrics.csv")
    Path("runs/a/records/zero.json").symlink_to("/dev/zero")
    status, out, err = cli("report")
    assert status == 0 and "1 record)" in out
    assert "pipe.json: not a regular file." in err and "zero.json: not a regular file." in err
    os.mkfifo("pipe.html")
    status, _, err = cli("report", "--out", "pipe.html")
    assert status == 2 and "--out pipe.html is a named pipe" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "No record found in runs. Create one with `python -m genbench evaluate --ckpt last`"),
        (("empty",), "No record found in empty."),
        (("nowhere",), "There is no folder nowhere."),
        (("filled", "--out", "nowhere/report.html"), "--out nowhere/report.html: there is no folder nowhere."),
        (("filled", "--out", "kept.ckpt"), "--out kept.ckpt is not an HTML file. Use a name that ends in .html"),
        (("filled", "--out", "empty"), "--out empty is a folder. Use the name of a file, such as empty/report.html."),
        (("filled", "--out", "filled/file/x.html"), "there is no folder filled/file."),
        (("scoreless",), "The records contain no scores."),
    ],
)
def test_a_users_mistake_is_answered_in_a_sentence(cli, flags, message):
    Path("empty").mkdir()
    write(record(), "filled/records")
    write(record(metrics={}), "scoreless/records")
    Path("filled/file").write_text("")
    status, out, err = cli("report", *flags)
    assert status == 2 and message in err and out == "" and "Traceback" not in err
    assert not list(Path().rglob("*.html"))


def test_an_unwritable_folder_is_answered_in_a_sentence(cli, monkeypatch):
    write(record(), "runs/a/records")

    def denied(*_, **__):  # root may write anywhere
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    status, _, err = cli("report", "--out", "runs/report.html")
    assert status == 2 and "The report cannot be written to runs: Permission denied. Choose a different `--out`." in err


def test_an_unknown_flag_is_refused(cli, capfd):
    with pytest.raises(SystemExit) as done:
        cli("report", "--format=pdf")
    assert done.value.code == 2 and "unrecognized arguments: --format=pdf" in capfd.readouterr().err


def test_help_names_the_flags(cli, capfd):
    with pytest.raises(SystemExit) as done:
        cli("report", "--help")
    out = capfd.readouterr().out
    assert done.value.code == 0 and "--out FILE" in out and "FOLDER" in out
