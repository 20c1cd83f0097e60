"""Flow matching on straight paths: Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023,
https://arxiv.org/abs/2210.02747; Liu et al., "Flow Straight and Fast", ICLR 2023, https://arxiv.org/abs/2209.03003.

Here t = 0 is an image and t = 1 is noise, as in Esser et al. 2024; the first two papers count in the other direction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from genbench.core.precision import to_float32

Net = Callable[[Tensor, Tensor], Tensor]
Times = Literal["uniform", "logit_normal"]


def draw_times(kind: Times, count: int, draw: Callable[..., Tensor]) -> Tensor:
    """Random times [count] in (0, 1), uniform or logistic functions of normal numbers (Esser et al. 2024, section
    3.1)."""
    return draw(torch.rand, count) if kind == "uniform" else torch.sigmoid(draw(torch.randn, count))


def paths(x: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Points at times [B] on the lines from images to noise [B, ...], and their velocity noise - image."""
    x, noise = to_float32(x), to_float32(noise)
    t = t.view(-1, *(1,) * (x.ndim - 1)).to(x.dtype)
    return (1 - t) * x + t * noise, noise - x


def loss(net: Net, x: Tensor, noise: Tensor, t: Tensor) -> dict[str, Tensor]:
    """The squared error of the velocity at times [B]: images and noise [B, ...] -> [B] (Lipman et al. 2023, equation
    23)."""
    point, velocity = paths(x, noise, t)
    return {"mse": (to_float32(net(point, t.float())) - velocity).square().flatten(1).mean(1)}


def pair(x: Tensor, noise: Tensor) -> Tensor:
    """Order the noise so that the sum of squared distances to the images of the batch is the least: minibatch optimal
    transport (Tong et al. 2024, "Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal
    Transport"), [B, ...] -> [B, ...]."""
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x.flatten(1).float(), noise.flatten(1).float()).square()
    _, chosen = linear_sum_assignment(cost.cpu().numpy())
    return noise[torch.from_numpy(chosen).to(noise.device)]
