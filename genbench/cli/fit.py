"""fit, validate, test: LightningCLI with genbench's run folders, budgets and callbacks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from genbench.cli import configs
from genbench.cli.compose import Command, read_command
from genbench.cli.flags import find_checkpoint, import_modules
from genbench.cli.help import help_page
from genbench.cli.quiet import quiet
from genbench.cli.run_folders import run_of
from genbench.core import yaml_file
from genbench.core.errors import Interrupted, UserError


def main(verb: str, argv: list[str]) -> int:
    """Run the verb; returns the exit status."""
    typed = argv
    if asks := [k for k, word in enumerate(argv) if word in ("-h", "--help")]:
        if argv[asks[0] + 1 : asks[0] + 2] != ["all"]:
            print(help_page(verb))
            return 0
        argv = argv[: asks[0] + 1] + argv[asks[0] + 2 :]
    command = with_configs(verb, import_modules(argv))
    from genbench.cli.trainer import GenbenchCLI  # here the wait begins: torch and lightning

    try:
        with warnings.catch_warnings():
            quiet()
            GenbenchCLI.run(verb, command, typed)
    except Interrupted as stop:
        return 128 + stop.signum
    return 0


def with_configs(verb: str, argv: list[str]) -> Command:
    """What was typed, with the configs that it names read; a checkpoint in a run folder brings that run's config.

    A config beside `--ckpt` that names a model takes the place of the run's own; one that does not is merged into it.
    """
    command = read_command(verb, argv, configs.named)
    ckpt = command.value("ckpt")
    if ckpt not in (None, "null"):
        path = find_checkpoint(ckpt, Path(command.value("runs") or "runs"), command.value("name"))
        command.ckpt = path
        run = run_of(path)
        has_model = any(_names_model(text) for _, text in command.configs)
        if not has_model:
            kept = run / "config.yaml" if run is not None else None
            own = (kept, yaml_file.read(kept)) if kept and kept.is_file() else (path, _config_in(path))
            if own[1]:
                command.configs.insert(0, own)
            elif not any(flag.path[0] == "model" for flag in command.flags):
                raise UserError(
                    f"{path} does not hold the config of its run: give `--config` too. `evaluate` and `sample` need "
                    "the checkpoint alone."
                )
    elif verb != "fit" and not command.asked:
        raise UserError(f"{verb} scores a trained model: give `--ckpt PATH`.")
    return command


def _config_in(path: Path) -> dict[str, Any]:
    """The config that a checkpoint holds; empty if it holds none, being of a script of one's own."""
    from genbench.core import checkpoint_io

    return (checkpoint_io.read(path).get("run") or {}).get("config") or {}


def _names_model(text: dict[str, Any]) -> bool:
    model = text.get("model")
    return isinstance(model, str) or (isinstance(model, dict) and "class_path" in model) or "model.class_path" in text
