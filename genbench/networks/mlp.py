"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


def mlp(widths: Sequence[int], slope: float = 0.0) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them: [B, widths[0]] -> [B, widths[-1]].

    slope  negative slope; if not 0, LeakyReLU is used
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


class ToUnitRange(nn.Module):
    """[-1, 1] -> [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1) / 2
