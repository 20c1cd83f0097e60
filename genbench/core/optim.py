"""Optimizers and learning-rate schedules from a class path and its arguments."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from genbench.core.errors import UserError, did_you_mean

KIMG = 1000  # images to one step of a schedule


class LinearDecay(LRScheduler):
    """The full rate up to step `start`, and from there on a straight line to none at step `end`."""

    def __init__(self, optimizer: Optimizer, start: int, end: int, last_epoch: int = -1) -> None:
        if not 0 <= start < end:
            raise ValueError(f"start is {start} and end is {end}, which must come after it")
        self.start, self.end = start, end
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        left = min(1.0, max(0.0, (self.end - self.last_epoch) / (self.end - self.start)))
        return [rate * left for rate in self.base_lrs]


def merge(base: dict[str, Any] | None, change: dict[str, Any] | None) -> dict[str, Any] | None:
    """`change` over `base`; where the class changes, the arguments of the old one are dropped."""
    if not base or not change:
        return change or base
    return change if change.get("class_path", base["class_path"]) != base["class_path"] else base | change


def loaded_class(class_path: str, base: type, what: str) -> type:
    """The class of that path, if its module is loaded: a path in a checkpoint must not cause an import.

    `Adam` alone is looked up in torch.optim.
    """
    module, _, name = class_path.rpartition(".")
    for place in [module] if module else ["torch.optim", "torch.optim.lr_scheduler"]:
        found = getattr(sys.modules.get(place), name, None)
        if inspect.isclass(found) and issubclass(found, base):
            return found
    raise UserError(
        f"{what}: no {base.__name__} '{class_path}' is loaded. Those of PyTorch are torch.optim.Adam, "
        "torch.optim.lr_scheduler.CosineAnnealingLR and so on; name the module of your own with `--import my.module`."
    )


def _call(cls: type, first: Any, arguments: dict[str, Any], what: str) -> Any:
    known = [p for p in inspect.signature(cls.__init__).parameters if p not in ("self", "params", "optimizer")]
    for name in arguments:
        if name not in known:
            near = did_you_mean(name, known)
            raise UserError(f"{what}: {cls.__name__} has no argument '{name}'; it has {', '.join(known)}.{near}")
    try:
        return cls(first, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"{what}: {cls.__name__} refused its arguments {arguments}: {error}.") from error


def _checked(description: dict[str, Any], what: str) -> tuple[str, dict[str, Any]]:
    arguments = dict(description)
    class_path = arguments.pop("class_path", None)
    if not isinstance(class_path, str):
        raise UserError(
            f"{what}: give a `class_path` and the class's arguments, such as {{class_path: torch.optim.Adam, lr: "
            f"0.001}}; given was {description}."
        )
    return class_path, arguments


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    description: dict[str, Any],
    player: str,
    device: torch.device,
    *,
    fused: bool,
) -> Optimizer:
    """The player's optimizer; in its fused form where it has one and `fused` allows it.

    A fused optimizer unscales fp16 gradients inside its step, where they can no longer be clipped.
    """
    what = f"The optimizer of player '{player}'"
    class_path, arguments = _checked(description, what)
    cls = loaded_class(class_path, Optimizer, what)
    if not fused and arguments.get("fused"):
        raise UserError(
            f"{what}: `fused: true` cannot be used with fp16: it unscales gradients inside its step, after clipping. "
            "Leave `fused` out, or use bf16-mixed."
        )
    has_fused = "fused" in inspect.signature(cls.__init__).parameters
    if has_fused and fused and device.type in ("cpu", "cuda") and not arguments.keys() & {"fused", "foreach"}:
        arguments["fused"] = True
    if isinstance(arguments.get("betas"), list):
        arguments["betas"] = tuple(arguments["betas"])
    return _call(cls, list(parameters), arguments, what)


def build_schedule(optimizer: Optimizer, description: dict[str, Any] | None, player: str) -> LRScheduler | None:
    """The player's learning-rate schedule, one step of which is 1,000 images seen; None for a constant rate."""
    if not description:
        return None
    what = f"The schedule of player '{player}'"
    class_path, arguments = _checked(description, what)
    return _call(loaded_class(class_path, LRScheduler, what), optimizer, arguments, what)


def advance_schedule(schedule: LRScheduler, images_seen: int) -> None:
    """Bring the schedule to where a run of so many images has it."""
    while schedule.last_epoch < images_seen // KIMG:
        schedule.step()
