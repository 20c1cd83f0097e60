"""The configs and flags of one command, as one mapping.

All configs are merged in their order, and then all flags, wherever they stand. The parser of `fit` sees the result.
docs/configuration.md has the rules.
"""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from genbench.core import yaml_file
from genbench.core.class_paths import same_class
from genbench.core.errors import UserError, did_you_mean

# what `fit` and `validate` have outside of every group, and their groups
SINGLE = ("seed_everything", "max_images", "name", "title", "protocol", "runs", "ckpt")
GROUPS = ("trainer", "acceleration", "ema", "monitor", "balance", "codebook", "pictures", "quality", "checkpoint")
ROOT = (*SINGLE, *GROUPS, "model", "data")

USUAL = {  # what other frameworks call these
    "lr": " Did you mean 'model.optimizer.lr'?",
    "learning_rate": " Did you mean 'model.optimizer.lr'?",
    "batch_size": " Did you mean 'data.batch_size'?",
    "epochs": " Did you mean 'max_images'? The budget is counted in images.",
    "max_epochs": " Did you mean 'max_images'? The budget is counted in images.",
    "steps": " Did you mean 'max_images'? The budget is counted in images.",
    "seed": " Did you mean 'seed_everything'?",
}

CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")
SCALARS = (str, bytes, int, float, complex, types.NoneType, os.PathLike, enum.Enum, timedelta)
COLLECTIONS = (list, tuple, set, frozenset)
NULLS = ("", "~", "null", "Null", "NULL")
SEXAGESIMAL = re.compile(r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?")


@dataclass(frozen=True)
class Flag:
    """`--model.width 8`; `append` for `--trainer.callbacks+ X`. `value` is text as it was typed."""

    path: tuple[str, ...]
    value: Any
    append: bool = False

    @property
    def typed(self) -> str:
        return "--" + ".".join(self.path)


@dataclass
class Command:
    """What was typed after `fit` or `validate`.

    configs  the files in their order, with what they hold
    own      how many of them, from the first, are the config of the run that `--ckpt` names
    flags    in their order
    asked    what asks for text in place of a run: `--help`, `--print_config`, `--model.help DCGAN`
    ckpt     the checkpoint that `--ckpt` means, by the `name` and `runs` that were given and not those of its run
    """

    verb: str
    configs: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    own: int = 0
    flags: list[Flag] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    ckpt: Path | None = None

    def value(self, name: str) -> Any:
        """The last value of a setting that has no parts, from flags, else from configs; None if it is not set."""
        found = [flag.value for flag in self.flags if flag.path == (name,)]
        found = found or [text[name] for _, text in self.configs if name in text]
        if found and isinstance(found[-1], (list, dict, bool)):
            raise UserError(f"{name} is {found[-1]!r}; text was expected.")
        return None if not found or found[-1] is None else str(found[-1])


@dataclass
class Settings:
    """All configs and flags of a command, merged.

    config   for the parser, by its names: `{model: {class_path: ..., init_args: {width: 8}}}`
    given    `model.init_args.width` -> value, of what flags and other configs than the resumed run's own have set
    dropped  a sentence for each class that took the place of another, whose arguments are gone
    """

    config: dict[str, Any]
    given: dict[str, Any]
    dropped: list[str]


def read_command(verb: str, argv: Iterable[str], find: Callable[[str], Path]) -> Command:
    """Take the words of a command apart; `find` gives the file of a config's name.

    Raises:
        UserError: a flag without a value, a word that is no flag, a flag of no group, a config that cannot be read.
    """
    command = Command(verb)
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name in ("-h", "--help"):
            command.asked.append("--help")
            continue
        if name in ("-c", "--config"):
            name = "--config"
        elif not name.startswith("--") or name == "--":
            raise UserError(f"{verb} takes flags alone, and '{word}' is none: give a config as `--config {word}`.")
        if name == "--print_config":
            command.asked.append(word)
            continue
        if name.endswith(".help"):
            takes = not equals and words and not words[0].startswith("-")
            command.asked += [word, words.pop(0)] if takes else [word]
            continue
        if not equals:
            if not words or words[0].startswith("--"):
                raise UserError(f"{name} needs a value: `{name} VALUE`, or `{name}=VALUE` where it begins with `--`.")
            value = words.pop(0)
        if name == "--config":
            path = find(value)
            command.configs.append((path, yaml_file.read(path)))
            continue
        append = name.endswith("+")
        parts = tuple(name.removeprefix("--").removesuffix("+").split("."))
        if parts[0] not in ROOT or "" in parts:
            near = did_you_mean(parts[0], ROOT)
            if near and len(parts) > 1:  # the whole flag, with its first part put right
                near = near.removesuffix("'?") + f".{'.'.join(parts[1:])}'?"
            near = near or USUAL.get(parts[0]) or did_you_mean(".".join(parts), _setting_names())
            raise UserError(f"{verb} has no setting {name}.{near}")
        command.flags.append(Flag(parts, value, append))
    return command


def settings(command: Command) -> Settings:
    """Merge a command's configs and then its flags.

    Raises:
        UserError: for what cannot be merged. Whether names and values are right, the parser knows.
    """
    merging = _Merging()
    for number, (path, text) in enumerate(command.configs):
        merging.recording = number >= command.own
        merging.add(text, str(path), path.parent)
    merging.recording = True
    for flag in _classes_first(list(_single(command.flags))):
        if flag.path == ("trainer", "default_root_dir"):
            raise UserError(f"{flag.typed} is not followed here: the run's folder is `--runs` and `--name`.")
        change: Any = flag.value
        for depth, part in enumerate(reversed(flag.path)):
            change = {part + ("+" if flag.append and depth == 0 else ""): change}
        merging.add(change, flag.typed, Path(), typed=True, appending=flag.append)
    return Settings(merging.config, merging.given, merging.dropped)


def _single(flags: list[Flag]) -> Iterator[Flag]:
    """Each `--model.adversarial '{r1: 1, clip: 2}'` as one flag for each of its values."""
    for flag in flags:
        inner = None
        if flag.path[0] not in SINGLE and not flag.append and str(flag.value).lstrip()[:1] == "{":
            inner = yaml_file.parse(flag.value, flag.typed)
        if isinstance(inner, dict) and "class_path" in inner:  # its arguments belong to that class, and go with it
            yield Flag(flag.path, inner)
        elif isinstance(inner, dict) and any(v is not None for v in inner.values()):  # `{a}` may be a file's name
            yield from _leaves(flag.path, inner)
        else:
            yield flag


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[Flag]:
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for key, inner in value.items():
            yield from _leaves((*path, key), inner)
    else:
        yield Flag(path, value)


def _classes_first(flags: list[Flag]) -> list[Flag]:
    """In their order, but a class before its arguments, wherever it stands: `--data.size 64 --data MNIST`.

    Where something is appended the order is meant: `--trainer.callbacks X --trainer.callbacks+ Y
    --trainer.callbacks.mode max` sets the mode of Y.
    """
    lists = {flag.path for flag in flags if flag.append}
    paths = {flag.path for flag in flags}
    classes = {flag.path for flag in flags if isinstance(flag.value, dict)}

    def depth(flag: Flag) -> float:
        if any(flag.path[: len(path)] == path for path in lists):
            return float("inf")
        if flag.path[-1] == "class_path":
            return len(flag.path) - 1
        if isinstance(flag.value, dict):
            return len(flag.path)
        names = isinstance(flag.value, str) and flag.value not in ("", "null", "true", "false") and (
            flag.path in (("model",), ("data",), *classes) or any(p[: len(flag.path)] == flag.path != p for p in paths)
        ) and flag.value.lstrip()[:1] not in ("[", "{")  # fmt: skip
        return len(flag.path) if names else float("inf")

    return sorted(flags, key=depth)


# ---- what a setting may be --------------------------------------------------------------------------------------


class Group:
    """The place of settings by fixed names, each with a type."""

    def __init__(self, hints: dict[str, Any]) -> None:
        self.hints = hints


@functools.cache
def parameters(cls: type) -> dict[str, Any]:
    """Argument -> type, of a class's constructor and of those of its bases that it hands arguments on to."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if not inspect.isfunction(init):
            continue
        try:
            hints = typing.get_type_hints(init)
        except Exception:  # names that are imported for type checkers alone
            hints = {}
        more = False
        for name, parameter in list(inspect.signature(init).parameters.items())[1:]:
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                more = True
            elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
                found.setdefault(name, hints.get(name, Any))
        if not more:
            break
    return found


def _options(hint: Any) -> Iterator[Any]:
    """The alternatives of a type, with those of a list's elements."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType, typing.Annotated) or (
        inspect.isclass(origin) and issubclass(origin, Iterable) and not issubclass(origin, Mapping)
    ):
        for one in inner:
            yield from _options(one)
    else:
        yield hint


