"""evaluate and test: from a checkpoint, or from images, to a record that the leaderboard ranks."""

import json
import math
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from genbench.cli import main
from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.leaderboard.record import read
from genbench.models import FlowMatching
from tests.cli.conftest import TINY
from tests.helpers.small import untrained

MINE = {"split": "test", "real": 60, "generated": 40, "block": 16, "train": 60, "kid_subsets": 4, "kid_subset_size": 20,
        "is_splits": 2}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a VAE trained on a few digits, and with a config and a protocol of one's own."""
    folder = tmp_path_factory.mktemp("trained")
    text = {
        "max_images": 48, "protocol": "mine", "model": TINY["vae"],
        "data": {"class_path": "genbench.data.Digits", "init_args": {"size": 16, "batch_size": 16, "subset": 80}},
        "monitor": {"every_images": 48}, "checkpoint": {"every_images": 48},
        "validation": {"every_images": 48, "samples": 16}, "samples": {"every_images": 48, "n": 4},
    }  # fmt: skip
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("vae.yaml").write_text(yaml.safe_dump(text))
        Path("configs/protocols").mkdir(parents=True)
        Path("configs/protocols/mine.yaml").write_text(yaml.safe_dump(MINE))
        assert main(["fit", "--config", "vae.yaml", "--name", "run"]) == 0
    finally:
        os.chdir(before)
        for name in ("PL_GLOBAL_SEED", "GENBENCH_RUN"):
            os.environ.pop(name, None)
    return folder


@pytest.fixture
def here(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), dtype=np.uint8))
    return tmp_path


def only_record(folder):
    (path,) = folder.glob("*.json")
    return read(path)


def scores(record):
    return {name: entry["value"] for name, entry in record.metrics.items() if entry["value"] is not None}


def assert_equal_scores(a, b):
    a, b = scores(a), scores(b)
    assert a.keys() == b.keys()
    assert all(a[name] == pytest.approx(b[name], rel=1e-6, abs=1e-6) for name in a)


def test_a_checkpoint_is_measured_and_its_record_lies_in_its_run(cli, here):
    status, out, err = cli("evaluate", "--ckpt", "last")
    assert status == 0 and err == ""
    record = only_record(Path("runs/run/records"))
    assert (record.kind, record.model["name"], record.data["name"]) == ("model", "VAE", "Digits")
    assert record.protocol["name"] == "mine"  # of the run's config
    assert record.run["name"] == "run" and record.run["checkpoint"] == "last" and record.run["images_seen"] == 48
    assert record.run["weights"] == "ema" and record.run["config"]["max_images"] == 48
    assert record.model["players"] == {"train": record.model["parameters"]}
    assert record.training["images_per_second"] > 0 and record.cost["sampling_seconds_per_image"] > 0
    assert "VAE, last at 48 images seen, ema weights" in out
    assert "against 60 images of Digits (test) by digitsnet, protocol mine" in out
    lines = {line.split()[1]: line for line in out.splitlines() if line.startswith("│")}
    for name, entry in record.metrics.items():
        assert (f"{entry['value']:.5g}" if entry["value"] is not None else "—") in lines[name], name
    assert "↓" in lines["fid-digitsnet"] and "↑" in lines["psnr"] and "±" in lines["kid-digitsnet"]
    assert "Record: runs/run/records/" in out and out.endswith("leaderboard runs\n")


def test_images_are_written_to_a_folder_named_after_the_record(cli, here):
    status, _, err = cli("evaluate", "--ckpt", "last")
    (path,) = Path("runs/run/records").glob("*.json")
    assert status == 0 and err == ""
    names = {p.name for p in path.with_suffix("").iterdir()}
    assert names == {"samples.png", "neighbors.png", "reconstructions.png"}


def test_the_commands_test_and_evaluate_write_the_same_record(cli, here):
    assert cli("evaluate", "--ckpt", "runs/run", "--out", "a")[0] == 0
    assert cli("test", "--ckpt", "last", "--name", "run", "--out", "b")[0] == 0
    a, b = only_record(Path("a")), only_record(Path("b"))
    assert_equal_scores(a, b)
    assert a.protocol == b.protocol and a.run == b.run


def test_json_is_the_record_and_nothing_else(cli, here):
    status, out, _ = cli("evaluate", "--ckpt", "last", "--json")
    assert status == 0
    assert json.loads(out) == only_record(Path("runs/run/records")).to_dict()


