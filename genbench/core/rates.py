"""Bounds of the arguments of optimizers and learning-rate schedules.

PyTorch accepts most numbers: a learning rate of 1e15, a momentum of 2, a schedule that multiplies by -1. The tables
below define the bounds in genbench. A user's own class declares bounds in its annotations, like models; its other
numbers may be anything but NaN and infinity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Annotated, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from genbench.core.arguments import Bounds, Count, Positive, Share, Weight, Whole, declared, numeric, refuse
from genbench.core.errors import UserError
from genbench.core.optim import loaded_class, merge

# Adam and similar optimizers divide by the magnitude of the gradient, so a step changes a weight by about the learning
# rate, and few weights are larger than 1. Steps of other optimizers are proportional to the gradient, which may be
# small.
Rate = Annotated[float, Bounds(above=0, at_most=10)]
LargeRate = Annotated[float, Bounds(above=0, at_most=1000)]
IN_PROPORTION = ("SGD", "ASGD", "LBFGS", "Adadelta")

Decay = Annotated[float, Bounds(at_least=0, below=1)]  # decay rate of a moving average
Factor = Annotated[float, Bounds(above=0, at_most=10)]  # factor of a learning rate

OPTIMIZER: dict[str, Any] = {
    "lr": Rate,
    "betas": Sequence[Decay],
    "momentum": Decay,
    "dampening": Share,
    "weight_decay": Annotated[float, Bounds(at_least=0, at_most=100)],
    "eps": Positive | Sequence[Positive | None] | None,
    "alpha": Decay,
    "rho": Decay,
    "lambd": Weight,
    "t0": Weight,
    "lr_decay": Weight,
    "momentum_decay": Weight,
    "initial_accumulator_value": Weight,
    "beta2_decay": Annotated[float, Bounds(at_most=0)],
    "d": Positive,
    "ns_steps": Count,
    "ns_coefficients": Sequence[float],
    "etas": Sequence[Positive],
    "step_sizes": Sequence[Positive],
    "max_iter": Count,
    "max_eval": Count | None,
    "tolerance_grad": Weight,
    "tolerance_change": Weight,
    "history_size": Count,
}
COUNTS = {"betas": 2, "etas": 2, "step_sizes": 2, "ns_coefficients": 3}  # how many numbers the argument has
SCHEDULE: dict[str, Any] = {
    "last_epoch": Annotated[int, Bounds(at_least=-1, at_most=-1, words="remove it: schedules follow images seen")],
    "step_size": Count,
    "milestones": Sequence[Count],
    "gamma": Factor,
    "factor": Factor,
    "start_factor": Annotated[float, Bounds(above=0, at_most=1)],
    "end_factor": Share,
    "total_iters": Count,
    "power": Positive,
    "T_max": Count,
    "T_0": Count,
    "T_mult": Count,
    "eta_min": Weight,
    "min_lr": Weight | Sequence[Weight],
    "base_lr": LargeRate | Sequence[LargeRate],
    "max_lr": LargeRate | Sequence[LargeRate],
    "step_size_up": Count,
    "step_size_down": Count | None,
    "base_momentum": Decay | Sequence[Decay],
    "max_momentum": Decay | Sequence[Decay],
    "total_steps": Count | None,
    "epochs": Count | None,
    "steps_per_epoch": Count | None,
    "pct_start": Share,
    "div_factor": Positive,
    "final_div_factor": Positive,
    "patience": Whole,
    "cooldown": Whole,
    "threshold": Weight,
    "eps": Weight,
}


def of_players(
    players: Iterable[str], argument: str, common: dict[str, Any] | None, single: dict[str, dict[str, Any]] | None
) -> dict[str, Any]:
    """Player -> class path and arguments of its optimizer or schedule. Numbers given as text are converted to numbers.

    Args:
        argument: `optimizer` or `schedule`
        common: Settings for all players
        single: Settings that differ for single players, by player

    Raises:
        UserError: a number is outside its bounds, or a player does not exist.
    """
    for name in single or {}:
        if name not in players:
            raise UserError(f"{argument}s has the unknown optimizer '{name}'. Choose from: {', '.join(players)}.")
    own = {player: (single or {}).get(player) for player in players}
    return {player: _checked(merge(common, own[player]), argument, player, own[player] or {}) for player in players}


def _checked(
    description: dict[str, Any] | None, argument: str, player: str, own: dict[str, Any]
) -> dict[str, Any] | None:
    """The description, after a check of the bounds. `own` has the settings that were set only for this player."""
    if not isinstance(description, dict):
        return description
    hints = _hints(description.get("class_path"), argument)
    found = dict(description)
    for name, value in description.items():
        hint = hints.get(name, Any)
        found[name] = value = _numbers(value) if numeric(hint) else value
        setting = f"model.{argument}s.{player}.{name}" if name in own else f"model.{argument}.{name}"
        count = COUNTS.get(name) if name in hints else None
        if count and not (isinstance(value, (list, tuple)) and len(value) == count):
            raise UserError(f"{setting} is {value!r}; expected a list of {count} numbers.")
        refuse(setting, value, hint)
    return found


def _hints(class_path: Any, argument: str) -> dict[str, Any]:
    if not isinstance(class_path, str):
        return {}
    module, _, name = class_path.rpartition(".")
    base, table = (Optimizer, OPTIMIZER) if argument == "optimizer" else (LRScheduler, SCHEDULE)
    if module and not module.startswith("torch.optim"):
        hints = {"lr": Positive} if argument == "optimizer" else {}
        with suppress(UserError):  # not imported, for example in a process that only samples
            hints |= {k: v for k, v in declared(loaded_class(class_path, base, argument)).items() if numeric(v)}
        return hints
    return table | {"lr": LargeRate} if name in IN_PROPORTION else table


def _numbers(value: Any) -> Any:
    """Convert text to a number if possible: in YAML 1.1 `1e-3` is text."""
    for kind in (int, float):
        if isinstance(value, str):
            with suppress(ValueError):
                value = kind(value)
    return value
