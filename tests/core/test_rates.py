"""Arguments of optimizers and schedules are checked, and every numeric argument of PyTorch's classes has bounds."""

import inspect
import math

import pytest
import torch
from torch.optim import Optimizer, lr_scheduler

from genbench.core.arguments import declared, items, numeric
from genbench.core.errors import UserError
from genbench.core.optim import LinearDecay
from genbench.core.rates import OPTIMIZER, SCHEDULE
from tests.helpers.toy import SPEC, ToyGAN


def classes(module, base):
    return [c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, base) and c is not base]


@pytest.mark.parametrize(
    ("module", "base", "table"),
    [(torch.optim, Optimizer, OPTIMIZER), (lr_scheduler, lr_scheduler.LRScheduler, SCHEDULE)],
)
def test_every_number_of_pytorchs_own_has_bounds(module, base, table):
    for cls in classes(module, base):
        for p in inspect.signature(cls.__init__).parameters.values():
            kinds = p.default if isinstance(p.default, tuple) else (p.default,)
            a_number = any(type(value) in (int, float) for value in kinds)
            if a_number or str(p.annotation) in ("int", "float", "Iterable[int]", "float | list[float]"):
                hint = table[p.name]
                assert numeric(hint) or numeric(items(hint)), f"{cls.__name__}.{p.name}"


def test_every_number_of_our_own_schedules_has_bounds():
    for name, hint in declared(LinearDecay).items():
        assert name in ("optimizer", "last_epoch") or numeric(hint)[0][1] is not None, name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optimizer": {"lr": 0}}, "model.optimizer.lr is 0; it must be above 0."),
        ({"optimizer": {"lr": -1e-3}}, "model.optimizer.lr is -0.001; it must be above 0."),
        ({"optimizer": {"lr": 11}}, "model.optimizer.lr is 11; it must be at most 10."),
        ({"optimizer": {"lr": math.inf}}, "model.optimizer.lr is inf; it must be a finite number."),
        ({"optimizer": {"lr": "fast"}}, "model.optimizer.lr is 'fast'; it must be a number."),
        ({"optimizer": {"lr": None}}, "model.optimizer.lr is None; it must be a number."),
        ({"optimizer": {"betas": [1.0, 0.9]}}, "model.optimizer.betas is 1.0; it must be below 1."),
        ({"optimizer": {"betas": [0.5, -0.1]}}, "model.optimizer.betas is -0.1; it must be at least 0."),
        ({"optimizer": {"betas": [0.5]}}, "model.optimizer.betas is [0.5]; expected a list of 2 numbers."),
        (
            {"optimizer": {"betas": [0.5, 0.9, 0.9]}},
            "model.optimizer.betas is [0.5, 0.9, 0.9]; expected a list of 2 numbers",
        ),
        (
            {"optimizers": {"generator": {"betas": {"0": 0.5}}}},
            "model.optimizers.generator.betas is {'0': 0.5}; expected a",
        ),
        ({"optimizer": {"weight_decay": -1}}, "model.optimizer.weight_decay is -1; it must be at least 0."),
        ({"optimizer": {"eps": 0.0}}, "model.optimizer.eps is 0.0; it must be above 0."),
        ({"optimizer": {"class_path": "SGD", "lr": 1001}}, "model.optimizer.lr is 1001; it must be at most 1000."),
        ({"optimizer": {"class_path": "torch.optim.SGD", "momentum": 1}}, "model.optimizer.momentum is 1; it must be"),
        ({"optimizers": {"generator": {"lr": -1}}}, "model.optimizers.generator.lr is -1; it must be above 0."),
        ({"optimizer": {"class_path": "my.Own", "lr": -1}}, "model.optimizer.lr is -1; it must be above 0."),
        ({"optimizer": {"class_path": "my.Own", "x": math.nan}}, "model.optimizer.x is nan; it must be a finite"),
        ({"schedule": {"class_path": "StepLR", "step_size": 0}}, "model.schedule.step_size is 0; it must be at least"),
        ({"schedule": {"class_path": "StepLR", "gamma": -1}}, "model.schedule.gamma is -1; it must be above 0."),
        ({"schedule": {"class_path": "MultiStepLR", "milestones": [5, 0]}}, "model.schedule.milestones is 0; it must"),
        (
            {"schedules": {"discriminator": {"class_path": "genbench.core.optim.LinearDecay", "start": -1, "end": 2}}},
            "model.schedules.discriminator.start is -1; it must be at least 0.",
        ),
    ],
)
def test_a_rate_that_makes_no_sense_is_refused_before_anything_is_trained(given, said):
    with pytest.raises(UserError) as error:
        ToyGAN(SPEC, **given)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    "optimizer",
    [
        {"lr": 10},
        {"lr": 1e-12},
        {"class_path": "torch.optim.SGD", "lr": 1000, "momentum": 0.0},
        {"class_path": "torch.optim.Adafactor", "eps": [None, 1e-3], "beta2_decay": -0.8},
        {"class_path": "my.Own", "lr": 50, "gravity": -1},
    ],
)
def test_plausible_rates_are_accepted(optimizer):
    assert ToyGAN(SPEC, optimizer=optimizer).optimizer_settings["generator"].items() >= optimizer.items()


def test_a_rate_that_yaml_reads_as_text_is_a_number():
    given = {"class_path": "torch.optim.lr_scheduler.StepLR", "step_size": "30", "gamma": "1e-1"}
    module = ToyGAN(SPEC, optimizer={"lr": "1e-3"}, schedule=given)
    assert module.optimizer_settings["generator"]["lr"] == 0.001
    assert module.schedule_settings["discriminator"] == given | {"step_size": 30, "gamma": 0.1}
