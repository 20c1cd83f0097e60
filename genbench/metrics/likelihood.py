"""Likelihoods in the unit in which papers compare them."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Tensor

from genbench.core.errors import UserError
from genbench.metrics.score import Score, require

Nats = TypeVar("Nats", Tensor, float)


def bits_per_dim(nats: Nats, dims: int) -> Nats:
    """-log2 p(x) / dims from log p(x) in nats, [B] or one number; dims = C·H·W.

    Only values of one pixel measure compare. Probabilities of black and white or of 8-bit pixels give at least 0; a
    uniform guess of 256 levels gives 8. A density of levels in [0, 256), dequantized by uniform noise, is an upper
    bound of the 8-bit value (Theis et al. 2016, section 3.1). In [-1, 1] levels are 2/255 apart, and a density there
    lacks log2(127.5) = 6.99 bits per dimension: pass nats - dims * log(127.5).

    Example:
        >>> round(bits_per_dim(784 * math.log(1 / 256), 784), 6)
        8.0
    """
    return -nats / (dims * math.log(2))


class BitsPerDim(Score, scores=["bits_per_dim"]):
    """Mean over images."""

    nats: Tensor
    count: Tensor

    def __init__(self, dims: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = dims
        self.add_state("nats", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, nats: Tensor) -> None:
        """nats [B], log p(x) per image"""
        if bad := int((~nats.isfinite()).sum()):
            raise UserError(f"Likelihoods must be finite; those of {bad} of {len(nats)} images are NaN or infinite.")
        self.nats += nats.double().sum()
        self.count += len(nats)

    def compute(self) -> Tensor:
        require(int(self.count), 1, "held-out", "A likelihood")
        return bits_per_dim(self.nats / self.count, self.dims)
