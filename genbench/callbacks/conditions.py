"""What a conditional model is asked for where nobody asks: pictures and measurements during training."""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.core.batch import Batch
from genbench.core.module import GenerativeModule


def in_turn(module: GenerativeModule, n: int, real: Batch) -> Tensor | None:
    """Labels 0, 1, ..., K - 1, 0, ... int64 [n], or the captions [n, L] of real images, over and over; None for a model
    that takes no condition."""
    if not module.conditional:
        return None
    place = torch.arange(n, device=module.device)
    if module.spec.target == "caption":
        return real.caption.to(module.device)[place % len(real)]
    return place % len(module.spec.classes)
