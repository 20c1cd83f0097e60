"""Any folder or zip of images as a data set."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from genbench.core.arguments import Whole, key_of
from genbench.core.errors import UserError
from genbench.core.files import ordinary
from genbench.data import medical
from genbench.data.base import ImageData, Split, Stage
from genbench.data.image_files import SEVERAL, File, Film, count_frames, joined, picture_size, read_picture
from genbench.data.layouts import layout, listed
from genbench.data.ranges import Stored

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".tga", ".avif",
)  # fmt: skip

Frames = Literal["first", "each", "channels"]


class Frame(NamedTuple):
    """A picture of a file that has several: one frame, or several that are its channels.

    numbers  of the frames, from 0
    word     what a frame is called
    """

    file: str
    numbers: tuple[int, ...]
    word: str = "frame"

    def __str__(self) -> str:
        return f"{self.file} {self.word} {self.numbers[0]}" if len(self.numbers) == 1 else self.file


Picture = str | Frame  # a file that is one picture, by its name, or a part of a file


class ImageFolder(ImageData):
    """Images in a folder or a zip file, which is read without being unpacked.

    Sub-folders train, val (valid, validation) and test are taken as splits; what is missing of val and test is cut
    off train. Below them, one folder for each class gives the labels. Other folders are searched to any depth, and
    files that are no images are ignored. Transparent images are laid over white. Zips and folders of the dataset_tool
    of StyleGAN and EDM, tiny-imagenet and MVTec are read as such. DICOM files and NIfTI volumes are read where the
    extra `medical` is installed.

    Args:
        path: The folder, the zip file or a single file of many frames, as it is or below the data root
        labels: Take folders as classes, where every training image lies in one of several, or the labels in the
            dataset.json of the dataset_tool
        test_size: Images cut off the training set for testing, where there is no test folder. Default: 5000, or a
            tenth of the training set where that is less
        frames: What is taken of a file of several frames (TIFF, GIF, WebP, APNG, DICOM, or slices of a NIfTI volume):
            the first one, each as an image, or all as the channels of one image. Default: each, where they have one
            size. What is cut off for validation and testing are whole files, where there are several
    """

    published_pixels = False

    def __init__(
        self,
        path: str,
        labels: bool = True,
        test_size: Whole | None = None,
        frames: Literal["first", "each", "channels"] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.test_size = test_size
        self.path = find(path, self.root)
        self.reader, images, files = opened(self.path)
        found = layout(images, files, self.path, self.reader.read, labels)
        self.classes = found.classes
        kept = [name for some in found.images.values() for name, _ in some]
        pictures, notes = expanded(self.reader, kept, frames, self.path)
        say_ignored(self.path, set(files) - {*images, *found.used})
        for note in (*found.notes, *notes):
            rank_zero_warn(f"{self.path}: {note}")
        self.images: dict[Stage, list[tuple[Picture, str]]] = {
            stage: [(picture, folder) for name, folder in some for picture in pictures[name]]
            for stage, some in found.images.items()
        }
        self.own_splits = tuple(self.images)
        self._contents: str | None = None
        files = len({str(getattr(picture, "file", picture)) for picture, _ in self.images["train"]})
        cut = {"val", "test"} - {*self.own_splits}
        if files <= len(cut) and len(self.images["train"]) > files:
            rank_zero_warn(
                f"{self.path}: {' and '.join(sorted(cut))} images are frames of the same "
                f"{'file' if files == 1 else 'files'} as the training images, since there are no others."
            )

    def contents(self) -> str:
        if self._contents is None:
            every = [picture for some in self.images.values() for picture, _ in some]
            names = {stage: [[str(name), folder] for name, folder in some] for stage, some in self.images.items()}
            self._contents = f"{key_of(names)}.{self.reader.sampled(every)}"
        return self._contents

    def split(self, stage: Stage) -> Split:
        names, folders = zip(*self.images[stage], strict=True)
        label = None
        if self.classes and any(folders):  # test images often come without classes
            number = {folder: k for k, folder in enumerate(self.classes)}
            if "" in folders:
                raise UserError(
                    f"{names[folders.index('')]} for `{stage}` in {self.path} lies in no class folder, and others do. "
                    "Move it into one, or say `--data.labels false`."
                )
            if unknown := set(folders) - set(number):
                raise UserError(
                    f"Images for `{stage}` in {self.path} lie in the class folder `{unknown.pop()}`, which no "
                    "training image has. Add some, or say `--data.labels false`."
                )
            label = torch.tensor([number[folder] for folder in folders])
        return Split(len(names), FilePictures(self.reader, names), names, label=label, group=grouped(names))


def grouped(pictures: Sequence[Picture]) -> Tensor | None:
    """int64 [N]: the number of the file that each is of; None where each is a file."""
    files = [picture.file if isinstance(picture, Frame) else picture for picture in pictures]
    number = {file: k for k, file in enumerate(dict.fromkeys(files))}
    if len(number) == len(files):
        return None
    return torch.tensor([number[file] for file in files])


def find(path: str, root: Path) -> Path:
    """A folder, zip or file of several pictures, as it is or below the data root. Raises UserError without one."""
    if not path.strip():
        raise UserError("data.path is empty. Say where the images are with `--data.path`.")
    places = [Path(path).expanduser(), root / path]
    for place in places:
        if place.exists() and not place.is_dir():
            ordinary(place)
        if place.is_dir() or (place.is_file() and (several(place.name) or zipfile.is_zipfile(place))):
            return place
        if place.exists():
            raise UserError(f"{place} is neither a folder nor a whole zip file, and no file of several pictures.")
    looked = " and ".join(str(place.absolute()) for place in places)
    raise UserError(f"There is no folder or zip file `{path}`: looked at {looked}. Say where it is with `--data.path`.")


def several(name: str) -> bool:
    """Whether a file may hold many pictures, and be a data set alone."""
    return name.lower().endswith((*SEVERAL, *medical.EXTENSIONS))


def images_among(files: Sequence[str], path: Path, extensions: tuple[str, ...] = EXTENSIONS) -> list[str]:
    """Sorted, those of the files in `path` that are named as images are. Raises UserError where there are none."""
    images = sorted(name for name in files if name.lower().endswith(extensions))
    if not images:
        others = f" among its {len(files)} files" if files else ", which is empty"
        arrays = ""
        if any(name.endswith((".npy", ".npz")) for name in files):
            arrays = " Arrays are read by `ArrayImages`, of one file or of the folder that they lie in."
        if inner := [
            name for name in files if name.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar"))
        ]:
            arrays += f" Unpack {inner[0]} first; only a zip that holds images itself is read as it is."
        raise UserError(
            f"There is no image in {path}{others}. The names of images end in {', '.join(extensions)}.{arrays}"
        )
    return images


def opened(path: Path) -> tuple[Files | ZipFiles, list[str], list[str]]:
    """What reads a folder, zip or single file, the sorted names of its images, and those of all its files.

    DICOM files may lack an extension. Raises UserError where there are no images.
    """
    if path.is_file() and several(path.name):
        return Files(path.parent), [path.name], [path.name]
    reader = ZipFiles(path) if path.is_file() else Files(path)
    files = reader.names()
    unnamed = [name for name in files if medical.nameless(name) and reader.is_dicom(name)]
    reader.nameless = frozenset(unnamed)
    if unnamed:
        images = sorted({*unnamed, *(name for name in files if name.lower().endswith(EXTENSIONS + medical.EXTENSIONS))})
    else:
        images = images_among(files, path, EXTENSIONS + medical.EXTENSIONS)
    return reader, images, files


def say_ignored(path: Path, names: set[str]) -> None:
    if names:
        rank_zero_warn(f"{path}: {len(names)} files that are no images are ignored: {listed(sorted(names))}.")


def expanded(
    reader: Files | ZipFiles, names: Sequence[str], frames: Frames | None, path: Path
) -> tuple[dict[str, list[Picture]], list[str]]:
    """The pictures of each file, and what is to be said of it.

    Raises UserError where nothing is stated and a file has frames of several sizes, or where they cannot be channels.
    """
    pictures: dict[str, list[Picture]] = {}
    multiple: dict[str, str] = {}
    for name in names:
        kind = reader.kind(name)
        pictures[name] = [name]
        if kind is None and frames == "first":
            pictures[name] = [Frame(name, (0,))] if name.lower().endswith((".png", *SEVERAL)) else [name]
            continue
        # a PNG of several is refused when it is read: to look into each takes long, and they are rare
        if kind is None and not name.lower().endswith(SEVERAL if frames is None else (".png", *SEVERAL)):
            continue
        found = reader.frames(name)
        word = "slice" if kind == "nifti" else "frame"
        if len(found) == 1 and kind != "nifti":
            pictures[name] = [name] if found[0][0] == 0 else [Frame(name, (found[0][0],), word)]
            continue
        numbers = [number for number, _ in found]
        if not numbers:
            pictures[name] = []
            continue
        if len(numbers) > 1:
            multiple[name] = f"{len(numbers)} {word}s"
        if frames is None and len({size for _, size in found}) > 1:
            raise UserError(
                f"{path}: {name} has {len(numbers)} frames of several sizes. Say `--data.frames first` to take the "
                "first of such files, or `--data.frames each` to take all."
            )
        if frames == "channels" and len(numbers) not in (1, 3):
            raise UserError(
                f"{path}: {name} has {len(numbers)} {word}s, and data.frames is `channels`: a picture has 1 or 3. Say "
                "`--data.frames each` or `first`."
            )
        parts = {"first": [(numbers[0],)], "channels": [tuple(numbers)]}.get(frames or "each", [(n,) for n in numbers])
        pictures[name] = [Frame(name, part, word) for part in parts]
    notes = []
    if empty := [name for name, found in pictures.items() if not found]:
        notes.append(f"{len(empty)} DICOM files without pixels are ignored: {listed(empty)}.")
        if len(empty) == len(names):
            raise UserError(f"There is no image in {path}: its DICOM files, such as {empty[0]}, have no pixels.")
    if multiple:
        taken = {"first": "the first alone is taken", "channels": "they are the channels of one image"}
        first = next(iter(multiple))
        notes.append(
            f"{len(multiple)} files have several frames ({first} has {multiple[first]}): "
            f"{taken.get(frames or 'each', 'each is an image')}. `--data.frames first|each|channels` changes it."
        )
    return pictures, notes


# folders of desktops and of network disks, with previews and deleted files
_SYSTEM = {
    "__MACOSX", "@eaDir", "@Recycle", "@Recently-Snapshot", "#recycle", "#snapshot", "$RECYCLE.BIN", "lost+found",
    "System Volume Information",
}  # fmt: skip


def _hidden(name: str) -> bool:
    """Files that a system leaves behind: .DS_Store, ._cat.jpg, __MACOSX/..."""
    return any((part.startswith(".") and part != ".") or part in _SYSTEM for part in name.split("/"))


class _Reader:
    """Reads the files of a folder or zip, by names relative to it. A subclass says how one is opened."""

    odd: Sequence[str] = ()  # what a folder holds that is neither file nor folder

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nameless: frozenset[str] = frozenset()  # files that are DICOM though they have no extension
        self._last = threading.local()  # the film or volume that a thread has read a frame of: the next is likely in it

    def names(self) -> list[str]:
        """All files but hidden ones."""
        raise NotImplementedError

    def file(self, name: str) -> File:
        """A path, or what opens it at any place."""
        raise NotImplementedError

    def called(self, name: str) -> str:
        """What a file is called in an error."""
        raise NotImplementedError

    def head(self, name: str) -> BinaryIO:
        """What gives the content of a file from its beginning on."""
        return self.whole(name)

    def whole(self, name: str) -> BinaryIO:
        """What gives the content of a file at any place."""
        file = self.file(name)
        with self.readable(name):
            return file() if callable(file) else open(file, "rb")

    @contextmanager
    def readable(self, name: str) -> Iterator[None]:
        """Raises UserError for what a file makes its folder or zip stumble over: no permission, damage, a password."""
        try:
            yield
        except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{self.called(name)} cannot be read ({error}). Replace it or remove it.") from error

    def read(self, name: str) -> bytes:
        with self.whole(name) as file:
            return file.read()

    def sampled(self, pictures: Sequence[Picture]) -> str:
        """16 hex digits of how 16 files begin, spread over all; those that cannot be read are left out."""
        files = list(dict.fromkeys(p.file if isinstance(p, Frame) else p for p in pictures))
        digest = hashlib.sha256()
        for k in np.linspace(0, len(files) - 1, min(16, len(files))).astype(int):
            with suppress(UserError), self.head(files[k]) as file:
                digest.update(file.read(2**16))
        return digest.hexdigest()[:16]

    def is_dicom(self, name: str) -> bool:
        try:
            with self.head(name) as file, self.readable(name):
                return medical.is_dicom(file)
        except UserError:  # it has no name of an image
            return False

    def kind(self, name: str) -> str | None:
        """`dicom`, `nifti`, or None of ordinary images."""
        return "dicom" if name in self.nameless else medical.kind_of(name)

    def frames(self, name: str) -> list[tuple[int, tuple[int, int]]]:
        """Number, and width and height, of each frame of a file. Raises UserError where it is damaged."""
        kind, called = self.kind(name), self.called(name)
        if kind is None:
            return count_frames(self.file(name), called)
        with self.head(name) as file:
            found = (medical.dicom_frames if kind == "dicom" else medical.nifti_slices)(file, called)
        return [] if found is None else [(k, found[1]) for k in range(found[0])]

    def stored(self, picture: Picture) -> Stored:
        """A picture as its file keeps it. Raises UserError naming one that cannot be read."""
        name, numbers = (picture.file, picture.numbers) if isinstance(picture, Frame) else (picture, (None,))
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
        """Width and height of the upright picture, without its pixels where these need not be read."""
        if not isinstance(picture, Frame) and self.kind(picture) is None:
            return picture_size(self.file(picture), self.called(picture))
        name, number = (picture.file, picture.numbers[0]) if isinstance(picture, Frame) else (picture, 0)
        return dict(self.frames(name))[number]

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_last"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._last = threading.local()


class Files(_Reader):
    """Reads the files of a folder."""

    def names(self) -> list[str]:
        """All files but hidden ones. Pipes, sockets and devices are left alone, which is said."""
        found, odd, waiting, seen = [], [], [(str(self.path), "")], set()
        while waiting:
            folder, inside = waiting.pop()
            if (real := os.path.realpath(folder)) in seen:  # a link back to a folder above it
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
                        else:  # of a pipe or /dev/zero nobody sees the end
                            (found if entry.is_file() else odd).append(name)
            except OSError as error:
                raise UserError(f"{error.filename or folder} cannot be read ({error.strerror}). Remove it.") from error
        self.odd = sorted(odd)
        if odd:
            rank_zero_warn(
                f"{self.path}: {len(odd)} entries that are no regular files (pipes, devices, broken links) are left "
                f"alone: {listed(self.odd)}."
            )
        return found

    def file(self, name: str) -> File:
        return self.path / name

    def called(self, name: str) -> str:
        return str(self.path / name)


class ZipFiles(_Reader):
    """Reads the files of a zip without unpacking it: names in it are keys and never paths on the disk."""

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
            return self._archive().open(name)  # not all of the file

    def called(self, name: str) -> str:
        return f"{name} in {self.path}"

    def _archive(self) -> zipfile.ZipFile:
        # one for each process: after a fork, parent and child would move the same file's position
        if self._open is None or self._process != os.getpid():
            self._open, self._process = zipfile.ZipFile(self.path), os.getpid()
        return self._open

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_open": None}


class FilePictures:
    """rows -> images one by one; a class, so that it can be sent to a worker."""

    def __init__(self, reader: Files | ZipFiles, pictures: Sequence[Picture]) -> None:
        self.reader, self.pictures = reader, pictures

    def __call__(self, rows: np.ndarray) -> Iterator[Stored]:
        return (self.reader.stored(self.pictures[row]) for row in rows)
