"""Class paths, as written in configs and checkpoints. This module does not import torch."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from typing import Any


def path_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def find(path: Any, base: type = object, modules: Iterable[str] = ()) -> type | None:
    """Find the class of a class path, if it is loaded and a subclass of `base`; else None. Imports nothing.

    A short name is looked up in `modules`.

    Example:
        >>> find("collections.OrderedDict", dict) is find("OrderedDict", dict, ["collections"])
        True
    """
    module, _, name = str(path).rpartition(".")
    for place in [module] if module else modules:
        found = getattr(sys.modules.get(place), name, None)
        if inspect.isclass(found) and issubclass(found, base):
            return found
    return None


def same_class(a: Any, b: Any) -> bool:
    """Whether two class paths, each full or short, mean the same class."""
    if a == b or not (isinstance(a, str) and isinstance(b, str)):
        return a == b
    (a_module, _, a_name), (b_module, _, b_name) = a.rpartition("."), b.rpartition(".")
    if a_name != b_name or not (a_module and b_module):
        return a_name == b_name
    return find(a) is not None and find(a) is find(b)


def loaded_classes(base: type) -> dict[str, type]:
    """`base` and all its loaded subclasses, by full name. A checkpoint's class is looked up here."""
    found, waiting = {}, [base]
    while waiting:
        cls = waiting.pop()
        found[path_of(cls)] = cls
        waiting += cls.__subclasses__()
    return found
