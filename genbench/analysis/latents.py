"""Latent codes of trained models: encoding and decoding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genbench.core.capabilities import takes_condition


@torch.no_grad()
def encode(model: Any, x: Tensor, condition: Tensor | None = None) -> Tensor:
    """Images [B, C, H, W] in [-1, 1] -> codes [B, *latent_shape].

    Args:
        condition: Labels [B], for a model whose encoder takes them; otherwise ignored
    """
    return model.encode(x, condition=condition) if takes_condition(model.encode) else model.encode(x)


@torch.no_grad()
def decode(model: Any, z: Tensor, condition: Tensor | None = None) -> Tensor:
    """Codes [B, *latent_shape] -> images [B, C, H, W] in [-1, 1].

    Args:
        condition: Labels [B] or captions [B, L], for a model whose decoder takes them; otherwise ignored
    """
    return model.decode(z, condition=condition) if takes_condition(model.decode) else model.decode(z)
