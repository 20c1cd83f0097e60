"""leaderboard: records become tables, and text in them stays text."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from genbench.leaderboard.intervals import interval
from genbench.leaderboard.record import write
from tests.helpers.records import entry, many, protocol, record

EVIL = "[bold]=1+1|_x_ & 50% \\input \x1b[31m\nnew"
SHOWN = "[bold]=1+1|_x_ & 50% \\input ?[31m?new"


@pytest.fixture
def board(cli, tmp_path, monkeypatch):
    """Writes records among the runs and runs the verb; returns (exit status, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "160")  # as into a file, wherever the tests run

    def run(records, *arguments):
        for made in records:
            write(made, tmp_path / "runs" / (made.run["name"] if made.run else "none") / "records")
        return cli("leaderboard", *arguments)

    return run


def seeds(name="DCGAN", values=(3.0, 3.5, 4.0), **more):
    """One config with a seed for each value."""
    return [record(name, run={"seed": k}, metrics={"fid": entry("fid", v)}, **more) for k, v in enumerate(values)]


def test_damaged_records_are_skipped_and_listed(board, tmp_path):
    folder = tmp_path / "runs" / "none" / "records"
    folder.mkdir(parents=True)
    good = record().to_dict()
    texts = {
        "binary.json": bytes(range(256)) * 9,
        "deep.json": b'{"a":' * 5000 + b"1" + b"}" * 5000,
        "deeper.json": json.dumps(good | {"run": good["run"] | {"config": "@"}})
        .replace('"@"', "[" * 300 + "]" * 300)
        .encode(),
        "digits.json": json.dumps(good).replace("1234567", "9" * 9000).encode(),
        "device.json": json.dumps(good | {"training": {"device": [1]}}).encode(),
        "halves.json": json.dumps(good)[:-30].encode(),
        "list.json": b"[1]",
        "empty.json": b"",
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text)
    os.mkfifo(folder / "pipe.json")
    (folder / "zero.json").symlink_to("/dev/zero")
    status, out, err = board([record()])
    assert status == 0 and "DCGAN" in out
    assert err.count("skipped ") == len(texts) + 2
    assert all(f"{name}: " in err for name in (*texts, "pipe.json", "zero.json"))
    assert "pipe.json: not a regular file." in err and "nested more than 64 levels deep" in err


def baseline():
    return record("real", "baseline", metrics={"fid": entry("fid", 0.5)})


