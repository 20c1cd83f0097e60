"""Conversions of images and captions, and batches that are moved and sliced as a whole."""

import pytest
import torch

from genbench.core.batch import Batch, DataSpec, from_uint8, to_tokens, to_uint8, to_words
from genbench.core.errors import UserError


def test_every_byte_survives_both_conversions():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(every)), every)
    assert from_uint8(every)[[0, 255]].tolist() == [-1, 1]


def test_to_uint8_rounds_and_clamps():
    x = torch.tensor([-1.5, -1.0, 0.0, 0.9999, 1.0, 2.0])
    assert to_uint8(x).tolist() == [0, 0, 128, 255, 255, 255]


def test_a_batch_is_moved_sliced_and_counted_as_a_whole():
    batch = Batch(torch.rand(4, 1, 2, 2), label=torch.arange(4))
    moved = batch.to(torch.float64)
    assert moved.image.dtype == torch.float64 and moved.label.dtype == torch.int64
    assert len(batch) == 4 and batch[1:3].label.tolist() == [1, 2] and batch.mask is None


def test_a_spec_can_be_restored_from_plain_types():
    spec = DataSpec((3, 32, 32), "label", ("cat", "dog"))
    assert DataSpec.from_dict(spec.to_dict()) == spec
    assert spec.to_dict()["shape"] == [3, 32, 32]


def test_words_become_tokens_and_tokens_words():
    words = ("<pad>", "a", "red", "star")
    assert to_tokens("A red  star", words) == [1, 2, 3]
    assert to_tokens("red star", words, 4) == [2, 3, 0, 0]
    assert to_words(torch.tensor([2, 3, 0, 0]), words) == "red star"
    with pytest.raises(
        UserError, match=r"The word `pink` is in no caption of this data set. Choose from: a, red, star"
    ):
        to_tokens("a pink star", words)
    with pytest.raises(UserError, match="The word `<pad>`"):
        to_tokens("<pad>", words)
    with pytest.raises(UserError, match="at most 2 words, but `a red star` has 3"):
        to_tokens("a red star", words, 2)
