"""Base classes of the metrics: direction and range from `SCALES`, kept features, checks of the inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genbench.core.errors import UserError
from genbench.metrics.scales import SCALES

ROWS = 4096  # features looked at together, so that a check copies little


def _shared(values: list) -> Any:
    return values[0] if len(set(values)) == 1 else None


class Score(Metric):
    """A torchmetrics metric that only accumulates; a pure function of the same module computes.

    scores  names in `SCALES` of what `compute` returns, in its order. Direction and bounds of the metric are those of
            its scores, or None if these differ. (The inception score and KID return a standard deviation too.)
    """

    scores: ClassVar[tuple[str, ...]] = ()
    is_differentiable = False
    full_state_update = False

    def __init_subclass__(cls, scores: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        scales = [SCALES[name] for name in scores]
        better = _shared([s.better for s in scales])
        cls.scores = tuple(scores)
        cls.higher_is_better = None if better is None else better == "higher"
        cls.plot_lower_bound, cls.plot_upper_bound = (
            None if bound is None or math.isinf(bound) else float(bound)
            for bound in (_shared([s.low for s in scales]), _shared([s.high for s in scales]))
        )


class FeatureScore(Score):
    """A score that needs all features, or all values, at once.

    Under several processes each must have seen one batch of every set.
    """

    def __init__(self, *sets: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in sets:
            self.add_state(name, [], dist_reduce_fx="cat")

    def keep(self, name: str, features: Tensor) -> None:
        getattr(self, name).append(features.detach())

    def kept(self, name: str) -> Tensor:
        """All rows of a set, those of the first process first; [0, 0] if there are none."""
        state = getattr(self, name)
        if isinstance(state, Tensor):  # gathered from all processes
            return state
        return torch.cat(state) if state else torch.zeros(0, 0, device=self.device)


class PerImage(FeatureScore):
    """The mean over images of a function that gives one value per image."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("values", **kwargs)

    def of_each(self, x: Tensor, y: Tensor) -> Tensor:
        """Images [B, C, H, W] and the true ones -> [B]"""
        raise NotImplementedError

    def update(self, x: Tensor, y: Tensor) -> None:
        """x, y [B, C, H, W] in [-1, 1]"""
        self.keep("values", self.of_each(x, y).double())

    def compute(self) -> float:
        values = self.kept("values")
        require(len(values), 1, "reconstructed", "A similarity")
        return values.mean().item()


def require(count: int, least: int, whose: str, score: str) -> None:
    """Raises UserError where there are too few images."""
    if count < least:
        raise UserError(f"{score} needs at least {least} {whose} images; {count} were given.")


def require_finite(features: Tensor, whose: str) -> None:
    """Raises UserError where features [N, ...] hold NaN or infinity, with the number of images that do."""
    bad = sum((~rows.flatten(1).isfinite().all(1)).sum().item() for rows in features.split(ROWS))
    if bad:
        raise UserError(
            f"Features of {whose} images must be finite; those of {bad} of {len(features)} hold NaN or infinity. "
            "Look at the images: they may hold NaN, or the extractor may have run in half precision."
        )
