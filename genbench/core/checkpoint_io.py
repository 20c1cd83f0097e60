"""Checkpoints: written whole or not at all, checked and read safely, rebuilt without an import that nobody named.

A checkpoint is a zip archive of torch's, whose directory holds a CRC-32 of every file in it. torch writes these
checksums and does not read them; here they are compared before anything is loaded. `genbench` in it says the format of
the contents (FORMAT) and the version of genbench that wrote them.
"""

from __future__ import annotations

import os
import pickle
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.serialization import get_crc32_options, set_crc32_options

import genbench
from genbench.core import ranks, renamed
from genbench.core.class_paths import loaded_classes
from genbench.core.errors import UserError
from genbench.core.files import NotWritten, replacing, write
from genbench.core.module import FORMAT, GenerativeModule

# what must be in a checkpoint, and what also must be to go on with its training: where, of which type
CONTENTS = (
    ("genbench.model", str), ("genbench.images_seen", int), ("genbench.updates", dict), ("genbench.seed", int),
    ("hyper_parameters", dict), ("state_dict", dict),
)  # fmt: skip
TRAINING = (
    ("genbench.scalers", dict), ("genbench.terms", dict), ("optimizer_states", list), ("lr_schedulers", list),
    ("callbacks", dict), ("pytorch-lightning_version", str),
)  # fmt: skip

DOS_FOLDER = 0x10  # of a zip member's attributes

_noted: set[Path] = set()  # checkpoints whose age was said


def copy(source: Path, target: Path) -> None:
    """`target` becomes what `source` is now, atomically; they stay independent."""
    try:
        with open(source, "rb") as read, replacing(target) as write:
            shutil.copyfileobj(read, write)
    except NotWritten as error:
        raise UserError(
            f"{error} The same checkpoint lies in {source}. Make room, and go on from it: `python -m genbench fit "
            f"--ckpt {source}`."
        ) from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's reader and writer of checkpoints, whole or not at all, with checksums that are compared."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Where there is no room at `path` the checkpoint goes to the system's temporary folder.

        Raises:
            UserError: it is not at `path`; says where it is and how to go on.
        """
        path = Path(path)
        try:
            write(path, lambda file: _save(checkpoint, file))
        except NotWritten as error:
            told = f"The checkpoint {error}"
            if path.exists():
                told += f" The checkpoint that was there before is intact: {path}."
            if error.elsewhere:
                move, go_on = (
                    shlex.join(map(str, command))
                    for command in (("mv", error.elsewhere, path), ("python", "-m", "genbench", "fit", "--ckpt", path))
                )
                told += f" To go on from the one that was saved, make room and move it: `{move}`, then `{go_on}`."
            raise UserError(told) from error

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        return read(path)


def _save(checkpoint: dict[str, Any], file: Any) -> None:
    asked = get_crc32_options()
    set_crc32_options(True)  # a program that uses genbench may have switched it off
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:  # what torch makes of a failed write
        failed = error.__context__
        if isinstance(failed, OSError):
            raise OSError(failed.errno, failed.strerror) from error
        raise
    finally:
        set_crc32_options(asked)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The checkpoint's contents, on the CPU.

    Raises:
        UserError: not there, damaged, unsafe, not one of genbench, or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}.")
    try:
        summed = _refuse_damaged(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is damaged, or holds more than tensors and plain values; it was not loaded, since that could run "
            "code of a stranger's."
        ) from error
    except Exception as error:  # bytes cut off or overwritten can fail anywhere in the reader
        why = _why_not_read(path) or str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} is damaged or not a checkpoint ({why}). Use another checkpoint of the run, if there is one."
        ) from error
    if not isinstance(checkpoint, dict) or "genbench" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of genbench.")
    _refuse_newer(checkpoint["genbench"], path)
    _refuse_missing(checkpoint, CONTENTS, path)
    renamed.checkpoint(checkpoint)
    _refuse_values(checkpoint, path)
    if not summed:
        _note(path, "it has no checksums, so that damage to it cannot be noticed")
    elif "format" not in checkpoint["genbench"]:
        _note(path, "it does not say its format, and is read as one of an older genbench")
    return checkpoint


def _why_not_read(path: Path) -> str | None:
    """What is wrong with a file that is no whole archive; None for others."""
    if not path.stat().st_size:
        return "it is empty"
    with suppress(zipfile.BadZipFile):  # of an end that says what cannot be
        if not zipfile.is_zipfile(path):
            with open(path, "rb") as file:
                return "its end is missing" if file.read(4) == b"PK\x03\x04" else "it is no archive"
    return None


def _refuse_damaged(path: Path) -> bool:
    """Compare all checksums; False where the file has none. Raises UserError, or what a broken archive leads to."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if not any(member.CRC for member in members):  # switched off in torch, which then writes zeros
            return False
        # torch reads nothing of a member that the directory marks as a folder, and leaves its memory as it was
        wrong = next((member.filename for member in members if member.external_attr & DOS_FOLDER), archive.testzip())
    if wrong is not None:
        raise UserError(
            f"{path} is damaged: '{wrong}' in it does not match its checksum. Use another checkpoint of the run, if "
            "there is one."
        )
    return True


