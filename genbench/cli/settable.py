"""Names of all settings and types of their values, from the annotations of the classes that take them."""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from datetime import timedelta
from typing import Any

# top-level settings of `fit` and `validate`, and groups of settings
SINGLE = ("seed_everything", "max_images", "name", "title", "protocol", "runs", "ckpt")
GROUPS = (
    "trainer",
    "acceleration",
    "ema",
    "power_ema",
    "monitor",
    "gan_monitor",
    "codebook",
    "samples",
    "validation",
    "checkpoint",
)
ROOT = (*SINGLE, *GROUPS, "model", "data")
_BUDGET = " Did you mean 'max_images'? The budget is counted in images."
USUAL = {  # names in other frameworks -> hint
    **dict.fromkeys(("lr", "learning_rate"), " Did you mean 'model.optimizer.lr'?"),
    "batch_size": " Did you mean 'data.batch_size'?",
    **dict.fromkeys(("epochs", "max_epochs", "steps"), _BUDGET),
    "seed": " Did you mean 'seed_everything'?",
}
CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")
SCALARS = (str, bytes, int, float, complex, types.NoneType, os.PathLike, enum.Enum, timedelta)
NO_CLASSES = (*SCALARS, list, tuple, set, frozenset, Mapping)


@dataclass(frozen=True)
class Group:
    """A group of settings: name -> type."""

    hints: dict[str, Any]


@functools.cache
def parameters(cls: type) -> dict[str, Any]:
    """Return argument -> type for a class's constructor, and for the base classes that receive its `**kwargs`."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if not inspect.isfunction(init):
            continue
        try:
            hints = typing.get_type_hints(init)
        except Exception:  # an annotation uses a name that only type checkers import
            hints = {}
        own = list(inspect.signature(init).parameters.values())[1:]
        for parameter in own:
            if parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                found.setdefault(parameter.name, hints.get(parameter.name, Any))
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in own):
            break
    return found


def options(hint: Any) -> Iterator[Any]:
    """Yield the alternatives of a type; for a list, the alternatives of its elements."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType, typing.Annotated) or (
        inspect.isclass(origin) and issubclass(origin, Iterable) and not issubclass(origin, Mapping)
    ):
        for one in inner:
            yield from options(one)
    else:
        yield hint


def base_of(hint: Any) -> type | None:
    """Return the base class of the classes that a setting may name; None if it names no class."""
    for one in options(hint):
        if inspect.isclass(one) and one not in (object, Any) and not issubclass(one, NO_CLASSES):
            return None if is_dataclass(one) else one
    return None


def inner_of(hint: Any) -> Any:
    """Return the type of a mapping's values, if a setting may be a mapping; else None."""
    for one in options(hint):
        origin = typing.get_origin(one) or one
        if one is Any or (inspect.isclass(origin) and (issubclass(origin, Mapping) or is_dataclass(origin))):
            inner = typing.get_args(one)
            return inner[1] if len(inner) == 2 else Any
    return None


def find_class(path: Any, base: type) -> type | None:
    """Find a class by its full path, or by a short name among the subclasses of `base`; None if not exactly one."""
    from genbench.core.class_paths import find, loaded_classes

    if not isinstance(path, str):
        return None
    module, _, name = path.rpartition(".")
    if not module:
        found = {cls for cls in loaded_classes(base).values() if cls.__name__ == name}
        return found.pop() if len(found) == 1 else None
    try:  # the parser imports the module anyway
        importlib.import_module(module)
    except Exception:
        return None
    return find(path)
