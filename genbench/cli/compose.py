"""The configs and flags of one command, as one mapping.

All configs are merged in their order, and then all flags, wherever they stand. The parser of `fit` sees the result.
docs/configuration.md has the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genbench.cli.merging import Merging
from genbench.cli.parser_errors import setting_names
from genbench.cli.settable import (
    ROOT,
    SINGLE,
    USUAL,
)
from genbench.core import renamed, yaml_file
from genbench.core.errors import UserError, did_you_mean


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
            near = did_you_mean(renamed.GROUPS.get(parts[0], parts[0]), ROOT)
            if near and len(parts) > 1:  # the whole flag, with its first part put right
                near = near.removesuffix("'?") + f".{'.'.join(parts[1:])}'?"
            near = near or USUAL.get(parts[0]) or did_you_mean(".".join(parts), setting_names())
            raise UserError(f"{verb} has no setting {name}.{near}")
        command.flags.append(Flag(parts, value, append))
    return command


def settings(command: Command) -> Settings:
    """Merge a command's configs and then its flags.

    Raises:
        UserError: for what cannot be merged. Whether names and values are right, the parser knows.
    """
    merging = Merging()
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
