"""Loops inside a model that a person waits for, such as the rows of a PixelCNN's images: whoever called shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Wrap = Callable[[Iterable[Any]], Iterable[Any]]

_wrap: ContextVar[Wrap] = ContextVar("wrap", default=iter)


def steps(items: Iterable[Any]) -> Iterable[Any]:
    """The same items, each of them seen by whoever watches."""
    return _wrap.get()(items)


@contextmanager
def watched(wrap: Wrap) -> Iterator[None]:
    """Loops inside pass through `wrap`."""
    token = _wrap.set(wrap)
    try:
        yield
    finally:
        _wrap.reset(token)
