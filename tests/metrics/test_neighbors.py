"""Precision, recall, density and coverage against scikit-learn's neighbors, and in cases where they are known."""

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from genbench.core.errors import UserError
from genbench.metrics.neighbors import neighbor_scores, squared_distances


def scikit_learns(real, fake, k):
    def radii(x):
        # without a query, a point is not its own neighbor
        return NearestNeighbors(n_neighbors=k).fit(x).kneighbors()[0][:, -1]

    between = torch.cdist(torch.as_tensor(real), torch.as_tensor(fake)).numpy()
    in_real, in_fake = between <= radii(real)[:, None], between <= radii(fake)
    return {
        "precision": in_real.any(0).mean(),
        "recall": in_fake.any(1).mean(),
        "density": in_real.sum() / (k * len(fake)),
        "coverage": in_real.any(1).mean(),
    }


@pytest.mark.parametrize(("n", "m", "k"), [(150, 150, 5), (100, 170, 3), (170, 60, 1)])
def test_they_equal_scores_from_scikit_learns_neighbors(n, m, k):
    real, fake = torch.randn(n, 8, dtype=torch.float64), 0.9 * torch.randn(m, 8, dtype=torch.float64) + 0.3
    assert neighbor_scores(real, fake, k, block=64) == pytest.approx(scikit_learns(real.numpy(), fake.numpy(), k))


@pytest.mark.parametrize("block", [1, 7, 40, 1024])
def test_the_size_of_a_block_changes_nothing(block):
    real, fake = torch.randn(40, 6), torch.randn(50, 6)
    assert neighbor_scores(real, fake, block=block) == neighbor_scores(real, fake, block=20)


@pytest.mark.parametrize("block", [8, 64])
def test_copies_of_all_real_images_lie_on_borders_which_count_as_inside(block):
    real = 100 + torch.randn(50, 6)
    expected = {"precision": 1, "recall": 1, "density": 1.2, "coverage": 1}
    assert neighbor_scores(real, real, block=block) == neighbor_scores(real, real.clone(), block=block)
    assert neighbor_scores(real, real, block=block) == pytest.approx(expected)


def test_samples_collapsed_to_a_few_modes_lose_recall_and_coverage_and_keep_precision():
    centers = 10 * torch.randn(8, 16)
    real = centers.repeat(25, 1) + torch.randn(200, 16)
    good = centers.repeat(25, 1) + torch.randn(200, 16)
    collapsed = centers[:1] + torch.randn(200, 16)
    of_good, of_collapsed = neighbor_scores(real, good), neighbor_scores(real, collapsed)
    assert of_collapsed["precision"] > 0.5
    assert of_collapsed["recall"] < 0.25 < 0.8 < of_good["recall"]
    assert of_collapsed["coverage"] < 0.25 < 0.8 < of_good["coverage"]


def test_samples_far_away_score_nothing_and_one_far_image_gains_no_coverage():
    real = torch.randn(100, 8)
    assert set(neighbor_scores(real, 1000 + torch.randn(100, 8)).values()) == {0}


@pytest.mark.parametrize("offset", [0, 1000])
def test_distances_keep_their_precision_far_from_the_origin(offset):
    x = offset + torch.rand(30, 5).round(decimals=2)
    expected = (x.double()[:, None] - x.double()).square().sum(2)
    torch.testing.assert_close(squared_distances(x, x), expected, rtol=0, atol=1e-8)


def test_autocast_does_not_affect_the_distances():
    x = torch.randn(30, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(squared_distances(x, x), squared_distances(x.double(), x.double()))


def test_progress_sees_every_tile_once():
    seen = []
    neighbor_scores(
        torch.randn(30, 4), torch.randn(25, 4), block=10, progress=lambda tiles: seen.extend(tiles) or tiles
    )
    assert len(seen) == 6 + 6 + 9


def test_too_few_or_non_finite_features_are_errors():
    with pytest.raises(UserError, match="of 5 neighbors needs at least 6 generated images; got 5"):
        neighbor_scores(torch.randn(9, 3), torch.randn(5, 3))
    with pytest.raises(UserError, match="real images must be finite"):
        neighbor_scores(torch.full((9, 3), torch.inf), torch.randn(9, 3))
