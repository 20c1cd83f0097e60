"""Points go through every verb: trained on, drawn, written, measured."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

GAN = {"class_path": "genbench.models.GAN", "init_args": {"latent_dim": 4, "hidden": [16]}}
RING = {"class_path": "genbench.data.Ring", "init_args": {"batch_size": 16, "train_images": 200, "val_images": 100}}


@pytest.fixture
def trained(cli, config):
    status, _, err = cli("fit", "--config", config(model=GAN, data=RING), "--name", "run", "--max_images", "320")
    assert status == 0, err
    return Path("runs/run")


def test_a_run_validates_on_the_modes_and_draws_plots(trained):
    with open(trained / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["val/fid-ring"]]
    assert len(rows) == 2  # at 160 and 320 images
    plots = sorted((trained / "samples").iterdir())
    assert [p.stem for p in plots] == ["0000000160", "0000000320"]
    assert all(Image.open(p).size == (480, 480) and np.asarray(Image.open(p)).std() > 0 for p in plots)


def test_samples_are_written_as_float_points_or_a_plot(cli, trained):
    for out in ("plot.png", "a.npy", "a.npz"):
        assert cli("sample", "--ckpt", trained, "--n", 5, "--out", out)[0] == 0
    points = np.load("a.npy")
    assert points.shape == (5, 2) and points.dtype == np.float32
    assert np.array_equal(np.load("a.npz")["images"], points) and Image.open("plot.png").size == (480, 480)
    status, _, err = cli("sample", "--ckpt", trained, "--out", "folder")
    assert status == 2 and "points cannot be written as a folder" in err


def test_a_model_and_its_written_points_have_the_same_scores(cli, trained):
    few = ("--generated", 40, "--real", 60, "--metrics", "fid", "classes")
    assert cli("evaluate", "--ckpt", trained, *few, "--out", "model")[0] == 0
    assert cli("sample", "--ckpt", trained, "--n", 40, "--out", "a.npy")[0] == 0
    assert cli("evaluate", "--images", "a.npy", "--data", "Ring", *few, "--out", "images")[0] == 0
    first, second = (json.loads(next(Path(f).rglob("*.json")).read_text()) for f in ("model", "images"))
    for name in ("fid-ring", "modes-ring", "good_samples-ring"):
        assert first["metrics"][name]["value"] == pytest.approx(second["metrics"][name]["value"], abs=1e-6)
    assert next(Path("model").rglob("samples.png")).is_file()


def test_a_model_of_images_is_told_so_before_it_trains(cli, config):
    status, _, err = cli("fit", "--config", config("dcgan", data=RING))
    assert status == 2 and "needs images, but the data has points of 2 numbers" in err and not Path("runs").exists()
