"""Default conditions for samples of a conditional model during training."""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.core.batch import Batch
from genbench.core.module import GenerativeModule


def in_turn(module: GenerativeModule, n: int, real: Batch | None = None) -> Tensor | None:
    """Conditions for `n` samples; None for an unconditional model.

    int64 labels [n]: 0, 1, ..., K - 1, 0, ...; or the captions [n, L] of real images, repeated.
    """
    if not module.conditional:
        return None
    place = torch.arange(n, device=module.device)
    if module.spec.target == "caption":
        assert real is not None and real.caption is not None, "captions come from real images"
        return real.caption.to(module.device)[place % len(real)]
    return place % len(module.spec.classes)


def columns(module: GenerativeModule) -> int | None:
    """Columns of a grid of samples: one per class for at most 16 classes; None for a square grid."""
    by_class = module.conditional and module.spec.target == "label" and len(module.spec.classes) <= 16
    return len(module.spec.classes) if by_class else None
