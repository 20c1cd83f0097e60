"""Image files in a folder or a ZIP archive, read by name."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from genbench.core.errors import UserError
from genbench.data import medical
from genbench.data.image_files import File, Film, count_frames, joined, picture_size, read_picture
from genbench.data.layouts import listed
from genbench.data.ranges import Stored

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".tga", ".avif",
)  # fmt: skip


class Frame(NamedTuple):
    """An image in a file of several frames: one frame, or several frames as its channels.

    numbers  indices of the frames
    word     frame or slice
    """

    file: str
    numbers: tuple[int, ...]
    word: str = "frame"

    def __str__(self) -> str:
        return f"{self.file} {self.word} {self.numbers[0]}" if len(self.numbers) == 1 else self.file


Picture = str | Frame  # the name of a file with one image, or a part of a file with several
# folders that desktops and network disks create for previews and deleted files
_SYSTEM = {
    "__MACOSX", "@eaDir", "@Recycle", "@Recently-Snapshot", "#recycle", "#snapshot", "$RECYCLE.BIN", "lost+found",
    "System Volume Information",
}  # fmt: skip


def file_of(picture: Picture) -> str:
    return picture.file if isinstance(picture, Frame) else picture


def _hidden(name: str) -> bool:
    """Whether a file was created by the system: .DS_Store, ._cat.jpg, __MACOSX/..."""
    return any((part.startswith(".") and part != ".") or part in _SYSTEM for part in name.split("/"))


class _Reader:
    """Reads the files of a folder or zip, by names relative to it. A subclass defines `names`, `file` and `called`."""

    odd: Sequence[str] = ()  # entries of a folder that are neither files nor folders

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nameless: frozenset[str] = frozenset()  # DICOM files without an extension
        self._last = threading.local()  # the last file each thread read: its next frame is probably in the same file

    def names(self) -> list[str]:
        """All files except hidden ones."""
        raise NotImplementedError

    def file(self, name: str) -> File:
        """The path of a file, or a function that opens it as a seekable stream."""
        raise NotImplementedError

    def called(self, name: str) -> str:
        """The name of a file in error messages."""
        raise NotImplementedError

    def head(self, name: str) -> BinaryIO:
        """Open a file to read its beginning."""
        return self.whole(name)

    def whole(self, name: str) -> BinaryIO:
        """Open a file as a seekable stream."""
        file = self.file(name)
        with self.readable(name):
            return file() if callable(file) else open(file, "rb")

    @contextmanager
    def readable(self, name: str) -> Iterator[None]:
        """Raise UserError if the file cannot be read: no permission, a damaged zip, a password."""
        try:
            yield
        except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{self.called(name)} cannot be read ({error}). Replace it or remove it.") from error

    def read(self, name: str) -> bytes:
        with self.whole(name) as file:
            return file.read()

    def sampled(self, pictures: Sequence[Picture]) -> str:
        """A hash (16 hex digits) of the beginnings of 16 files, evenly spaced; unreadable files are skipped."""
        files = list(dict.fromkeys(map(file_of, pictures)))
        digest = hashlib.sha256()
        for k in np.linspace(0, len(files) - 1, min(16, len(files))).astype(int):
            with suppress(UserError), self.head(files[k]) as file:
                digest.update(file.read(2**16))
        return digest.hexdigest()[:16]

    def is_dicom(self, name: str) -> bool:
        try:
            with self.head(name) as file, self.readable(name):
                return medical.is_dicom(file)
        except UserError:  # an unreadable file that is not named like an image
            return False

    def kind(self, name: str) -> str | None:
        """`dicom`, `nifti`, or None for ordinary images."""
        return "dicom" if name in self.nameless else medical.kind_of(name)

    def frames(self, name: str) -> list[tuple[int, tuple[int, int]]]:
        """(index, (width, height)) of each frame of a file. Raises UserError if the file is damaged."""
        kind, called = self.kind(name), self.called(name)
        if kind is None:
            return count_frames(self.file(name), called)
        with self.head(name) as file:
            found = (medical.dicom_frames if kind == "dicom" else medical.nifti_slices)(file, called)
        return [] if found is None else [(k, found[1]) for k in range(found[0])]

    def stored(self, picture: Picture) -> Stored:
        """An image with its stored values. Raises UserError, with the image's name, if it cannot be read."""
        name, numbers = file_of(picture), picture.numbers if isinstance(picture, Frame) else (None,)
        found = [self._frame(name, number, self.called(str(picture))) for number in numbers]
        return found[0] if len(found) == 1 else joined(found, self.called(name))

    def _frame(self, name: str, number: int | None, called: str) -> Stored:
        kind = self.kind(name)
        if kind == "dicom":
            with self.whole(name) as file:
                return medical.read_dicom(file, called, number or 0)
        if kind is None and (number is None or not name.lower().endswith((".gif", ".webp", ".avif"))):
            return read_picture(self.file(name), called, number)
        if getattr(self._last, "name", None) != name:
            self._last.name = None
            if kind is None:
                self._last.film = Film(self.whole(name), self.called(name))
            else:
                with self.whole(name) as file:
                    self._last.volume = medical.read_nifti(file, self.called(name))
            self._last.name = name
        return self._last.film.frame(number, called) if kind is None else self._last.volume[number or 0]

    def size(self, picture: Picture) -> tuple[int, int]:
        """Width and height of an image after EXIF rotation, if possible without decoding it."""
        if not isinstance(picture, Frame) and self.kind(picture) is None:
            return picture_size(self.file(picture), self.called(picture))
        return dict(self.frames(file_of(picture)))[picture.numbers[0] if isinstance(picture, Frame) else 0]

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_last"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._last = threading.local()


