"""The registry of the user's metrics, as it was before a test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from genbench.core.importing import import_module
from genbench.metrics.registry import REGISTERED
from genbench.metrics.scales import SCALES


@contextmanager
def restored_registry() -> Iterator[None]:
    """Unregister what is registered in the block."""
    before = dict(SCALES), dict(REGISTERED)
    try:
        yield
    finally:
        for table, old in zip((SCALES, REGISTERED), before, strict=True):
            table.clear()
            table.update(old)


@contextmanager
def own_metrics() -> Iterator[ModuleType]:
    """Register the metrics of `tests.helpers.own_metrics` for the block."""
    with restored_registry():
        try:
            yield import_module("tests.helpers.own_metrics", "--import")
        finally:
            sys.modules.pop("tests.helpers.own_metrics", None)
