"""Every numeric argument of the shipped classes has bounds, and the bounds are checked."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning import Callback

import genbench.callbacks
import genbench.data
import genbench.models
from genbench.callbacks import EMA, GANMonitor, Monitor, SampleLogger
from genbench.callbacks.stopwatch import Stopwatch
from genbench.core.arguments import Bounds, Checked, Count, Remembers, Weight, declared, items, numeric, refuse
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.units import Images
from genbench.data import ImageData, ImageFolder, Ring, Shapes
from genbench.data.module import DataModule
from genbench.data.points import Gaussians
from genbench.data.vision import TorchvisionData
from genbench.models import DCGAN, VAE, VQVAE
from genbench.objectives.adversarial_settings import AdversarialSettings
from tests.helpers.toy import SPEC, ToyGAN

SHIPPED = [
    *(getattr(genbench.models, name) for name in genbench.models.__all__),
    *(cls for name in genbench.data.__all__ if issubclass(cls := getattr(genbench.data, name), DataModule)),
    *(getattr(genbench.callbacks, name) for name in genbench.callbacks.__all__ if name != "StopSafely"),
    Stopwatch,
    AdversarialSettings,
]


def numbers(cls):
    """Every number that a class may be given, in a list or alone: name, kind, bounds."""
    for name, hint in declared(cls).items():
        for kind, bounds in [*numeric(hint), *numeric(items(hint))]:
            yield name, kind, bounds


def declaring(cls):
    return [(name, kind, bounds) for name, kind, bounds in numbers(cls) if isinstance(bounds, Bounds)]


def edges(kind, bounds):
    """Values just inside and just outside each end."""
    step = 1 if kind is int else 1e-9
    for bound, side in ((bounds.at_least, -1), (bounds.at_most, 1)):
        if bound is not None:
            yield kind(bound), True
            yield bound + side * step, False
    for bound, side in ((bounds.above, -1), (bounds.below, 1)):
        if bound is not None:
            yield bound - side * step, True
            yield kind(bound), False


@pytest.mark.parametrize("cls", SHIPPED, ids=lambda cls: cls.__name__)
def test_every_number_of_a_shipped_class_has_bounds(cls):
    for name, kind, bounds in numbers(cls):
        assert kind is Images or isinstance(bounds, Bounds), f"{cls.__name__}.{name}"
    for base in cls.__mro__:  # an annotation that was forgotten altogether declares nothing
        parameters = inspect.signature(vars(base).get("__init__", object.__init__)).parameters.values()
        for p in parameters:
            if type(p.default) in (int, float):
                assert numeric(declared(cls)[p.name]), f"{cls.__name__}.{p.name}"


@pytest.mark.parametrize("cls", SHIPPED, ids=lambda cls: cls.__name__)
def test_numbers_just_outside_their_bounds_are_rejected_and_numbers_just_inside_are_accepted(cls):
    for name, kind, bounds in declaring(cls):
        for value, allowed in edges(kind, bounds):
            wrapped = [value] if numeric(items(declared(cls)[name])) else value
            if allowed:
                refuse(f"x.{name}", wrapped, declared(cls)[name])
            else:
                with pytest.raises(UserError, match=rf"^x\.{name} is "):
                    refuse(f"x.{name}", wrapped, declared(cls)[name])


@pytest.mark.parametrize("cls", SHIPPED, ids=lambda cls: cls.__name__)
def test_the_defaults_of_a_shipped_class_are_within_its_bounds(cls):
    for base in cls.__mro__:
        for p in inspect.signature(vars(base).get("__init__", object.__init__)).parameters.values():
            if p.default is not p.empty:
                refuse(p.name, p.default, declared(cls).get(p.name, Any))


@pytest.mark.parametrize("cls", [GenerativeModule, DataModule, ImageData, TorchvisionData, Gaussians])
def test_a_base_class_cannot_be_used_itself(cls):
    with pytest.raises(UserError, match=f"^{cls.__name__} is a base class"):
        cls()


def test_the_bounds_of_every_shipped_class_are_checked():
    assert all(isinstance(cls, Checked) for cls in SHIPPED)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: DCGAN(SPEC, width=0), "model.width is 0; it must be at least 1."),
        (lambda: DCGAN(SPEC, width=70_000), "model.width is 70000; it must be at most 65536."),
        (lambda: DCGAN(SPEC, width=2.5), "model.width is 2.5; it must be a whole number."),
        (lambda: DCGAN(SPEC, width="64"), "model.width is '64'; it must be a whole number."),
        (lambda: DCGAN(SPEC, width=True), "model.width is True; it must be a whole number."),
        (lambda: DCGAN(SPEC, width=10**400), f"model.width is {10**400}; it must be a finite number."),
        (lambda: VAE(SPEC, beta=[1.0]), "model.beta is [1.0]; it must be a number."),
        (lambda: VAE(SPEC, beta={"a": 1}), "model.beta is {'a': 1}; it must be a number."),
        (lambda: VAE(SPEC, beta=None), "model.beta is None; it must be a number."),
        (lambda: VAE(SPEC, hidden=[8, -1]), "model.hidden is -1; it must be at least 1."),
        (lambda: VAE(SPEC, beta=math.inf), "model.beta is inf; it must be a finite number."),
        (lambda: VAE(SPEC, sigma=-1), "model.sigma is -1; a standard deviation is above 0, or `learned`."),
        (lambda: VAE(SPEC, kl_warmup=-5), "model.kl_warmup is -5; it is not a number of images"),
        (lambda: VQVAE(SPEC, clip_norm=-1), "model.clip_norm is -1; it must be above 0."),
        (lambda: VQVAE(SPEC, clip_value=0), "model.clip_value is 0; it must be above 0."),
        (lambda: ToyGAN(SPEC, optimizer={"lr": math.nan}), "model.optimizer.lr is nan; it must be a finite number."),
        (lambda: Shapes(noise=1.5), "data.noise is 1.5; it must lie between 0 and 1."),
        (lambda: Shapes(split_seed=-1), "data.split_seed is -1; it must be at least 0."),
        (lambda: Shapes(channels=2), "data.channels is 2; it must be 1 or 3."),
        (lambda: Ring(test_images=0), "data.test_images is 0; it must be at least 1."),
        (lambda: ImageFolder("nowhere", test_size=-1), "data.test_size is -1; it must be at least 0."),
        (lambda: SampleLogger(n=-3), "samples.n is -3; it must be at least 1."),
        (lambda: EMA(rampup=math.nan), "ema.rampup is nan; it must be a finite number."),
        (lambda: Monitor(every_images=0), "monitor.every_images is 0; it is not a number of images"),
        (lambda: GANMonitor(sure=2), "gan_monitor.sure is 2; it must lie between 0 and 1."),
        (lambda: AdversarialSettings(clip=-0.01), "model.adversarial.clip is -0.01; it must be at least 0."),
    ],
)
def test_an_impossible_number_is_refused_under_the_name_of_its_setting(build, said):
    with pytest.raises(UserError) as error:
        build()
    assert str(error.value).startswith(said)


def test_numbers_of_images_may_have_suffixes():
    assert EMA(halflife="10k").halflife == 10_000
    assert VAE(SPEC, network="mlp", kl_warmup="1e3").kl_warmup == 1000


class Own(metaclass=Remembers):
    """A user's own, as `model`, with and without bounds."""

    _setting = "model"

    def __init__(self, width: int = 4, share: Annotated[float, Bounds(at_least=0, below=1)] = 0.5, **more: Any) -> None:
        pass


