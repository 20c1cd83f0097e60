"""Optimizers and learning-rate schedules from a class path and its arguments."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from genbench.core.arguments import Count, Whole
from genbench.core.class_paths import find, same_class
from genbench.core.errors import UserError, did_you_mean
from genbench.core.units import Images

ADAM = {"class_path": "torch.optim.Adam", "lr": 1e-3}
# Radford et al. 2016, section 4; also pix2pix (section 3.3), GAN-CLS (section 5) and CycleGAN (section 4)
GAN_ADAM = {"class_path": "torch.optim.Adam", "lr": 2e-4, "betas": [0.5, 0.999]}
KIMG = 1000  # images for one step of a schedule


class LinearDecay(LRScheduler):
    """The full rate up to step `start`, then linear decay to 0 at step `end`."""

    def __init__(self, optimizer: Optimizer, start: Whole, end: Count, last_epoch: int = -1) -> None:
        if not 0 <= start < end:
            raise ValueError(f"start is {start} and end is {end}, which must come after it")
        self.start, self.end = start, end
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        left = min(1.0, max(0.0, (self.end - self.last_epoch) / (self.end - self.start)))
        return [rate * left for rate in self.base_lrs]


class WarmupDecay:
    """A learning rate that rises from 0, stays constant, and falls: a function of images seen and budget.

    Args:
        optimizer: Its learning rates are those between warmup and decay
        budget: Images of the run; if None, all settings must be numbers of images
        warmup: End of the linear warmup
        decay_from: Start of the decay; default: no decay
        decay_to: End of the decay; default: the end of the budget
        decay: linear, or cosine: half a period (Loshchilov & Hutter 2017, equation 5)
        final: The final rate, as a fraction of the full one

    A number up to 1 is a fraction of the budget; a larger number, or one such as `50k`, is a number of images.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        budget: int | None = None,
        warmup: float | str = 0,
        decay_from: float | str | None = None,
        decay_to: float | str = 1.0,
        decay: Literal["linear", "cosine"] = "linear",
        final: float = 0.0,
    ) -> None:
        self.optimizer, self.rates = optimizer, [group["lr"] for group in optimizer.param_groups]
        self.warmup = _at("warmup", warmup, budget)
        self.decay_from, self.decay_to, self.decay, self.final = math.inf, math.inf, decay, final
        if decay_from is not None:
            self.decay_from, self.decay_to = _at("decay_from", decay_from, budget), _at("decay_to", decay_to, budget)
        if decay not in ("linear", "cosine"):
            raise ValueError(f"decay is {decay!r}; it must be linear or cosine")
        if not _is_number(final) or not 0 <= final <= 1:
            raise ValueError(f"final is {final!r}; it must be a fraction of the full rate, from 0 to 1")
        if decay_from is not None and not self.warmup <= self.decay_from < self.decay_to:
            raise ValueError(
                f"the rate rises for {self.warmup:,.0f} images, falls from {self.decay_from:,.0f} on and is at its "
                f"final value at {self.decay_to:,.0f}; each must come after the one before"
            )

    def factor(self, images_seen: int) -> float:
        """The fraction of the full rate after so many images."""
        if images_seen < self.warmup:
            return images_seen / self.warmup
        if images_seen <= self.decay_from:
            return 1.0
        done = min(1.0, (images_seen - self.decay_from) / (self.decay_to - self.decay_from))
        left = 1 - done if self.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.final + (1 - self.final) * left

    def advance(self, images_seen: int) -> None:
        """Set the learning rates for this number of images seen."""
        factor = self.factor(images_seen)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor


class Stepped:
    """A schedule of PyTorch or of the user; one of its steps is 1,000 images seen."""

    def __init__(self, scheduler: LRScheduler, what: str) -> None:
        self.scheduler, self.what = scheduler, what

    def advance(self, images_seen: int) -> None:
        """Step until the schedule is at this number of images seen.

        Raises:
            UserError: it cannot take so many steps, or a step needs more than the images seen.
        """
        with warnings.catch_warnings():
            # a resumed run steps its schedule before its optimizer
            warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step\(\).*")
            while self.scheduler.last_epoch < images_seen // KIMG:
                try:
                    self.scheduler.step()
                except (TypeError, ValueError) as error:
                    raise UserError(
                        f"{self.what}: {type(self.scheduler).__name__} cannot take its step number "
                        f"{self.scheduler.last_epoch + 1} ({error}). One of its steps is {KIMG:,} images: choose a "
                        "schedule that depends on the images seen alone and lasts to the end of the budget."
                    ) from error


Schedule = WarmupDecay | Stepped


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _at(name: str, value: Any, budget: int | None) -> float:
    """A setting as a number of images: of a fraction of the budget, or a number of images."""
    if _is_number(value) and 0 <= value <= 1:
        if value and budget is None:
            raise ValueError(
                f"{name} is {value}, a fraction of the budget, which is unknown: give the Trainer a MaxImages, or "
                "write a number of images"
            )
        return value * (budget or 0)
    try:
        if isinstance(value, bool):
            raise ValueError
        return int(Images(value))
    except ValueError:
        raise ValueError(
            f"{name} is {value!r}; a fraction of the budget from 0 to 1, or a number of images such as 50k was expected"
        ) from None


def merge(base: dict[str, Any] | None, change: dict[str, Any] | None) -> dict[str, Any] | None:
    """`base` updated with `change`; if the class changes, the arguments of the old one are dropped."""
    if not base or not change:
        return change or base
    if "class_path" not in change:
        return base | change
    given, before = change["class_path"], base.get("class_path")
    return change if not same_class(given, before) else base | change | {"class_path": before}


