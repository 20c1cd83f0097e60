"""Imports the user's modules by name."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType

from genbench.core.errors import UserError


def import_module(name: str, flag: str) -> ModuleType:
    """Import a module, which may be in the current folder.

    Args:
        name: The name, as in `import name`
        flag: The flag that set the name, for messages

    Raises:
        UserError: the module does not exist, or its code failed. In that case the message ends with its traceback.
    """
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{flag} {name!r} is not the name of a module. Use a name such as `my.module`.")
    if "" not in sys.path:
        sys.path.insert(0, "")  # like `python script.py`: find modules of the current folder
    try:
        return importlib.import_module(name)
    except UserError as error:
        raise UserError(f"{flag} {name}: {error}") from error
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and (name == missing or name.startswith(f"{missing}.")):
            raise UserError(f"{flag} {name}: {error}. Use a module that Python finds from {Path.cwd()}.") from error
        # only the frames of the module itself, without the frames of importlib above them
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames[1:] if "importlib" not in frame.filename]
        raise UserError(f"{flag} {name}: importing the module failed.\n{_text(own, error)}") from error


def own_traceback(error: Exception, cls: type) -> str:
    """The traceback of an error, from the first line in the file of a user's class on."""
    frames = traceback.extract_tb(error.__traceback__)
    file = inspect.getfile(cls)
    first = next((k for k, frame in enumerate(frames) if frame.filename == file), len(frames) - 1)
    return _text(frames[first:], error)


def _text(frames: list[traceback.FrameSummary], error: Exception) -> str:
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    return "".join(lines + traceback.format_exception_only(error)).rstrip()


def required_arguments(cls: type) -> list[str]:
    """Names of the arguments of a class that have no default."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]


def source_hash(*classes: type) -> str:
    """Hash of the source files of the classes, 16 hex digits."""
    digest = hashlib.sha256()
    for cls in classes:
        digest.update(Path(inspect.getfile(cls)).read_bytes())
    return digest.hexdigest()[:16]
