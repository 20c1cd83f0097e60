"""Lets a caller show the progress of long loops inside a model, such as PixelCNN's loop over the rows of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Wrap = Callable[[Iterable[Any]], Iterable[Any]]

_wrap: ContextVar[Wrap] = ContextVar("wrap", default=iter)


def steps(items: Iterable[Any]) -> Iterable[Any]:
    """The items, wrapped by the function that the caller set with `watched`."""
    return _wrap.get()(items)


@contextmanager
def watched(wrap: Wrap) -> Iterator[None]:
    """Wrap the items of all `steps` loops inside with `wrap`, such as tqdm."""
    token = _wrap.set(wrap)
    try:
        yield
    finally:
        _wrap.reset(token)