def loaded_class(class_path: str, base: type[Any], what: str) -> type:
    """The class of a path, if its module is loaded: a path in a checkpoint must not cause an import.

    A short name, such as `Adam`, is looked up in torch.optim.
    """
    if (found := find(class_path, base, ("torch.optim", "torch.optim.lr_scheduler", __name__))) is not None:
        return found
    name = class_path.rpartition(".")[2]
    raise UserError(
        f"{what}: no {base.__name__} '{class_path}' is loaded. Those of PyTorch are torch.optim.Adam, "
        "torch.optim.lr_scheduler.CosineAnnealingLR and so on; name the module of your own with `--import my.module`."
        + did_you_mean(name, [known.__name__ for known in base.__subclasses__()])
    )


def _call(cls: type, first: Any, arguments: dict[str, Any], what: str, **own: Any) -> Any:
    known = [
        name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "params", "optimizer", *own)
    ]
    for name in arguments:
        if name not in known:
            near = did_you_mean(name, known)
            raise UserError(f"{what}: {cls.__name__} has no argument '{name}'; it has {', '.join(known)}.{near}")
    try:
        return cls(first, **own, **arguments)
    except Exception as error:  # a class may raise anything for wrong arguments
        raise UserError(f"{what}: {cls.__name__} refused its arguments {arguments}: {error}.") from error


def _checked(description: dict[str, Any], what: str) -> tuple[str, dict[str, Any]]:
    arguments = dict(description)
    class_path = arguments.pop("class_path", None)
    if not isinstance(class_path, str):
        raise UserError(
            f"{what}: give a `class_path` and the class's arguments, such as {{class_path: torch.optim.Adam, lr: "
            f"0.001}}; got {description}."
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
    """The player's optimizer; in its fused form if it has one and `fused` allows it.

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


def build_schedule(
    optimizer: Optimizer, description: dict[str, Any] | None, player: str, budget: int | None = None
) -> Schedule | None:
    """The player's learning-rate schedule; None for a constant rate.

    Without a class path it is a `WarmupDecay`; one step of any other class is 1,000 images seen.
    """
    if not description:
        return None
    what = f"The schedule of player '{player}'"
    class_path = description.get("class_path")
    if class_path in (None, "WarmupDecay", f"{__name__}.WarmupDecay"):
        arguments = {name: value for name, value in description.items() if name != "class_path"}
        if "budget" in arguments:
            raise UserError(f"{what}: the budget is `max_images`; leave `budget` out of the schedule.")
        return _call(WarmupDecay, optimizer, arguments, what, budget=budget)
    class_path, arguments = _checked(description, what)
    cls = loaded_class(class_path, LRScheduler, what)
    ours = inspect.signature(WarmupDecay.__init__).parameters.keys() - inspect.signature(cls.__init__).parameters.keys()
    for name in arguments.keys() & ours:
        raise UserError(
            f"{what}: '{name}' is an argument of WarmupDecay, and the class of this schedule is {class_path}. Set "
            "`class_path: WarmupDecay` too."
        )
    return Stepped(_call(cls, optimizer, arguments, what), what)


def keep_settings(optimizer: Optimizer, state: dict[str, Any], kept: set[str]) -> None:
    """Put the optimizer's settings into a state of a checkpoint that is about to be loaded.

    Settings are of the config, as rates, betas, fused or not, and what a schedule keeps beside them. Everything else in
    a parameter group is state, such as Prodigy's, and stays as it is.

    Args:
        kept: Names in the parameter groups before a schedule was built
    """
    settings = {"lr", "initial_lr", *inspect.signature(type(optimizer).__init__).parameters} - {"params"}
    for saved, built in zip(state["param_groups"], optimizer.param_groups, strict=False):
        saved.update({name: value for name, value in built.items() if name not in kept - settings})


# steps of a schedule that are tried before training; of a larger budget only the first ones
LOOKED_AT = 100_000


def look_ahead(description: dict[str, Any] | None, optimizer: dict[str, Any], player: str, budget: int) -> str | None:
    """A sentence if the learning rate of a schedule stops falling before the end of the budget, else None.

    Raises:
        UserError: the schedule cannot be stepped to the end of the budget.
    """
    if not description:
        return None
    weight = [nn.Parameter(torch.zeros(()))]
    trial = build_optimizer(weight, optimizer, player, torch.device("cpu"), fused=False)
    schedule = build_schedule(trial, description, player, budget)
    if isinstance(schedule, WarmupDecay):
        places = [0, *(x for x in (schedule.warmup, schedule.decay_from, schedule.decay_to) if x < budget), budget]
    else:
        places = [*range(0, min(budget, LOOKED_AT * KIMG) + 1, KIMG)]
    assert schedule is not None, "there is a description"
    rates = []
    for place in places:
        schedule.advance(int(place))
        rates.append(trial.param_groups[0]["lr"])
    last, ends = rates[-1], len(rates) - 1
    while ends and rates[ends - 1] == last:
        ends -= 1
    # one step is 1,000 images, so a schedule for the whole budget may end one step before it
    near = 0 if isinstance(schedule, WarmupDecay) else KIMG
    if last >= max(rates) or places[ends] + near >= budget:
        return None
    return (
        f"the schedule of player '{player}' ends at {int(places[ends]):,} images and the budget is {budget:,}: from "
        f"there on the learning rate is {last:g}. A schedule in fractions of the budget, such as "
        "`--model.schedule '{decay_from: 0.5}'`, ends with it."
    )
