"""Corruptions of the input of a denoising autoencoder (Vincent et al. 2010, section 3.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from genbench.core.noise import Draws

Corruption = Literal["gaussian", "masking", "salt_and_pepper"]


def corrupt(x: Tensor, corruption: Corruption, amount: float, draw: Draws) -> Tensor:
    """[B, ...] -> the same shape.

    gaussian         add noise with standard deviation `amount` to each value
    masking          set a fraction `amount` of the pixels to black, -1, in all channels
    salt_and_pepper  set a fraction `amount` of the pixels to black or white, with probability 1/2 each
    """
    if corruption == "gaussian":
        return x + amount * draw(torch.randn, *x.shape).to(x.dtype)
    u = draw(torch.rand, len(x), 1, *x.shape[2:])  # [B, 1, H, W]
    if corruption == "masking":
        return torch.where(u < amount, -1.0, x)
    return torch.where(u < amount / 2, -1.0, torch.where(u < amount, 1.0, x))
