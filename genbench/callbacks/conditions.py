"""What a conditional model is asked for where nobody asks: pictures and measurements during training."""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.core.batch import Batch
from genbench.core.module import GenerativeModule


def in_turn(module: GenerativeModule, n: int, real: Batch | None = None) -> Tensor | None:
    """Labels 0, 1, ..., K - 1, 0, ... int64 [n], or the captions [n, L] of real images, over and over; None for a model
    that takes no condition."""
    if not module.conditional:
        return None
    place = torch.arange(n, device=module.device)
    if module.spec.target == "caption":
        assert real is not None and real.caption is not None, "captions are those of real images"
        return real.caption.to(module.device)[place % len(real)]
    return place % len(module.spec.classes)


def columns(module: GenerativeModule) -> int | None:
    """Of a grid of classes in turn: one for each class, if they are few; None where it is as any other grid."""
    by_class = module.conditional and module.spec.target == "label" and len(module.spec.classes) <= 16
    return len(module.spec.classes) if by_class else None
