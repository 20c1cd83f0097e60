"""Merge the configs and flags of a command into the mapping that the parser of `fit` reads.

All configs are merged first, from left to right, then all flags, wherever they appear. See docs/configuration.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genbench.cli.merging import Merging
from genbench.cli.parser_errors import setting_names
from genbench.cli.settable import ROOT, SINGLE, USUAL
from genbench.core import renamed, yaml_file
from genbench.core.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Flag:
    """A flag such as `--model.width 8`. `append` is True for `--trainer.callbacks+ X`.

    `value` is the text from the command line, or a parsed value after `_single` has split the flag.
    """

    path: tuple[str, ...]
    value: Any
    append: bool = False

    @property
    def typed(self) -> str:
        return "--" + ".".join(self.path)


@dataclass
class Command:
    """The arguments of `fit` or `validate`.

    Attributes:
        configs: Path and contents of each config, in order
        flags: Settings, in order
        asked: Flags that print text instead of starting a run: `--help`, `--print_config`, `--model.help DCGAN`
        ckpt: Path of the checkpoint of `--ckpt`; `last` and `best` are looked up with `--name` and `--runs`
    """

    configs: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    ckpt: Path | None = None

    def value(self, name: str) -> Any:
        """Return the last value of a top-level setting from the flags, else from the configs; None if it is not set."""
        found = [flag.value for flag in self.flags if flag.path == (name,)]
        found = found or [text[name] for _, text in self.configs if name in text]
        if found and isinstance(found[-1], (list, dict, bool)):
            raise UserError(f"{name} is {found[-1]!r}; expected text.")
        return None if not found or found[-1] is None else str(found[-1])


def read_command(verb: str, argv: Iterable[str], find: Callable[[str], Path]) -> Command:
    """Parse the arguments of a command.

    Args:
        find: Maps a config name to its file

    Raises:
        UserError: a flag has no value, a word is not a flag, a flag has an unknown group, or a config cannot be read.
    """
    command, words = Command(), list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        name = {"-h": "--help", "-c": "--config"}.get(name, name)
        if not name.startswith("--") or name == "--":
            raise UserError(f"{verb} takes only flags, but '{word}' is not a flag. Pass a config as `--config {word}`.")
        if name in ("--help", "--print_config"):
            command.asked.append(name if name == "--help" else word)
        elif name.endswith(".help"):
            takes = not equals and words and not words[0].startswith("-")
            command.asked += [word, words.pop(0)] if takes else [word]
        else:
            if not equals:
                if not words or words[0].startswith("--"):
                    raise UserError(f"{name} needs a value: `{name} VALUE`, or `{name}=VALUE` if it begins with `--`.")
                value = words.pop(0)
            if name == "--config":
                path = find(value)
                command.configs.append((path, yaml_file.read(path)))
            else:
                command.flags.append(_flag(verb, name, value))
    return command


def _flag(verb: str, name: str, value: str) -> Flag:
    parts = tuple(name.removeprefix("--").removesuffix("+").split("."))
    if parts[0] in ROOT and "" not in parts:
        return Flag(parts, value, name.endswith("+"))
    near = did_you_mean(renamed.GROUPS.get(parts[0], parts[0]), ROOT)
    if near and len(parts) > 1:  # suggest the whole flag
        near = near.removesuffix("'?") + f".{'.'.join(parts[1:])}'?"
    near = near or USUAL.get(parts[0]) or did_you_mean(".".join(parts), setting_names())
    raise UserError(f"{verb} has no setting {name}.{near}")


def settings(command: Command) -> Merging:
    """Merge a command's configs and then its flags.

    Raises:
        UserError: the settings cannot be merged. The parser checks names and values later.
    """
    merging = Merging()
    for path, text in command.configs:
        merging.add(text, str(path), path.parent)
    single = [one for flag in command.flags for one in _single(flag)]
    for flag in _classes_first(single):
        if flag.path == ("trainer", "default_root_dir"):
            raise UserError(f"{flag.typed} is not supported. Set the run's folder with `--runs` and `--name`.")
        change: Any = flag.value
        for depth, part in enumerate(reversed(flag.path)):
            change = {part + ("+" if flag.append and depth == 0 else ""): change}
        merging.add(change, flag.typed, Path(), typed=True, appending=flag.append)
    return merging


def _single(flag: Flag) -> list[Flag]:
    """Split `--model.adversarial '{r1: 1, clip: 2}'` into one flag per value; return any other flag unchanged."""
    if flag.path[0] not in SINGLE and not flag.append and flag.value.lstrip()[:1] == "{":
        inner = yaml_file.parse(flag.value, flag.typed)
        if "class_path" in inner:  # kept in one flag: if the class is replaced, its arguments are dropped too
            return [Flag(flag.path, inner)]
        if any(value is not None for value in inner.values()):  # not a mapping but `{a}`, which may be a file name
            return _leaves(flag.path, inner)
    return [flag]


def _leaves(path: tuple[str, ...], value: Any) -> list[Flag]:
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return [leaf for key, inner in value.items() for leaf in _leaves((*path, key), inner)]
    return [Flag(path, value)]


def _classes_first(flags: list[Flag]) -> list[Flag]:
    """Move each class before its arguments, as for `--data.size 64 --data MNIST`; otherwise keep the order.

    Flags of a list to which an element is appended keep their order: in `--trainer.callbacks X --trainer.callbacks+ Y
    --trainer.callbacks.mode max`, the last flag sets the mode of Y.
    """
    lists, paths = {flag.path for flag in flags if flag.append}, {flag.path for flag in flags}
    classes = {("model",), ("data",), *(flag.path for flag in flags if isinstance(flag.value, dict))}

    def depth(flag: Flag) -> float:
        path, value = flag.path, flag.value
        if any(path[: len(other)] == other for other in lists):
            return float("inf")
        if path[-1] == "class_path":
            return len(path) - 1
        has_arguments = path in classes or any(other[: len(path)] == path != other for other in paths)
        is_name = isinstance(value, str) and value not in ("", "null", "true", "false")
        is_name = is_name and value.lstrip()[:1] not in ("[", "{")
        return len(path) if isinstance(value, dict) or (is_name and has_arguments) else float("inf")

    return sorted(flags, key=depth)
