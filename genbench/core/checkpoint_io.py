"""Checkpoints: written atomically, verified, and read safely without imports.

The key `genbench` of a checkpoint contains the format of its contents (FORMAT) and the version of genbench that wrote
it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

import genbench
from genbench.core import archive, ranks, renamed, snapshots
from genbench.core.archive import OTHER
from genbench.core.class_paths import loaded_classes
from genbench.core.errors import UserError
from genbench.core.files import NotWritten, replacing, write
from genbench.core.module import FORMAT, GenerativeModule

# path and type of the entries that every checkpoint must have, and of the additional entries that resuming needs
CONTENTS = (
    ("genbench.model", str), ("genbench.images_seen", int), ("genbench.updates", dict), ("genbench.seed", int),
    ("hyper_parameters", dict), ("state_dict", dict),
)  # fmt: skip
TRAINING = (
    ("genbench.scalers", dict), ("genbench.terms", dict), ("optimizer_states", list), ("lr_schedulers", list),
    ("callbacks", dict), ("pytorch-lightning_version", str),
)  # fmt: skip
POWER_EMA = (
    ("power_ema.lengths", list), ("power_ema.updated_at", int), ("power_ema.averages", list),
    ("power_ema.snapshots", list),
)  # fmt: skip

_noted: set[Path] = set()  # checkpoints for which a note was printed


def copy(source: Path, target: Path) -> None:
    """Copy a checkpoint; `target` is replaced atomically."""
    try:
        with open(source, "rb") as read, replacing(target) as write:
            shutil.copyfileobj(read, write)
    except NotWritten as error:
        raise UserError(
            f"{error} The same checkpoint is also at {source}. Free disk space, then resume from that checkpoint: "
            f"`python -m genbench fit --ckpt {source}`."
        ) from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's plugin for checkpoints, with atomic writes and verified checksums."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write to `path`, or to the system's temporary folder if the disk is full.

        Raises:
            UserError: the checkpoint could not be written to `path`. The message says where it is and how to resume.
        """
        path = Path(path)
        try:
            write(path, lambda file: archive.save(checkpoint, file))
        except NotWritten as error:
            message = f"The checkpoint {error}"
            if path.exists():
                message += f" The previous checkpoint is intact: {path}."
            if error.elsewhere:
                move = shlex.join(["mv", str(error.elsewhere), str(path)])
                resume = shlex.join(["python", "-m", "genbench", "fit", "--ckpt", str(path)])
                message += (
                    f" To continue from the new checkpoint, free disk space and move it: `{move}`, then `{resume}`."
                )
            raise UserError(message) from error

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        return read(path)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The checkpoint's contents, on the CPU.

    Raises:
        UserError: the file does not exist, is damaged or unsafe, is not from genbench, or has a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}.")
    checkpoint, summed = archive.read(path)
    if not isinstance(checkpoint, dict) or "genbench" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of genbench.")
    _refuse_newer(checkpoint["genbench"], path)
    _refuse_missing(checkpoint, CONTENTS, path)
    renamed.checkpoint(checkpoint)
    _refuse_values(checkpoint, path)
    if not summed:
        _note(path, "it has no checksums, so damage to it cannot be detected")
    elif "format" not in checkpoint["genbench"]:
        _note(path, "it has no format number, so it is read as a checkpoint of an older genbench")
    return checkpoint


def _refuse_newer(state: Any, path: Path) -> None:
    found = state.get("format", 0) if isinstance(state, dict) else 0
    if type(found) is not int or found < 0:
        raise UserError(f"{path} is damaged: its format is {found!r}; expected a whole number.")
    if found > FORMAT:
        raise UserError(
            f"{path} has format {found}, written by genbench {state.get('version', 'of a later version')}, but this "
            f"is genbench {genbench.__version__}, which reads formats up to {FORMAT}. Update genbench."
        )


def _refuse_missing(checkpoint: dict[str, Any], contents: tuple[tuple[str, type], ...], path: Path) -> None:
    for name, kind in contents:
        place: Any = checkpoint
        for part in name.split("."):
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, kind) or isinstance(place, bool):
            what = "lacks" if place is None else f"has a {type(place).__name__} instead of"
            raise UserError(f"{path} is incomplete: it {what} `{name}`. {OTHER}")


