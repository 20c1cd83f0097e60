"""Checkpoints: written whole or not at all, read safely, rebuilt without an import that nobody named."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from genbench.core.arguments import loaded_classes
from genbench.core.errors import UserError
from genbench.core.files import replacing
from genbench.core.module import GenerativeModule


def copy(source: Path, target: Path) -> None:
    """`target` becomes what `source` is now, atomically; they stay independent."""
    with open(source, "rb") as read, replacing(target) as write:
        shutil.copyfileobj(read, write)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint writer, with a temporary file in the same folder, fsync and rename."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            with replacing(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch.save wraps a failed write in a RuntimeError
            kept = f"The checkpoint that was there before is intact: {path}." if Path(path).exists() else ""
            raise UserError(f"The checkpoint {path} could not be written: {error}. {kept}".strip()) from error


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The checkpoint's contents, on the CPU.

    Raises:
        UserError: not there, cut off, unsafe, or not one of genbench.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is damaged, or holds more than tensors and plain values; it was not loaded, since that could run "
            "code of a stranger's."
        ) from error
    except Exception as error:  # bytes cut off or overwritten can fail anywhere in the reader
        why = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} is damaged or not a checkpoint ({why}). Use another checkpoint of the run, if there is one."
        ) from error
    if not isinstance(checkpoint, dict) or "genbench" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of genbench.")
    return checkpoint


def load(path: str | os.PathLike, *, raw: bool = False, device: str | torch.device = "cpu") -> GenerativeModule:
    """The model of a checkpoint, ready to use: in eval mode, with its averaged weights.

    Args:
        path: The checkpoint; nothing else is needed
        raw: The weights as trained, not their moving average
        device: Where to put it

    Raises:
        UserError: the file is damaged, or its class is not loaded (a checkpoint never imports anything by itself).
    """
    return rebuild(read(path), path, raw=raw, device=device)


def rebuild(
    checkpoint: dict[str, Any], path: str | os.PathLike, *, raw: bool = False, device: str | torch.device = "cpu"
) -> GenerativeModule:
    """The same from contents that were read already."""
    name = checkpoint["genbench"]["model"]
    cls = loaded_classes(GenerativeModule).get(name)
    if cls is None:
        raise UserError(
            f"{path} holds a model of class {name}, which is not loaded. A checkpoint imports nothing by itself: "
            f"name the module with `--import {name.rpartition('.')[0]}`, or import it before `genbench.load`."
        )
    model = cls(**checkpoint["hyper_parameters"])
    model.load_state_dict(checkpoint["state_dict"])
    if not raw and "ema" in checkpoint:
        model.load_state_dict(checkpoint["ema"]["state_dict"], strict=False)
    model.images_seen = checkpoint["genbench"]["images_seen"]
    model.origin = (Path(path), "raw" if raw or "ema" not in checkpoint else "ema")
    return model.to(device).eval().requires_grad_(False)
