"""Check that a run's folder is writable and that the disk has space for its checkpoints."""

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

from genbench.callbacks import EMA, Checkpoint, MaxImages, PowerEMA
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule


def refuse_unwritable(folder: Path) -> None:
    """Raise UserError if the run's folder cannot be created or written to."""
    for place in (existing(folder), existing(folder / "checkpoints")):
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            why = f"not writable ({error.strerror})" if place.is_dir() else "not a folder"
            raise UserError(
                f"The run cannot be written to {folder}: {place} is {why}. Choose a different folder with `--runs`."
            ) from error


def existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def room(trainer: Trainer, model: GenerativeModule, folder: Path) -> list[str]:
    """Check that the disk has space for the planned checkpoints, and return notes for the user.

    Raises:
        UserError: the disk has no space for the last checkpoint, the best one and one that is being written.
    """
    saver = next((c for c in trainer.callbacks if isinstance(c, Checkpoint)), None)
    if saver is None:
        return []
    size = checkpoint_bytes(model, averaged=any(isinstance(c, EMA) and c.enabled for c in trainer.callbacks))
    size *= {"64-true": 2, "16-true": 0.5, "bf16-true": 0.5}.get(str(trainer.precision), 1)
    power = next((c for c in trainer.callbacks if isinstance(c, PowerEMA) and c.enabled), None)
    snapshot = 0 if power is None else power.snapshot_bytes(model)
    size += snapshot
    free = shutil.disk_usage(existing(folder)).free
    names = ("last.ckpt", "best.ckpt") if trainer.limit_val_batches else ("last.ckpt",)
    missing = sum(not (folder / "checkpoints" / name).exists() for name in names)
    need = (missing + 1) * size
    if free < need:
        raise UserError(
            f"The disk of {folder} has {_megabytes(free)} free, but this run needs about {_megabytes(need)}: "
            f"{_megabytes(size)} for each checkpoint, and as much again while one is being written. Free some space, "
            "or choose a folder on a different disk with `--runs`."
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a suite stops at ENOSPC
    budget = next((c.max_images for c in trainer.callbacks if isinstance(c, MaxImages)), 0)
    notes = []
    if power is not None:
        count = int(budget // power.interval(budget))
        if not count:
            notes.append(
                f"power_ema.snapshot_every is {power.snapshot_every:,}, but the budget is {budget:,}, so no snapshot "
                f"will be stored, and `--ema` can only use the lengths {power.lengths[0]} and {power.lengths[1]}."
            )
        if free < need + count * snapshot:
            notes.append(
                f"power_ema stores {count} snapshots of {_megabytes(snapshot)}, but the disk of {folder} has only "
                f"{_megabytes(free)} free. Use a larger `--power_ema.snapshot_every`."
            )
        need += count * snapshot
    kept = budget // saver.keep_every if saver.keep_every else 0
    if kept and free < need + kept * size:
        notes.append(
            f"checkpoint.keep_every is {saver.keep_every:,}, which keeps {kept} checkpoints of about "
            f"{_megabytes(size)}, but the disk of {folder} has only {_megabytes(free)} free."
        )
    return notes


def checkpoint_bytes(model: GenerativeModule, *, averaged: bool) -> int:
    """Approximate size of a checkpoint: weights, their EMA, and the states of the optimizers."""

    def size(tensors: Iterable[torch.Tensor]) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    total = size(model.state_dict().values()) + 50_000  # about 50 kB for the config and the names of all tensors
    if averaged:
        total += sum(size(getattr(model, name).state_dict().values()) for name in model.ema)
    for player, optimizer in model.optimizer_settings.items():
        total += _moments(optimizer) * size(model.parameters_of(player))
    return total


def _moments(optimizer: dict[str, Any]) -> int:
    """Return how many numbers an optimizer stores per parameter. An unknown optimizer counts as two, like Adam."""
    name = str(optimizer.get("class_path")).rpartition(".")[2]
    if name in ("SGD", "Adagrad", "Muon"):
        return 0 if name == "SGD" and not optimizer.get("momentum") else 1
    if name == "RMSprop":
        return 1 + bool(optimizer.get("momentum")) + bool(optimizer.get("centered"))
    return 0 if name == "Adafactor" else 2 + bool(optimizer.get("amsgrad"))


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e6:.2g} MB"
