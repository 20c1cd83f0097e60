"""Binary images are drawn from gray images, once or each time they are read, and identically everywhere."""

import pytest
import torch

from genbench.core.batch import DataSpec
from genbench.data import Digits, Shapes
from genbench.evaluation.images import SplitImages


def images(data, stage):
    return data.source(stage).everything.image


def first_batches(data, count, seed=0, position=0, rank=0, world=1):
    loader = data.train_dataloader()
    loader.seed, loader.position, loader.rank, loader.world = seed, position, rank, world
    return torch.cat([batch.image for batch, _ in zip(loader, range(count), strict=False)])


@pytest.mark.parametrize("how", ["static", "dynamic"])
def test_every_pixel_is_black_or_white_and_the_spec_says_so(how):
    data = Digits(binarize=how, batch_size=16)
    assert data.spec.binary and not Digits().spec.binary
    assert first_batches(data, 2).unique().tolist() == [-1, 1]
    assert images(data, "test").unique().tolist() == [0, 255]
    assert DataSpec.from_dict(data.spec.to_dict()) == data.spec


def test_the_gray_level_of_a_pixel_is_its_probability_of_white():
    gray, drawn = (images(Digits(size=16, binarize=how), "train").float() / 255 for how in ("none", "static"))
    for low, high in ((0.0, 0.001), (0.1, 0.3), (0.4, 0.6), (0.7, 0.9), (0.999, 1.0)):
        among = (gray >= low) & (gray <= high)
        p, n = gray[among].mean(), among.sum()
        assert abs(drawn[among].mean() - p) <= 4.5 * (p * (1 - p) / n).sqrt() + 1e-6


def test_static_images_are_drawn_once_whatever_the_seed_and_however_they_are_read():
    a, b = (images(Digits(binarize="static", memory=memory), "test") for memory in ("yes", "yes"))
    streamed = Digits(binarize="static", memory="no").source("test")
    assert torch.equal(a, b) and torch.equal(a, streamed.batch(torch.arange(len(streamed))).image)
    part = streamed.batch(torch.tensor([7, 3])).image
    assert torch.equal(part, a[[7, 3]])


def test_dynamic_training_images_are_redrawn_and_compared_with_the_static_images():
    static, dynamic = (Digits(binarize=how, batch_size=len(images(Digits(), "train"))) for how in ("static", "dynamic"))
    assert torch.equal(images(static, "val"), images(dynamic, "val"))
    assert torch.equal(images(static, "test"), images(dynamic, "test"))
    n = len(images(dynamic, "train"))
    seen = [first_batches(dynamic, 1, position=k * n) for k in range(2)]
    ordered = [batch.flatten(1).sum(1).sort().values for batch in seen]
    assert not torch.equal(*ordered)  # not the same pictures in another order
    again = first_batches(dynamic, 1, position=n)
    assert torch.equal(again, seen[1])  # a resumed run sees what the whole one saw


def test_processes_draw_the_blocks_of_one_batch():
    data = Digits(binarize="dynamic", batch_size=12)
    whole = first_batches(data, 1)
    parts = [first_batches(data, 1, rank=rank, world=3) for rank in range(3)]
    assert torch.equal(torch.cat(parts), whole)


def test_binary_data_is_compared_at_the_size_of_training():
    binary, gray = Digits(size=16, binarize="dynamic").reference(), Digits(size=16).reference()
    assert binary.spec.shape == (1, 16, 16) and binary.spec.binary
    assert gray.spec.shape == Digits().spec.shape
    assert SplitImages(binary, "test", 10).images(torch.arange(10)).unique().tolist() == [0, 255]


def test_shapes_can_be_binary_too():
    data = Shapes(train_images=32, val_images=8, test_images=8, binarize="static", channels=1)
    assert data.spec.binary and images(data, "train").unique().tolist() == [0, 255]
