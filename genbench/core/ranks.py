"""Rank, number of processes, and reductions over processes.

If a model computes state from the batch (averages of a codebook, the strength of an augmentation), each process sees
only a part of the batch. `mean` and `total` return the value for the whole batch in all processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

# the bucket size of DDP: large enough to use the bandwidth, small compared to a model
BUCKET_BYTES = 25 * 2**20


def several() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if several() else 0


def world() -> int:
    return dist.get_world_size() if several() else 1


def total(tensor: Tensor) -> Tensor:
    """The sum over all processes, returned in all processes, without gradient."""
    found = tensor.detach().clone()
    if several():
        dist.all_reduce(found)
    return found


def mean(tensor: Tensor) -> Tensor:
    """The mean over all processes, returned in all processes, without gradient."""
    return total(tensor) / world()


def average_(tensors: list[Tensor]) -> None:
    """Replace each tensor with its mean over all processes. Tensors of one dtype are reduced in buckets."""
    if world() == 1:
        return
    rest = list(tensors)
    while rest:
        bucket: list[Tensor] = []
        size = 0
        while rest and size < BUCKET_BYTES and (not bucket or rest[0].dtype == bucket[0].dtype):
            bucket.append(rest.pop(0))
            size += bucket[-1].numel() * bucket[-1].element_size()
        flat = torch.cat([t.reshape(-1) for t in bucket])
        dist.all_reduce(flat)
        flat /= world()
        pieces = [piece.view(t.shape) for piece, t in zip(flat.split([t.numel() for t in bucket]), bucket, strict=True)]
        torch._foreach_copy_(bucket, pieces)


def gather(parts: list[Any]) -> list[Any]:
    """The parts of all processes, in the order of their ranks."""
    if not several():
        return parts
    everything: list[Any] = [None] * world()
    dist.all_gather_object(everything, parts)
    return [part for each in everything for part in each]


def from_first(value: Any) -> Any:
    """The value of the first process, returned in all processes."""
    if not several():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def first_alone(work: Callable[[], T]) -> T:
    """Run `work` in the first process and then in the others, which reuse its downloads. Errors are raised in all."""
    if rank() > 0:
        from_first(None)
        return work()
    try:
        return work()
    finally:
        from_first(None)
