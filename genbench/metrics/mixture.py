"""Scores of generated points for data from a known mixture of Gaussians: the number of modes found, how evenly the
points are spread over the modes, and the fraction of good points.

A point is good if it lies within 3 standard deviations of the nearest mode (Srivastava et al. 2017, "VEEGAN", section
5.1; Lin et al. 2018, "PacGAN", section 4.1). In two dimensions, exp(-9/2) = 1.1% of the real points are not good.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genbench.metrics.classes import shares
from genbench.metrics.score import FeatureScore, require, require_finite

GOOD = 3  # standard deviations


def mixture_statistics(points: Tensor, modes: Tensor, std: float) -> dict[str, float | None]:
    """Compute from points [N, D], for Gaussians with standard deviation `std` around modes [K, D]:

    good_samples   fraction of the points that are good
    modes          number of modes with at least one good point
    class_entropy  entropy of the fractions of good points at each mode, in nats
    mode_kl        KL(fractions || uniform) in nats, equal to log K - class_entropy

    class_entropy and mode_kl are None if no point is good.

    Raises:
        UserError: there are no points, or a point is not finite.

    Example:
        >>> points, modes = torch.tensor([[0.0, 0.1], [9.0, 9.0]]), torch.tensor([[0.0, 0.0], [4.0, 0.0]])
        >>> found = mixture_statistics(points, modes, std=0.1)
        >>> found["good_samples"], found["modes"], round(found["mode_kl"], 4)  # log 2
        (0.5, 1.0, 0.6931)
    """
    require(len(points), 1, "generated", "A statistic of modes")
    require_finite(points, "generated")
    # computed from differences, since the expanded form |p|² - 2pm + |m|² loses most digits of float32 near a mode
    squared = torch.stack([(points - mode).square().sum(1) for mode in modes.to(points)], 1)  # [N, K]
    distance, mode = squared.min(1)
    good = mode[distance <= (GOOD * std) ** 2].bincount(minlength=len(modes))  # [K]
    return {"good_samples": good.sum().item() / len(points), **shares(good)}


class MixtureStatistics(FeatureScore, scores=["good_samples", "modes", "class_entropy", "mode_kl"]):
    """Computes a dict of the four scores."""

    def __init__(self, modes: Tensor, std: float, **kwargs: Any) -> None:
        super().__init__("points", **kwargs)
        self.modes, self.std = modes, std

    def update(self, points: Tensor) -> None:
        """points [B, D]"""
        self.keep("points", points)

    def compute(self) -> dict[str, float | None]:
        return mixture_statistics(self.kept("points"), self.modes, self.std)
