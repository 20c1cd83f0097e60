"""Precision of float32 operations: full for losses, optionally TF32 for training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

# PyTorch 2.9 added a switch for each kind of operation to the two older switches. If they disagree, reading the older
# switches raises an error, so all switches are set.
KINDS = (("cuda", "matmul"), ("cudnn", "conv"), ("cudnn", "rnn"), ("mkldnn", "matmul"), ("mkldnn", "conv"),
         ("mkldnn", "rnn"))  # fmt: skip


def to_float32(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is float64."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 for float32 matrix multiplications and convolutions, with all switches of this PyTorch."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    for switch in _switches():
        switch.fp32_precision = "tf32" if allowed else "ieee"


@contextmanager
def without_tf32() -> Iterator[None]:
    """Disable TF32 and bfloat16 inside, and restore every switch afterwards."""
    matmul = convolution = None
    with suppress(RuntimeError):  # an older switch disagrees with a new switch
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        convolution = torch.backends.cudnn.allow_tf32
    before = [(switch, switch.fp32_precision) for switch in _switches()]
    allow_tf32(False)
    try:
        yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if convolution is not None:
            torch.backends.cudnn.allow_tf32 = convolution
        for switch, value in before:
            switch.fp32_precision = value


def _switches() -> list[Any]:
    """The new switches that this version of PyTorch has."""
    found = (getattr(getattr(torch.backends, backend), kind, None) for backend, kind in KINDS)
    return [switch for switch in found if hasattr(switch, "fp32_precision")]