def _base(hint: Any) -> type | None:
    """The class below which a setting names one."""
    for one in _options(hint):
        if inspect.isclass(one) and one not in (object, Any) and not issubclass(one, (*SCALARS, *COLLECTIONS, Mapping)):
            return None if is_dataclass(one) else one
    return None


def _inner(hint: Any) -> Any:
    """The type of a mapping's values, where a setting may be a mapping; else None."""
    for one in _options(hint):
        origin = typing.get_origin(one) or one
        if one is Any or (inspect.isclass(origin) and (issubclass(origin, Mapping) or is_dataclass(origin))):
            inner = typing.get_args(one)
            return inner[1] if len(inner) == 2 else Any
    return None


def find_class(path: Any, base: type) -> type | None:
    """The class of a full path, or of a short name below `base`; None if there is none, or several."""
    from genbench.core.arguments import loaded_classes

    if not isinstance(path, str):
        return None
    module, _, name = path.rpartition(".")
    if not module:
        found = {cls for cls in loaded_classes(base).values() if cls.__name__ == name}
        return found.pop() if len(found) == 1 else None
    try:  # the parser imports it anyway
        cls = getattr(importlib.import_module(module), name, None)
    except Exception:
        return None
    return cls if inspect.isclass(cls) else None


# ---- merging ----------------------------------------------------------------------------------------------------