class Base(metaclass=Remembers):
    def __init__(self, depth: Count = 1, weight: Weight = 1.0) -> None:
        self.built = (depth, weight)


class Derived(Base):
    """Overrides a bound, and inherits one.

    Args:
        depth: Layers
        pair: Two of something
        noise: How much
    """

    def __init__(
        self,
        depth: Annotated[int, Bounds(at_least=-2)] = 1,
        pair: Sequence[Count] | None = None,
        noise: Weight | Literal["learned"] = 0.5,
        **base: Any,
    ) -> None:
        super().__init__(abs(depth) or 1, **base)
        self.pair = pair


def test_an_argument_without_bounds_is_refused_only_if_it_is_not_finite():
    assert Own(width=-3)._arguments == {"width": -3}
    for given in ({"width": math.nan}, {"more": [1, math.inf]}, {"more": {"a": {"b": -math.inf}}}):
        with pytest.raises(UserError, match="must be a finite number|must be a whole number"):
            Own(**given)
    with pytest.raises(UserError, match="model.share is 1.0; it must be below 1"):
        Own(share=1.0)


def test_the_nearest_class_declares_the_bound_and_arguments_of_a_base_keep_theirs():
    assert Derived(depth=-2).built == (2, 1.0)
    with pytest.raises(UserError, match="derived.depth is -3"):
        Derived(depth=-3)
    with pytest.raises(UserError, match="derived.weight is -1"):
        Derived(weight=-1)


def test_annotations_that_only_a_type_checker_can_evaluate_declare_no_bounds():
    class Unread(metaclass=Checked):
        def __init__(self, width: NoSuchName = 3) -> None:  # noqa: F821
            self.width = width

    assert Unread(width=-1).width == -1


def test_the_config_parser_sees_plain_types_and_dumps_its_input_unchanged():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Derived, "model")
    config = parser.parse_args(["--model.depth=2", "--model.pair=[3, 4]", "--model.noise=learned"])
    dumped = {"depth": 2, "pair": [3, 4], "noise": "learned", "weight": 1.0}
    assert yaml.safe_load(parser.dump(config))["model"] == dumped
    said = parser.format_help()
    assert "(type: int, default: 1)" in said and "Annotated" not in said and "Bounds" not in said
    assert parser.instantiate(config).model.pair == [3, 4]
    with pytest.raises(Exception, match="derived.weight is -1.0; it must be at least 0"):
        parser.instantiate(parser.parse_args(["--model.weight=-1"]))


def test_callbacks_of_a_user_need_no_bounds():
    class Mine(Callback):
        def __init__(self, n: int = 0) -> None:
            self.n = n

    assert Mine(-1).n == -1
