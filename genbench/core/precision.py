"""Losses are computed in float32 at least, whatever autocast made of the network's output."""

from __future__ import annotations

import torch
from torch import Tensor


def full(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
