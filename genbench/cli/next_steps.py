"""Output at the end of `fit` and `validate`: scores, the run's folder, and the commands to use next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from lightning import LightningDataModule, Trainer
from rich.console import Console
from rich.table import Column, Table

from genbench.analysis.anomaly import supported
from genbench.cli.console import console
from genbench.cli.preflight import testing
from genbench.core.capabilities import Samples, Segments, Translates
from genbench.core.module import GenerativeModule
from genbench.data.module import DataModule
from genbench.evaluation import protocol as protocols
from genbench.loggers import Wandb
from genbench.metrics.registry import REGISTERED


def say_done(trainer: Trainer, folder: Path, protocol: str) -> None:
    """Print the commands to use after a run has reached its budget."""
    model, data = trainer.lightning_module, trainer.datamodule
    last = folder / "checkpoints" / "last.ckpt"
    console.print(f"\nDone: {model.images_seen:,} images. All files are in {folder}/")
    _say_wandb(trainer)
    own = imports(model)
    ckpt, best = shlex.quote(str(last)), last.with_name("best.ckpt")
    if isinstance(model, Samples):
        console.print(f"  sample:   python -m genbench sample --ckpt {ckpt} --n 64 --out samples.png{own}")
    if isinstance(model, (Translates, Segments)):
        console.print(f"  apply:    python -m genbench translate --ckpt {ckpt} --input FOLDER --output FOLDER{own}")
    if getattr(data, "only_classes", None) and supported(model):  # images of the other classes are anomalies
        console.print(f"  anomaly:  python -m genbench anomaly --ckpt {ckpt}{own}")
    evaluated = shlex.quote(str(best)) if best.exists() else ckpt
    console.print(f"  evaluate: {evaluation_command(protocol, model, data, evaluated)}")
    console.print(f"  resume:   python -m genbench fit --ckpt {ckpt} --max_images N{imports(model, data)}")


def say_stopped(trainer: Trainer, folder: Path, *, trained: bool) -> None:
    """Print how to resume a stopped or failed run, if it has `trained` a step; otherwise it would fail again."""
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists() and trained:
        console.print(f"\nStopped. Resume from the last checkpoint:  python -m genbench fit --ckpt {last}")
    _say_wandb(trainer)


def print_scores(scores: Mapping[str, float], data: str) -> None:
    """Print the table of `validate` to standard output."""
    table = Table("score", Column(data, justify="right"))
    for name, value in scores.items():
        table.add_row(name, f"{value:.5g}")
    Console().print(table)


def _say_wandb(trainer: Trainer) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, Wandb):
            console.print(logger.where())


def evaluation_command(protocol: str, model: GenerativeModule, data: LightningDataModule, checkpoint: str) -> str:
    """Return the command that evaluates a trained model, with the flags that it needs on this machine."""
    if not isinstance(data, DataModule):  # a checkpoint does not store a user's own data
        return f"python -m genbench evaluate --ckpt {checkpoint} --data NAME{imports(model)}"
    flags = testing(protocols.load(protocol), model, data)[1]
    return f"python -m genbench test --ckpt {checkpoint} {flags}".strip() + imports(model, data)


def imports(*parts: object) -> str:
    """Return the flags that import the user's own classes and metrics, such as ` --import my.module`."""
    classes = [*(type(part) for part in parts), *REGISTERED.values()]
    modules = dict.fromkeys(cls.__module__ for cls in classes)
    return "".join(f" --import {name}" for name in modules if name.partition(".")[0] != "genbench")
