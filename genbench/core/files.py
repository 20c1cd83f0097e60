"""Writes files atomically, to a different folder if the disk is full; finds checkpoints by name."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import io
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from genbench.core import process
from genbench.core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image

# .NAME.MACHINE-PID-START.RANDOM.tmp is the temporary file for NAME, see temporary_name
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-(\d+)\.[a-z0-9_]{8}\.tmp", re.DOTALL)
PRETRAINED = Path(__file__).parents[1] / "pretrained"  # checkpoints that are installed with genbench
OLD = 24 * 3600.0  # seconds after which a temporary file of a different machine is considered abandoned
LONGEST = 120  # bytes of NAME in a temporary file's name: file systems allow 255 bytes in total
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # errors of file systems without hard links

AnyPath = TypeVar("AnyPath", bound=str | os.PathLike)

_created: tuple[Path, list[Path]] | None = None  # a folder and the new files in it, during `removed_on_failure`
_swept: set[Path] = set()  # folders in which this process has already removed orphans


class NotWritten(UserError, OSError):
    """A file could not be written. The message has its path and the reason.

    elsewhere  the file to which the contents were written instead, if any
    """

    elsewhere: Path | None = None


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Any]:
    """Open a temporary binary file that replaces `path` once it is complete and on disk.

    Raises:
        NotWritten: the disk is full, the folder is read-only, or `path` is a folder, a named pipe or a device.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise NotWritten(f"{path} could not be written: {kind_of(path)} with this name exists.")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:
            _swept.add(path.parent)
            remove_orphans(path.parent)
        created(path)
        with _temporary(path, lambda temporary: os.replace(temporary, path)) as file:
            yield file
    except NotWritten:
        raise
    except OSError as error:
        raise NotWritten(f"{path} could not be written: {_why(error)}.") from error
    with suppress(OSError):  # write the rename itself to disk; some file systems cannot
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _temporary(path: Path, place: Callable[[str], object]) -> Iterator[Any]:
    """Open a temporary file in the folder of `path`. Once it is on disk, `place(its name)` moves or links it."""
    handle, temporary = tempfile.mkstemp(**temporary_name(path))
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        place(temporary)
    finally:
        with suppress(OSError):
            os.unlink(temporary)


@contextmanager
def removed_on_failure(folder: Path) -> Iterator[None]:
    """Remove the new files that the block writes to `folder` if it fails or is interrupted, and `folder` if it is new.

    Files that existed before, and those of other processes, are kept. So are all files if one could not be written,
    since the others may have taken long.
    """
    global _created
    new, _created = not folder.exists(), (folder, [])
    try:
        yield
    except NotWritten:
        raise
    except BaseException:
        for path in _created[1]:
            with suppress(OSError):
                path.unlink()
        parents = {parent for path in _created[1] for parent in path.parents if folder in parent.parents}
        for path in (*sorted(parents, reverse=True), *([folder] if new else [])):
            with suppress(OSError):
                path.rmdir()  # only if it is empty
        raise
    finally:
        _created = None


def created(path: Path) -> None:
    """Tell `removed_on_failure` that this process is about to write a file."""
    if _created is not None and _created[0] in path.parents and not path.exists():
        _created[1].append(path)


def create(path: str | os.PathLike, contents: bytes) -> None:
    """Create a file atomically. If several processes try at the same time, exactly one succeeds.

    Raises:
        FileExistsError: the file exists.
        OSError: the disk is full, or the folder is read-only.
    """
    path = Path(path)

    def link(temporary: str) -> None:
        try:
            os.link(temporary, path)
        except FileExistsError:
            if os.stat(temporary).st_nlink != 2:  # else a file server made the link, but its reply was lost
                raise
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            _create_in_place(path, contents)

    with _temporary(path, link) as file:
        file.write(contents)


def _create_in_place(path: Path, contents: bytes) -> None:
    """Like `create`, but without hard links: if the process is killed here, part of the file remains."""
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
    """Replace `path` with what `save(file)` writes. If that fails, write to a new temporary folder.

    Raises:
        NotWritten: `path` was not replaced. The message and `elsewhere` name the file that was written instead, if any.
    """
    path = Path(path)
    try:
        with replacing(path) as file:
            save(file)
    except NotWritten as error:
        kept, where = elsewhere(path.name, save)
        raised = NotWritten(f"{error} {where}")
        raised.elsewhere = kept
        raise raised from error


