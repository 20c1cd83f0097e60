"""Configs and flags merged into one mapping, one after the other."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from genbench.cli.settable import (
    CLASS_KEYS,
    ROOT,
    Group,
    base_of,
    find_class,
    inner_of,
    options,
    parameters,
)
from genbench.core import yaml_file
from genbench.core.class_paths import same_class
from genbench.core.errors import UserError, did_you_mean

NULLS = ("", "~", "null", "Null", "NULL")
SEXAGESIMAL = re.compile(r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?")


class Merging:
    def __init__(self) -> None:
        from lightning import LightningDataModule, Trainer

        from genbench.cli.trainer import SETTINGS
        from genbench.core.module import GenerativeModule

        groups = {"trainer": Trainer, **SETTINGS}
        self.root = Group(
            {"model": GenerativeModule, "data": LightningDataModule, "seed_everything": int}
            | {name: Group(parameters(cls)) for name, cls in groups.items()}
        )
        self.config: dict[str, Any] = {}
        self.given: dict[str, Any] = {}
        self.dropped: list[str] = []
        self.recording = True

    def add(
        self, change: dict[str, Any], source: str, folder: Path, *, typed: bool = False, appending: bool = False
    ) -> None:
        """Merge one config, or one flag, whose value is text where `typed`."""
        self._source, self._folder, self._typed, self._appending = source, folder, typed, appending
        if unknown := [key for key in change if str(key).partition(".")[0].removesuffix("+") not in ROOT]:
            raise UserError(f"{source}: there is no setting '{unknown[0]}'.{did_you_mean(str(unknown[0]), ROOT)}")
        self.config = self._merge(self.config, change, self.root, ())

    def _merge(self, old: Any, new: Any, hint: Any, path: tuple[str, ...]) -> Any:
        structured = isinstance(hint, Group) or base_of(hint) is not None
        if isinstance(new, str):
            new = self._understood(new, hint, structured, path)
        names_class = isinstance(new, str) and isinstance(old, dict) and "class_path" in old
        is_one = _described(path) or path in (("model",), ("data",))
        if isinstance(new, str) and (is_one or (names_class and structured)):
            new = {"class_path": new}
        if isinstance(new, list):
            new = [self._merge(None, one, hint, path) for one in new] if structured else new
        elif isinstance(new, dict):
            return self._merge_mapping(old, new, hint, path)
        if isinstance(hint, Group) and new is None and not self._typed:  # a config's heading with nothing below it
            return old if isinstance(old, dict) else {}
        if isinstance(hint, Group) and path:
            raise UserError(
                f"{self._source}: {'.'.join(path)} is {new!r}; settings were expected, such as "
                f"{'.'.join(path)}.{next(iter(hint.hints))}."
            )
        self._note(path, new)
        return new

    def _understood(self, text: str, hint: Any, structured: bool, path: tuple[str, ...]) -> Any:
        """A file of settings read; of typed text what it says, where the parser would not know."""
        inner = inner_of(hint)
        takes_text = any(one is str for one in options(hint)) if not isinstance(hint, Group) else False
        if structured or (inner is not None and inner is not Any and not takes_text) or _described(path):
            for place in (self._folder / text, Path(text)):
                if place.suffix in (".yaml", ".yml", ".json") and place.is_file():
                    return yaml_file.read(place)
        is_number = not (structured or takes_text or inner is not None or timedelta in set(options(hint)))
        if is_number and SEXAGESIMAL.fullmatch(text):  # the parser would take 1:30 for 90
            raise UserError(f"{self._source}: {'.'.join(path)} is {text}, which is no number.")
        if is_number and len(text) > yaml_file.MOST_DIGITS:  # nor may its error be that long
            raise UserError(f"{self._source}: {'.'.join(path)} has {len(text)} characters; a number was expected.")
        if not self._typed:
            return text
        if structured or (inner is not None and not takes_text):
            return value_of(text, self._source)
        return text

    def _merge_mapping(self, old: Any, new: dict[Any, Any], hint: Any, path: tuple[str, ...]) -> Any:
        base = None if isinstance(hint, Group) else base_of(hint)
        if isinstance(old, str) and old.lstrip()[:1] == "[":  # a list that was typed as text
            old = yaml_file.parse(old, self._source)
        if isinstance(old, list) and self._typed and (base is not None or all(map(_number, new))):
            return self._change_element(old, new, hint, path)
        free = not isinstance(hint, Group) and inner_of(hint) in (None, Any)
        if self._typed and free and not isinstance(old, dict) and new and all(map(_number, new)):
            raise UserError(
                f"{self._source}: the configs have no list there whose elements could be changed. Give the whole list, "
                f"as --{'.'.join(part for part in path if part != 'init_args')} '[0.5, 0.999]'."
            )
        if isinstance(old, str) and base is not None:
            old = {"class_path": old}
        if not isinstance(old, dict):
            old = {}
        if isinstance(hint, Group) or base is not None:
            new = self._nested(new)
        if base is not None:
            new = self._shaped(new)
        elif _described(path):
            new = self._flat(new)
        if "class_path" in new and (base is not None or _described(path) or "class_path" in old):
            before = old.get("class_path", _default(self.config, path) if old else None)
            if before is not None and not same_class(before, new["class_path"]):
                self._say_dropped(old, before, new["class_path"], path)
                for key in [k for k in self.given if k.startswith(".".join(path) + ".")]:
                    del self.given[key]
                old = {}
            elif before is not None and "class_path" in old and "." not in str(new["class_path"]):
                new = new | {"class_path": before}  # the full name says more
        merged = dict(old)
        for key, value in new.items():
            name = key.removesuffix("+") if isinstance(key, str) else key
            inner = self._hint_of(name, hint, base, merged | new)
            at = (*path, str(name))
            if self._typed and _number(name) and int(name) in merged:
                key = name = int(name)
            if name != key and (self._appending or isinstance(hint, Group) or path[-1:] == ("init_args",)):
                merged.pop(key, None)
                merged[name] = _listed(merged.get(name)) + _listed(self._merge(None, value, inner, at))
                self._note(at, merged[name])
            else:
                merged[key] = self._merge(merged.get(key), value, inner, at)
        return merged

    def _hint_of(self, name: Any, hint: Any, base: type | None, mapping: dict[str, Any]) -> Any:
        if isinstance(hint, Group):
            return hint.hints.get(name, str if hint is self.root else Any)
        if base is not None:
            if name == "init_args":
                cls = find_class(mapping.get("class_path"), base)
                return Group(parameters(cls) if cls is not None else {})
            return str if name == "class_path" else Any
        inner = inner_of(hint)
        return Any if inner is None else inner

    def _change_element(self, old: list[Any], new: dict[Any, Any], hint: Any, path: tuple[str, ...]) -> list[Any]:
        """`--betas.0 0.5` sets the first, `--callbacks.mode max` what belongs to the last that is there."""
        old = list(old)
        for key, value in new.items():
            if _number(key):
                if int(key) >= len(old):
                    raise UserError(f"{self._source}: the list has {len(old)} elements, counted from 0.")
                old[int(key)] = self._merge(old[int(key)], value, self._element(hint), (*path, key))
            else:
                if not old:
                    raise UserError(f"{self._source}: the list is empty.")
                old[-1] = self._merge(old[-1], {key: value}, hint, (*path, str(len(old) - 1)))
        return old

    def _element(self, hint: Any) -> Any:
        return hint if base_of(hint) is not None else Any

    def _nested(self, new: dict[Any, Any]) -> dict[Any, Any]:
        """A config's `model.width: 8` as `model: {width: 8}`."""
        if not any(isinstance(key, str) and "." in key for key in new):
            return new
        found: dict[Any, Any] = {}
        for key, value in new.items():
            first, dot, rest = str(key).partition(".")
            value = {rest: value} if dot else value
            if first in found and not (isinstance(found[first], dict) and isinstance(value, dict)):
                raise UserError(f"{self._source}: '{first}' is set twice.")
            for inner in set(found.get(first, {})) & set(value) if first in found else ():
                raise UserError(f"{self._source}: '{first}.{inner}' is set twice.")
            found[first] = found[first] | value if first in found else value
        return found

    def _shaped(self, new: dict[Any, Any]) -> dict[Any, Any]:
        """A class's arguments below `init_args`, also where they stand beside `class_path`."""
        beside = {key: value for key, value in new.items() if key not in CLASS_KEYS and not _number(key)}
        return self._together(new, beside) if beside else new

    def _flat(self, new: dict[Any, Any]) -> dict[Any, Any]:
        """The arguments of an optimizer or schedule beside its `class_path`, as they are kept."""
        inside = new.get("init_args")
        if not isinstance(inside, dict):
            return new
        self._refuse_both(new, inside)
        return {key: value for key, value in new.items() if key != "init_args"} | inside

    def _together(self, new: dict[Any, Any], beside: dict[Any, Any]) -> dict[Any, Any]:
        inside = new.get("init_args")
        if inside is not None and not isinstance(inside, dict):
            raise UserError(f"{self._source}: init_args is {inside!r}; a class's arguments were expected.")
        self._refuse_both(beside, inside or {})
        return {k: v for k, v in new.items() if k not in beside} | {"init_args": (inside or {}) | beside}

    def _refuse_both(self, beside: dict[Any, Any], inside: dict[Any, Any]) -> None:
        for name in beside.keys() & inside.keys():
            raise UserError(f"{self._source}: '{name}' is set twice, in `init_args` and beside it.")

    def _say_dropped(self, old: dict[str, Any], before: str, now: Any, path: tuple[str, ...]) -> None:
        gone = old.get("init_args") if isinstance(old.get("init_args"), dict) else old
        gone = {key: value for key, value in gone.items() if key not in CLASS_KEYS and value is not None}
        where = ".".join(part for part in path if part != "init_args")
        old_name, name = (str(one).rpartition(".")[2] for one in (before, now))
        values = ", ".join(f"{key}={_short(value)}" for key, value in gone.items())
        self.dropped.append(
            f"{where}: {name} in place of the config's {old_name}"
            + (f"; dropped with it: {values}. What no flag or later config sets is {name}'s default." if values else "")
        )

    def _note(self, path: tuple[str, ...], value: Any) -> None:
        if self.recording:
            self.given[".".join(path)] = value