def _refuse_newer(state: Any, path: Path) -> None:
    found = state.get("format", 0) if isinstance(state, dict) else 0
    if type(found) is not int or found < 0:
        raise UserError(f"{path} is damaged: its format is {found!r}; a whole number was expected.")
    if found > FORMAT:
        raise UserError(
            f"{path} has format {found}, written by genbench {state.get('version', 'of a later version')}, and this is "
            f"genbench {genbench.__version__}, which reads formats up to {FORMAT}. Update genbench."
        )


def _refuse_missing(checkpoint: dict[str, Any], contents: tuple[tuple[str, type], ...], path: Path) -> None:
    for name, kind in contents:
        place: Any = checkpoint
        for part in name.split("."):
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, kind) or isinstance(place, bool):
            what = "lacks" if place is None else f"holds a {type(place).__name__} in place of"
            raise UserError(f"{path} is not whole: it {what} `{name}`. Use another checkpoint of the run.")


def _refuse_values(checkpoint: dict[str, Any], path: Path) -> None:
    state, run = checkpoint["genbench"], checkpoint.get("run") or {}
    counts = {"images_seen": state["images_seen"], **{f"updates.{name}": n for name, n in state["updates"].items()}}
    for name, count in counts.items():
        if type(count) is not int or count < 0:
            raise UserError(
                f"{path} is damaged: `genbench.{name}` is {count!r}; a number of at least 0 was expected. Use another "
                "checkpoint of the run."
            )
    segments = run.get("segments") if isinstance(run, dict) else run
    if segments and not (isinstance(segments, list) and all(isinstance(one, dict) for one in segments)):
        raise UserError(
            f"{path} is damaged: `run.segments` is {segments!r}; a list of mappings was expected. Use another "
            "checkpoint of the run."
        )


@rank_zero_only
def _note(path: Path, text: str) -> None:
    if ranks.rank() == 0 and path.absolute() not in _noted:
        _noted.add(path.absolute())
        print(f"note: {path}: {text}.", file=sys.stderr)


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
    try:
        model = cls(**checkpoint["hyper_parameters"])
    except UserError:
        raise
    except Exception as error:  # whatever a constructor says of arguments that it does not know or expect
        why = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} holds arguments that {name} cannot be built with ({why}): it was written by another version of "
            "that class, or is damaged."
        ) from error
    refuse_misfit(checkpoint, model, path)
    if not raw:
        _refuse_lost_average(checkpoint, Path(path))
    model.load_state_dict(checkpoint["state_dict"])
    if not raw and "ema" in checkpoint:
        model.load_state_dict(checkpoint["ema"]["state_dict"], strict=False)
    model.images_seen = checkpoint["genbench"]["images_seen"]
    model.origin = (Path(path), "raw" if raw or "ema" not in checkpoint else "ema")
    return model.to(device).eval().requires_grad_(False)


# ---- whether a checkpoint fits a model ------------------------------------------------------------------------------


