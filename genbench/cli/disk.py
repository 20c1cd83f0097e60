"""Whether a run's folder can be written, and has room for its checkpoints."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from genbench.callbacks import EMA, Checkpoint, MaxImages
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule


def refuse_unwritable(folder: Path) -> None:
    """Raise UserError where nothing can be written to the run's folder, or it cannot be made."""
    for place in (folder, folder / "checkpoints"):
        there = _there(place)
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise UserError(
                f"The run cannot be written to {folder}: {there} is {_why(there, error)}. Give another folder with "
                "`--runs`."
            ) from error


def _why(there: Path, error: OSError) -> str:
    return "not a folder" if not there.is_dir() else f"not writable ({error.strerror})"


def _there(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def room(trainer: Trainer, model: GenerativeModule, folder: Path) -> list[str]:
    """Whether the disk has room for the checkpoints that are planned; what a user must know of it.

    Raises:
        UserError: there is not even room for the last and the best one, and for one that is being written.
    """
    saver = next((c for c in trainer.callbacks if isinstance(c, Checkpoint)), None)
    if saver is None:
        return []
    size = checkpoint_bytes(model, averaged=any(isinstance(c, EMA) and c.enabled for c in trainer.callbacks))
    size *= {"64-true": 2, "16-true": 0.5, "bf16-true": 0.5}.get(str(trainer.precision), 1)
    free = shutil.disk_usage(_there(folder)).free
    names = ("last.ckpt", "best.ckpt") if trainer.limit_val_batches else ("last.ckpt",)
    missing = sum(not (folder / "checkpoints" / name).exists() for name in names)
    need = (missing + 1) * size
    if free < need:
        raise UserError(
            f"The disk of {folder} has {_megabytes(free)} free, and this run needs about {_megabytes(need)}: "
            f"{_megabytes(size)} for each checkpoint that is to be there, and as much for the one that is being "
            "written. Free some of it, or name a folder on another disk with `--runs`."
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as which a suite stops, and does not go on to others
    budget = next((c.max_images for c in trainer.callbacks if isinstance(c, MaxImages)), 0)
    kept = budget // saver.keep_every if saver.keep_every else 0
    if free < need + kept * size:
        return [
            f"checkpoint.keep_every is {saver.keep_every:,}, which keeps {kept} checkpoints of about "
            f"{_megabytes(size)}, and the disk of {folder} has {_megabytes(free)} free."
        ]
    return []


def checkpoint_bytes(model: GenerativeModule, *, averaged: bool) -> int:
    """About the size of a checkpoint: weights, their averages, and what the optimizers keep of each parameter."""

    def size(tensors: Iterable[torch.Tensor]) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    total = size(model.state_dict().values())
    if averaged:
        total += sum(size(getattr(model, name).state_dict().values()) for name in model.ema)
    for player, optimizer in model.optimizer_settings.items():
        total += _moments(optimizer) * size(model.parameters_of(player))
    return total + 50_000  # the config, and the names of all tensors


def _moments(optimizer: dict[str, Any]) -> int:
    """Numbers that an optimizer keeps for each parameter; Adam's two for one that is not known."""
    name = str(optimizer.get("class_path")).rpartition(".")[2]
    if name in ("SGD", "Adagrad", "Muon"):
        return 0 if name == "SGD" and not optimizer.get("momentum") else 1
    if name == "RMSprop":
        return 1 + bool(optimizer.get("momentum")) + bool(optimizer.get("centered"))
    return 0 if name == "Adafactor" else 2 + bool(optimizer.get("amsgrad"))


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e6:.2g} MB"