def test_a_checkpoint_alone_is_enough(cli, here):
    shutil.move("runs/run/checkpoints/last.ckpt", "model.ckpt")
    shutil.rmtree("runs")
    assert cli("evaluate", "--ckpt", "model.ckpt", "--protocol", "mine")[0] == 0
    assert only_record(Path("records")).data["name"] == "Digits"


def test_a_changed_setting_makes_a_new_protocol(cli, here):
    flags = ("--generated", 24, "--extractor", "mnistnet", "--metrics", "fid", "is", "--seed", 3)
    status, out, _ = cli("evaluate", "--ckpt", "last", *flags, "--out", "a")
    record = only_record(Path("a"))
    assert record.protocol["name"] == "mine+extractor=mnistnet+generated=24+metrics=fid/is+seed=3"
    assert record.protocol["name"] in out
    assert record.metrics.keys() == {"fid-mnistnet", "is-mnistnet"} and record.metrics["fid-mnistnet"]["n"] == 24
    assert status == 0


def test_raw_weights_make_a_new_protocol(cli, here):
    for flags, out in (((), "a"), (("--raw",), "b")):
        assert cli("evaluate", "--ckpt", "last", "--metrics", "fid", *flags, "--out", out)[0] == 0
    a, b = only_record(Path("a")), only_record(Path("b"))
    assert (a.run["weights"], b.run["weights"]) == ("ema", "raw") and b.protocol["name"].endswith("+weights=raw")
    assert a.protocol["key"] != b.protocol["key"] and scores(a) != scores(b)


def test_averages_of_different_lengths_are_rows_of_one_leaderboard(cli, here):
    power = ("--power_ema.enabled", "true", "--power_ema.every_images", 16, "--power_ema.snapshot_every", 16)
    assert cli("fit", "--config", "vae.yaml", "--name", "power", "--max_images", 160, *power)[0] == 0
    for flags in ((), ("--ema", 0.05), ("--ema", 0.075)):
        status, out, err = cli("evaluate", "--ckpt", "runs/power", "--metrics", "fid", *flags)
        assert status == 0, err
    assert "VAE, last at 160 images seen, ema 0.075 weights" in out
    records = [read(path) for path in Path("runs/power/records").glob("*.json")]
    assert sorted(record.run["weights"] for record in records) == ["ema", "ema 0.05", "ema 0.075"]
    assert len({record.protocol["key"] for record in records}) == 1 and len({str(scores(r)) for r in records}) == 3
    status, out, _ = cli("leaderboard", "runs/power")
    rows = [line for line in out.splitlines() if "VAE" in line]
    assert [sum(cell in row for row in rows) for cell in ("last (ema 0.05)", "last (ema 0.075)", "last ")] == [1, 1, 3]


def test_sampling_options_of_the_model_are_flags_and_in_the_record(cli, here):
    for flags, out in (((), "a"), (("--mean", "false"), "b")):
        assert cli("evaluate", "--ckpt", "last", "--metrics", "fid", *flags, "--out", out)[0] == 0
    a, b = only_record(Path("a")), only_record(Path("b"))
    assert (a.run["sampling"], b.run["sampling"]) == (
        {"mean": True, "importance_samples": 16}, {"mean": False, "importance_samples": 16},
    )  # fmt: skip
    assert scores(a) != scores(b) and a.identity != b.identity


def test_options_that_no_metric_uses_are_refused(cli, here, tmp_path):
    for flags, message in (
        (
            ("--metrics", "fid", "--importance-samples", 3),
            "--importance-samples has no effect, since the metrics fid use no",
        ),
        (
            ("--metrics", "reconstruction", "--mean", "false"),
            "--mean has no effect, since the metrics reconstruction use no",
        ),
    ):
        status, _, err = cli("evaluate", "--ckpt", "last", *flags)
        assert status == 2 and message in err
    flow = FlowMatching(DataSpec((1, 16, 16)), network={"width": 4, "multipliers": [1], "heads": 1})
    flags = ("--data", "Digits", "--data.size", 16, "--metrics", "likelihood", "--tolerance", 0.1)
    status, _, err = cli("evaluate", "--ckpt", untrained(flow, tmp_path / "flow.ckpt"), *flags)
    assert status == 2 and "--tolerance has no effect, since the likelihood is not computed: it takes long" in err
    status, _, err = cli("evaluate", "--ckpt", "flow.ckpt", *flags, "--probes", -1)
    assert status == 2 and "probes is -1; it must be at least 0" in err


