"""Which of how many processes this is, and what all of them hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def several() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if several() else 0


def world() -> int:
    return dist.get_world_size() if several() else 1


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
