"""Sampling from a PixelCNN, one value at a time.

`draw` caches the features of each layer and adds one pixel at a time (Ramachandran et al. 2017, "Fast Generation for
Convolutional Autoregressive Models", https://arxiv.org/abs/1704.06001). `draw_naively` passes the whole image through
the network for each value, and serves as the reference in tests.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genbench.core.progress import steps


def choose(logits: Tensor, u: Tensor) -> Tensor:
    """Inverse-CDF sampling: logits [B, values], uniform u [B] in [0, 1) -> values int64 [B]."""
    cumulated = logits.double().softmax(1).cumsum(1)
    return (u.double()[:, None] >= cumulated).sum(1).clamp(max=logits.shape[1] - 1)


@torch.no_grad()
def draw_naively(net: nn.Module, u: Tensor, label: Tensor | None = None) -> Tensor:
    """Uniform u [B, C, H, W] -> values int64 [B, C, H, W], with a full pass for each of the C·H·W values."""
    x = torch.zeros(u.shape, dtype=torch.int64, device=u.device)
    channels, height, width = u.shape[1:]
    for i in range(height):
        for j in range(width):
            for c in range(channels):
                x[:, c, i, j] = choose(net(x, label)[:, :, c, i, j], u[:, c, i, j])
    return x


@torch.no_grad()
def draw(net: nn.Module, u: Tensor, label: Tensor | None = None) -> Tensor:
    """Sample the same values as `draw_naively`, but compute each layer's features only once per value.

    `net` needs a method `cache`, as in `genbench.networks.pixelcnn.GatedPixelCNN`.
    """
    x = torch.zeros(u.shape, dtype=torch.int64, device=u.device)
    channels, height, width = u.shape[1:]
    cache = net.cache(len(u), width, label)  # type: ignore[operator]  # a method of GatedPixelCNN
    for i in steps(range(height)):
        for j in range(width):
            for c in range(channels):
                logits = cache.logits(x[:, :, i : i + 1, j : j + 1], j)  # [B, C, values]
                x[:, c, i, j] = choose(logits[:, c], u[:, c, i, j])
            cache.note(x[:, :, i : i + 1, j : j + 1], j)
        cache.row(x[:, :, i : i + 1])
    return x