def test_the_likelihood_of_points_is_exact_or_an_estimate_and_no_bound(cli, here, tmp_path):
    flow = FlowMatching(DataSpec((2,)), network={"width": 8, "depth": 1})
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.1)  # the output is zero before training
    ckpt = untrained(flow, tmp_path / "points.ckpt")
    flags = ("--data", "Ring", "--metrics", "likelihood", "--protocol", "quick", "--real", 20, "--tolerance", 0.1)
    for probes, expected in ((0, "exact, 0 probes, 0.1 tolerance"), (2, "estimate, 2 probes, 0.1 tolerance")):
        status, out, err = cli("evaluate", "--ckpt", ckpt, *flags, "--probes", probes, "--out", str(probes))
        assert status == 0, err
        assert only_record(Path(str(probes))).metrics["nats"]["bound"] == expected
        assert f"nats: {expected}" in out and "≥" not in out and "≤" not in out


def test_the_size_of_batches_changes_nothing(cli, here):
    for size in (1, 40):
        assert cli("evaluate", "--ckpt", "last", "--batch-size", size, "--out", str(size))[0] == 0
    assert_equal_scores(only_record(Path("1")), only_record(Path("40")))


def test_two_processes_have_the_record_of_one(cli, here, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(here / "cache"))
    Path("own.py").write_text("import genbench.models\nclass Own(genbench.models.VAE): pass\n")
    contents = torch.load("runs/run/checkpoints/last.ckpt", weights_only=True)
    contents["genbench"]["model"] = "own.Own"  # which the second process has to import too
    torch.save(contents, "own.ckpt")
    for devices in (2, 1):
        flags = ("--device", "cpu", "--devices", devices, "--out", str(devices), "--protocol", "mine")
        status, out, err = cli("evaluate", "--import", "own", "--ckpt", "own.ckpt", *flags)
        assert status == 0 and out.count("Record:") == 1, err
    one, two = only_record(Path("1")), only_record(Path("2"))
    assert two.environment["world_size"] == 2 and one.protocol == two.protocol and one.model["name"] == "Own"
    assert_equal_scores(one, two)


def test_images_can_be_evaluated_instead_of_a_model(cli, here):
    assert (
        cli("evaluate", "--images", "noise.npy", "--data", "Digits", "--protocol", "mine", "--name", "theirs")[0] == 0
    )
    record = only_record(Path("runs/records"))
    assert record.model["name"] == "theirs" and record.model["images"] == 40
    assert (record.kind, record.run) == ("images", None)
    assert record.protocol["name"] == "mine" and record.metrics["fid-digitsnet"]["n"] == 40


def test_on_a_full_disk_a_record_is_saved_elsewhere_and_scores_are_printed(cli, here, elsewhere, full):
    Path("full").mkdir()
    full(here / "full")
    status, out, err = cli("evaluate", "--ckpt", "last", "--metrics", "fid", "--out", "full")
    (kept,) = elsewhere.rglob("*.json")
    record = read(kept)
    assert status == 2 and f"It was written to {kept} instead." in err and "Traceback" not in err
    assert f"{record.metrics['fid-digitsnet']['value']:.5g}" in out
    assert not any(path.is_file() for path in Path("full").rglob("*"))


def test_a_record_that_cannot_be_saved_anywhere_is_printed(cli, here, elsewhere, full):
    full(here)
    status, out, err = cli("evaluate", "--ckpt", "last", "--metrics", "fid")
    assert status == 2 and "could not be written: No space left on device" in err
    found = json.loads(out)
    assert found["run"]["name"] == "run" and found["metrics"]["fid-digitsnet"]["value"] > 0
    assert not list(Path().rglob("records/*.json"))


def test_if_images_do_not_fit_on_the_disk_the_record_is_still_written(cli, here, full, monkeypatch):
    from genbench.core.files import NotWritten
    from genbench.evaluation.galleries import Gallery

    def write(self, folder):
        raise NotWritten(f"{folder / 'samples.png'} could not be written: No space left on device.")

    monkeypatch.setattr(Gallery, "write", write)
    status, out, err = cli("evaluate", "--ckpt", "last", "--metrics", "fid")
    assert status == 2 and "Images of this record are missing: " in err and "fid-digitsnet" in out
    assert only_record(Path("runs/run/records")).run["name"] == "run"


