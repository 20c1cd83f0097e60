"""Memorization: whether generated images copy training images, measured by nearest neighbors in feature space.

Authenticity: Alaa et al. 2022, "How Faithful is your Synthetic Data? Sample-level Metrics for Evaluating and Auditing
Generative Models".
"""

from __future__ import annotations

from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor

from genbench.core.errors import UserError
from genbench.metrics.neighbors import Progress, squared_distances
from genbench.metrics.score import FeatureScore, require, require_finite


def memorization(
    fake: Tensor, train: Tensor, held_out: Tensor | None = None, block: int = 1024, progress: Progress | None = None
) -> dict[str, float]:
    """Compute from the features of generated images [N, D], training images [T, D] and held-out images [H, D]:

    nearest_train        median distance of a generated image to its nearest training image
    nearest_train_ratio  nearest_train divided by the same median for held-out images; below 1 indicates copies
    authenticity         fraction of generated images that are farther from their nearest training image than that
                         training image is from its own nearest training image

    Distances are computed in tiles of `block` rows. There are two nearest-neighbor searches, or three with held-out
    images; in each search, `progress` wraps the list of tiles.

    Example:
        >>> memorization(torch.tensor([[0.0]]), train=torch.tensor([[0.0], [1.0]]))  # a copy
        {'nearest_train': 0.0, 'authenticity': 0.0}
    """
    require(len(train), 2, "training", "A score of memorization")
    for features, whose in ((fake, "generated"), (train, "training"), (held_out, "held-out")):
        if features is not None:
            require(len(features), 1, whose, "A score of memorization")
            require_finite(features, whose)
    match = _nearest(fake, train, block, progress)
    to_train = _distances(fake, train, match)
    matched, which = match.unique(return_inverse=True)  # only these training images need their own neighbors
    others = _nearest(train[matched], train, block, progress, skip=matched)
    within_train = _distances(train, train, others, matched)[which]
    scores = {"nearest_train": to_train.quantile(0.5).item()}
    if held_out is not None:
        usual = _distances(held_out, train, _nearest(held_out, train, block, progress)).quantile(0.5).item()
        if usual == 0:
            raise UserError("At least half of the held-out images are also training images. Hold out different images.")
        scores["nearest_train_ratio"] = scores["nearest_train"] / usual
    return scores | {"authenticity": (to_train > within_train).double().mean().item()}


def _nearest(x: Tensor, y: Tensor, block: int, progress: Progress | None, skip: Tensor | None = None) -> Tensor:
    """For each row of x [N, D], the nearest row of y [M, D] -> [N]. Row `skip[i]` of y is excluded for row i of x."""
    best = x.new_full((len(x),), torch.inf, dtype=torch.float64)
    nearest = torch.zeros(len(x), dtype=torch.long, device=x.device)
    for i, j in (progress or iter)(list(product(range(0, len(x), block), range(0, len(y), block)))):
        rows = slice(i, i + block)
        distances = squared_distances(x[rows], y[j : j + block])
        if skip is not None:
            columns = torch.arange(j, j + distances.shape[1], device=x.device)
            distances.masked_fill_(skip[rows, None] == columns, torch.inf)
        value, column = distances.min(1)
        nearest[rows] = torch.where(value < best[rows], column + j, nearest[rows])
        best[rows] = torch.minimum(value, best[rows])
    return nearest


def _distances(x: Tensor, y: Tensor, match: Tensor, rows: Tensor | None = None) -> Tensor:
    """Distances of the rows of x to their match in y -> [N] float64; computed directly, so that a copy gives exactly
    0."""
    rows = torch.arange(len(x), device=x.device) if rows is None else rows
    pairs = zip(rows.split(1024), match.split(1024), strict=True)
    return torch.cat([(x[i].double() - y[j].double()).norm(dim=1) for i, j in pairs])


class Memorization(FeatureScore, scores=["nearest_train", "nearest_train_ratio", "authenticity"]):
    """Computes a dict of the three scores, without nearest_train_ratio if there are no held-out images."""

    def __init__(self, block: int = 1024, progress: Progress | None = None, **kwargs: Any) -> None:
        super().__init__("fake", "train", "held_out", **kwargs)
        self.block, self.progress = block, progress

    def update(self, features: Tensor, which: Literal["fake", "train", "held_out"]) -> None:
        """features [B, D]"""
        self.keep(which, features)

    def compute(self) -> dict[str, float]:
        fake, train, held_out = (self.kept(name) for name in ("fake", "train", "held_out"))
        return memorization(fake, train, held_out if len(held_out) else None, self.block, self.progress)
