"""Distances to training images, compared with scikit-learn's neighbors. Copies are detected."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from genbench.core.errors import UserError
from genbench.metrics.memorization import memorization


def scikit_learns(fake, train, held_out):
    search = NearestNeighbors(n_neighbors=1).fit(train)
    (near, match), others = search.kneighbors(fake), search.kneighbors()[0][:, 0]
    return {
        "nearest_train": np.median(near),
        "nearest_train_ratio": np.median(near) / np.median(search.kneighbors(held_out)[0]),
        "authenticity": (near[:, 0] > others[match[:, 0]]).mean(),
    }


def sets(*sizes, dtype=torch.float64):
    return [torch.randn(n, 6, dtype=dtype) for n in sizes]


@pytest.mark.parametrize("sizes", [(60, 100, 40), (101, 50, 33), (1, 2, 1)])
def test_it_equals_scores_from_scikit_learns_neighbors(sizes):
    fake, train, held_out = sets(*sizes)
    assert memorization(fake, train, held_out, block=16) == pytest.approx(
        scikit_learns(fake.numpy(), train.numpy(), held_out.numpy())
    )


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_the_size_of_a_block_changes_nothing(block):
    fake, train, held_out = sets(30, 40, 20, dtype=torch.float32)
    assert memorization(fake, train, held_out, block) == pytest.approx(
        memorization(fake, train, held_out, 20), rel=1e-12
    )


def test_copied_training_features_are_detected():
    train, held_out, other = sets(200, 100, 100, dtype=torch.float32)
    fresh = memorization(other, train, held_out)
    near = memorization(train[:100] + 0.01 * torch.randn(100, 6), train, held_out)
    exact = memorization(train[:100], train, held_out)
    assert exact == {"nearest_train": 0, "nearest_train_ratio": 0, "authenticity": 0}
    assert near["authenticity"] == 0 and near["nearest_train_ratio"] < 0.1
    assert fresh["authenticity"] > 0.4 and fresh["nearest_train_ratio"] == pytest.approx(1, abs=0.15)


def test_a_copy_of_a_duplicated_training_image_is_detected():
    train = torch.randn(20, 6).repeat(2, 1)
    assert memorization(train[:10], train)["authenticity"] == 0


def test_without_held_out_images_there_is_no_ratio():
    fake, train = sets(10, 20)
    assert set(memorization(fake, train)) == {"nearest_train", "authenticity"}


def test_too_few_or_invalid_images_are_errors():
    fake, train = sets(10, 20)
    with pytest.raises(UserError, match="at least 2 training images; got 1"):
        memorization(fake, train[:1])
    with pytest.raises(UserError, match="held-out images are also training images"):
        memorization(fake, train, train[:5])
    with pytest.raises(UserError, match="generated images must be finite"):
        memorization(fake / 0, train)