def _refuse_values(checkpoint: dict[str, Any], path: Path) -> None:
    state, run = checkpoint["genbench"], checkpoint.get("run") or {}
    counts = {"images_seen": state["images_seen"], **{f"updates.{name}": n for name, n in state["updates"].items()}}
    for name, count in counts.items():
        if type(count) is not int or count < 0:
            raise UserError(
                f"{path} is damaged: `genbench.{name}` is {count!r}; expected a number of at least 0. {OTHER}"
            )
    segments = run.get("segments") if isinstance(run, dict) else run
    if segments and not (isinstance(segments, list) and all(isinstance(one, dict) for one in segments)):
        raise UserError(f"{path} is damaged: `run.segments` is {segments!r}; expected a list of mappings. {OTHER}")


@rank_zero_only
def _note(path: Path, text: str) -> None:
    if ranks.rank() == 0 and path.absolute() not in _noted:
        _noted.add(path.absolute())
        print(f"note: {path}: {text}.", file=sys.stderr)


def load(
    path: str | os.PathLike, *, raw: bool = False, ema: float | None = None, device: str | torch.device = "cpu"
) -> GenerativeModule:
    """The model of a checkpoint, in eval mode, with its EMA weights.

    Args:
        path: The checkpoint; no other file is needed, except for `ema`
        raw: Load the raw weights instead of the EMA weights
        ema: Load the power-function average of this length σ_rel instead, which needs the run's snapshots
        device: Device of the model

    Raises:
        UserError: the file is damaged, its class is not imported yet (loading a checkpoint imports nothing), or the
            run cannot provide the length `ema`.
    """
    return rebuild(read(path), path, raw=raw, ema=ema, device=device)


def without_training_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The contents of a checkpoint that sampling and evaluation need: one set of weights, the averaged ones where the
    model has averages, and no states of optimizers. Training cannot be resumed from it."""
    kept: dict[str, Any] = {
        name: checkpoint[name]
        for name in ("genbench", "hyper_parameters", "data", "run", "pytorch-lightning_version")
        if name in checkpoint
    }
    kept["genbench"] = {**checkpoint["genbench"], "scalers": {}, "averaged_only": True}
    kept["genbench"].pop("gradients", None)
    average = checkpoint.get("ema", {}).get("state_dict", {})
    kept["state_dict"] = {**checkpoint["state_dict"], **average}
    if average:
        kept["ema"] = {"state_dict": average}  # torch stores a tensor that is in two dictionaries once
    return kept


def rebuild(
    checkpoint: dict[str, Any],
    path: str | os.PathLike,
    *,
    raw: bool = False,
    ema: float | None = None,
    device: str | torch.device = "cpu",
) -> GenerativeModule:
    """Like `load`, but from the contents of the checkpoint."""
    if raw and ema is not None:
        raise UserError(f"The raw weights and the average of the length {ema} cannot be combined. Remove one of them.")
    name = checkpoint["genbench"]["model"]
    cls = loaded_classes(GenerativeModule).get(name)
    if cls is None:
        raise UserError(
            f"{path} contains a model of class {name}, which is not imported. Loading a checkpoint imports nothing: "
            f"use `--import {name.rpartition('.')[0]}`, or import the module before `genbench.load`."
        )
    try:
        model = cls(**checkpoint["hyper_parameters"])
    except UserError:
        raise
    except Exception as error:  # a constructor may raise any exception for unexpected arguments
        why = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} has arguments with which {name} cannot be built ({why}). It was written by a different version "
            "of the class, or is damaged."
        ) from error
    refuse_misfit(checkpoint, model, path)
    average = None if ema is None else snapshots.weights(checkpoint, Path(path), ema)
    if not raw and average is None:
        _refuse_lost_average(checkpoint, Path(path))
    elif raw and checkpoint["genbench"].get("averaged_only"):
        raise UserError(f"{path} contains only EMA weights. Remove `--raw`.")
    model.load_state_dict(checkpoint["state_dict"])
    weights = "raw"
    if average is not None:
        model.load_state_dict(average, strict=False)
        weights = f"ema {ema}"
    elif not raw and "ema" in checkpoint:
        model.load_state_dict(checkpoint["ema"]["state_dict"], strict=False)
        weights = "ema"
    model.images_seen = checkpoint["genbench"]["images_seen"]
    model.origin = (Path(path), weights)
    return model.to(device).eval().requires_grad_(False)


# ---- whether a checkpoint fits a model ------------------------------------------------------------------------------


def refuse_misfit(
    checkpoint: dict[str, Any], module: GenerativeModule, path: str | os.PathLike, *, training: bool = False
) -> None:
    """Raise UserError if a checkpoint does not fit the module. The message describes the first difference.

    Args:
        training: Also compare the states of the optimizers, which resuming needs
    """
    path = Path(path)
    kind = type(module).__name__
    _compare(checkpoint["state_dict"], module.state_dict(), f"{path} does not fit this {kind}: ")
    if "ema" in checkpoint:
        _refuse_missing(checkpoint, (("ema.state_dict", dict),), path)
        averaged = {
            f"{name}.{key}": value for name in module.ema for key, value in getattr(module, name).state_dict().items()
        }
        _compare(checkpoint["ema"]["state_dict"], averaged, f"The EMA weights in {path} do not fit this {kind}: ")
    if "power_ema" in checkpoint:
        _refuse_missing(checkpoint, POWER_EMA, path)
        for average in checkpoint["power_ema"]["averages"]:
            _compare(average, snapshots.averaged(module), f"An average in {path} does not fit this {kind}: ")
    if training:
        _refuse_lost_average(checkpoint, path)
        _refuse_other_optimizers(checkpoint, module, path)


def _refuse_lost_average(checkpoint: dict[str, Any], path: Path) -> None:
    """Raise UserError if the run's config enables EMA weights, but the checkpoint has none."""
    with suppress(KeyError, TypeError):
        if "ema" not in checkpoint and checkpoint["run"]["config"]["ema"]["enabled"] is True:
            raise UserError(
                f"{path} is incomplete: it lacks `ema`, the EMA weights. Use a different checkpoint of the run, "
                "or the weights without averaging (`--raw`)."
            )


