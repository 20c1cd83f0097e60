"""fit and validate: LightningCLI with genbench's run folders, budgets and callbacks."""

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
    """Run the command and return the exit status."""
    typed = argv
    if asks := [k for k, word in enumerate(argv) if word in ("-h", "--help")]:
        if argv[asks[0] + 1 : asks[0] + 2] != ["all"]:
            print(help_page(verb))
            return 0
        argv = argv[: asks[0] + 1] + argv[asks[0] + 2 :]
    command = with_configs(verb, import_modules(argv))
    from genbench.cli.trainer import GenbenchCLI  # slow: imports torch and lightning

    try:
        with warnings.catch_warnings():
            quiet()
            GenbenchCLI.run(verb, command, typed)
    except Interrupted as stop:
        return 128 + stop.signum
    return 0


def with_configs(verb: str, argv: list[str]) -> Command:
    """Parse the command line and read its configs. With `--ckpt`, the config of that run is added.

    A config passed with `--ckpt` replaces the run's config if it names a model; otherwise it is merged into it.
    """
    command = read_command(verb, argv, configs.named)
    ckpt = command.value("ckpt")
    if ckpt in (None, "null"):
        if verb != "fit" and not command.asked:
            raise UserError(f"{verb} needs a trained model: pass `--ckpt PATH`.")
        return command
    command.ckpt = path = find_checkpoint(ckpt, Path(command.value("runs") or "runs"), command.value("name"))
    if any(_names_model(text) for _, text in command.configs):
        return command
    run = run_of(path)
    if run is not None and (run / "config.yaml").is_file():
        own = (run / "config.yaml", yaml_file.read(run / "config.yaml"))
    else:
        from genbench.core import checkpoint_io

        own = (path, (checkpoint_io.read(path).get("run") or {}).get("config") or {})  # none if a script saved it
    if own[1]:
        command.configs.insert(0, own)
    elif not any(flag.path[0] == "model" for flag in command.flags):
        raise UserError(
            f"{path} does not contain the config of its run: pass `--config` too. `evaluate` and `sample` need "
            "only the checkpoint."
        )
    return command


def _names_model(text: dict[str, Any]) -> bool:
    model = text.get("model")
    return isinstance(model, str) or (isinstance(model, dict) and "class_path" in model) or "model.class_path" in text