def test_neither_torch_nor_lightning_nor_numpy_is_imported(board, tmp_path):
    board(many(3, 2, 1))
    script = (
        "import sys; from genbench.cli import main; assert main(['leaderboard', *sys.argv[1:]]) == 0;"
        "import genbench.leaderboard.record, genbench.leaderboard.board, genbench.leaderboard.formats;"
        "heavy = {'torch', 'lightning', 'torchvision', 'numpy', 'scipy'} & set(sys.modules);"
        "assert not heavy, heavy; assert ('rich' in sys.modules) == (len(sys.argv) == 1)"
    )
    for flags in ([], ["--format", "csv"]):
        done = subprocess.run([sys.executable, "-c", script, *flags], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_table_ranks_with_mean_deviation_direction_blank_and_baseline(board):
    note = "needs 1,000 images, got 64"
    few = record("VAE", metrics={"fid": entry("fid", None, note=note), "is": entry("is", 7.0)})
    status, out, err = board(
        [*seeds(), baseline(), few, record("theirs", "images", metrics={"fid": entry("fid", 1.25)})]
    )
    assert status == 0 and err == ""
    lines = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    assert lines[6][:5] == ["1", "theirs", "images", "—", "1.25"]
    assert lines[7][:5] == ["2", "DCGAN", "last", "3", "3.50 ± 0.50"]
    assert lines[8][:5] == ["—", "VAE", "last", "1", "—"]
    assert lines[10][:5] == ["—", "real", "baseline", "—", "0.50"]
    assert "MNIST · fid10k-test · generation" in out and "ranked by fid ↓" in out
    assert f"— fid: {note} (VAE)" in out and "1.23M" in out and "2 × 15.6k" in out


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_table_fits_the_width_and_lists_omitted_columns(board, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    out = board(many())[1]
    rows = [line for line in out.splitlines() if line.startswith(("rank", "────", "   "))]
    assert len(rows) > 50 and max(map(len, rows)) <= width
    assert f"Too wide for {width} columns: " in out


def test_at_80_columns_every_row_has_its_name_and_its_score_on_one_line(board, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    long = "a model with a name of many many words that nobody can remember"
    records = [record(long, run={"seed": k, "checkpoint": c}, metrics={"fid-mnistnet": entry("fid", 1e4 + v)})
               for c, off in (("best", 0), ("last", 9)) for k, v in enumerate((123 + off, 456, 789))]  # fmt: skip
    kept = {"checkpoint": "a checkpoint that was renamed by somebody", "images_seen": 5}
    records += [record("VAE", run=kept), record("東京の模型" * 9, "images")]
    out = board(records)[1]
    rows = [line for line in out.splitlines() if re.match(r" +[1-4]  ", line)]
    assert len(rows) == 4 and all(cell_len(line) <= 80 for line in rows)
    scores = ["3.25", "3.25", "10,456.00 ± 333.00", "10,459.00 ± 328.51"]
    assert [re.split(r"  +", line.strip())[-1] for line in rows] == scores
    assert "a model with" in rows[2] and "remember" in rows[2] and "VAE " in rows[0] + rows[1]


def test_text_in_a_record_is_neither_markup_nor_control_code(board):
    status, out, _ = board([record(EVIL, "images")])
    assert status == 0 and SHOWN in out and "\x1b[31m" not in out


def test_best_values_are_bold_and_the_baseline_is_not(board):
    out = board([*seeds(), *seeds("VAE", (1.0, 2.0)), baseline()], "--format", "markdown")[1]
    assert re.findall(r"\*\*(.*?)\*\*", out) == ["1.50 ± 0.71"]


def test_markdown_is_one_table_with_escaped_names(board):
    out = board([*seeds(), record(EVIL, "images", metrics={"fid": entry("fid", 9.0)})], "--format", "markdown")[1]
    table = [re.split(r"(?<!\\)\|", line)[1:-1] for line in out.splitlines() if line.startswith("|")]
    header, rule, *rows = [[cell.strip() for cell in line] for line in table]
    assert len({len(header), len(rule), *map(len, rows)}) == 1 and set("".join(rule)) == {"-", ":"}
    assert header[:5] == ["rank", "model", "checkpoint", "seeds", "fid ↓"]
    assert [row[4] for row in rows] == ["**3.50 ± 0.50**", "9.00"]
    assert re.sub(r"\\(.)", r"\1", rows[1][1]) == SHOWN


def test_latex_is_one_tabular_with_escaped_names(board):
    out = board([*seeds(), record(EVIL, "images", metrics={"fid": entry("fid", 9.0)})], "--format", "latex")[1]
    spec = re.search(r"\\begin{tabular}{([lr]+)}", out)[1]
    rows = [line for line in out.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3 and all(len(re.split(r"(?<!\\)&", row)) == len(spec) for row in rows)
    assert r"=1+1$|$\_x\_ \& 50\% \textbackslash{}input" in out and r"\textbf{3.50 $\pm$ 0.50}" in out
    assert r"fid $\downarrow$" in rows[0] and out.count("{") == out.count("}")


def test_csv_holds_everything_in_full_precision_and_no_formula(board):
    values = (3.1, 3.123456789012345, 4.0)
    records = [*seeds("=cmd()", values), baseline(), record("+evil", "images", metrics={"nats": entry("nats", -97.25)})]
    out = board(records, "--format", "csv")[1]
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["model"], row["track"]) for row in rows] == [
        ("'=cmd()", "generation"),
        ("real", "generation"),
        ("'+evil", "likelihood"),
    ]
    first = rows[0]
    assert float(first["fid"]) == pytest.approx(sum(values) / 3, rel=1e-15) and first["seeds"] == "3"
    assert 0 < float(first["fid_ci95_low"]) < float(first["fid"]) < float(first["fid_ci95_high"])
    assert first["protocol_key"] == protocol()["key"] and first["updates_discriminator"] == "15625"
    assert first["parameters"] == "1234567" and first["training_images_per_second"] == "277.25"
    assert rows[2]["nats"] == "-97.25" and rows[2]["fid"] == ""  # a number stays one


def test_json_holds_everything_in_full_precision(board):
    out = board([*seeds(values=(3.0, 3.123456789012345)), baseline()], "--format", "json")[1]
    (found,) = json.loads(out)["boards"]
    assert found["protocol"] == protocol() and found["by"] == "fid" and found["metrics"] == {"fid": "lower"}
    first, last = found["rows"]
    assert first["scores"]["fid"]["mean"] == (3.0 + 3.123456789012345) / 2 and first["seeds"] == [0, 1]
    assert first["rank"] == 1 and last["rank"] is None and last["kind"] == "baseline"


LOWERED = [
    {"from": 0, "to": 50, "changed": {}},
    {"from": 50, "to": None, "changed": {"model.optimizer.lr": [0.1, 0.01]}},
]
CHANGED = "model.optimizer.lr 0.1 -> 0.01 from 50 images"


@pytest.mark.parametrize("form", ["table", "markdown", "latex"])
def test_a_row_of_several_segments_says_what_was_changed(board, form):
    records = [record("a", run={"segments": LOWERED}), record("b", run={"segments": LOWERED[:1]})]
    out = board(records, "--format", form)[1].replace("$>$", ">").replace("\\>", ">")
    assert f"a (2 segments): {CHANGED}" in out and "b (" not in out


def test_csv_and_json_have_the_segments_of_a_row(board):
    records = [record("a", run={"segments": LOWERED}), record("b")]
    rows = list(csv.DictReader(io.StringIO(board(records, "--format", "csv")[1])))
    assert [(row["segments"], row["changes"]) for row in rows] == [("2", CHANGED), ("", "")]
    (found,) = json.loads(board(records, "--format", "json")[1])["boards"]
    assert [row["segments"] for row in found["rows"]] == [LOWERED, []] and "records" not in found["rows"][0]


@pytest.mark.parametrize("form", ["table", "markdown", "latex", "csv", "json"])
def test_an_interval_needs_three_seeds_and_does_not_reach_below_the_range(board, form):
    values = (97.0, 229.0, 388.0)  # Student's own would be -124 to 600
    low, high = interval(values, 0, None)
    shown = {"csv": f",{low},{high},", "json": f'"low": {low},\n              "high": {high},'}
    shown = shown.get(form, f"{low:,.1f} to {high:,.1f}")
    assert low > 0 and not re.search(r" to |ci95_low,\d|low.: \d", board(seeds(values=values[:2]), "--format", form)[1])
    assert shown in board(seeds(values=values), "--format", form)[1]


def test_a_checkpoint_that_is_best_and_last_is_one_row(board):
    both = [record(run={"checkpoint": c, "checkpoint_hash": "same"}) for c in ("best", "last")]
    rows = list(csv.DictReader(io.StringIO(board([*both, record("VAE", metrics={
        "fid-mnistnet": entry("fid", 9.0)})], "--format", "csv")[1])))  # fmt: skip
    assert [(row["rank"], row["checkpoint"]) for row in rows] == [("1", "best = last"), ("2", "last")]


def test_a_bound_is_marked_as_a_bound(board):
    metrics = {"nats": entry("nats", -97.1, bound="lower bound")}
    metrics |= {"bits_per_dim": entry("bits_per_dim", 3.25, bound="lower bound")}
    exact = {"nats": entry("nats", -95.0, bound="exact"), "bits_per_dim": entry("bits_per_dim", 3.5, bound="exact")}
    out = board([record("VAE", metrics=metrics), record("flow", metrics=exact)])[1]
    assert "≥ -97.1" in out and "≤ 3.25" in out and "≥ -95.0" not in out and " -95.0" in out


def test_small_values_and_single_seeds_keep_their_digits(board):
    values = {"a": 0.000852, "b": 0.0123, "c": 1.5}
    records = [record(name, metrics={"kid": entry("kid", v)}) for name, v in values.items()]
    out = board([*records, record("real", "baseline", metrics={"kid": entry("kid", -2e-7)})])[1]
    assert "0.00085 " in out and "0.01230 " in out and "1.50000 " in out and "-2e-07" in out


def test_fid_ranks_by_fid_mnistnet_and_the_heading_says_so(board):
    status, out, _ = board([record()], "--by", "fid", "--data", "MNIST", "--protocol", "fid10k-test")
    assert status == 0 and "ranked by fid-mnistnet ↓" in out


def test_protocols_of_one_name_stand_apart_and_say_how_they_differ(board):
    other = protocol(extractor={"name": "inception", "hash": "e0" * 8})
    out = board([record(), record("VAE", protocol=other)])[1]
    assert out.count("2 protocols have this name; they differ in extractor.name (") == 2
    assert all(f"fid10k-test [{p['key']}]" in out for p in (protocol(), other))


def test_files_that_are_not_records_are_listed_and_the_leaderboard_is_printed(board):
    folder = Path("runs/mine/records")
    folder.mkdir(parents=True)
    (folder / "package.json").write_text("{}")
    (folder / "cut.json").write_text('{"schema": 1')
    status, out, err = board([record()])
    assert status == 0 and "DCGAN" in out
    assert f"skipped {folder}/package.json: not a record of genbench." in err and f"skipped {folder}/cut.json: " in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--protocol", "fid10k-test", "--protocol", "long"],
            "not ranked together: fid10k-test on MNIST, long",
        ),
        (["--protocol", "fid10k-test,long"], "differ in images (10,000, 50,000)"),
        (["--protocol", "x"], "No record has the protocol 'x'. Choose from: fid10k-test, long."),
        (["--data", "x"], "No record has the data set 'x'. Choose from: MNIST."),
        (["--by", "x"], "Unknown metric 'x'. Choose from: fid-mnistnet."),
        (["--track", "x"], "No score has the track 'x'. Choose from: generation."),
        (["--format", "pdf"], "Unknown --format 'pdf'. Choose from: table, markdown, csv, json, latex."),
        (["nowhere"], "There is no folder nowhere."),
    ],
)
def test_a_users_mistake_is_answered_in_a_sentence(board, flags, message):
    status, out, err = board([record(), record("VAE", protocol=protocol("long", images=50000))], *flags)
    assert status == 2 and message in err and out == "" and "Traceback" not in err


def test_without_records_it_says_how_to_make_one(cli):
    status, _, err = cli("leaderboard")
    assert status == 2 and "No record found in runs. Create one with `python -m genbench evaluate --ckpt last`" in err


def test_a_leaderboard_is_printed_even_if_the_terminal_has_no_arrows(board, tmp_path):
    board([record()])
    done = subprocess.run(
        [sys.executable, "-m", "genbench", "leaderboard"],
        cwd=tmp_path,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "DCGAN" in done.stdout, done.stderr
