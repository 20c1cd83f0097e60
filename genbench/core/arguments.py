"""What a model or a data set was built with, kept so that a checkpoint alone can build it again."""

from __future__ import annotations

import inspect
import os
from contextlib import suppress
from typing import Any

from genbench.core.batch import DataSpec
from genbench.core.errors import UserError


class Remembers(type):
    """Notes in `_arguments` what an object was built with, from a config or in Python, as plain types."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        self = cls.__new__(cls)
        signature = inspect.signature(cls.__init__)
        with suppress(TypeError):  # wrong arguments: let __init__ say so
            arguments = signature.bind_partial(self, *args, **kwargs).arguments
            for name, parameter in signature.parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    arguments |= arguments.pop(name, {})
            self.__dict__["_arguments"] = {k: plain(k, v) for k, v in arguments.items() if v is not self}
        self.__init__(*args, **kwargs)
        return self


def loaded_classes(base: type) -> dict[str, type]:
    """`base` and every class below it that is loaded, by full name: a checkpoint finds its own among them."""
    found, waiting = {}, [base]
    while waiting:
        cls = waiting.pop()
        found[f"{cls.__module__}.{cls.__qualname__}"] = cls
        waiting += cls.__subclasses__()
    return found


def plain(name: str, value: Any) -> Any:
    """The value as plain YAML types, which is all that a safe checkpoint can hold."""
    if isinstance(value, DataSpec):
        return value.to_dict()
    if isinstance(value, dict):
        return {str(k): plain(name, v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(name, v) for v in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)  # of a subclass only the plain value
    if value is None:
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise UserError(
        f"The argument '{name}' is a {type(value).__name__}; these arguments must be plain numbers, strings, lists "
        "and dicts, so that a checkpoint can be loaded safely."
    )
