"""Curves survive a kill and a resume. The client of Weights & Biases records logged values offline."""

import io
import itertools
import json
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genbench.loggers
from genbench.callbacks import EMA, Monitor, SampleLogger, ValidationMetrics
from genbench.core.image_grid import enlarged, grid
from genbench.core.panels import in_panels
from genbench.loggers import Curves, Wandb, log_table
from tests.helpers.small import Each, run
from tests.helpers.toy import SPEC, ToyGAN

# ---- CSV ------------------------------------------------------------------------------------------------------------


def test_a_row_is_written_each_time_with_the_images_first(tmp_path):
    curves = Curves(tmp_path)
    curves.log_metrics({"loss": 0.5}, step=64)
    curves.log_metrics({"loss": 1 / 3}, step=128)
    assert curves.path == tmp_path / "metrics.csv"
    assert curves.path.read_text().splitlines() == ["images_seen,loss", "64,0.5", "128,0.333333"]


def test_columns_may_appear_later(tmp_path):
    curves = Curves(tmp_path)
    curves.log_metrics({"loss": 0.5}, step=64)
    curves.log_metrics({"val/swd": 2.0}, step=64)
    curves.log_metrics({"loss": 0.25, "r1": 7.0}, step=128)
    assert curves.path.read_text().splitlines() == ["images_seen,loss,val/swd,r1", "64,0.5,,", "64,,2,", "128,0.25,,7"]


def logged(folder, until=5):
    curves = Curves(folder)
    for k in range(1, until + 1):
        curves.log_metrics({"loss": k / 2, "val/swd": 2.0 * k}, step=1000 * k)
    return curves


def test_a_resumed_curve_is_cut_to_its_checkpoint_and_continues(tmp_path):
    logged(tmp_path)
    curves = Curves(tmp_path)  # in another process
    curves.cut(3000)
    curves.log_metrics({"loss": 9.0}, step=3500)
    assert [row["images_seen"] for row in curves.rows()] == ["1000", "2000", "3000", "3500"]
    assert curves.rows()[-1] == {"images_seen": "3500", "loss": "9", "val/swd": ""}


@pytest.mark.parametrize("torn", ["12", "12000", "12000,", "12000,6", "12000,6,2", ""])
def test_a_row_cut_off_by_a_kill_is_dropped_with_a_warning(tmp_path, torn, capsys):
    curves = logged(tmp_path, until=11)
    before = curves.path.read_text()
    with open(curves.path, "a") as file:
        file.write(torn)
    # also where what is left of `12000` reads as a number before the checkpoint
    Curves(tmp_path).cut(20_000)
    assert curves.path.read_text() == before
    assert ("metrics.csv may be incomplete, since it has no line ending" in capsys.readouterr().err) == bool(torn)


def test_cutting_an_empty_curve_creates_no_file(tmp_path):
    Curves(tmp_path).cut(0)
    assert not list(tmp_path.iterdir())


