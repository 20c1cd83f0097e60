"""Snapshots of the power-function averages of a run, and the weights that are reconstructed from them.

A run stores its snapshots in `runs/<name>/ema/`, one file `<images seen>.pt` for all averages that it keeps. The entry
`power_ema` of a checkpoint contains the averages at this checkpoint, and the images seen and the hash of each snapshot
before it. See `genbench.core.power_averages` for the averages.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import genbench
from genbench.core import archive
from genbench.core.errors import UserError
from genbench.core.files import replacing
from genbench.core.module import GenerativeModule
from genbench.core.power_averages import coefficients

OTHER = "Use one of the lengths {}, for which the checkpoint is enough, or remove `--ema`."


def averaged(module: GenerativeModule) -> dict[str, Tensor]:
    """The floating-point parameters of the averaged networks."""
    return {
        f"{name}.{key}": value
        for name in module.ema
        for key, value in getattr(module, name).state_dict(keep_vars=True).items()
        if isinstance(value, torch.nn.Parameter) and value.is_floating_point()
    }


def path_of(folder: Path, images_seen: int) -> Path:
    return folder / f"{images_seen:010d}.pt"


def folder_of(checkpoint: Path) -> Path:
    """The folder of the snapshots of a checkpoint's run, which may have been moved or renamed."""
    return checkpoint.absolute().parent.parent / "ema"


def write(folder: Path, images_seen: int, lengths: list[float], averages: list[dict[str, Tensor]]) -> str:
    """Write a snapshot, completely or not at all, and return its hash.

    Raises:
        NotWritten: the disk is full, or the folder is read-only.
    """
    contents = {"version": genbench.__version__, "images_seen": images_seen, "lengths": lengths, "averages": averages}
    with replacing(path_of(folder, images_seen)) as file:
        archive.save(contents, file)
    return _hash(path_of(folder, images_seen))


def read(path: Path, hashed: str, other: str) -> list[dict[str, Tensor]]:
    """The averages of a snapshot, in the order of the run's lengths.

    Args:
        hashed: The hash of the file that the checkpoint contains
        other: What to do instead, for errors

    Raises:
        UserError: the file is missing or damaged, or a later training has replaced it.
    """
    if not path.is_file():
        raise UserError(f"The snapshot {path} of the averaged weights is missing. {other}")
    contents, _ = archive.read(path, "a snapshot of averaged weights", other)
    if _hash(path) != hashed:
        raise UserError(
            f"The snapshot {path} is not the one that was stored when this checkpoint was trained: the run was resumed "
            f"from an earlier checkpoint, which replaced it. {other}"
        )
    return contents["averages"]


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def weights(checkpoint: dict[str, Any], path: Path, sigma_rel: float) -> dict[str, Tensor]:
    """The average of the parameters with the length σ_rel at a checkpoint, name -> tensor.

    A length that the run kept is in the checkpoint. Any other length between is reconstructed from snapshots, which are
    read one after the other.

    Args:
        checkpoint, path: The contents and the path of the checkpoint

    Raises:
        UserError: the run kept no averages or no snapshots, the length is not between those that it kept, or a snapshot
            is missing or damaged.
    """
    kept = checkpoint.get("power_ema")
    if kept is None:
        raise UserError(
            f"--ema {sigma_rel}: {path} contains no power-function averages of the weights. Remove `--ema`, or train "
            "with `--power_ema.enabled true`."
        )
    lengths, now = list(kept["lengths"]), kept["updated_at"]
    low, high = min(lengths), max(lengths)
    if not low <= sigma_rel <= high:
        raise UserError(
            f"--ema is {sigma_rel}, but the run of {path} kept averages of the lengths {low} and {high}; expected a "
            "length between them."
        )
    if sigma_rel in lengths:
        return kept["averages"][lengths.index(sigma_rel)]
    earlier = [(at, hashed) for at, hashed in kept["snapshots"] if at < now]
    if not earlier:
        raise UserError(
            f"--ema {sigma_rel}: no snapshot was stored before {path}, which has seen {now:,} images. Use "
            f"`--ema {low}` or `--ema {high}`, or a later checkpoint."
        )
    stored = [(length, at) for at in (*(at for at, _ in earlier), now) for length in lengths]
    x = coefficients(stored, sigma_rel, now).reshape(len(earlier) + 1, len(lengths)).tolist()
    found = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in kept["averages"][0].items()}
    for (at, hashed), own in zip(earlier, x, strict=False):
        _add(found, own, read(path_of(folder_of(path), at), hashed, OTHER.format(f"{low} and {high}")))
    _add(found, x[-1], kept["averages"])
    return found


def _add(found: dict[str, Tensor], x: list[float], averages: list[dict[str, Tensor]]) -> None:
    for coefficient, average in zip(x, averages, strict=True):
        for name, value in found.items():
            value.add_(average[name], alpha=coefficient)
