"""Merge configs and flags into one mapping, one after the other, by the rules in docs/configuration.md."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from genbench.cli.settable import CLASS_KEYS, ROOT, Group, base_of, find_class, inner_of, options, parameters
from genbench.core import yaml_file
from genbench.core.class_paths import same_class
from genbench.core.errors import UserError, did_you_mean

NETWORK = ("model", "init_args", "network")  # settings of a network, whose `kind` decides which exist
NULLS = ("", "~", "null", "Null", "NULL")
SEXAGESIMAL = re.compile(r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?")


class Merging:
    """The settings merged so far.

    Attributes:
        config: With the keys of the parser: `{model: {class_path: ..., init_args: {width: 8}}}`
        dropped: One sentence for each replaced class, with the arguments that were dropped with it
    """

    def __init__(self) -> None:
        from lightning import LightningDataModule, Trainer

        from genbench.cli.trainer import SETTINGS
        from genbench.core.module import GenerativeModule

        groups = {name: Group(parameters(cls)) for name, cls in {"trainer": Trainer, **SETTINGS}.items()}
        self.root = Group({"model": GenerativeModule, "data": LightningDataModule, "seed_everything": int} | groups)
        self.config: dict[str, Any] = {}
        self.dropped: list[str] = []

    def add(
        self, change: dict[str, Any], source: str, folder: Path, *, typed: bool = False, appending: bool = False
    ) -> None:
        """Merge one config or one flag.

        Args:
            change: The settings of the config or flag
            source: Path of the config or name of the flag, for error messages
            folder: Folder in which files named by the config are looked up first
            typed: Whether the values are text from the command line
            appending: Whether it is a flag that appends to a list, such as `--trainer.callbacks+`
        """
        self._source, self._folder, self._typed, self._appending = source, folder, typed, appending
        if unknown := [key for key in change if str(key).partition(".")[0].removesuffix("+") not in ROOT]:
            raise UserError(f"{source}: there is no setting '{unknown[0]}'.{did_you_mean(str(unknown[0]), ROOT)}")
        self.config = self._merge(self.config, change, self.root, ())

    def _merge(self, old: Any, new: Any, hint: Any, path: tuple[str, ...]) -> Any:
        structured = isinstance(hint, Group) or base_of(hint) is not None
        if isinstance(new, str):
            new = self._read(new, hint, structured, path)
        if isinstance(new, str) and (
            _is_description(path)
            or path in (("model",), ("data",))
            or (structured and isinstance(old, dict) and "class_path" in old)
        ):
            new = {"class_path": new}
        if isinstance(new, dict):
            return self._merge_mapping(old, new, hint, path)
        if isinstance(hint, Group):
            if new is None and not self._typed:  # a config's key without a value, such as `trainer:`
                return old if isinstance(old, dict) else {}
            example = f"{'.'.join(path)}.{next(iter(hint.hints))}"
            raise UserError(f"{self._source}: {'.'.join(path)} is {new!r}; expected settings, such as {example}.")
        if isinstance(new, list) and structured:
            return [self._merge(None, one, hint, path) for one in new]
        return new

    def _read(self, text: str, hint: Any, structured: bool, path: tuple[str, ...]) -> Any:
        """Read the settings file that `text` names, or else parse the text where the parser of `fit` would not."""
        kinds, inner = list(options(hint)), inner_of(hint)
        takes_text = str in kinds
        is_mapping = inner is not None and not takes_text
        if structured or (is_mapping and inner is not Any) or _is_description(path):
            for place in (self._folder / text, Path(text)):
                if place.suffix in (".yaml", ".yml", ".json") and place.is_file():
                    return yaml_file.read(place)
        if not (structured or takes_text or inner is not None or timedelta in kinds):  # the setting is a number
            if SEXAGESIMAL.fullmatch(text):  # the parser would read 1:30 as 90
                raise UserError(f"{self._source}: {'.'.join(path)} is {text}, which is not a number.")
            if len(text) > yaml_file.MOST_DIGITS:  # the parser's error would print the whole text
                raise UserError(f"{self._source}: {'.'.join(path)} has {len(text)} characters; expected a number.")
        return value_of(text, self._source) if self._typed and (structured or is_mapping) else text

    def _merge_mapping(self, old: Any, new: dict[Any, Any], hint: Any, path: tuple[str, ...]) -> Any:
        base = None if isinstance(hint, Group) else base_of(hint)
        indices = all(map(_is_index, new))
        if isinstance(old, str) and old.lstrip()[:1] == "[":  # a list that was typed as text
            old = yaml_file.parse(old, self._source)
        if isinstance(old, list) and self._typed and (base is not None or indices):
            return self._change_element(old, new, hint, path)
        free = not isinstance(hint, Group) and inner_of(hint) in (None, Any)
        if self._typed and free and not isinstance(old, dict) and new and indices:
            raise UserError(
                f"{self._source}: the configs contain no list here, so no element can be changed. Set the whole "
                f"list: --{_flag(path)} '[0.5, 0.999]'."
            )
        if isinstance(old, str) and base is not None:
            old = {"class_path": old}
        if not isinstance(old, dict):
            old = {}
        if isinstance(hint, Group) or base is not None:
            new = self._nested(new)
        if base is not None:
            new = self._with_init_args(new)
        elif _is_description(path):
            new = self._without_init_args(new)
        if "class_path" in new and (base is not None or _is_description(path) or "class_path" in old):
            before = old.get("class_path", _default(self.config, path) if old else None)
            if before is not None and not same_class(before, new["class_path"]):
                self._note_dropped(old, before, new["class_path"], path)
                old = {}
            elif before is not None and "class_path" in old and "." not in str(new["class_path"]):
                new = new | {"class_path": before}  # keep the full class path
        if path == NETWORK and "kind" in new and new["kind"] != old.get("kind", "unet") and old:
            before = old.get("kind", "unet")
            self._note_dropped({key: value for key, value in old.items() if key != "kind"}, before, new["kind"], path)
            old = {}
        merged = dict(old)
        for key, value in new.items():
            name = key.removesuffix("+") if isinstance(key, str) else key
            inner = self._hint_of(name, hint, base, merged | new)
            at = (*path, str(name))
            if self._typed and _is_index(name) and int(name) in merged:
                key = name = int(name)
            if name != key and (self._appending or isinstance(hint, Group) or path[-1:] == ("init_args",)):
                merged.pop(key, None)
                merged[name] = _as_list(merged.get(name)) + _as_list(self._merge(None, value, inner, at))
            else:
                merged[key] = self._merge(merged.get(key), value, inner, at)
        return merged

    def _hint_of(self, name: Any, hint: Any, base: type | None, mapping: dict[str, Any]) -> Any:
        if isinstance(hint, Group):
            return hint.hints.get(name, str if hint is self.root else Any)
        if base is None:
            return inner_of(hint) or Any
        if name == "init_args":
            cls = find_class(mapping.get("class_path"), base)
            return Group(parameters(cls) if cls is not None else {})
        return str if name == "class_path" else Any

    def _change_element(self, old: list[Any], new: dict[Any, Any], hint: Any, path: tuple[str, ...]) -> list[Any]:
        """Set one element (`--betas.0 0.5`), or an argument of the last callback (`--callbacks.mode max`)."""
        old, element = list(old), hint if base_of(hint) is not None else Any
        for key, value in new.items():
            index, change = (int(key), value) if _is_index(key) else (len(old) - 1, {key: value})
            if not 0 <= index < len(old):
                raise UserError(
                    f"{self._source}: there is no such element. The list has {len(old)} elements, numbered from 0."
                )
            old[index] = self._merge(old[index], change, element, (*path, str(index)))
        return old

    def _nested(self, new: dict[Any, Any]) -> dict[Any, Any]:
        """Convert `model.width: 8` of a config to `model: {width: 8}`."""
        if not any(isinstance(key, str) and "." in key for key in new):
            return new
        found: dict[Any, Any] = {}
        for key, value in new.items():
            first, dot, rest = str(key).partition(".")
            value = {rest: value} if dot else value
            if first in found:
                if not (isinstance(found[first], dict) and isinstance(value, dict)):
                    raise UserError(f"{self._source}: '{first}' is set twice.")
                for inner in found[first].keys() & value.keys():
                    raise UserError(f"{self._source}: '{first}.{inner}' is set twice.")
                value = found[first] | value
            found[first] = value
        return found

    def _with_init_args(self, new: dict[Any, Any]) -> dict[Any, Any]:
        """Move the arguments of a class that stand next to `class_path` into `init_args`."""
        beside = {key: value for key, value in new.items() if key not in CLASS_KEYS and not _is_index(key)}
        if not beside:
            return new
        inside = new.get("init_args")
        if inside is not None and not isinstance(inside, dict):
            raise UserError(f"{self._source}: init_args is {inside!r}; expected the arguments of a class.")
        rest = {key: value for key, value in new.items() if key not in beside}
        return rest | {"init_args": self._joined(beside, inside or {})}

    def _without_init_args(self, new: dict[Any, Any]) -> dict[Any, Any]:
        """Move the `init_args` of an optimizer or schedule next to `class_path`."""
        inside = new.get("init_args")
        if not isinstance(inside, dict):
            return new
        return self._joined({key: value for key, value in new.items() if key != "init_args"}, inside)

    def _joined(self, beside: dict[Any, Any], inside: dict[Any, Any]) -> dict[Any, Any]:
        for name in beside.keys() & inside.keys():
            raise UserError(f"{self._source}: '{name}' is set twice, inside `init_args` and next to it.")
        return beside | inside

    def _note_dropped(self, old: dict[str, Any], before: str, now: Any, path: tuple[str, ...]) -> None:
        gone = old["init_args"] if isinstance(old.get("init_args"), dict) else old
        texts = {key: str(value) for key, value in gone.items() if key not in CLASS_KEYS and value is not None}
        values = ", ".join(f"{key}={text if len(text) <= 60 else text[:57] + '...'}" for key, text in texts.items())
        old_name, name = (str(one).rpartition(".")[2] for one in (before, now))
        self.dropped.append(
            f"{_flag(path)}: {name} replaces the config's {old_name}"
            + (f", whose settings are dropped: {values}. Other settings have the defaults of {name}." if values else "")
        )


def value_of(text: str, source: str) -> Any:
    """Parse a text as YAML. A single line is a list or mapping only if it begins with a bracket or brace."""
    collection = text.lstrip()[:1] in ("[", "{") or "\n" in text
    try:
        found = yaml_file.parse(text, source)
    except UserError:
        if collection:
            raise
        return text
    if found is None and text.strip() not in NULLS:  # the text is only a comment, such as `#1`
        return text
    return text if isinstance(found, str) or (isinstance(found, (list, dict)) and not collection) else found


def _flag(path: tuple[str, ...]) -> str:
    return ".".join(part for part in path if part != "init_args")


def _is_description(path: tuple[str, ...]) -> bool:
    """Whether the setting is an optimizer or a schedule: a class path with the arguments next to it."""
    name = r"model\.init_args\.(optimizer|schedule|(optimizers|schedules)\.[^.]+)"
    return re.fullmatch(name, ".".join(path)) is not None


def _default(config: dict[str, Any], path: tuple[str, ...]) -> str | None:
    """Return the class of an optimizer or schedule that sets none: the one set for all, or else the default."""
    if not _is_description(path):
        return None
    kind = path[2].removesuffix("s")
    common = ((config.get("model") or {}).get("init_args") or {}).get(kind)
    named = common.get("class_path") if isinstance(common, dict) and len(path) == 4 else None
    return named or ("torch.optim.Adam" if kind == "optimizer" else "shares of the budget")


def _is_index(key: Any) -> bool:
    return isinstance(key, str) and key.isdecimal() and len(key) < 10


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        value = yaml_file.parse(value, "a list")
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
