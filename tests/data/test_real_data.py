"""Tests that need real data sets, which are in the folder GENBENCH_DATA."""

import os
from pathlib import Path

import pytest
import torch

from genbench.data import MNIST, ImageFolder

ROOT = Path(os.environ.get("GENBENCH_DATA", "/nonexistent"))


@pytest.mark.skipif(not (ROOT / "MNIST").exists(), reason="GENBENCH_DATA names no folder with MNIST")
def test_mnist_has_its_published_mean_and_deviation():
    data = MNIST(size=28)
    assert [len(data.source(stage)) for stage in ("train", "val", "test")] == [55_000, 5_000, 10_000]
    pixels = torch.cat([data.source(stage).everything.image for stage in ("train", "val")]).double() / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.skipif(not (ROOT / "cifar10_jpeg.zip").exists(), reason="GENBENCH_DATA has no cifar10_jpeg.zip")
def test_a_zip_of_split_and_class_folders_is_read_in_place():
    data = ImageFolder(path="cifar10_jpeg.zip", per_class=50, memory="no")
    assert data.spec.classes[:3] == ("airplane", "automobile", "bird")
    assert [len(data.source(stage)) for stage in ("train", "val", "test")] == [500, 5_000, 10_000]
    batch = data.source("train").batch(torch.arange(500))
    assert batch.image.shape == (500, 3, 32, 32)
    assert batch.label.bincount().tolist() == [50] * 10
