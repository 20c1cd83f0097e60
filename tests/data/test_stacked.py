"""A stack is three digits of MNIST, and its class is their number."""

import os
from pathlib import Path

import pytest
import torch

from genbench.core.errors import UserError
from genbench.data import MNIST, StackedMNIST
from genbench.evaluation import extractors

ROOT = Path(os.environ.get("GENBENCH_DATA", "/nonexistent"))
needs_mnist = pytest.mark.skipif(not (ROOT / "MNIST").exists(), reason="GENBENCH_DATA names no folder with MNIST")


@needs_mnist
@pytest.mark.parametrize("stage", ["train", "test"])
def test_each_channel_is_a_digit_of_the_same_split_and_the_class_is_their_number(stage):
    data = StackedMNIST(train_images=300, test_images=40)
    split, plain = data.split(stage), MNIST().split(stage)
    images = split.pictures(torch.arange(40).numpy())
    digits = plain.pictures(slice(None))
    known = {image.numpy().tobytes() if hasattr(image, "numpy") else image.tobytes(): int(label)
             for image, label in zip(digits, plain.label, strict=True)}  # fmt: skip
    for image, label in zip(images, split.label, strict=False):
        read = [known[image[:, :, channel].tobytes()] for channel in range(3)]
        assert data.classes[label] == "".join(map(str, read))


@needs_mnist
def test_stacked_mnist_has_splits_and_sizes_like_other_data_sets():
    data = StackedMNIST(train_images=300, test_images=40)
    assert data.spec.shape == (3, 32, 32) and len(data.spec.classes) == 1000 and data.spec.classes[407] == "407"
    assert [len(data.source(stage)) for stage in ("train", "val", "test")] == [270, 30, 40]
    assert torch.equal(
        data.source("test").everything.image, StackedMNIST(test_images=40).source("test").everything.image
    )
    other = StackedMNIST(test_images=40, seed=1).source("test").everything
    assert not torch.equal(data.source("test").everything.label, other.label)
    streamed = StackedMNIST(test_images=40, memory="no").source("test")
    assert torch.equal(streamed.batch(torch.arange(40)).image, data.source("test").everything.image)


@needs_mnist
def test_the_default_extractor_classifies_all_three_digits():
    found = StackedMNIST(test_images=400).source("test").everything
    judge, digit = extractors.build("stackedmnistnet"), extractors.build("mnistnet")
    features, logits = judge(found.image)
    assert features.shape == (400, 384) and logits.shape == (400, 1000) and judge.classes == StackedMNIST.classes
    assert (logits.argmax(1) == found.label).float().mean() > 0.95
    assert torch.allclose(logits.exp().sum(1), torch.ones(400), atol=1e-4)  # probabilities of all triples
    for channel in range(3):
        alone, probabilities = digit(found.image[:, channel : channel + 1])
        assert torch.allclose(features[:, 128 * channel : 128 * (channel + 1)], alone, atol=1e-5)
        triples = logits.exp().view(-1, 10, 10, 10)
        others = [1 + k for k in range(3) if k != channel]
        assert torch.allclose(triples.sum(others), probabilities.softmax(1), atol=1e-4)


def test_invalid_arguments_are_refused(tmp_path):
    with pytest.raises(UserError, match="StackedMNIST needs 3, one per digit"):
        StackedMNIST(channels=1)
    with pytest.raises(UserError, match=r"StackedMNIST is not at .*Put MNIST/raw/train-images"):
        StackedMNIST(root=str(tmp_path), download=False).source("train")
