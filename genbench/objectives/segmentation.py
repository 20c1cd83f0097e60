"""Losses of semantic segmentation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from genbench.core.precision import to_float32


def dice_loss(logits: Tensor, mask: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - Dice coefficient, for logits [B, K, H, W] and mask int64 [B, H, W] -> scalar.

    The Dice coefficient is the mean over classes of 2 Σ p q / (Σ p² + Σ q²), with sums over the batch (Milletari, Navab
    & Ahmadi, "V-Net", 3DV 2016, section 3). `smooth` is added to the numerator and the denominator, so that the loss of
    a class that is neither present nor predicted is 0.
    """
    p = to_float32(logits).softmax(1)
    q = one_hot(mask, logits.shape[1]).movedim(-1, 1).to(p.dtype)
    overlap, both = (p * q).sum((0, 2, 3)), (p.square() + q).sum((0, 2, 3))
    return 1 - torch.mean((2 * overlap + smooth) / (both + smooth))
