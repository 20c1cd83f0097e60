"""Paths of classes, as configs and checkpoints have them; needs no torch."""

from __future__ import annotations

import sys
from typing import Any


def same_class(a: Any, b: Any) -> bool:
    """Whether two paths, each full or short, are of one class."""
    if a == b or not (isinstance(a, str) and isinstance(b, str)):
        return a == b
    (a_module, _, a_name), (b_module, _, b_name) = a.rpartition("."), b.rpartition(".")
    if a_name != b_name or not (a_module and b_module):
        return a_name == b_name
    a_class, b_class = (getattr(sys.modules.get(module), a_name, None) for module in (a_module, b_module))
    return a_class is not None and a_class is b_class