def write_csv(path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Replace `path` with a table in UTF-8. Cells with commas, quotes or line breaks are quoted.

    Raises:
        NotWritten: as for `write`.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    # the bytes of a file name that is not valid UTF-8 are kept
    write(path, lambda file: file.write(text.getvalue().encode("utf-8", "surrogateescape")))


def write_png(path: str | os.PathLike, picture: Image) -> None:
    """Replace `path` with a picture as PNG.

    Raises:
        NotWritten: as for `write`.
    """
    write(path, lambda file: picture.save(file, "PNG"))


def elsewhere(name: str, save: Callable[[Any], object]) -> tuple[Path | None, str]:
    """Write a file called `name` in a new temporary folder. Returns its path, if it was written, and a sentence."""
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix="genbench-"))
        with replacing(folder / name) as file:
            save(file)
        return folder / name, f"It was written to {folder / name} instead."
    except OSError as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        return None, f"It could not be written to the system's temporary folder either: {error}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def kept_elsewhere(error: BaseException) -> Path | None:
    """The file to which the contents were written instead, if the error or one of its causes has one."""
    return next((e.elsewhere for e in _causes(error) if isinstance(e, NotWritten) and e.elsewhere), None)


def no_room(error: BaseException) -> bool:
    """Whether an error comes from a full disk, a quota or a read-only file system."""
    return any(getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) for e in _causes(error))


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def refuse_unwritable(folder: Path, what: str) -> None:
    """Raise UserError if `what` cannot be written to `folder`, which `--out` set. Call this before long work."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{what} cannot be written to {folder}: {_why(error)}. Choose a different `--out`.") from error


def kind_of(path: str | os.PathLike) -> str:
    """What kind of file is at a path, in words."""
    if not os.path.exists(path):
        return "a broken link" if os.path.islink(path) else "missing"
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
    """The path, after a check that it is a regular file. Opening a named pipe or a device could block.

    Raises:
        UserError: the path exists but is not a file.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is {kind_of(path)}; expected a file. Move it to a different folder.")
    return path


# ---- temporary files of killed processes --------------------------------------------------------------------------


def temporary_name(path: Path) -> dict[str, Any]:
    """Arguments for `tempfile`: the name, in the folder of `path`, tells `remove_orphans` which process writes it."""
    name, pid = os.fsencode(path.name)[:LONGEST].decode(errors="ignore"), os.getpid()
    start = process.started(pid) or 0  # 0 if it is not known
    return {"prefix": f".{name}.{_machine()}-{pid}-{start}.", "suffix": ".tmp", "dir": path.parent}


def remove_orphans(folder: str | os.PathLike) -> None:
    """Remove temporary files in `folder` that `replacing` and `create` left behind when their process ended.

    For this machine it is known which processes have ended. Files of other machines are removed after a day.
    """
    with suppress(OSError), os.scandir(os.fspath(folder)) as entries:
        for entry in entries:
            found = _TEMPORARY.fullmatch(entry.name)
            if not found or not entry.is_file(follow_symlinks=False):
                continue
            machine, pid, start = found[1], int(found[2]), int(found[3])
            if machine == _machine() and start:
                gone = process.started(pid) != start
            else:
                gone = time.time() - entry.stat(follow_symlinks=False).st_mtime > OLD
            if gone:
                with suppress(OSError):
                    os.unlink(entry.path)


def _machine() -> str:
    """8 hex digits that identify this boot of this machine."""
    return hashlib.sha256((process.boot() or "").encode()).hexdigest()[:8]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---- checkpoints by name ------------------------------------------------------------------------------------------


def near_by(path: Path) -> str:
    """` Did you mean ...?` if a file in the folder of `path` has a similar name, else "". It ends an error message."""
    with suppress(OSError):
        return did_you_mean(path.name, [other.name for other in path.parent.iterdir()])
    return ""


def find_checkpoint(ckpt: str | os.PathLike, runs: str | os.PathLike = "runs", name: str | None = None) -> Path:
    """The path of a checkpoint that the user names by its file, by a run folder (its last one), as `last` or `best`, or
    as `pretrained/NAME`, one that is installed with genbench.

    Args:
        runs: Folder of all runs, which is searched for `last` and `best`
        name: Name of the run for `last` and `best`. Default: the newest run

    Raises:
        UserError: the checkpoint does not exist. The message names the expected path.
    """
    path = Path(ckpt).expanduser()
    if path.parts[:1] == ("pretrained",) and len(path.parts) == 2 and not path.exists():
        names = sorted(f"pretrained/{file.stem}" for file in PRETRAINED.glob("*.ckpt"))
        if path.as_posix() not in names:
            near = did_you_mean(path.as_posix(), names)
            raise UserError(f"There is no checkpoint {ckpt}. Pretrained models: {', '.join(names)}.{near}")
        return PRETRAINED / f"{path.name}.ckpt"
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
        near = did_you_mean(str(ckpt), ("last", "best")) or (
            "" if what or Path(ckpt).expanduser().exists() else near_by(Path(ckpt).expanduser())
        )
        raise UserError(f"There is no checkpoint at {path}{what}.{near}")
    if path.is_symlink() and path.parent.name != "checkpoints":  # a link to a checkpoint of a run
        return path.resolve()
    return path
