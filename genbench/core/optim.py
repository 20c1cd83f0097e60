"""Builds optimizers and learning-rate schedules from a class path and its arguments."""

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
KIMG = 1000  # images per step of a schedule


class LinearDecay(LRScheduler):
    """The full rate up to step `start`, then linear decay to 0 at step `end`."""

    def __init__(self, optimizer: Optimizer, start: Whole, end: Count, last_epoch: int = -1) -> None:
        if not 0 <= start < end:
            raise ValueError(f"start is {start} and end is {end}; end must be larger than start")
        self.start, self.end = start, end
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        left = min(1.0, max(0.0, (self.end - self.last_epoch) / (self.end - self.start)))
        return [rate * left for rate in self.base_lrs]


class WarmupDecay:
    """A learning rate that rises from 0, stays constant, and falls: a function of images seen and budget.

    Args:
        optimizer: Its learning rates are used between warmup and decay
        budget: Images of the run; if None, all settings must be numbers of images
        warmup: End of the linear warmup
        decay_from: Start of the decay; default: no decay
        decay_to: End of the decay; default: the end of the budget
        decay: linear, or cosine: half a period (Loshchilov & Hutter 2017, equation 5)
        final: The final rate, as a fraction of the full rate

    A number up to 1 is a fraction of the budget. A larger number or text such as `50k` is a number of images.
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
                f"the rate rises until {self.warmup:,.0f} images, and falls from {self.decay_from:,.0f} to "
                f"{self.decay_to:,.0f} images; these numbers must increase"
            )

    def factor(self, images_seen: int) -> float:
        """The rate after `images_seen` images, as a fraction of the full rate."""
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
    """A schedule class of PyTorch or of the user. One step is 1,000 images seen."""

    def __init__(self, scheduler: LRScheduler, what: str) -> None:
        self.scheduler, self.what = scheduler, what

    def advance(self, images_seen: int) -> None:
        """Step the schedule until it reaches this number of images seen.

        Raises:
            UserError: the schedule ends earlier, or its `step` needs an argument.
        """
        with warnings.catch_warnings():
            # a resumed run steps its schedule before its optimizer
            warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step\(\).*")
            while self.scheduler.last_epoch < images_seen // KIMG:
                try:
                    self.scheduler.step()
                except (TypeError, ValueError) as error:
                    raise UserError(
                        f"{self.what}: step {self.scheduler.last_epoch + 1} of {type(self.scheduler).__name__} failed "
                        f"({error}). One step is {KIMG:,} images. Choose a schedule that depends only on the images "
                        "seen and lasts to the end of the budget."
                    ) from error


Schedule = WarmupDecay | Stepped


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _at(name: str, value: Any, budget: int | None) -> float:
    """Convert a setting, a fraction of the budget or a number of images, to a number of images."""
    if _is_number(value) and 0 <= value <= 1:
        if value and budget is None:
            raise ValueError(
                f"{name} is {value}, a fraction of the budget, but the budget is unknown: add a MaxImages callback to "
                "the Trainer, or set a number of images"
            )
        return value * (budget or 0)
    try:
        if isinstance(value, bool):
            raise ValueError
        return int(Images(value))
    except ValueError:
        raise ValueError(
            f"{name} is {value!r}; expected a fraction of the budget from 0 to 1, or a number of images such as 50k"
        ) from None


def merge(base: dict[str, Any] | None, change: dict[str, Any] | None) -> dict[str, Any] | None:
    """`base` updated with `change`. If the class changes, the arguments of the old class are dropped."""
    if not base or not change:
        return change or base
    if "class_path" not in change:
        return base | change
    given, before = change["class_path"], base.get("class_path")
    return change if not same_class(given, before) else base | change | {"class_path": before}


def loaded_class(class_path: str, base: type[Any], what: str) -> type:
    """The class of a class path, if its module is imported. A path in a checkpoint must not cause an import.

    A short name, such as `Adam`, is looked up in torch.optim.
    """
    if (found := find(class_path, base, ("torch.optim", "torch.optim.lr_scheduler", __name__))) is not None:
        return found
    name = class_path.rpartition(".")[2]
    raise UserError(
        f"{what}: unknown {base.__name__} '{class_path}'. Use a class of PyTorch, such as torch.optim.Adam or "
        "torch.optim.lr_scheduler.CosineAnnealingLR, or import your own module with `--import my.module`."
        + did_you_mean(name, [known.__name__ for known in base.__subclasses__()])
    )


def _call(cls: type, first: Any, arguments: dict[str, Any], what: str, **own: Any) -> Any:
    known = [
        name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "params", "optimizer", *own)
    ]
    for name in arguments:
        if name not in known:
            near = did_you_mean(name, known)
            raise UserError(f"{what}: {cls.__name__} has no argument '{name}'. Choose from: {', '.join(known)}.{near}")
    try:
        return cls(first, **own, **arguments)
    except Exception as error:  # a class may raise any exception for wrong arguments
        raise UserError(f"{what}: {cls.__name__} rejected its arguments {arguments}: {error}.") from error


def _checked(description: dict[str, Any], what: str) -> tuple[str, dict[str, Any]]:
    arguments = dict(description)
    class_path = arguments.pop("class_path", None)
    if not isinstance(class_path, str):
        raise UserError(
            f"{what} is {description}; expected a `class_path` and its arguments, such as {{class_path: "
            "torch.optim.Adam, lr: 0.001}."
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
    """The player's optimizer, in its fused version if it exists and `fused` allows it.

    A fused optimizer unscales fp16 gradients inside its step, too late for clipping.
    """
    what = f"The optimizer of player '{player}'"
    class_path, arguments = _checked(description, what)
    cls = loaded_class(class_path, Optimizer, what)
    if not fused and arguments.get("fused"):
        raise UserError(
            f"{what}: `fused: true` cannot be used with fp16: it unscales gradients inside its step, after clipping. "
            "Remove `fused`, or use bf16-mixed."
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

    Without a class path it is a `WarmupDecay`. A schedule of any other class takes one step per 1,000 images seen.
    """
    if not description:
        return None
    what = f"The schedule of player '{player}'"
    class_path = description.get("class_path")
    if class_path in (None, "WarmupDecay", f"{__name__}.WarmupDecay"):
        arguments = {name: value for name, value in description.items() if name != "class_path"}
        if "budget" in arguments:
            raise UserError(f"{what}: the budget is set with `max_images`. Remove `budget` from the schedule.")
        return _call(WarmupDecay, optimizer, arguments, what, budget=budget)
    class_path, arguments = _checked(description, what)
    cls = loaded_class(class_path, LRScheduler, what)
    ours = inspect.signature(WarmupDecay.__init__).parameters.keys() - inspect.signature(cls.__init__).parameters.keys()
    for name in arguments.keys() & ours:
        raise UserError(
            f"{what}: '{name}' is an argument of WarmupDecay, but the class of this schedule is {class_path}. Also "
            "set `class_path: WarmupDecay`."
        )
    return Stepped(_call(cls, optimizer, arguments, what), what)