class Files(_Reader):
    """Reads the files of a folder."""

    def names(self) -> list[str]:
        """All files except hidden ones, with a warning about pipes, sockets and devices, which are skipped."""
        found, odd, waiting, seen = [], [], [(str(self.path), "")], set()
        while waiting:
            folder, inside = waiting.pop()
            if (real := os.path.realpath(folder)) in seen:  # a link to a parent folder
                continue
            seen.add(real)
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        name = inside + entry.name
                        if _hidden(entry.name):
                            continue
                        if entry.is_dir():
                            waiting.append((entry.path, f"{name}/"))
                        else:  # reading a pipe or /dev/zero would never end
                            (found if entry.is_file() else odd).append(name)
            except OSError as error:
                raise UserError(f"{error.filename or folder} cannot be read ({error.strerror}). Remove it.") from error
        self.odd = sorted(odd)
        if odd:
            rank_zero_warn(
                f"{self.path}: {len(odd)} entries that are not regular files (pipes, devices, broken links) are "
                f"ignored: {listed(self.odd)}."
            )
        return found

    def file(self, name: str) -> File:
        return self.path / name

    def called(self, name: str) -> str:
        return str(self.path / name)


class ZipFiles(_Reader):
    """Reads the files of a zip without unpacking it: its names are never used as paths on the disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._open: zipfile.ZipFile | None = None
        self._process = 0

    def names(self) -> list[str]:
        return [name for name in self._archive().namelist() if not name.endswith("/") and not _hidden(name)]

    def file(self, name: str) -> File:
        return lambda: io.BytesIO(self._archive().read(name))

    def head(self, name: str) -> BinaryIO:
        with self.readable(name):
            return self._archive().open(name)  # does not read the whole file

    def called(self, name: str) -> str:
        return f"{name} in {self.path}"

    def _archive(self) -> zipfile.ZipFile:
        # one archive for each process: after a fork, parent and child would share the position in the file
        if self._open is None or self._process != os.getpid():
            self._open, self._process = zipfile.ZipFile(self.path), os.getpid()
        return self._open

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_open": None}


@dataclass(eq=False)
class FilePictures:
    """rows -> images, one by one. A class, so that it can be sent to a worker."""

    reader: Files | ZipFiles
    pictures: Sequence[Picture]

    def __call__(self, rows: np.ndarray) -> Iterator[Stored]:
        return (self.reader.stored(self.pictures[row]) for row in rows)
