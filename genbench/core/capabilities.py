"""Capabilities of trained models, as instances of `typing.Protocol`.

Evaluation, commands and callbacks test them with `isinstance`. A model defines only the methods that it supports.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

import torch
from torch import Tensor

from genbench.core.arguments import refuse
from genbench.core.errors import UserError, did_you_mean


@runtime_checkable
class Samples(Protocol):
    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n] -> images [n, C, H, W] in [-1, 1].

        All noise of a sample comes from its own seed. `condition` contains labels [n] or captions [n, L], for a model
        that was trained with them. Additional keyword arguments with defaults are the model's own sampling options. A
        model whose defaults depend on its arguments sets them in its attribute `sample_defaults`, a dict.
        """


@runtime_checkable
class Reconstructs(Protocol):
    def reconstruct(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""


@runtime_checkable
class Encodes(Protocol):
    latent_shape: tuple[int, ...]
    latent_dtype: Literal["float32", "int64"]

    def encode(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, *latent_shape]. `latent_values` is the number of values of an int64 latent.

        An encoder that is conditioned on labels also takes the keyword argument `condition`.
        """


@runtime_checkable
class HasPosterior(Protocol):
    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> mean and log variance of a Gaussian q(z|x), [B, *latent_shape] each.

        An encoder that is conditioned on labels also takes the keyword argument `condition`.
        """


@runtime_checkable
class Decodes(Protocol):
    latent_shape: tuple[int, ...]
    latent_dtype: Literal["float32", "int64"]

    def decode(self, z: Tensor) -> Tensor:
        """[B, *latent_shape] -> [B, C, H, W].

        A decoder that is conditioned on labels or captions also takes the keyword argument `condition`.
        """


@runtime_checkable
class SamplesLatents(Decodes, Protocol):
    def sample_latents(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> [n, *latent_shape]. `decode` maps them to the images of `sample` with default options."""


@runtime_checkable
class HasLikelihood(Protocol):
    likelihood: Literal["exact", "lower bound"]
    pixels: Literal["binary", "8-bit", "density"]  # the data that the likelihood is defined for

    def log_likelihood(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B] nats. Keyword arguments with defaults are the model's own options, as in `sample`.

        If the likelihood takes long, the model also defines `likelihood_option`: the name of an option; evaluations
        compute the likelihood only if it is set. If it is an estimate, the model also defines
        `log_likelihood_and_error` with the same arguments, which returns the nats and their standard error, [B] each.
        """


@runtime_checkable
class Translates(Protocol):
    # target domains: ("B",) or ("A", "B"). A model that needs sides divisible by a number also defines it as `stride`
    domains: tuple[str, ...]

    def translate(self, x: Tensor, *, to: str) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W'] in the domain `to`."""


@runtime_checkable
class Segments(Protocol):
    def segment(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K, H, W]."""


@runtime_checkable
class Classifies(Protocol):
    def classify(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K]."""


@runtime_checkable
class Discriminates(Protocol):
    def discriminate(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B]: the discriminator's logit, higher for images that it takes for real."""


def takes_condition(method: Callable[..., Any]) -> bool:
    """Whether a method such as `decode` has the keyword argument `condition`."""
    return "condition" in inspect.signature(method).parameters


def options(method: Callable[..., Tensor]) -> dict[str, Any]:
    """The model's own options of a method such as `sample`, with their defaults, from its signature and the model's
    `sample_defaults`."""
    parameters = inspect.signature(method).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in ("condition", "to")}
    return own | _defaults(getattr(method, "__self__", None), getattr(method, "__name__", ""))


def _defaults(model: Any, method: str) -> dict[str, Any]:
    return getattr(model, "sample_defaults", {}) if method == "sample" else {}


def choices(method: Callable[..., Tensor]) -> dict[str, tuple[str, ...]]:
    """The allowed values of the options that have a `Literal` as annotation, by name."""
    return {name: get_args(hint) for name, hint in _hints(method).items() if get_origin(hint) is Literal}


def check_options(method: Callable[..., Tensor], given: Mapping[str, Any]) -> None:
    """Raise UserError if the value of an option is outside the bounds or the choices that the method's annotations
    declare."""
    hints, allowed = _hints(method), choices(method)
    for name, value in given.items():
        if name in allowed and value not in allowed[name]:
            raise UserError(
                f"{name} is {value!r}. Choose from: {', '.join(allowed[name])}."
                f"{did_you_mean(str(value), allowed[name])}"
            )
        refuse(name, value, hints.get(name, Any))


def _hints(method: Callable[..., Tensor]) -> dict[str, Any]:
    return _hints_of(inspect.unwrap(getattr(method, "__func__", method)))


@cache
def _hints_of(function: Callable[..., Tensor]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:  # a name that is imported only for type checkers
        return {}


def taking_a_number(sample: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wrap a model's `sample` so that it also accepts a number n instead of the seeds 0 to n - 1, and checks its
    options.

    Raises:
        UserError: the argument is neither a positive number nor an int64 tensor [n], or an option is outside its bounds
            or choices.
    """
    if hasattr(sample, "takes_a_number"):
        return sample

    @wraps(sample)
    def sampled(self: Any, seeds: Tensor | int, *args: Any, **options: Any) -> Tensor:
        check_options(sample, options)
        return sample(self, _seeds(seeds, self.device), *args, **(_defaults(self, "sample") | options))

    sampled.takes_a_number = True  # type: ignore[attr-defined]  # an attribute of a function
    return sampled


def _seeds(given: Any, device: torch.device) -> Tensor:
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return torch.arange(given, device=device)
    if isinstance(given, Tensor) and given.ndim == 1 and given.dtype == torch.int64:
        return given
    was = f"a {given.dtype} tensor {list(given.shape)}" if isinstance(given, Tensor) else repr(given)
    raise UserError(f"`sample` got {was}. Pass a positive number of images, or one seed per image: `torch.arange(16)`.")
