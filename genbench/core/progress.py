"""Progress of long loops inside a model, such as over the rows of a PixelCNN's images, shown by the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Wrap = Callable[[Iterable[Any]], Iterable[Any]]

_wrap: ContextVar[Wrap] = ContextVar("wrap", default=iter)


def steps(items: Iterable[Any]) -> Iterable[Any]:
    """The same items, passed through the caller's `watched`."""
    return _wrap.get()(items)


@contextmanager
def watched(wrap: Wrap) -> Iterator[None]:
    """Pass the loops inside through `wrap`."""
    token = _wrap.set(wrap)
    try:
        yield
    finally:
        _wrap.reset(token)
