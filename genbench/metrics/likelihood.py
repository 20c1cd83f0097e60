"""Likelihoods in nats and in bits per dimension."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from torch import Tensor

from genbench.core.errors import UserError
from genbench.metrics.score import PerImage, require

Nats = TypeVar("Nats", Tensor, float)


def bits_per_dim(nats: Nats, dims: int) -> Nats:
    """-log2 p(x) / dims from log p(x) in nats, [B] or one number; dims = C·H·W.

    Values are comparable only for the same kind of pixels. Probabilities of binary or 8-bit pixels give at least 0; a
    uniform distribution over 256 levels gives 8. The density of uniformly dequantized levels in [0, 256) gives an upper
    bound of the 8-bit value (Theis et al. 2016, section 3.1). For a density in [-1, 1], where levels are 2/255 apart,
    pass nats - dims * log(127.5), which adds log2(127.5) = 6.99 bits per dimension.

    Example:
        >>> round(bits_per_dim(784 * math.log(1 / 256), 784), 6)
        8.0
    """
    return -nats / (dims * math.log(2))


class Likelihood(PerImage, scores=["nats", "bits_per_dim"]):
    """Computes a dict of nats and bits_per_dim, means over images of `dims` numbers."""

    def __init__(self, dims: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = dims

    def update(self, nats: Tensor) -> None:  # type: ignore[override]
        """nats: log p(x) per image, [B]"""
        self.keep("values", nats.double())

    def compute(self) -> dict[str, float]:  # type: ignore[override]
        nats = self.kept("values")
        require(len(nats), 1, "held-out", "A likelihood")
        if bad := int((~nats.isfinite()).sum()):
            raise UserError(f"The likelihoods of {bad} of {len(nats)} images are NaN or infinite.")
        mean = nats.mean().item()
        return {"nats": mean, "bits_per_dim": bits_per_dim(mean, self.dims)}
