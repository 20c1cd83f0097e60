"""Base classes of the metrics. They take direction and range from `SCALES`, store features and check inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genbench.core.errors import UserError
from genbench.metrics.scales import SCALES

ROWS = 4096  # rows checked at once, which limits the memory of a check


def _shared(values: list) -> Any:
    return values[0] if len(set(values)) == 1 else None


class Score(Metric):
    """A torchmetrics metric that only accumulates inputs. A pure function in the same module computes the score.

    scores  names in `SCALES` of the values that `compute` returns, in the same order. The direction and bounds of the
            metric are those of its scores, or None if they differ. (The inception score and KID also return a standard
            deviation.)
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

    With several processes, each process must have seen at least one batch of every set.
    """

    def __init__(self, *sets: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in sets:
            self.add_state(name, [], dist_reduce_fx="cat")

    def keep(self, name: str, features: Tensor) -> None:
        getattr(self, name).append(features.detach())

    def kept(self, name: str) -> Tensor:
        """All rows of a set, process by process; an empty tensor of shape [0, 0] if there are none."""
        state = getattr(self, name)
        if isinstance(state, Tensor):  # gathered from all processes
            return state
        return torch.cat(state) if state else torch.zeros(0, 0, device=self.device)


class PerImage(FeatureScore):
    """The mean over images of a function that returns one value per image."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("values", **kwargs)

    def of_each(self, x: Tensor, y: Tensor) -> Tensor:
        """Model outputs x and true images y, [B, C, H, W] each -> [B]"""
        raise NotImplementedError

    def update(self, x: Tensor, y: Tensor) -> None:
        """x, y [B, C, H, W] in [-1, 1]"""
        self.keep("values", self.of_each(x, y).double())

    def compute(self) -> float:
        values = self.kept("values")
        require(len(values), 1, "reconstructed", "A similarity")
        return values.mean().item()


def require(count: int, least: int, whose: str, score: str) -> None:
    """Raise UserError if there are fewer than `least` images."""
    if count < least:
        raise UserError(f"{score} needs at least {least} {whose} images; got {count}.")


def require_finite(features: Tensor, whose: str) -> None:
    """Raise UserError if features [N, ...] contain NaN or infinity. The message contains the number of such images."""
    bad = sum((~rows.flatten(1).isfinite().all(1)).sum().item() for rows in features.split(ROWS))
    if bad:
        raise UserError(
            f"Features of {whose} images must be finite, but those of {bad} of {len(features)} images contain NaN or "
            "infinity. Check the images for NaN, and whether the extractor ran in half precision."
        )