def test_scores_that_cannot_be_printed_are_in_the_record(cli, here):
    import subprocess
    import sys

    command = [sys.executable, "-m", "genbench", "evaluate", "--ckpt", "last", "--metrics", "fid", "--device", "cpu"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "A file or the output could not be written: No space left on device" in done.stderr
    assert only_record(Path("runs/run/records")).metrics["fid-digitsnet"]["value"] > 0


def test_the_size_of_kid_subsets_is_a_flag_and_in_the_name_of_the_protocol(cli, here):
    for size, out in ((20, "a"), (10, "b")):
        flags = ("--metrics", "kid", "--kid-subset-size", size, "--out", out)
        assert cli("evaluate", "--ckpt", "last", *flags)[0] == 0
    a, b = only_record(Path("a")), only_record(Path("b"))
    assert a.protocol["name"] == "mine+metrics=kid" and a.protocol["kid_subset_size"] == 20  # that of `mine`
    assert b.protocol["name"] == "mine+kid_subset_size=10+metrics=kid" and b.protocol["kid_subset_size"] == 10
    assert a.metrics["kid-digitsnet"]["value"] != b.metrics["kid-digitsnet"]["value"]
    assert a.protocol["key"] != b.protocol["key"]


def test_a_path_among_images_that_is_not_a_file_is_rejected_by_name(cli, here):
    from PIL import Image

    Path("mixed").mkdir()
    for k in range(3):
        Image.new("L", (16, 16), k).save(f"mixed/{k}.png")
    os.mkfifo("mixed/pipe.png")
    os.mkfifo("pipe.npy")
    Path("zero.npz").symlink_to("/dev/zero")
    for flags, message in (
        (("--images", "pipe.npy", "--data", "Digits"), "pipe.npy is a named pipe"),
        (("--images", "zero.npz", "--data", "Digits"), "zero.npz is a"),
        (("--images", "noise.npy", "--data", "ImageFolder", "--data.path", "pipe.npy"), "pipe.npy is a named pipe"),
    ):
        status, _, err = cli("evaluate", *flags, "--protocol", "mine")
        assert status == 2 and message in err and "Traceback" not in err, err
    for flags in (("--images", "mixed", "--data", "Digits"), ("--images", "noise.npy", "--reference", "mixed")):
        with pytest.warns(UserWarning, match="1 entries that are not regular files .* are ignored: pipe.png"):
            assert cli("evaluate", *flags, "--extractor", "digitsnet", "--protocol", "mine")[0] == 0


def test_images_are_compared_with_images(cli, here):
    flags = ("--extractor", "digitsnet", "--protocol", "mine", "--metrics", "fid")
    assert cli("evaluate", "--images", "noise.npy", "--reference", "noise.npy", *flags)[0] == 0
    record = only_record(Path("runs/records"))
    assert record.data["name"] == "noise.npy" and record.metrics["fid-digitsnet"]["value"] == pytest.approx(0, abs=1e-6)


def test_images_are_read_as_flags_say_and_what_is_skipped_is_named(cli, here):
    from PIL import Image

    Path("mixed").mkdir()
    for k, shape in enumerate([(20, 16, 3), (16, 16), (24, 24)]):
        noise = np.random.default_rng(k).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(noise).save(f"mixed/{k}.png")
    Path("mixed/notes.txt").write_text("x")
    np.savez("many.npz", a=np.load("noise.npy"), b=np.load("noise.npy").astype(np.int16) - 128)
    flags = ("--extractor", "digitsnet", "--metrics", "fid", "--reference", "many.npz", "--protocol", "mine")
    with pytest.warns(UserWarning, match="mixed: 1 files that are not images are ignored: notes.txt"):
        status, _, err = cli("evaluate", "--images", "mixed", *flags, "--reference.key", "a", "--size", 16)
    assert status == 2 and "1.png is 16×16 gray, but" in err and "use `--size` and `--channels` to convert them" in err
    more = ("--reference.key", "b", "--reference.range", "-128,127", "--size", 16, "--channels", 1)
    with pytest.warns(UserWarning) as told:
        status, _, err = cli("evaluate", "--images", "mixed", *flags, *more)
    record = only_record(Path("runs/records"))
    assert status == 0 and err == "" and ["notes.txt" in str(warning.message) for warning in told] == [True]
    assert (record.protocol["size"], record.protocol["channels"]) == (16, 1)
    assert record.protocol["reference"]["range"] == "-128,127" and record.model["images"] == 3
    assert record.protocol["name"] == "mine+channels=1+extractor=digitsnet+metrics=fid+size=16+generated=3"


def test_a_set_is_compared_with_statistics(cli, here):
    np.savez("stats.npz", mu=np.zeros(128), sigma=np.eye(128))
    flags = ("--extractor", "digitsnet", "--protocol", "mine", "--reference", "stats.npz")
    status, out, err = cli("evaluate", "--images", "noise.npy", *flags)
    assert status == 0 and err == "" and only_record(Path("runs/records")).protocol["metrics"] == ["fid"]
    assert "against statistics of stats.npz (all) by digitsnet" in out
    assert "fid-digitsnet: compared only with mu and sigma of stats.npz" in out


def test_arrays_are_a_data_set_that_is_trained_on_and_measured(cli, here):
    config = yaml.safe_load(Path("vae.yaml").read_text())
    images, parts = (
        np.load("noise.npy").repeat(2, 0),
        {"train": slice(0, 60), "val": slice(60, 70), "test": slice(70, 80)},
    )
    np.savez("set.npz", **{f"{part}_images": images[rows] for part, rows in parts.items()})
    config["data"] = {"class_path": "genbench.data.ArrayImages", "init_args": {"path": "set.npz", "batch_size": 16}}
    Path("vae.yaml").write_text(yaml.safe_dump(config))
    status, _, err = cli("fit", "--config", "vae.yaml", "--name", "arrays")
    assert status == 0, err
    flags = ("--extractor", "digitsnet", "--metrics", "fid", "reconstruction")
    assert cli("evaluate", "--ckpt", "last", *flags)[0] == 0
    record = only_record(Path("runs/arrays/records"))
    assert record.protocol["reference"]["images"] == 10 and record.data["arguments"]["path"] == "set.npz"
    assert record.metrics["mse"]["n"] == 10


@pytest.mark.parametrize("against", [("--data", "genbench.data.Digits", "--data.size", "24"), ("--config", "vae.yaml")])
def test_all_records_of_a_data_set_have_one_key(cli, here, against):
    from genbench.data import Digits
    from genbench.evaluation.evaluate import evaluate
    from genbench.evaluation.images import open_images

    assert cli("evaluate", "--ckpt", "last", "--out", "a")[0] == 0
    assert cli("evaluate", "--images", "noise.npy", *against, "--protocol", "mine", "--out", "b")[0] == 0
    keys = {only_record(Path(folder)).protocol["key"] for folder in "ab"}
    assert keys == {evaluate(open_images("noise.npy"), Digits(), "mine").protocol["key"]}


def test_records_become_a_board(cli, here):
    assert cli("evaluate", "--ckpt", "last")[0] == 0
    assert cli("evaluate", "--images", "noise.npy", "--data", "Digits", "--protocol", "mine")[0] == 0
    assert cli("evaluate", "--baseline", "--data", "Digits", "--protocol", "mine")[0] == 0
    status, out, err = cli("leaderboard", "runs", "--by", "fid", "--format", "json")
    assert status == 0 and err == ""
    for name in ("VAE", "noise.npy", "real images"):
        assert name in out
    status, out, _ = cli("leaderboard")
    assert status == 0 and "fid-digitsnet" in out and "VAE" in out and "real images" in out
    assert cli("leaderboard", "--track", "reconstruction")[1].count("VAE") >= 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "evaluate needs exactly one of `--ckpt PATH`, `--images PATH` and `--baseline`, but none was set"),
        (("--baseline", "--images", "noise.npy"), "but got --images and --baseline"),
        (("--images", "noise.npy"), "There is no data to compare with. Use `--data NAME`"),
        (("--images", "noise.npy", "--data", "Digits", "--reference", "noise.npy"), "not both"),
        (
            ("--images", "noise.npy", "--data", "Nothing"),
            "Unknown data set 'Nothing'. Choose from: ArrayImages",
        ),
        (("--images", "noise.npy", "--reference", "noise.npy", "--data.size", "64"), "`--data.…` belongs to `--data`"),
        (("--ckpt", "last", "--extractor.weights", "x.pth"), "'digitsnet' has fixed weights"),
        (("--ckpt", "last", "--config", "words.yaml"), "words.yaml is not a config of an experiment"),
        (("--ckpt", "last", "--config", "broken.yaml"), "broken.yaml is not YAML"),
        (("--ckpt", "last", "--out", "vae.yaml"), "The record cannot be written to vae.yaml"),
        (("--ckpt", "last", "--seed", "4294967296"), "seed is 4294967296; it must be below 2³¹"),
        (("--images", "noise.npy", "--data", "Digits", "--data.color", "3"), "color"),
        (("--images", "nowhere", "--data", "Digits"), "nowhere does not exist. Use a folder"),
        (("--images", "noise.npy", "--data", "Digits", "--mean", "true"), "Unknown option --mean"),
        (
            ("--images", "noise.npy", "--data", "Digits", "--reference.key", "a"),
            "`--reference.key` needs `--reference PATH`, which was",
        ),
        (
            ("--baseline", "--data", "Digits", "--images.key", "a"),
            "`--images.key` needs `--images PATH`, which was not set",
        ),
        (
            ("--images", "noise.npy", "--data", "Digits", "--images.mean", "1"),
            "Unknown option --images.mean for noise",
        ),
        (
            ("--images", "noise.npy", "--data", "Digits", "--images.size", "8"),
            "`--size`, which applies to all image files",
        ),
        (
            ("--images", "noise.npy", "--data", "Digits", "--images.resize_mode", "8"),
            "`--resize-mode`, which applies to all image files",
        ),
        (("--ckpt", "last", "--size", "8"), "sets size, which applies only to images read from files"),
        (("--images", "noise.npy", "--data", "Digits", "--images.severity", "2.5"), "severity"),
        (("--baseline", "--reference", "noise.npy", "--extractor", "digitsnet"), "A baseline needs a data set"),
        (("--ckpt", "last", "--foo", "1"), "VAE has no option --foo; its own options: --mean"),
        (("--ckpt", "last", "--extracter", "x"), "VAE has no option --extracter; its own options: --mean"),
        (("--ckpt", "last", "--extracter", "x"), "Did you mean '--extractor'?"),
        (("--ckpt", "lats"), "there is no checkpoint at lats. Did you mean 'last'?"),
        (("--ckpt", "nowhere.ckpt"), "there is no checkpoint at nowhere.ckpt"),
        (("--ckpt", "cut.ckpt"), "cut.ckpt is damaged"),
        (("--ckpt", "bare.ckpt"), "There is no data to compare with. Use `--data NAME`"),
        (("--ckpt", "strange.ckpt"), "trained on own.Cats, which is not loaded. Import its module with `--import own`"),
        (("--ckpt", "last", "--protocol", "none"), "Unknown protocol 'none'. Choose from: fid10k-test"),
        (("--ckpt", "last", "--extractor", "none"), "Unknown extractor 'none'. Choose from: captionnet, digitsnet"),
        (("--ckpt", "last", "--metrics", "beauty"), "unknown metric group 'beauty'. Choose from: fid"),
        (
            ("--ckpt", "last", "--kid-subset-size", "41"),
            "--kid-subset-size is 41, but there are only 40 images to measure",
        ),
        (
            ("--images", "noise.npy", "--data", "Digits", "--kid-subset-size", "41"),
            "but there are only 40 images to measure",
        ),
        (
            ("--baseline", "--data", "Digits", "--protocol", "mine", "--generated", "99", "--kid-subset-size", "61"),
            "--kid-subset-size is 61, but there are only 60 images to compare with",
        ),
        (("--ckpt", "last", "--kid-subset-size", "1"), "kid_subset_size is 1; it must be a whole number of at least 2"),
        (("--ckpt", "last", "--generated", "0"), "generated is 0; it must be a whole number of at least 1"),
        (("--ckpt", "last", "--config", "nothing"), "Unknown config 'nothing'. Choose from:"),
        (("--ckpt", "last", "--devices", "0"), "--devices is 0; it must be at least 1"),
        (("--ckpt", "last", "--batch-size", "-1"), "--batch-size is -1; it must be at least 1"),
        (("--ckpt", "last", "--device", "cuda:99"), "--device cuda:99"),
        (("--images", "noise.npy", "--data", "Digits", "--device", "tpx"), "--device tpx"),
    ],
)
def test_a_users_mistake_is_answered_in_a_sentence(cli, here, flags, message):
    last = Path("runs/run/checkpoints/last.ckpt")
    if "cut.ckpt" in flags:
        Path("cut.ckpt").write_bytes(last.read_bytes()[:2000])
    elif "bare.ckpt" in flags or "strange.ckpt" in flags:
        contents = torch.load(last, weights_only=True)
        if "bare.ckpt" in flags:
            contents = {name: value for name, value in contents.items() if name not in ("data", "run")}
        else:
            contents["data"]["class"] = "own.Cats"
        torch.save(contents, flags[1])
    Path("words.yaml").write_text("some words")
    Path("broken.yaml").write_text("a: [")
    status, out, err = cli("evaluate", *flags)
    assert status == 2 and message in err and "Traceback" not in err and out == ""
    assert not list(Path().rglob("records/*.json"))


