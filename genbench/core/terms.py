"""Averages the loss terms that a model logs, over steps and processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genbench.core import ranks
from genbench.core.errors import NonFiniteLoss


class Terms:
    """Running sums of named scalars, kept on the device until they are read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor) -> None:
        value = value.detach()
        if name in self.sums:
            self.sums[name].add_(value)
        else:
            self.sums[name] = value.to(torch.promote_types(value.dtype, torch.float32), copy=True)
        self._counts[name] = self._counts.get(name, 0) + 1

    def add_once(self, name: str, measure: Callable[[], Tensor]) -> None:
        """Measure and add a value only once between two calls of `read`, since measuring it is slow.

        A value that is not finite is skipped and measured again at the next call: a gradient scaler may try scales that
        overflow.
        """
        if name not in self._counts:
            value = measure()
            if torch.isfinite(value):
                self.add(name, value)

    def read(self, images_seen: int, *, reset: bool = True) -> dict[str, float]:
        """Means of all terms since the last reset, over all processes, with one synchronization for all terms.

        If a term was infinite or NaN even once since then, its sum is, too.

        Raises:
            NonFiniteLoss: a mean is not finite; raised on all processes, with the term and the images seen.
        """
        if not self.sums:
            return {}
        sums = ranks.mean(torch.stack(list(self.sums.values()))).tolist()
        means = {name: total / self._counts[name] for name, total in zip(self.sums, sums, strict=True)}
        if reset:
            self.sums, self._counts = {}, {}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise NonFiniteLoss(
                    f"The loss is no longer finite: {name} is {mean} at {images_seen:,} images seen. The last "
                    "checkpoint is from before. Try a lower learning rate, `--model.clip_norm 1`, or 32-bit precision."
                )
        return means

    def state_dict(self) -> dict[str, list[Any]]:
        return {name: [total, self._counts[name]] for name, total in self.sums.items()}

    def load_state_dict(self, state: dict[str, list[Any]], device: torch.device) -> None:
        for name, (total, count) in state.items():
            self.sums[name], self._counts[name] = total.to(device), count
