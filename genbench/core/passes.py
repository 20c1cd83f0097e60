"""Passes of samples through the networks of a model: the network evaluations (NFE) that sampling takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from genbench.core.module import GenerativeModule

Passes = dict[nn.Module, int]  # network -> samples that passed through it, counted once for each pass

_passes: ContextVar[Passes | None] = ContextVar("passes", default=None)


@contextmanager
def counting(model: GenerativeModule) -> Iterator[Passes]:
    """Count the passes through each network of a model: the rows of the first tensor of each call.

    The networks are the modules in the model's attributes, and those of the models and lists in them. A network that
    is called with conditional and unconditional samples in one batch is passed twice by each sample.
    """
    networks = dict.fromkeys(_networks(model))
    passes: Passes = dict.fromkeys(networks, 0)
    before = {network: network._compiled_call_impl for network in networks}
    token = _passes.set(passes)
    try:
        for network in networks:
            # Not a forward hook: in a compiled network a hook becomes part of the graph, which would be compiled again
            # for each value of the counter
            network._compiled_call_impl = _counted(network, before[network] or network._call_impl, passes)
        yield passes
    finally:
        _passes.reset(token)
        for network, call in before.items():
            network._compiled_call_impl = call


def count_passes(network: nn.Module, samples: int) -> None:
    """Count passes through a network that a sampler evaluates without calling it, such as layer by layer."""
    passes = _passes.get()
    if passes is not None:
        passes[network] = passes.get(network, 0) + samples


def _counted(network: nn.Module, call: Callable[..., Any], passes: Passes) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        for x in (*args, *kwargs.values()):
            if isinstance(x, Tensor) and x.ndim:
                passes[network] += len(x)
                break
        return call(*args, **kwargs)

    return counted


def _networks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, (GenerativeModule, nn.ModuleList, nn.ModuleDict)):
            yield from _networks(child)
        else:
            yield child