def test_setting_a_default_explicitly_does_not_change_the_protocol(cli, here):
    assert cli("evaluate", "--ckpt", "last", "--out", "a")[0] == 0
    assert cli("evaluate", "--ckpt", "last", "--extractor", "digitsnet", "--out", "b")[0] == 0
    assert only_record(Path("a")).protocol == only_record(Path("b")).protocol


def test_the_data_is_found_where_the_run_found_it(cli, here):
    path = Path("runs/run/checkpoints/last.ckpt")
    contents = torch.load(path, weights_only=True)
    contents["run"]["config"]["data"]["init_args"]["root"] = str(here)
    torch.save(contents, path)
    assert cli("evaluate", "--ckpt", "last")[0] == 0  # Digits needs no files, but takes the flag


def test_two_sets_of_images_of_the_same_name_are_two_rows(cli, here):
    for folder, seed in (("x", 1), ("y", 2), ("z", 2)):
        Path(folder).mkdir()
        noise = np.random.default_rng(seed).integers(0, 256, (40, 16, 16, 1), dtype=np.uint8)
        np.save(f"{folder}/noise.npy", noise)
        flags = ("--data", "Digits", "--protocol", "mine", "--extractor", "digitsnet")
        assert cli("evaluate", "--images", f"{folder}/noise.npy", *flags)[0] == 0
    status, out, err = cli("leaderboard", "--format", "json")
    assert status == 0 and err == "" and out.count('"noise.npy"') == 2


