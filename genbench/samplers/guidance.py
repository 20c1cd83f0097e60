"""Guidance: the difference between two predictions is increased."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from genbench.core.passes import count_passes

Net = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # network(x, time, condition)


def guided(
    net: Net,
    condition: Tensor | None,
    weight: float = 1.0,
    null: Tensor | None = None,
    guide: Net | None = None,
    active: Callable[[float], bool] = lambda time: True,
    values: int | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """A network without condition argument, whose output is weak + weight·(net - weak).

    The weak output is that of the same network for the null condition, in one call (classifier-free guidance, Ho &
    Salimans 2022, with their w + 1 as `weight`); or that of `guide` for the same condition (autoguidance, Karras et al.
    2024, "Guiding a Diffusion Model with a Bad Version of Itself"). Weight 1 means no guidance.

    Args:
        net, guide: Networks of noisy images [n, ...], times [n] and conditions
        condition: Labels [n] or captions [n, L]
        null: The null condition, in the shape of `condition`
        active: Whether a time of the network is in the interval of guidance (Kynkäänniemi et al. 2024)
        values: Number of output channels that are guided; the others are those of `net`. Default: all
    """

    def call(x: Tensor, time: Tensor) -> Tensor:
        if weight == 1 or not active(float(time[0])):
            return net(x, time, condition)
        if guide is not None:
            strong, weak = net(x, time, condition), guide(x, time, condition)
            if isinstance(net, nn.Module):
                count_passes(net, len(x))  # the guide is not a network of the model
        else:
            assert condition is not None and null is not None, "classifier-free guidance needs a condition"
            both = torch.cat([condition, null])
            strong, weak = net(torch.cat([x, x]), torch.cat([time, time]), both).chunk(2)
        found = weak + weight * (strong - weak)
        return found if values is None else torch.cat([found[:, :values], strong[:, values:]], 1)

    return call
