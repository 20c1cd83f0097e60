"""fit, validate, test: LightningCLI with genbench's run folders, budgets and callbacks."""

from __future__ import annotations

import warnings
from pathlib import Path

from genbench.cli import configs
from genbench.cli.runs import find_checkpoint, import_modules, quiet, run_of
from genbench.core.errors import Interrupted, UserError


def main(verb: str, argv: list[str]) -> int:
    """Run the verb; returns the exit status."""
    typed, argv = argv, with_configs(verb, import_modules(argv))
    from genbench.cli.trainer import GenbenchCLI  # here the wait begins: torch and lightning

    command = [verb, *argv]
    try:
        with warnings.catch_warnings():
            quiet()
            GenbenchCLI.run(verb, command, typed)
    except Interrupted as stop:
        return 128 + stop.signum
    return 0


def with_configs(verb: str, argv: list[str]) -> list[str]:
    """Config names become paths; a checkpoint in a run folder brings that run's config, if no other is given."""
    rest: list[str] = []
    given = iter(argv)
    for argument in given:
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-c"):
            rest.append(argument)
            continue
        name = value if equals else next(given, "")
        path = configs.find(name)
        if path is None:
            raise UserError(
                f"There is no config '{name}': neither a file of that path, nor one of those at hand "
                f"({', '.join(configs.listing())})."
            )
        rest += ["--config", str(path)]
    ckpt = _value(rest, "--ckpt")
    if ckpt is not None:
        path = find_checkpoint(ckpt, Path(_value(rest, "--runs") or "runs"), _value(rest, "--name"))
        run = run_of(path)
        if run is not None and "--config" not in rest:
            rest = ["--config", str(run / "config.yaml"), *rest]
        elif run is None and not any(a.startswith(("--config", "--model")) for a in rest):
            raise UserError(
                f"{path} lies in no run folder, so the config of its run is not known: give `--config` too. `evaluate` "
                "and `sample` need the checkpoint alone."
            )
    elif verb != "fit" and not {"-h", "--help"} & set(rest):
        raise UserError(f"{verb} scores a trained model: give `--ckpt PATH`.")
    return rest


def _value(argv: list[str], flag: str) -> str | None:
    for k, argument in enumerate(argv):
        if argument == flag and k + 1 < len(argv):
            return argv[k + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None