def test_one_reference_has_one_key_however_it_is_spelled(cli, here):
    for k, path in enumerate(("noise.npy", "./runs/../noise.npy", here / "noise.npy")):
        flags = ("--reference", path, "--extractor", "digitsnet", "--protocol", "mine", "--out", f"out{k}")
        assert cli("evaluate", "--images", "noise.npy", *flags)[0] == 0
    assert len({only_record(Path(f"out{k}")).protocol["key"] for k in range(3)}) == 1


def test_a_checkpoint_that_names_no_data_takes_it_from_a_flag(cli, here):
    contents = torch.load("runs/run/checkpoints/last.ckpt", weights_only=True)
    torch.save({name: value for name, value in contents.items() if name not in ("data", "run")}, "bare.ckpt")
    assert cli("evaluate", "--ckpt", "bare.ckpt", "--data", "Digits", "--protocol", "mine")[0] == 0
    record = only_record(Path("records"))
    assert record.run["images_seen"] == 48 and record.training is None


def test_help_names_the_flags(cli, capfd):
    with pytest.raises(SystemExit) as done:
        cli("evaluate", "--help")
    out = capfd.readouterr().out
    assert done.value.code == 0
    for flag in (
        "--ckpt",
        "--images",
        "--baseline",
        "--data",
        "--reference",
        "--protocol",
        "--extractor.weights PATH",
        "--json",
    ):
        assert flag in out


