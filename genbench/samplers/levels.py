"""Noise levels that a sampler steps through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genbench.core.arguments import Steps, refuse
from genbench.core.errors import UserError

Spacing = Literal["trailing", "leading", "linspace"]


@dataclass(frozen=True)
class Levels:
    """Noise levels in the order of sampling, from the noisiest to the last: noisy images are alpha·x + sigma·noise.

    time   the model's own times, float64 [n + 1]
    alpha  float64 [n + 1]
    sigma  float64 [n + 1]; the last is 0, unless sampling stops earlier
    """

    time: Tensor
    alpha: Tensor
    sigma: Tensor

    def __len__(self) -> int:
        """The number of steps, n."""
        return len(self.time) - 1


def time_steps(total: int, steps: int, spacing: Spacing = "trailing") -> Tensor:
    """`steps` of the time steps 0, ..., total - 1, descending: int64 [steps].

    trailing  the last of each of `steps` equal parts; it contains the noisiest step, total - 1 (Lin et al. 2024,
              "Common Diffusion Noise Schedules and Sample Steps are Flawed", table 2)
    leading   the first of each part, of whole length; it contains step 0, but not the noisiest step (Song et al.
              2021, DDIM)
    linspace  from total - 1 to 0 at equal distances (Nichol & Dhariwal 2021)

    Example:
        >>> time_steps(1000, 4).tolist(), time_steps(1000, 4, "leading").tolist()
        ([999, 749, 499, 249], [750, 500, 250, 0])

    Raises:
        UserError: `steps` is not a whole number from 1 to `total`, or the spacing is unknown.
    """
    refuse("steps", steps, Steps)
    if steps > total:
        raise UserError(f"steps is {steps}; this model has {total:,} time steps, so it must be at most {total}.")
    k = torch.arange(steps, dtype=torch.float64)
    if spacing == "trailing":
        found = ((k + 1) * total / steps).round().long() - 1
    elif spacing == "leading":
        found = k.long() * (total // steps)
    elif spacing == "linspace":
        found = (k * (total - 1) / max(1, steps - 1)).round().long() if steps > 1 else torch.tensor([total - 1])
    else:
        raise UserError(f"spacing is '{spacing}'. Choose from: trailing, leading, linspace.")
    return found.flip(0)


def discrete_levels(alpha: Tensor, sigma: Tensor, steps: int, spacing: Spacing = "trailing") -> Levels:
    """Levels at `steps` of the time steps of a model with discrete time, followed by clean images (time -1).

    Args:
        alpha, sigma: Of all time steps, float64 [total]

    Raises:
        UserError: as in `time_steps`.
    """
    t = time_steps(len(alpha), steps, spacing)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return Levels(torch.cat([t.double(), -one]), torch.cat([alpha[t], one]), torch.cat([sigma[t], zero]))