def test_the_plot_is_a_picture_of_every_curve(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    curves = Curves(tmp_path)
    for k in range(1, 4):
        curves.log_metrics(
            {"generator/adversarial": k, "discriminator/real": -k, "discriminator/fake": k / 2}, step=1000 * k
        )
        curves.log_metrics({"generator/lr": 0.1}, step=1000 * k)
    curves.log_metrics({"val/swd": 3.0}, step=2000)
    curves.log_metrics({"val/swd": 2.0, "val/mse": 1.0}, step=3000)  # one point of mse is no curve
    assert curves.plot() == tmp_path / "curves.png"
    image = Image.open(tmp_path / "curves.png")
    assert image.format == "PNG" and np.array(image.convert("L")).std() > 10
    drawn = {
        axis.get_title(): {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
        for axis in figures[0].axes
        if axis.get_visible()
    }
    assert drawn == {
        "generator": {"adversarial": [[1000, 1], [2000, 2], [3000, 3]]},
        "discriminator": {"real": [[1000, -1], [2000, -2], [3000, -3]], "fake": [[1000, 0.5], [2000, 1], [3000, 1.5]]},
        "val/swd": {"swd": [[2000, 3], [3000, 2]]},
    }


def test_a_file_saved_by_a_spreadsheet_is_repaired_and_continued(tmp_path, capsys):
    curves = logged(tmp_path)
    before = curves.rows()
    text = curves.path.read_text().replace(".", "#").replace(",", ";").replace("#", ",").replace("\n", "\r\n")
    curves.path.write_bytes(("\ufeff" + text).encode())
    Curves(tmp_path).cut(4000)
    said = capsys.readouterr().err
    assert "another program has saved" in said and "decimal commas" in said and "semicolons" in said
    curves = Curves(tmp_path)
    assert curves.rows() == before[:4]
    curves.log_metrics({"loss": 9.0}, step=4500)
    assert curves.path.read_bytes().decode().splitlines()[-2:] == ["4000,2,8", "4500,9,"]
    assert not capsys.readouterr().err and [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_file_saved_by_another_program_during_training_is_repaired_before_the_next_row(tmp_path):
    curves = logged(tmp_path)
    curves.path.write_text(curves.path.read_text().replace(",", ";"))
    curves.log_metrics({"loss": 3.0}, step=6000)
    assert [row["images_seen"] for row in curves.rows()] == ["1000", "2000", "3000", "4000", "5000", "6000"]
    curves.path.unlink()
    curves.log_metrics({"loss": 3.5}, step=7000)
    assert curves.path.read_text() == "images_seen,loss\n7000,3.5\n"


@pytest.mark.parametrize("kind", ["words for numbers", "a workbook", "a folder", "a pipe"])
def test_a_file_that_cannot_be_read_reliably_is_renamed_and_a_new_curve_begins(tmp_path, capsys, kind):
    path = logged(tmp_path).path
    (tmp_path / "metrics.csv.1").write_text("set aside before")
    if kind == "words for numbers":
        path.write_text(path.read_text().replace("2000,1,4", "2000,1. Jan,4"))
    elif kind == "a workbook":
        path.write_bytes(b"PK\x03\x04\0\0" + bytes(range(256)))
    else:
        path.unlink()
        path.mkdir() if kind == "a folder" else os.mkfifo(path)
    curves = Curves(tmp_path)
    curves.cut(3000)
    curves.log_metrics({"loss": 0.5}, step=3500)
    assert curves.path.read_text() == "images_seen,loss\n3500,0.5\n"
    assert (tmp_path / "metrics.csv.1").read_text() == "set aside before" and (tmp_path / "metrics.csv.2").exists()
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "metrics.csv.2" in said and "new curves begin" in said


def test_rows_that_cannot_be_written_are_reported_once_and_written_later(tmp_path, monkeypatch, capsys):
    curves = logged(tmp_path)
    lines = genbench.loggers._lines

    def full(*arguments, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(genbench.loggers, "_lines", full)
    for k in (6, 7):
        curves.log_metrics({"loss": k / 2}, step=1000 * k)
    curves.cut(7000)
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "No space left" in said and "Training continues" in said
    monkeypatch.setattr(genbench.loggers, "_lines", lines)
    curves.log_metrics({"loss": 4.0}, step=8000)
    assert [row["loss"] for row in curves.rows()] == ["0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4"]


def test_waiting_rows_of_a_checkpoint_are_written_when_it_is_resumed(tmp_path):
    curves = logged(tmp_path, until=3)
    curves.log_metrics({"loss": 5.0}, step=6000)
    curves.waiting = [{"images_seen": k, "val/fid": str(k)} for k in (2000, 4000)]
    curves.waiting.append({"images_seen": 3000, "loss": "1.5", "val/swd": "6"})  # which was written after all
    curves.cut(4000)
    assert [(row["images_seen"], row["loss"], row["val/fid"]) for row in curves.rows()] == [
        ("1000", "0.5", ""), ("2000", "1", ""), ("2000", "", "2000"), ("3000", "1.5", ""), ("4000", "", "4000"),
    ]  # fmt: skip
    assert not curves.waiting


@pytest.mark.parametrize("later", [True, False])
def test_the_last_rows_are_written_at_the_end_or_kept_elsewhere(tmp_path, full, monkeypatch, elsewhere, capsys, later):
    run = tmp_path / "run"
    full(run)
    curves = Curves(run)
    curves.log_metrics({"loss": 0.5}, step=64)
    curves.log_metrics({"loss": 0.25}, step=128)
    if later:
        full()
    curves.finalize("success")
    (kept,) = [run] if later else elsewhere.iterdir()
    assert (kept / "metrics.csv").read_text().splitlines() == ["images_seen,loss", "64,0.5", "128,0.25"]
    said = capsys.readouterr().err
    assert (f"the last 2 rows of {run}/metrics.csv could not be written. They are in {kept}" in said) != later


def test_a_row_cut_off_by_a_full_disk_is_not_joined_to_the_next(tmp_path, monkeypatch):
    curves = logged(tmp_path)
    half = os.write

    class Full(io.FileIO):
        def write(self, data):
            half(self.fileno(), data[:5])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(genbench.loggers, "open", lambda path, mode: Full(path, "a"), raising=False)
    curves.log_metrics({"loss": 3.0}, step=6000)
    monkeypatch.undo()
    curves.log_metrics({"loss": 3.5}, step=7000)
    assert [row["loss"] for row in curves.rows()][-3:] == ["2.5", "3", "3.5"]


def test_a_row_of_terms_that_the_checkpoint_has_not_read_is_removed(tmp_path):
    curves = Curves(tmp_path)
    curves.log_metrics({"val/fid": 3.0}, step=96)
    curves.log_metrics({"a/loss": 0.5, "a/lr": 0.1}, step=96)  # logged as the run ended
    curves.cut(96, unread=["a/loss"])
    assert [row["val/fid"] for row in curves.rows()] == ["3"]


def test_curves_of_one_unit_share_a_panel(tmp_path):
    names = [
        "generator/adversarial", "discriminator/real", "discriminator/d_real", "discriminator/d_fake", "generator/r1",
        "discriminator/real_accuracy", "generator/grad_norm", "images_per_second", "discriminator/grad_norm",
        "diversity", "val/fid", "val/accuracy", "train/kl", "train/elbo", "train/codebook_usage", "train/perplexity",
    ]  # fmt: skip
    assert {title: list(labels.values()) for title, labels in in_panels(names).items()} == {
        "generator": ["adversarial", "r1"],
        "discriminator": ["real"],
        "train": ["kl"],
        "probabilities and accuracies": ["d_real", "d_fake", "real_accuracy", "codebook_usage"],
        "gradient norms": ["generator", "discriminator"],
        "val/fid": ["fid"],
        "val/accuracy": ["accuracy"],
        "images_per_second": ["images_per_second"],
        "diversity": ["diversity"],
        "train/elbo": ["elbo"],
        "train/perplexity": ["perplexity"],
    }
    two = in_panels(["discriminator_a/d_real", "discriminator_b/d_real"])
    assert list(two["probabilities and accuracies"].values()) == ["discriminator_a/d_real", "discriminator_b/d_real"]


def test_non_numbers_are_skipped_and_names_like_formulas_are_drawn_as_text(tmp_path):
    (tmp_path / "metrics.csv").write_text("images_seen,a/$x,a/y,note\n1,1,nan,good\n2,inf,2,bad\n3,3,3,$\n")
    assert Curves(tmp_path).plot().is_file()


def test_there_is_no_plot_without_curves(tmp_path):
    assert Curves(tmp_path).plot() is None
    logged(tmp_path, until=1)
    assert Curves(tmp_path).plot() is None


# ---- Weights & Biases -----------------------------------------------------------------------------------------------

KEY = "0123456789abcdef" * 2 + "01234567"  # 40 characters, as the real ones have


def records(path):
    """Records written by the client: protocol buffers in LevelDB's log format, with blocks of 32 KiB and checksums."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, found, joined, at = path.read_bytes(), [], b"", 7
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # no header fits: filled with zeros
            at += left
            continue
        checksum, length, kind = struct.unpack("<IHB", data[at : at + 7])
        assert checksum == zlib.crc32(data[at + 6 : at + 7 + length])
        part = data[at + 7 : at + 7 + length]
        joined = part if kind in (1, 2) else joined + part  # whole or first; middle or last
        if kind in (1, 4):
            found.append(Record.FromString(joined))
        at += 7 + length
    return found


def whole(folder):
    """All records of a run's file. The client's service writes on after `finish`: wait for its last one."""
    for _ in range(300):
        try:
            (path,) = folder.glob("run-*.wandb")
            found = list(records(path))
            if any(record.WhichOneof("record_type") == "exit" for record in found):
                return found
        except (ValueError, AssertionError, struct.error, IndexError):
            pass  # not there yet, or half written
        time.sleep(0.1)
    raise TimeoutError(f"the client never finished writing {folder}")


class Written:
    """A run as it was read back."""

    def __init__(self, folder):
        self.files = folder / "files"
        self.history, self.config, self.steps = [], {}, {}
        for record in whole(folder):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
            elif kind == "config":
                self.config |= {item.key: json.loads(item.value_json) for item in record.config.update}
            elif kind == "metric":
                self.steps[record.metric.glob_name or record.metric.name] = record.metric.step_metric
            elif kind == "history":
                row = {}
                for item in record.history.item:
                    name = item.key or "/".join(item.nested_key)
                    row[name] = json.loads(item.value_json)
                self.history.append(row)

    def curve(self, name):
        return [(row["images_seen"], row[name]) for row in self.history if name in row]


@pytest.fixture
def nobody(tmp_path, monkeypatch):
    """A user without an API key: neither an environment variable nor a login file."""
    import wandb

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "to be restored")  # the client's logger sets it for the whole process
    monkeypatch.delenv("WANDB_MODE")
    yield tmp_path
    wandb.finish()


@pytest.fixture(scope="module", autouse=True)
def no_service_is_left():
    yield
    import wandb

    wandb.teardown()


def train(logger, curves, images, folder, ckpt=None, more=()):
    torch.manual_seed(0)
    callbacks = [EMA(every_images=8), Monitor(every_images=16, show=False), SampleLogger(every_images=32, n=4)]
    callbacks += [ValidationMetrics(every_images=32, samples=10), *more]
    module = ToyGAN(SPEC)
    trainer = run(module, images=images, callbacks=callbacks, logger=[curves, logger], folder=folder, ckpt=ckpt)
    return module, trainer


def test_a_run_is_recorded_offline_and_keeps_its_id_when_resumed(nobody, capfd):
    import wandb

    folder, config = nobody / "run", {"model": {"lr": 0.1, "betas": [0.5, 0.9]}, "max_images": 64, "name": None}
    folder.mkdir()
    curves = Curves(folder)
    logger = Wandb(save_dir=str(folder), run_name="first steps", tags=["toy"], group="tests")
    logger.log_hyperparams(config)
    _, trainer = train(logger, curves, 64, folder)
    trainer.save_checkpoint(folder / "x.ckpt", weights_only=False)
    identity, line, at = logger.experiment.id, logger.where(), Path(logger.experiment.dir).parent
    wandb.finish()

    assert at.parent.parent == folder and line.endswith(f"no API key is set). Upload it with: wandb sync {at}")
    written = Written(at)
    assert (written.run.run_id, written.run.project, written.run.display_name) == (identity, "genbench", "first steps")
    assert list(written.run.tags) == ["toy"] and written.run.run_group == "tests"
    assert {name: written.config[name] for name in config} == config
    assert written.steps["*"] == "images_seen"

    # the same curves as in the CSV, at the same images
    for name in (
        "generator/adversarial",
        "discriminator/real",
        "discriminator/fake",
        "generator/lr",
        "val/fid-digitsnet",
    ):
        expected = [(int(row["images_seen"]), float(row[name])) for row in curves.rows() if row[name]]
        assert [n for n, _ in written.curve(name)] == [n for n, _ in expected] != []
        assert [v for _, v in written.curve(name)] == pytest.approx([v for _, v in expected], rel=1e-5)

    # the grids that stand in the run's folder
    assert [row["images_seen"] for row in written.history if "samples/filenames" in row] == [32, 64]
    for row in written.history:
        if "samples/filenames" in row:
            (name,) = row["samples/filenames"]
            ours = Image.open(folder / "samples" / f"{row['images_seen']:010d}.png")
            theirs = Image.open(written.files / name).resize(ours.size, Image.Resampling.NEAREST)
            assert np.array_equal(np.array(theirs.convert("L")), np.array(ours))

    # resumed: the same identity, and the curve from there on
    again = Wandb(save_dir=str(folder / "again"), run_id=identity)
    (folder / "again").mkdir()
    train(again, curves, 96, folder, folder / "x.ckpt")
    at = Path(again.experiment.dir).parent
    wandb.finish()
    resumed = Written(at)
    assert resumed.run.run_id == identity and resumed.run.resume
    assert [n for n, _ in resumed.curve("generator/adversarial")] == [80, 96]
    assert "WANDB" not in capfd.readouterr().out


def parts(folder, identity, until):
    """A run of two parts: the first logs up to 96 images and is resumed from its checkpoint at 64."""
    import wandb

    curves = Curves(folder)
    first = Wandb(save_dir=str(folder), run_id=identity)
    save = Each("on_train_batch_end", lambda trainer, module: module.images_seen == 64 and _save(trainer, folder))
    train(first, curves, 96, folder, more=[save])
    a = Path(first.experiment.dir).parent
    wandb.finish()
    whole(a)
    until(a)
    time.sleep(1.1)  # the client calls folders by the second
    again = Wandb(save_dir=str(folder), run_id=identity)
    train(again, Curves(folder), 144, folder, folder / "x.ckpt")
    b = Path(again.experiment.dir).parent
    wandb.finish()
    whole(b)
    return curves, a, b, again


def _save(trainer, folder):
    trainer.save_checkpoint(folder / "x.ckpt", weights_only=False)


def same_curve(parts, curves):
    """Parts in the order in which they are uploaded: steps only grow, and each value stands where the CSV has it."""
    history = [row for part in parts for row in Written(part).history]
    assert [row["_step"] for row in history] == [row["images_seen"] for row in history]
    assert all(a["_step"] < b["_step"] for a, b in itertools.pairwise(history))
    for name in ("generator/adversarial", "discriminator/grad_norm", "generator/lr", "val/fid-digitsnet"):
        expected = [(int(row["images_seen"]), float(row[name])) for row in curves.rows() if row[name]]
        found = [(row["images_seen"], row[name]) for row in history if name in row]
        assert [n for n, _ in found] == [n for n, _ in expected] != []
        assert [v for _, v in found] == pytest.approx([v for _, v in expected], rel=1e-5)
    return history


def test_the_parts_of_a_run_resumed_offline_are_one_curve_and_all_are_named_for_upload(nobody):
    curves, a, b, again = parts(nobody, "abc-1", until=lambda a: (a.parent / "offline-run-20200101_000000-1").mkdir())
    assert again.where().endswith(f"Upload it with: wandb sync {a} {b}")
    history = same_curve([a, b], curves)
    assert [row["images_seen"] for row in history] == [16, 32, 48, 64, 80, 96, 112, 128, 144]
    assert Written(b).history[0]["images_seen"] == 112  # 80 and 96 were trained twice, and recorded by the first part
    (a / "run-abc-1.wandb.synced").touch()  # as the client does after an upload
    assert again.where().endswith(f"Upload it with: wandb sync {b}")


def test_rows_lost_in_a_kill_are_recorded_by_the_next_part(nobody):
    def killed(a):  # within its first 15 seconds, after which the client writes what it has
        (path,) = a.glob("run-*.wandb")
        path.write_bytes(path.read_bytes()[:7])

    curves, _, b, again = parts(nobody, "abc", until=killed)
    assert again.where().endswith(f"Upload it with: wandb sync {b}")  # there is nothing in the other
    same_curve([b], curves)


def test_a_key_is_in_no_file_and_no_output(nobody, monkeypatch, capfd):
    import wandb

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = Wandb(save_dir=str(nobody))
    logger.log_hyperparams({"max_images": 64})
    logger.log_metrics({"loss": 1.0}, step=64)
    line = logger.where()
    wandb.finish()
    assert "recorded offline (because of WANDB_MODE)" in line
    files = [path for path in nobody.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert KEY not in "".join(capfd.readouterr()) + line


@pytest.mark.parametrize("where", ["variable", "netrc", "_netrc", "NETRC", "another server"])
def test_a_key_is_found_where_the_client_looks_for_it(nobody, monkeypatch, where):
    assert Wandb(save_dir=str(nobody))._offline
    server = "wandb.example.org" if where == "another server" else "api.wandb.ai"
    entry = f"machine {server} login user password {KEY}\n"
    path = nobody / "home" / (".netrc" if where in ("netrc", "another server") else "_netrc")
    if where == "variable":
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    elif where == "NETRC":
        path = nobody / "elsewhere"
        monkeypatch.setenv("NETRC", str(path))
    if where != "variable":
        path.write_text(entry)
        path.chmod(0o600)
    if where == "another server":
        assert Wandb(save_dir=str(nobody))._offline  # a key of that server is none of this one
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not Wandb(save_dir=str(nobody))._offline


def test_logging_a_grid_keeps_every_pixel(nobody):
    import wandb

    sheet = enlarged(grid(torch.rand(4, 3, 8, 8) * 2 - 1), side=100)
    logger = Wandb(save_dir=str(nobody))
    logger.log_image("samples", [sheet], step=64)
    at = Path(logger.experiment.dir).parent
    wandb.finish()
    (row,) = Written(at).history
    (name,) = row["samples/filenames"]
    assert row["images_seen"] == 64
    assert np.array_equal(np.array(Image.open(at / "files" / name).convert("RGB")), np.array(sheet))


def test_a_suites_records_are_a_table_in_its_group_and_the_same_run_each_time(nobody):
    for value in (3.5, 2.5):
        rows = [["DCGAN", value], ["VAE", None]]
        where = log_table("records", ["model", "fid"], rows, nobody / "suite", group="mnist")
    assert "recorded offline" in where
    runs = list((nobody / "suite").glob("wandb/offline-run-*"))
    assert len({run.name.split("-")[3] for run in runs}) == 1  # one identity
    tables = [json.loads(path.read_text()) for run in runs for path in run.glob("files/media/table/*.json")]
    assert {table["data"][0][1] for table in tables} == {2.5, 3.5}
    assert all(table["columns"] == ["model", "fid"] and table["data"][1] == ["VAE", None] for table in tables)