def test_two_sets_of_files_of_the_same_type_are_compared_in_the_same_range(tmp_path):
    """Each by its own extremes, images of half the brightness would be the same."""
    from PIL import Image

    from genbench.cli.evaluate import _in_one_range
    from genbench.data import ImageFolder
    from genbench.evaluation.images import open_images, open_reference

    levels = np.arange(256).reshape(16, 16)
    files = {"half": levels * 8, "whole": levels * 16, "bytes": levels, "part": levels / 640, "unit": levels / 255}
    for name, values in files.items():
        kind = {"bytes": np.uint8, "part": np.float32, "unit": np.float32}.get(name, np.uint16)
        np.save(tmp_path / f"{name}.npy", np.stack([values.astype(kind)] * 6))
    (tmp_path / "folder").mkdir()
    for k in range(20):
        Image.fromarray(np.uint16(files["whole"])).save(tmp_path / "folder" / f"{k}.png")

    def most(subject, reference, trained=None, **stated):
        subject = open_images(tmp_path / f"{subject}.npy", **stated)
        if reference == "folder":
            data = ImageFolder(path=str(tmp_path / "folder"), size=16, channels=1, labels=False)
        else:
            data = open_reference(tmp_path / f"{reference}.npy")
        sides = _in_one_range(subject, data, trained)
        return [int(side.images(torch.arange(3)).max()) for side in sides if not isinstance(side, ImageFolder)]

    with pytest.warns(UserWarning, match="the range of .*whole.npy is used, so 0,4080 become black .*`--images.range`"):
        assert most("half", "whole") == [128, 255]
    assert most("half", "folder") == [128]
    assert most("part", "unit") == [102, 255]
    assert most("bytes", "whole") == [255, 255]  # of another type: saved as 8 bits
    assert most("half", "whole", range="0,2040") == [255, 255]
    with pytest.warns(UserWarning, match="the range of the training images is used.*`--reference.range`"):
        assert most("bytes", "half", trained="0,4080") == [255, 128]