class _Merging:
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
        structured = isinstance(hint, Group) or _base(hint) is not None
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
        inner = _inner(hint)
        takes_text = any(one is str for one in _options(hint)) if not isinstance(hint, Group) else False
        if structured or (inner is not None and inner is not Any and not takes_text) or _described(path):
            for place in (self._folder / text, Path(text)):
                if place.suffix in (".yaml", ".yml", ".json") and place.is_file():
                    return yaml_file.read(place)
        is_number = not (structured or takes_text or inner is not None or timedelta in set(_options(hint)))
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
        base = None if isinstance(hint, Group) else _base(hint)
        if isinstance(old, str) and old.lstrip()[:1] == "[":  # a list that was typed as text
            old = yaml_file.parse(old, self._source)
        if isinstance(old, list) and self._typed and (base is not None or all(map(_number, new))):
            return self._change_element(old, new, hint, path)
        free = not isinstance(hint, Group) and _inner(hint) in (None, Any)
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
        inner = _inner(hint)
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
        return hint if _base(hint) is not None else Any

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


# ---- the parser's errors ----------------------------------------------------------------------------------------


def explained(text: str) -> str:
    """The parser's message in one line: the setting's whole name, what is wrong, and the nearest name that there is."""
    noise = (
        "Does not validate", "Subtypes:", "Errors:", "Given value", "Expected a <class 'NoneType'>",
        "Subclass types expect one of:", "a class path (str)", "a dict with", "a dict without",
    )  # fmt: skip
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(noise)]
    names: list[str] = []
    cls: type | None = None
    said: list[str] = []
    for line in lines:
        if found := re.match(r'Parser key "([^"]+)":\s*(.*)', line):
            names.append(found[1])
            said += [found[2]] if found[2] else []
        elif found := re.match(r"Problem with given class_path '([^']+)':", line):
            cls = find_class(found[1], object) or cls
        else:
            said.append(line)
    if missing := re.search(r"Expected a dot import path string: (\S+)", text):
        whole = f"there is no class '{missing[1]}'.{did_you_mean(missing[1], _class_names())}"
        return f"{'.'.join(names)}: {whole}" if names else whole
    whole = "; ".join(dict.fromkeys(said))
    if found := re.search(r"Option '([^']+)' is not accepted", whole):
        known = parameters(cls) if cls is not None else {}
        by = f" by {cls.__name__}" if cls is not None else ""
        whole = whole.replace(found[0], f"{found[0]}{by}.{did_you_mean(found[1], known) or USUAL.get(found[1], '')}")
    elif found := re.search(r"does not accept option '([^']+)'", whole):
        whole = f"There is no setting '{found[1]}'.{did_you_mean(found[1], _setting_names())}"
    elif found := re.search(r"module '\S+' has no attribute '([^']+)'", whole):
        whole += f".{did_you_mean(found[1], _class_names())}"
    return f"{'.'.join(names)}: {whole}" if names else whole


def _class_names() -> set[str]:
    """Short names of all classes that a setting may name, of those that are loaded."""
    from lightning import Callback, LightningDataModule, LightningModule
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.strategies import Strategy

    from genbench.core.arguments import loaded_classes

    bases = (LightningModule, LightningDataModule, Callback, Logger, Strategy)
    return {cls.__name__ for base in bases for cls in loaded_classes(base).values()}


def _setting_names() -> set[str]:
    """`trainer.precision`, and what most models and data sets have."""
    from genbench.core.module import GenerativeModule
    from genbench.data import ImageData

    hints = _Merging().root.hints
    found = {f"{group}.{name}" for group, of in hints.items() if isinstance(of, Group) for name in of.hints}
    found |= {
        f"{group}.{name}"
        for group, cls in (("model", GenerativeModule), ("data", ImageData))
        for name in parameters(cls)
    }
    return found | {"model.adversarial", "model.width", "model.latent_dim"} | set(ROOT)
