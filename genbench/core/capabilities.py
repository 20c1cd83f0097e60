"""What a trained model can do, as protocols that evaluation, verbs and callbacks ask for with `isinstance`.

A model has the methods that it can honour and no others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Samples(Protocol):
    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n] -> images [n, C, H, W] in [-1, 1].

        All noise of a sample comes from its own seed. `condition` is what the model was trained on: labels [n] or
        prompts. Further keyword arguments with defaults are the model's own sampling options.
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
        """[B, C, H, W] -> [B, *latent_shape]. An int64 latent says in `latent_values` how many values a number has."""


@runtime_checkable
class Decodes(Protocol):
    latent_shape: tuple[int, ...]
    latent_dtype: Literal["float32", "int64"]

    def decode(self, z: Tensor) -> Tensor:
        """[B, *latent_shape] -> [B, C, H, W]."""


@runtime_checkable
class HasLikelihood(Protocol):
    likelihood: Literal["exact", "lower bound"]
    pixels: Literal["binary", "8-bit", "density"]  # what it is a likelihood of

    def log_likelihood(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B] nats. Keyword arguments with defaults are options of its own, as those of `sample`."""


@runtime_checkable
class Translates(Protocol):
    # that it translates to: ("B",), or ("A", "B"). A model that halves images has a `stride` too, by which sides divide
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


def options(method: Callable[..., Tensor]) -> dict[str, Any]:
    """The options of a capability that are the model's own, with their defaults: by the method's signature."""
    parameters = inspect.signature(method).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in ("condition", "to")}
