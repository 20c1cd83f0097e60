"""Files: written whole or not at all, kept elsewhere where there is no room, found by the names that verbs take."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from genbench.core import process
from genbench.core.errors import UserError, did_you_mean

# .NAME.MACHINE-PID-START.RANDOM.tmp, while NAME is written: see temporary_name
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-(\d+)\.[a-z0-9_]{8}\.tmp", re.DOTALL)
OLD = 24 * 3600.0  # seconds after which a file of another machine is no longer being written
LONGEST = 120  # bytes of the name that a temporary file repeats: file systems take 255 in all
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # what file systems without links say

AnyPath = TypeVar("AnyPath", bound=str | os.PathLike)

_swept: set[Path] = set()  # folders that this process has looked for orphans in


class NotWritten(UserError, OSError):
    """A file could not be written; the sentence names it and says why.

    elsewhere  where its contents were written instead, if they were
    """

    elsewhere: Path | None = None


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Any]:
    """A binary file that takes the place of `path` when it is complete and on disk; until then `path` is untouched.

    Raises:
        NotWritten: the disk is full, the folder is read-only, or `path` is a folder, a named pipe or a device.
    """
    path = Path(path)
    try:
        with _replacing(path) as file:
            yield file
    except NotWritten:
        raise
    except OSError as error:
        raise NotWritten(f"{path} could not be written: {_why(error)}.") from error


@contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    if path.exists() and not path.is_file():
        raise NotWritten(f"{path} could not be written: there is {kind_of(path)} of this name.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _swept:
        _swept.add(path.parent)
        remove_orphans(path.parent)
    handle, temporary = tempfile.mkstemp(**temporary_name(path))
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    with suppress(OSError):  # the rename itself on disk; some file systems cannot
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def create(path: str | os.PathLike, contents: bytes) -> None:
    """A new file, which is there whole or not at all, and of those who try at the same moment one makes it.

    Raises:
        FileExistsError: there is one of that name.
        OSError: the disk is full, or the folder is read-only.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(**temporary_name(path))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        try:
            os.link(temporary, path)
        except FileExistsError:
            if os.stat(temporary).st_nlink != 2:  # else a file server has linked it and its answer was lost
                raise
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            _create_in_place(path, contents)
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def _create_in_place(path: Path, contents: bytes) -> None:
    """The same where there are no links: who is killed in the middle of it leaves a part of the file."""
    with open(path, "xb") as file:
        try:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise


def write(path: str | os.PathLike, save: Callable[[Any], object]) -> None:
    """What `save(file)` writes takes the place of `path`; where that fails, it goes to a new temporary folder.

    Raises:
        NotWritten: also where it was written elsewhere, which the sentence and `elsewhere` say.
    """
    path = Path(path)
    try:
        with replacing(path) as file:
            save(file)
    except NotWritten as error:
        kept, told = elsewhere(path.name, save)
        raised = NotWritten(f"{error} {told}")
        raised.elsewhere = kept
        raise raised from error


def elsewhere(name: str, save: Callable[[Any], object]) -> tuple[Path | None, str]:
    """A new temporary folder's file of that name that `save(file)` has written, and a sentence about it."""
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix="genbench-"))
        with replacing(folder / name) as file:
            save(file)
        return folder / name, f"It was written to {folder / name} instead."
    except OSError as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        return None, f"Nor could it be kept in the system's temporary folder: {error}"


def kept_elsewhere(error: BaseException | None) -> Path | None:
    """Where an error says that contents were written to instead."""
    while error is not None:
        if isinstance(error, NotWritten) and error.elsewhere:
            return error.elsewhere
        error = error.__cause__
    return None


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def no_room(error: BaseException | None) -> bool:
    """Whether an error comes from a full disk, a quota or a read-only file system."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return True
        error = error.__cause__
    return False


def refuse_unwritable(folder: Path, what: str) -> None:
    """Raise UserError where `what` cannot be written to the folder of `--out`: before long work, and not after it."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{what} cannot be written to {folder}: {_why(error)}. Give another `--out`.") from error


