"""Zip archives written by torch, with a CRC-32 of every file in them: checkpoints, and snapshots of averaged weights.

torch does not verify these checksums; here they are verified before anything is loaded.
"""

from __future__ import annotations

import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_crc32_options, set_crc32_options

from genbench.core.errors import UserError

DOS_FOLDER = 0x10  # bit of a zip member's attributes: the member is a folder

OTHER = "Use a different checkpoint of the run, if there is one."


def save(contents: dict[str, Any], file: Any) -> None:
    """Write tensors and plain values to an open file, with checksums."""
    before = get_crc32_options()
    set_crc32_options(True)  # a program that uses genbench may have disabled it
    try:
        torch.save(contents, file)
    except RuntimeError as error:  # torch raises this error if a write fails
        failed = error.__context__
        if isinstance(failed, OSError):
            raise OSError(failed.errno, failed.strerror) from error
        raise
    finally:
        set_crc32_options(before)


def read(path: Path, what: str = "a checkpoint", other: str = OTHER) -> tuple[Any, bool]:
    """The contents of an archive, on the CPU, and whether it has checksums.

    Args:
        path: A file that exists
        what, other: What the file is, and what to use instead, for errors

    Raises:
        UserError: the file is damaged or unsafe.
    """
    try:
        summed = _refuse_damaged(path, other)
        return torch.load(path, map_location="cpu", weights_only=True), summed
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is damaged, or contains more than tensors and plain values. It was not loaded, since loading "
            "could run unknown code."
        ) from error
    except Exception as error:  # missing or overwritten bytes can cause any error in torch
        why = _why_not_read(path) or str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} is damaged or not {what} ({why}). {other}") from error


def _why_not_read(path: Path) -> str | None:
    """What is wrong with a file that is not a complete zip archive; None for a complete one."""
    if not path.stat().st_size:
        return "it is empty"
    with suppress(zipfile.BadZipFile):  # the end of the file is damaged
        if not zipfile.is_zipfile(path):
            with open(path, "rb") as file:
                return "its end is missing" if file.read(4) == b"PK\x03\x04" else "it is not a zip archive"
    return None


def _refuse_damaged(path: Path, other: str) -> bool:
    """Verify all checksums; False if the file has none. Raises UserError, or any error of a broken archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if not any(member.CRC for member in members):  # torch writes zeros if its checksums are disabled
            return False
        # torch does not read a member that is marked as a folder, and leaves its memory uninitialized
        wrong = next((member.filename for member in members if member.external_attr & DOS_FOLDER), archive.testzip())
    if wrong is not None:
        raise UserError(f"{path} is damaged: '{wrong}' in it does not match its checksum. {other}")
    return True