def _compare(found: dict[str, Any], expected: dict[str, Any], beginning: str) -> None:
    for name in [*expected, *(name for name in found if name not in expected)]:
        here, there = (_shape(name, tensors) for tensors in (found, expected))
        if here != there:
            raise UserError(
                f"{beginning}`{name}` is {here} in the checkpoint and {there} in the model. The checkpoint was "
                "trained with other settings, or with a different version of the model's class."
            )


def _shape(name: str, tensors: dict[str, Any]) -> str:
    if name not in tensors:
        return "missing"
    value = tensors[name]
    if not isinstance(value, Tensor):
        return "not a tensor"
    return "×".join(map(str, value.shape)) or "a single number"


def _refuse_other_optimizers(checkpoint: dict[str, Any], module: GenerativeModule, path: Path) -> None:
    if checkpoint["genbench"].get("averaged_only"):
        raise UserError(
            f"{path} contains only EMA weights, so its training cannot be resumed. Train a model with `fit "
            "--config NAME`."
        )
    _refuse_missing(checkpoint, TRAINING, path)
    states, updates = checkpoint["optimizer_states"], checkpoint["genbench"]["updates"]
    scaled = bool(checkpoint["genbench"]["scalers"])  # a gradient scaler may have skipped all steps so far
    if list(updates) != list(module.players) or len(states) != len(module.players):
        raise UserError(
            f"{path} does not fit this {type(module).__name__}: it has {len(states)} "
            f"optimizer states, for {', '.join(map(str, updates)) or 'none'}, but the model has the optimizers "
            f"{', '.join(module.players)}."
        )
    for player, state in zip(module.players, states, strict=True):
        own = module.parameters_of(player)
        try:
            fault = next(_faults(state, own, 0 if scaled else updates[player]), None)
        except (KeyError, TypeError, AttributeError, IndexError):
            fault = "some values are damaged"
        if fault:
            raise UserError(
                f"{path} does not fit this {type(module).__name__}: in the state of optimizer '{player}', {fault}. "
                f"{OTHER}"
            )


def _faults(state: dict[str, Any], own: list[nn.Parameter], updates: int) -> Iterator[str]:
    """What is wrong with an optimizer's state after `updates` steps of the parameters `own`."""
    count = sum(len(group["params"]) for group in state["param_groups"])
    if count != len(own):
        yield f"there are {count} parameters, but the model has {len(own)}"
    keeps = any(group.get("betas") or group.get("momentum") for group in state["param_groups"])
    if keeps and updates and not state["state"]:
        yield f"the averages of {updates:,} updates are missing"
    for number, values in state["state"].items():
        for name, value in values.items():
            shape = own[number].shape
            # an optimizer may keep a row or a column instead of a matrix
            fits = (
                not isinstance(value, Tensor)
                or value.ndim != len(shape)
                or all(a in (b, 1) for a, b in zip(value.shape, shape, strict=True))
            )
            if not fits:
                yield f"`{name}` is {_shape(name, values)} for a parameter of {'×'.join(map(str, shape))}"
