"""Checks the arguments of classes against their bounds, and stores them.

Bounds are declared in annotations. Stored arguments allow an object to be built again from only its checkpoint.

    def __init__(self, width: Count = 64, dropout: Annotated[float, Bounds(at_least=0, below=1)] = 0.5) -> None:

NaN and infinity are always an error.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from genbench.core.errors import UserError
from genbench.core.units import Images


@dataclass(frozen=True)
class Bounds:
    """Bounds of a number, declared as `Annotated[float, Bounds(...)]`.

    at_least, above, at_most, below  limits; None for no limit
    words                            error message for a number outside, if the bounds do not explain it
    choices                          the only allowed values, as in a `Literal`; None for any value
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    words: str | None = None
    choices: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        given = {name: value for name, value in vars(self).items() if value is not None and name != "words"}
        return f"Bounds({', '.join(f'{name}={value}' for name, value in given.items())})"

    def fault(self, value: float) -> str | None:
        """What is wrong with the value, as the end of an error message; None if it is within the bounds."""
        if self.choices is not None and value not in self.choices:
            return f"it must be {' or '.join(map(str, self.choices))}"
        for bound, broken, words in (
            (self.at_least, lambda b: value < b, "at least"),
            (self.above, lambda b: value <= b, "above"),
            (self.at_most, lambda b: value > b, "at most"),
            (self.below, lambda b: value >= b, "below"),
        ):
            if bound is not None and broken(bound):
                return self.words or f"it must be {words} {bound}"
        return None


MOST = 2**31 - 1  # largest count: larger arrays cannot be indexed
Count = Annotated[int, Bounds(at_least=1, at_most=MOST)]
Whole = Annotated[int, Bounds(at_least=0, at_most=MOST)]
Width = Annotated[int, Bounds(at_least=1, at_most=2**16)]  # width of a layer
Depth = Annotated[int, Bounds(at_least=1, at_most=1000)]  # layers
Halvings = Annotated[int, Bounds(at_least=0, at_most=16)]
Side = Annotated[int, Bounds(at_least=1, at_most=2**14)]  # side of an image, in pixels
Seed = Annotated[int, Bounds(at_least=0, at_most=2**63 - 1)]
Weight = Annotated[float, Bounds(at_least=0)]
Positive = Annotated[float, Bounds(above=0)]
Sigma = Annotated[float, Bounds(above=0, words="a standard deviation is above 0, or `learned`")]
Number = Annotated[float, Bounds()]  # finite
Share = Annotated[float, Bounds(at_least=0, at_most=1, words="it must lie between 0 and 1")]
Steps = Annotated[int, Bounds(at_least=1, at_most=100_000)]  # of a sampler
Deviation = Annotated[float, Bounds(at_least=1e-6, at_most=1e6)]  # of data or noise, whose square is finite
Rho = Annotated[float, Bounds(at_least=0.1, at_most=1000)]  # noise levels to the power 1 / rho are finite


class Checked(type):
    """Checks the bounds of numbers before an object is built, from a config or in Python.

    The attribute `_setting` of a class is the first part of its settings' names, such as `model` in `model.width`. By
    default it is the class name in lower case.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        arguments = cls.given(args, kwargs)
        refuse_outside(cls, arguments)
        return super().__call__(*args, **kwargs)

    def given(cls, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name, including those for a base class."""
        signature = inspect.signature(cls.__init__)
        with suppress(TypeError):  # wrong arguments: __init__ raises the error
            this, *_ = signature.parameters
            arguments = dict(signature.bind_partial(None, *args, **kwargs).arguments)
            del arguments[this]
            for name, parameter in signature.parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    arguments |= arguments.pop(name, {})
            return arguments
        return {}