def keep_settings(optimizer: Optimizer, state: dict[str, Any], kept: set[str]) -> None:
    """Copy the settings of `optimizer` into the state of a checkpoint before that state is loaded.

    Settings are values of the config, such as rates, betas and fused, and values that a schedule adds to a parameter
    group. Everything else in a parameter group is state, such as Prodigy's, and is not changed.

    Args:
        kept: Names in the parameter groups before a schedule was built
    """
    settings = {"lr", "initial_lr", *inspect.signature(type(optimizer).__init__).parameters} - {"params"}
    for saved, built in zip(state["param_groups"], optimizer.param_groups, strict=False):
        saved.update({name: value for name, value in built.items() if name not in kept - settings})


# number of schedule steps that are tried before training; a larger budget is tried only up to this step
LOOKED_AT = 100_000


def look_ahead(description: dict[str, Any] | None, optimizer: dict[str, Any], player: str, budget: int) -> str | None:
    """A sentence if the learning rate of a schedule stops falling before the end of the budget, else None.

    Raises:
        UserError: the schedule cannot step to the end of the budget.
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
        f"the schedule of player '{player}' ends at {int(places[ends]):,} images, but the budget is {budget:,}: after "
        f"the end of the schedule the learning rate is {last:g}. A schedule in fractions of the budget, such as "
        "`--model.schedule '{decay_from: 0.5}'`, ends at the end of the budget."
    )