def kind_of(path: str | os.PathLike) -> str:
    """What lies at a path, in words."""
    if not os.path.exists(path):
        return "a link to nothing" if os.path.islink(path) else "not there"
    mode = os.stat(path).st_mode
    kinds = {
        stat.S_ISREG: "a file",
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a named pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    return next(words for test, words in kinds.items() if test(mode))


def ordinary(path: AnyPath) -> AnyPath:
    """The path itself, which may be opened: nothing waits for a writer of a named pipe or reads a device for ever.

    Raises:
        UserError: there is something else than a file.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is {kind_of(path)}, and a file was expected. Move it elsewhere.")
    return path


# ---- what killed processes have left ----------------------------------------------------------------------------


def temporary_name(path: Path) -> dict[str, Any]:
    """Arguments of `tempfile`: a name beside `path` by which `remove_orphans` knows whose the file is."""
    name = os.fsencode(path.name)[:LONGEST].decode(errors="ignore")
    return {"prefix": f".{name}.{_machine()}-{_own()}.", "suffix": ".tmp", "dir": path.parent}


def remove_orphans(folder: str | os.PathLike) -> None:
    """Remove temporary files of `replacing` and `create` in the folder, of processes that are gone.

    A process of this machine is known to be gone; of others only files older than a day are removed.
    """
    with suppress(OSError), os.scandir(os.fspath(folder)) as entries:
        for entry in entries:
            found = _TEMPORARY.fullmatch(entry.name)
            if found and entry.is_file(follow_symlinks=False) and _is_orphan(entry, *found.groups()):
                with suppress(OSError):
                    os.unlink(entry.path)


def _is_orphan(entry: os.DirEntry, machine: str, pid: str, start: str) -> bool:
    if machine == _machine() and int(start):
        return process.started(int(pid)) != int(start)
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > OLD


def _machine() -> str:
    """8 hex digits of this start of this machine."""
    return hashlib.sha256((process.boot() or "").encode()).hexdigest()[:8]


def _own() -> str:
    """This process, as PID-START; START is 0 where that is not known."""
    return f"{os.getpid()}-{process.started(os.getpid()) or 0}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---- checkpoints by the names that people give them -------------------------------------------------------------


def near_by(path: Path) -> str:
    """The end of an error's sentence: what lies where `path` should, if it is called nearly so; else nothing."""
    with suppress(OSError):
        return did_you_mean(path.name, [other.name for other in path.parent.iterdir()])
    return ""


def find_checkpoint(ckpt: str | os.PathLike, runs: str | os.PathLike = "runs", name: str | None = None) -> Path:
    """What a person means by a checkpoint: a file, a run folder (its last one), or `last` / `best`.

    Args:
        runs: Folder of all runs, that `last` and `best` are looked for in
        name: Of the run that is meant by them. Default: the newest

    Raises:
        UserError: there is none; says where it was looked for.
    """
    path = Path(ckpt).expanduser()
    if path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
    elif str(ckpt) in ("last", "best") and not path.is_file():
        pattern = f"{glob.escape(name) if name else '*'}/checkpoints/{ckpt}.ckpt"
        found = sorted(Path(runs).glob(pattern), key=lambda p: p.stat().st_mtime)
        if not found:
            raise UserError(f"There is no {Path(runs, name or '*', 'checkpoints', f'{ckpt}.ckpt')} yet.")
        path = found[-1]
    if not path.is_file():
        what = f"; it is {kind_of(path)}" if path.exists() else ""
        near = did_you_mean(str(ckpt), ("last", "best")) or near_by(Path(ckpt).expanduser())
        raise UserError(f"There is no checkpoint at {path}{what}.{near}")
    if path.is_symlink() and path.parent.name != "checkpoints":  # the run that a link leads to
        return path.resolve()
    return path