class Remembers(Checked):
    """Stores the arguments of an object in `_arguments`, as plain types. A class with `abstract = True` cannot be
    instantiated, only its subclasses."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.__dict__.get("abstract"):
            raise UserError(f"{cls.__name__} is a base class and cannot be used itself. Use one of its subclasses.")
        arguments = cls.given(args, kwargs)
        refuse_outside(cls, arguments)
        self = cls.__new__(cls)
        self.__dict__["_arguments"] = {name: plain(name, value) for name, value in arguments.items()}
        self.__init__(*args, **kwargs)
        return self


# ---- bounds ---------------------------------------------------------------------------------------------------------


def refuse_outside(cls: type, arguments: Mapping[str, Any]) -> None:
    """Raise UserError for a number that is NaN, infinite or outside the bounds that `cls` declares."""
    setting, hints = getattr(cls, "_setting", cls.__name__.lower()), declared(cls)
    for name, value in arguments.items():
        refuse(f"{setting}.{name}", value, hints.get(name, Any))


@cache
def declared(cls: type) -> dict[str, Any]:
    """The annotations of all arguments of `cls`, including those of its base classes."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        init = vars(base).get("__init__")
        if inspect.isfunction(init):
            with suppress(NameError, TypeError, AttributeError):  # names that are imported only for type checkers
                found |= get_type_hints(init, include_extras=True)
    return {name: hint for name, hint in found.items() if name != "return"}


def numeric(hint: Any) -> list[tuple[type, Bounds | None]]:
    """The types of number that an annotation allows (int, float or Images), each with its bounds, if any."""
    if get_origin(hint) is Annotated:
        kind, *more = get_args(hint)
        bounds = next((m for m in more if isinstance(m, Bounds)), None)
        return [(k, bounds or own) for k, own in numeric(kind)]
    if get_origin(hint) in (Union, UnionType):
        return [found for part in get_args(hint) for found in numeric(part)]
    if get_origin(hint) is Literal and all(_is_number(choice) for choice in get_args(hint)):
        return [(int, Bounds(choices=get_args(hint)))]
    return [(hint, None)] if hint in (int, float, Images) else []


def items(hint: Any) -> Any:
    """The annotation of the items of a sequence."""
    if get_origin(hint) in (Union, UnionType):
        return next((found for part in get_args(hint) if (found := items(part)) is not Any), Any)
    origin = get_origin(hint)
    return get_args(hint)[0] if isinstance(origin, type) and issubclass(origin, Sequence) else Any


def refuse(name: str, value: Any, hint: Any = Any) -> None:
    """Raise UserError if `value` is, or contains, a number that the annotation does not allow.

    Every item of a list and every value of a dict is checked. `name` is the setting as the user writes it.
    """
    kinds = numeric(hint)
    # whether the value may be a list or a dict
    nested = not kinds or (get_origin(hint) in (Union, UnionType) and _others(hint))
    if isinstance(value, Mapping) and nested:
        for key, part in value.items():
            refuse(f"{name}.{key}", part)
    elif isinstance(value, (list, tuple)) and nested:
        for part in value:
            refuse(name, part, items(hint))
    elif kinds:
        # a value that is not a number may have one of the other types that the annotation allows
        other = not _is_number(value) and get_origin(hint) in (Union, UnionType) and _others(hint)
        if not (value is None and type(None) in get_args(hint)) and not other:
            faults = [_fault(value, *kind) for kind in kinds]
            if None not in faults:
                raise UserError(f"{name} is {value!r}; {faults[0]}.")
    elif _is_number(value) and not _finite(value):
        raise UserError(f"{name} is {value}; it must be a finite number.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer with hundreds of digits
        return False


def _others(hint: Any) -> bool:
    return any(part is not type(None) and not numeric(part) for part in get_args(hint))


def _fault(value: Any, kind: type, bounds: Bounds | None) -> str | None:
    if kind is Images:
        try:
            Images(value)
        except ValueError as error:
            return "it is " + str(error).partition(" is ")[2]
        return None
    if not _is_number(value) or (kind is int and not isinstance(value, int)):
        return f"it must be a {'whole ' if kind is int else ''}number"
    if not _finite(value):
        return "it must be a finite number"
    return bounds.fault(value) if bounds else None


# ---- arguments in checkpoints ----------------------------------------------------------------------------------------


def plain(name: str, value: Any) -> Any:
    """The value as plain YAML types, the only types that a safe checkpoint can contain."""
    from genbench.core.batch import DataSpec  # it imports torch, which `fit --help` must not import

    if isinstance(value, DataSpec):
        return value.to_dict()
    if isinstance(value, dict):
        return {str(k): plain(name, v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(name, v) for v in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)  # converts subclasses, such as NumPy's
    if value is None:
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise UserError(
        f"The argument '{name}' is a {type(value).__name__}; it must be a plain number, string, list or dict, so that "
        "a checkpoint can be loaded safely."
    )


def key_of(value: Any) -> str:
    """Hash of plain data, 16 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
