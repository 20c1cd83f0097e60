"""Which of how many processes this is, and what all of them hold.

A model whose state is made from the batch (averages of a codebook, the strength of an augmentation) has a share of the
batch in each process: `mean` and `total` give what the whole batch says, the same in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

# as large as DDP's own first buckets grow: enough to fill the link, small beside a model
BUCKET_BYTES = 25 * 2**20


def several() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if several() else 0


def world() -> int:
    return dist.get_world_size() if several() else 1


def total(tensor: Tensor) -> Tensor:
    """The sum over all processes, the same in all of them; no gradient passes."""
    found = tensor.detach().clone()
    if several():
        dist.all_reduce(found)
    return found


def mean(tensor: Tensor) -> Tensor:
    """The mean over all processes, the same in all of them; no gradient passes."""
    return total(tensor) / world()


def average_(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in buckets of one dtype."""
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
    """What the first process holds, in all of them."""
    if not several():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def first_alone(work: Callable[[], T]) -> T:
    """Done by the first process, then by the others: what it fetches, they find. An error is raised in all."""
    if rank() > 0:
        from_first(None)
        return work()
    try:
        return work()
    finally:
        from_first(None)
