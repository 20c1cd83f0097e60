"""Run folders and their names, agreed on by all processes before training starts."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import warnings
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from genbench.core import files
from genbench.core.errors import UserError


def import_modules(argv: list[str]) -> list[str]:
    """Import what `--import my.module` names, and return the other arguments."""
    rest, given = [], iter(argv)
    for argument in given:
        name, equals, value = argument.partition("=")
        if name != "--import":
            rest.append(argument)
            continue
        module = value if equals else next(given, "")
        if "" not in sys.path:
            sys.path.insert(0, "")  # as for `python script.py`: modules of the folder that one is in
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(
                f"--import {module}: {error}. Give a module that Python finds from {Path.cwd()}."
            ) from error
    return rest


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of a verb that applies a trained model: which one, of which weights, and where."""
    parser.add_argument("--ckpt", required=True, help="checkpoint, run folder, or last / best of the newest run")
    parser.add_argument("--raw", action="store_true", help="the weights as trained, not their moving average")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs, for --ckpt last")
    parser.add_argument("--name", help="name of the run, for --ckpt last")
    parser.add_argument("--import", metavar="MODULE", help="import a module with your own model first")


def run_of(ckpt: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it lies in one."""
    folder = ckpt.absolute().parent.parent
    with suppress(ValueError):
        folder = folder.relative_to(Path.cwd())  # shorter to read and to type
    return folder if ckpt.parent.name == "checkpoints" and (folder / "config.yaml").is_file() else None


def find_checkpoint(ckpt: str, runs: Path, name: str | None) -> Path:
    """What `--ckpt` means: a file, a run folder, or `last` / `best` of the run `name`, else of the newest run.

    Raises:
        UserError: there is none; says where it was looked for.
    """
    try:
        return files.find_checkpoint(ckpt, runs, name)
    except UserError as error:
        raise UserError(f"--ckpt {ckpt}: {str(error)[0].lower()}{str(error)[1:]}") from error


def usable_device(asked: str) -> str:
    """The device of `--device`, where `auto` is a GPU if there is one.

    Raises:
        UserError: this machine does not have it.
    """
    import torch

    device = asked if asked != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from error
    return device


def new_name(stem: str) -> str:
    """A name for a run, the same in all its processes: rank 0's, handed on by the launcher.

    Ranks start seconds apart, so a time read in each would differ.
    """
    name = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    if "SLURM_JOB_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        name = f"{stem}-{os.environ['SLURM_JOB_ID']}"
    elif os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        import torch.distributed as dist

        store, rank, _ = next(dist.rendezvous("env://"))
        store = dist.PrefixStore("genbench", store)
        if rank == 0:
            store.set("name", name)
        name = store.get("name").decode()
    # Lightning starts the other processes of this machine as children of the first
    return os.environ.setdefault("GENBENCH_RUN", name)


def is_first_process() -> bool:
    """Whether this is the process that names the run and makes its folder."""
    ranks = [os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK")]
    return all(rank in (None, "0") for rank in ranks)


def _note(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """A warning of ours as a note; of others with the place that it comes from."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"note: {message}\n"
    return _plain_warning(message, category, filename, lineno, line)


_plain_warning = warnings.formatwarning


def quiet() -> None:
    """Silence what Lightning says to people who write their own trainers, and keep what a user can act on."""
    for text in (
        ".*does not have many workers.*",
        ".*`max_epochs` was not set.*",
        ".*tensorboardX.*",
        ".*LightningCLI's args parameter.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*LeafSpec.*",
        ".*Trying to infer the `batch_size`.*",
        ".*`srun` command is available.*",
        ".*module\\(s\\) in eval mode at the start of training.*",  # those of a frozen part are meant to be
    ):
        warnings.filterwarnings("ignore", text)
    warnings.formatwarning = _note
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for name in ("seed", "distributed"):
        logging.getLogger(f"lightning.fabric.utilities.{name}").setLevel(logging.WARNING)
