"""How well two sets of features cover each other, measured with balls that reach to the k-th neighbor.

Precision and recall: Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models",
section 2. Density and coverage: Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models",
section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations_with_replacement, product
from typing import Any

import torch
from torch import Tensor

from genbench.metrics.score import FeatureScore, require, require_finite

Progress = Callable[[Iterable], Iterable]
BORDER = 1 + 1e-9  # a copy of a neighbor lies on the border: count it as inside despite rounding


def neighbor_scores(
    real: Tensor, fake: Tensor, k: int = 5, block: int = 1024, progress: Progress | None = None
) -> dict[str, float]:
    """precision, recall, density and coverage of features [N, D] and [M, D].

    The ball of a feature reaches to its k-th nearest neighbor in its own set, border included. Distances are computed
    in tiles of `block` times `block` rows; `progress` wraps the list of tiles.

    precision  fraction of fake features that lie in the ball of a real feature
    recall     fraction of real features that lie in the ball of a fake feature
    density    mean number of real balls that contain a fake feature, divided by k
    coverage   fraction of real features whose ball contains a fake feature

    Example:
        >>> neighbor_scores(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [9.0]]), k=1)
        {'precision': 0.5, 'recall': 1.0, 'density': 1.0, 'coverage': 1.0}
    """
    for features, whose in ((real, "real"), (fake, "generated")):
        require(len(features), k + 1, whose, f"A score of {k} neighbors")
        require_finite(features, whose)
    near_real, near_fake = (x.new_full((len(x), k), torch.inf, dtype=torch.float64) for x in (real, fake))
    precise, recalled, covered = (x.new_zeros(len(x), dtype=torch.bool) for x in (fake, real, real))
    balls = 0.0
    of_real, of_fake = (range(0, len(x), block) for x in (real, fake))
    tiles = [
        # distances are symmetric, so half of the tiles suffice
        *((near_real, real, real, i, j) for i, j in combinations_with_replacement(of_real, 2)),
        *((near_fake, fake, fake, i, j) for i, j in combinations_with_replacement(of_fake, 2)),
        # last, since they need the radii of all balls
        *((None, fake, real, i, j) for i, j in product(of_fake, of_real)),
    ]
    for near, x, y, i, j in (progress or iter)(tiles):
        rows, columns = slice(i, i + block), slice(j, j + block)
        distances = squared_distances(x[rows], y[columns])
        if near is not None:
            if i == j:
                distances.fill_diagonal_(torch.inf)
            else:
                _keep_nearest(near[columns], distances.T)
            _keep_nearest(near[rows], distances)
            continue
        in_real = distances <= near_real[columns, -1] * BORDER
        in_fake = distances <= near_fake[rows, -1:] * BORDER
        precise[rows] |= in_real.any(1)
        recalled[columns] |= in_fake.any(0)
        covered[columns] |= in_real.any(0)
        balls += in_real.sum().item()
    return {
        "precision": precise.double().mean().item(),
        "recall": recalled.double().mean().item(),
        "density": balls / (k * len(fake)),
        "coverage": covered.double().mean().item(),
    }


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances of features [N, D] and [M, D] -> [N, M] float64, independent of autocast and TF32.

    Example:
        >>> squared_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[25.]], dtype=torch.float64)
    """
    x, y = x.double(), y.double()
    squares = torch.addmm(y.square().sum(1), x, y.T, alpha=-2).add_(x.square().sum(1, keepdim=True))
    return squares.clamp_(min=0)


def _keep_nearest(near: Tensor, distances: Tensor) -> None:
    near.copy_(torch.cat([near, distances], 1).topk(near.shape[1], largest=False).values)


class NeighborScores(FeatureScore, scores=["precision", "recall", "density", "coverage"]):
    """Computes a dict of the four scores."""

    def __init__(self, k: int = 5, block: int = 1024, progress: Progress | None = None, **kwargs: Any) -> None:
        super().__init__("real", "fake", **kwargs)
        self.k, self.block, self.progress = k, block, progress

    def update(self, features: Tensor, real: bool) -> None:
        """features [B, D]"""
        self.keep("real" if real else "fake", features)

    def compute(self) -> dict[str, float]:
        return neighbor_scores(self.kept("real"), self.kept("fake"), self.k, self.block, self.progress)
