"""Configs of medical images train on files in the official layout of MedMNIST, and the commands of the docs work."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from tests.helpers.medmnist import CENTER, write

FEW = ["--data.root", ".", "--max_images", 64, "--data.batch_size", 16, "--data.eval_batch_size", 16]
FEW += ["--validation.extractor", "digitsnet"]


def test_a_set_that_is_missing_is_named(cli):
    status, _, err = cli("fit", "--config", "medical/anomaly")
    assert status == 2 and "There is no file or folder `pneumoniamnist.npz`" in err


def test_an_autoencoder_of_healthy_images_finds_lesions_and_shows_where(cli):
    write(Path("pneumoniamnist.npz"), {"train": 200, "val": 20, "test": 40})
    small = ["--model.width", 4, "--model.latent_dim", 8, "--model.optimizer.lr", 0.005, "--ema.halflife", 300]
    flags = [*FEW, *small, "--max_images", 3200]
    status, _, err = cli("fit", "--config", "medical/anomaly", *flags, "--name", "healthy")
    assert status == 0 and "; only class 0 of the classes 0 and 1" in err, err
    assert "  anomaly:  python -m genbench anomaly --ckpt runs/healthy/checkpoints/last.ckpt\n" in err
    assert "nception" not in err, "no weights are needed that are not there"
    status, out, err = cli("anomaly", "--ckpt", "runs/healthy", "--quantile", 0.95)
    assert status == 0 and "20 anomalous and 20 normal images" in out, err
    with open("anomalies/scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    labels, values = ([row[name] for row in rows] for name in ("label", "score"))
    assert labels == ["0", "1"] * 20
    assert roc_auc_score([label == "1" for label in labels], [float(value) for value in values]) > 0.9

    import torch

    import genbench
    from genbench.analysis.anomaly import heat_map
    from genbench.data import ArrayImages

    lesions = ArrayImages(path="pneumoniamnist.npz", only_classes=[1])
    x = next(iter(lesions.test_dataloader())).image
    heat = heat_map(genbench.load("runs/healthy"), x)
    near = torch.zeros(32, 32, dtype=torch.bool)
    near[CENTER[0] - 2 : CENTER[0] + 7, CENTER[1] - 2 : CENTER[1] + 7] = True  # images of 28×28 are padded by 2
    assert near.flatten()[heat.flatten(1).argmax(1)].float().mean() > 0.8


def test_the_file_of_a_medmnist_set_can_be_scored(cli):
    write(Path("pneumoniamnist.npz"), {"train": 40, "val": 20, "test": 30})
    small = ["--model.width", 4, "--model.latent_dim", 8]
    assert cli("fit", "--config", "medical/anomaly", *FEW, *small, "--name", "healthy")[0] == 0
    flags = ["--ckpt", "runs/healthy", "--images", "pneumoniamnist.npz"]
    status, _, err = cli("anomaly", *flags)
    assert status == 2 and "contains images of several splits. Choose one: `--images.key train_images`" in err
    status, out, err = cli("anomaly", *flags, "--images.key", "test_images")
    assert status == 0 and "15 anomalous and 15 normal images" in out, err


def test_lesions_are_painted_into_healthy_images(cli):
    write(Path("pneumoniamnist.npz"), {"train": 40, "val": 20, "test": 30})
    small = ["--model.width", 2, "--model.discriminator_width", 2]
    status, _, err = cli("fit", "--config", "medical/lesions", *FEW, *small, "--name", "lesions")
    assert (
        status == 0
        and "; only class 1 of the classes 0 and 1" in err
        and "anomaly:" not in err
        and "nception" not in err
    ), err
    with np.load("pneumoniamnist.npz") as file:
        healthy = file["test_images"][file["test_labels"][:, 0] == 0][:8]
    images = np.pad(healthy, ((0, 0), (2, 2), (2, 2)))
    images[:, 6:22, 4:20] = 128
    np.save("holes.npy", images)
    status, _, err = cli("translate", "--ckpt", "runs/lesions", "--input", "holes.npy", "--output", "synthetic")
    assert status == 0, err
    files = sorted(Path("synthetic").iterdir())
    assert len(files) == 8 and Image.open(files[0]).size == (32, 32)


def test_the_hole_of_the_docs_is_the_hole_of_the_task():
    import torch

    from genbench.core.batch import to_uint8
    from genbench.data import tasks

    made = to_uint8(tasks.make("inpaint", torch.ones(1, 1, 32, 32), lambda draw, *shape: draw(1, *shape)))[0, 0]
    hole = (made == 128).nonzero()
    assert len(hole) == 16 * 16 and (hole.max(0).values - hole.min(0).values == 15).all()