def value_of(text: str, source: str) -> Any:
    """What a text says as YAML, where in one line only brackets and braces make lists and mappings; else the text."""
    collection = text.lstrip()[:1] in ("[", "{") or "\n" in text
    try:
        found = yaml_file.parse(text, source)
    except UserError:
        if collection:
            raise
        return text
    if found is None and text.strip() not in NULLS:  # a comment alone, such as `#1`
        return text
    return text if isinstance(found, str) or (isinstance(found, (list, dict)) and not collection) else found


def _described(path: tuple[str, ...]) -> bool:
    """Whether an optimizer or a schedule is there: a class path with the arguments beside it."""
    return path[:2] == ("model", "init_args") and (
        (len(path) == 3 and path[2] in ("optimizer", "schedule"))
        or (len(path) == 4 and path[2] in ("optimizers", "schedules"))
    )


def _default(config: dict[str, Any], path: tuple[str, ...]) -> str | None:
    """What an optimizer or schedule is that names no class: Adam, or shares of the budget."""
    if not _described(path):
        return None
    kind = path[2].removesuffix("s")
    arguments = (config.get("model") or {}).get("init_args") or {}
    common = arguments.get(kind)
    named = common.get("class_path") if isinstance(common, dict) and len(path) == 4 else None
    return named or ("torch.optim.Adam" if kind == "optimizer" else "shares of the budget")


def _number(key: Any) -> bool:
    return isinstance(key, str) and key.isdecimal() and len(key) < 10


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        value = yaml_file.parse(value, "a list")
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