@pytest.mark.parametrize("stored", ["dtype", None, "0,8190"])
def test_files_other_than_the_training_files_are_read_in_a_numeric_training_range(tmp_path, stored):
    from PIL import Image

    import genbench.data  # noqa: F401  as evaluate does
    from genbench.cli.evaluate_data import data_of

    levels = np.arange(256).reshape(16, 16)
    for k in range(4):
        Image.fromarray(np.uint16(levels / 255 * 4095)).save(tmp_path / f"{k}.png")
    trained = {
        "class": "genbench.data.folder.ImageFolder",
        "arguments": {"path": "elsewhere", "range": stored, "size": 16, "channels": 1, "val_size": 1, "test_size": 1},
    }
    for more, most in (([], 127 if stored == "0,8190" else 255), (["--data.range", "dtype"], 16)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            data = data_of(None, [f"--data.path={tmp_path}", *more], trained)
            image = data.source("test").batch(torch.tensor([0])).image
        assert abs(int(image.max()) - most) <= 1
        notes = [str(one.message) for one in told if "no range is set" in str(one.message)]
        assert len(notes) == (most == 255) and all("The range 0,4095 is used" in note for note in notes)
    Image.fromarray(np.uint8(levels)).save(tmp_path / "0.png")
    with pytest.raises(UserError, match="0.png has values of type uint8, which end at 255, but the range .* is 0,8190"):
        trained["arguments"]["range"] = "0,8190"
        data_of(None, [f"--data.path={tmp_path}"], trained)


def of_flow_matching(data, network, tmp_path):
    """A config of a FlowMatching that trains for two steps."""
    size = {"size": 8} if data == "Digits" else {}
    text = {
        "max_images": 32,
        "model": {"class_path": "genbench.models.FlowMatching", "init_args": {"network": network}},
        "data": {"class_path": f"genbench.data.{data}", "init_args": {"batch_size": 16} | size},
        "monitor": {"every_images": 32}, "checkpoint": {"every_images": 32},
        "validation": {"every_images": 32, "samples": 4}, "samples": {"every_images": 32, "n": 4},
    }  # fmt: skip
    path = tmp_path / "flow.yaml"
    path.write_text(yaml.safe_dump(text))
    return path


def test_the_likelihood_of_flow_matching_is_exact_for_points(cli, tmp_path):
    assert cli("fit", "--config", of_flow_matching("Ring", {"width": 8}, tmp_path), "--name", "run")[0] == 0
    status, out, err = cli("evaluate", "--ckpt", "last", "--metrics", "likelihood", "--real", 50, "--out", "a")
    assert status == 0, err
    entry = only_record(Path("a")).metrics["nats"]
    assert entry["bound"].startswith("exact") and entry["note"] is None and f"{entry['value']:.1f}" in out
    # two steps hardly change the model, which is a standard normal density before training
    assert entry["value"] == pytest.approx(-math.log(2 * math.pi) - 0.5, abs=0.2)


def test_the_likelihood_of_flow_matching_on_images_is_estimated_only_if_asked_for(cli, tmp_path):
    network = {"width": 8, "multipliers": [1], "blocks": 1, "attention": [], "heads": 1}
    assert cli("fit", "--config", of_flow_matching("Digits", network, tmp_path), "--name", "run")[0] == 0
    few = ("--metrics", "likelihood", "--real", 8)
    found = {}
    for probes in (0, 1, 2):
        more = ("--probes", probes, "--tolerance", 0.01) if probes else ()
        status, out, err = cli("evaluate", "--ckpt", "last", *few, *more, "--out", f"p{probes}")
        assert status == 0, err
        found[probes] = only_record(Path(f"p{probes}")).metrics["nats-8x8x1"]
        assert found[probes]["note"] in out
    assert found[0]["value"] is None and found[0]["note"] == "it takes long, and is computed only with `--probes N`"
    assert found[1]["note"] == "an estimate from one random vector, without a standard error"
    assert re.fullmatch(r"standard error of the estimate: \S+ nats", found[2]["note"])
    assert found[2]["bound"] == "lower bound, 2 probes, 0.01 tolerance"
    assert found[2]["value"] == pytest.approx(found[1]["value"], rel=0.05)
    for probes in ("-1", "1.5"):
        status, _, err = cli("evaluate", "--ckpt", "last", *few, "--probes", probes, "--out", "bad")
        assert status == 2 and "probes" in err and "Traceback" not in err and not Path("bad").exists()