def refuse_misfit(
    checkpoint: dict[str, Any], module: GenerativeModule, path: str | os.PathLike, *, training: bool = False
) -> None:
    """Raise UserError where the contents of a checkpoint are not those of such a module: names the first difference.

    Args:
        training: Also what a training goes on with: the states of the optimizers
    """
    path = Path(path)
    kind = type(module).__name__
    _compare(checkpoint["state_dict"], module.state_dict(), f"{path} does not fit this {kind}: ")
    if "ema" in checkpoint:
        _refuse_missing(checkpoint, (("ema.state_dict", dict),), path)
        averaged = {
            f"{name}.{key}": value for name in module.ema for key, value in getattr(module, name).state_dict().items()
        }
        _compare(checkpoint["ema"]["state_dict"], averaged, f"The averaged weights in {path} do not fit this {kind}: ")
    if training:
        _refuse_lost_average(checkpoint, path)
        _refuse_other_optimizers(checkpoint, module, path)


def _refuse_lost_average(checkpoint: dict[str, Any], path: Path) -> None:
    """Raise UserError where the run's config has averaged weights and the checkpoint has none."""
    with suppress(KeyError, TypeError):
        if "ema" not in checkpoint and checkpoint["run"]["config"]["ema"]["enabled"] is True:
            raise UserError(
                f"{path} is not whole: it lacks `ema`, the averaged weights. Use another checkpoint of the run, or the "
                "weights as trained (`--raw`)."
            )


def _compare(found: dict[str, Any], expected: dict[str, Any], beginning: str) -> None:
    for name in [*expected, *(name for name in found if name not in expected)]:
        here, there = (_shape(name, tensors) for tensors in (found, expected))
        if here != there:
            raise UserError(
                f"{beginning}`{name}` is {here} in the checkpoint and {there} in the model. It was trained with other "
                "settings, or by another version of the model's class."
            )


def _shape(name: str, tensors: dict[str, Any]) -> str:
    if name not in tensors:
        return "missing"
    value = tensors[name]
    if not isinstance(value, Tensor):
        return "no tensor"
    return "×".join(map(str, value.shape)) or "a single number"


def _refuse_other_optimizers(checkpoint: dict[str, Any], module: GenerativeModule, path: Path) -> None:
    _refuse_missing(checkpoint, TRAINING, path)
    states, updates = checkpoint["optimizer_states"], checkpoint["genbench"]["updates"]
    scaled = bool(checkpoint["genbench"]["scalers"])  # which may have skipped all steps so far
    if list(updates) != list(module.players) or len(states) != len(module.players):
        raise UserError(
            f"{path} does not fit this {type(module).__name__}: it has {len(states)} optimizers, of "
            f"{', '.join(map(str, updates)) or 'none'}, and those of the model are {', '.join(module.players)}."
        )
    for player, state in zip(module.players, states, strict=True):
        own = module.parameters_of(player)
        try:
            fault = next(_faults(state, own, 0 if scaled else updates[player]), None)
        except (KeyError, TypeError, AttributeError, IndexError):
            fault = "it is damaged"
        if fault:
            raise UserError(
                f"{path} does not fit this {type(module).__name__}: of the state of the {player}'s optimizer, {fault}. "
                "Use another checkpoint of the run."
            )


def _faults(state: dict[str, Any], own: list[nn.Parameter], updates: int) -> Iterator[str]:
    """What is wrong with an optimizer's state for these parameters, of which it has made so many updates."""
    count = sum(len(group["params"]) for group in state["param_groups"])
    if count != len(own):
        yield f"it is of {count} parameters, and there are {len(own)}"
    keeps = any(group.get("betas") or group.get("momentum") for group in state["param_groups"])
    if keeps and updates and not state["state"]:
        yield f"the averages of {updates:,} updates are missing"
    for number, values in state["state"].items():
        for name, value in values.items():
            shape = own[number].shape
            # an optimizer may keep a row or a column in place of a matrix
            fits = (
                not isinstance(value, Tensor)
                or value.ndim != len(shape)
                or all(a in (b, 1) for a, b in zip(value.shape, shape, strict=True))
            )
            if not fits:
                yield f"`{name}` is {_shape(name, values)} for a parameter of {'×'.join(map(str, shape))}"
