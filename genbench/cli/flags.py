"""Flags shared by several commands, and the argparse parser of all commands except `fit` and `validate`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from genbench.core import files
from genbench.core.errors import UserError, did_you_mean
from genbench.core.importing import import_module


class Arguments(argparse.ArgumentParser):
    """An ArgumentParser that reports an error in one sentence, without listing all flags, and exits with 2."""

    def flags(self) -> Iterator[str]:
        """All flags, including those of subcommands."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser.flags()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and refuse integers that do not fit into 62 bits; seeds and counts are added in 64 bits."""
        found, more = super().parse_known_args(args, namespace)
        for action in self._actions:
            value = getattr(found, action.dest, None)
            if isinstance(value, int) and abs(value) >= 2**62:
                raise UserError(f"{action.option_strings[-1]} is {value}; expected a number of at most 62 bits.")
        return found, more

    def error(self, message: str) -> NoReturn:
        near = ""
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            near = did_you_mean(found[1].partition("=")[0], self.flags())
        elif found := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            near = did_you_mean(found[1], re.findall(r"[\w.-]+", found[2]))
        self.exit(2, f"error: {message}.{near} `{self.prog} --help` lists all flags.\n")


def import_modules(argv: list[str]) -> list[str]:
    """Import each `--import my.module`, and return the other arguments."""
    rest, given = [], iter(argv)
    for argument in given:
        name, equals, value = argument.partition("=")
        if name != "--import":
            rest.append(argument)
            continue
        module = value if equals else next(given, "")
        import_module(module, "--import")
    return rest


def add_import_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--import MODULE` to a parser, which stores the names in `modules`; `import_modules` imports them."""
    parser.add_argument(
        "--import", dest="modules", action="append", default=[], metavar="MODULE",
        help="first import a module with your own models",
    )  # fmt: skip


def add_model_arguments(parser: argparse.ArgumentParser, required: bool = True, several: bool = False) -> None:
    """Add the flags of a command that applies a trained model, or several: checkpoint, weights and device."""
    parser.add_argument(
        "--ckpt", required=required, nargs="+" if several else None, metavar="PATH",
        help="checkpoint, run folder, last / best, or pretrained/NAME",
    )  # fmt: skip
    add_weights_arguments(parser)
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda if available)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs, for --ckpt last")
    parser.add_argument("--name", help="name of the run, for --ckpt last")
    add_import_argument(parser)


def add_weights_arguments(parser: argparse._ActionsContainer) -> None:
    """Add `--raw` and `--ema`, which select other weights of a checkpoint than its EMA weights."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--raw", action="store_true", help="use the raw weights instead of the EMA weights")
    which.add_argument(
        "--ema", type=float, metavar="LENGTH",
        help="use the power-function average of this length, such as 0.075 (of a run with `power_ema`)",
    )  # fmt: skip


def find_checkpoint(ckpt: str, runs: Path, name: str | None) -> Path:
    """Return the file for `--ckpt`: a file, a run folder, or `last` / `best` of the run `name`, else of the newest run.

    Raises:
        UserError: no checkpoint was found. The message says where it was searched for.
    """
    try:
        return files.find_checkpoint(ckpt, runs, name)
    except UserError as error:
        raise UserError(f"--ckpt {ckpt}: {str(error)[0].lower()}{str(error)[1:]}") from error


def usable_device(name: str) -> str:
    """Return the device for `--device`; `auto` is a GPU if one is available.

    Raises:
        UserError: this machine does not have the device.
    """
    import torch

    device = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from error
    return device


def own_options(model: Any, given: list[str], *methods: str, flags: Iterable[str] = ()) -> dict[str, Any]:
    """Parse `given` into the model's own options of the methods, such as `sample`.

    `flags` are the flags of the command, which an error may suggest.

    Raises:
        UserError: an option is unknown, or its value is outside the bounds or choices of the method.
    """
    from genbench.core.capabilities import check_options
    from genbench.core.capabilities import options as options_of

    known: dict[str, Any] = {}
    for method in methods:
        known |= options_of(getattr(model, method)) if hasattr(model, method) else {}
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    for name, default in known.items():
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        parser.add_argument(*spellings, type=_boolean if isinstance(default, bool) else type(default), default=default)
    try:
        options, unknown = parser.parse_known_args(given)
    except argparse.ArgumentError as error:
        raise UserError(f"{error}.") from error
    if unknown:
        listed = (
            ", ".join(f"--{name} (default {'none' if default == '' else default})" for name, default in known.items())
            or "none"
        )
        near = did_you_mean(unknown[0].partition("=")[0], [*(f"--{name}" for name in known), *flags])
        raise UserError(f"{type(model).__name__} has no option {unknown[0]}; its own options: {listed}.{near}")
    for method in methods:
        if hasattr(model, method):
            of = getattr(model, method)
            check_options(of, {name: value for name, value in vars(options).items() if name in options_of(of)})
    return vars(options)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() == "true"
