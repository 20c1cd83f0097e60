"""Any folder or zip of images as a data set."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image

from genbench.core.arguments import Whole
from genbench.core.errors import UserError
from genbench.core.files import ordinary
from genbench.data.base import ImageData, Split, Stage
from genbench.data.pictures import picture_size, read_picture

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")

# sub-folders that are splits, by the names that data sets give them
SPLIT_FOLDERS: dict[str, Stage] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


class ImageFolder(ImageData):
    """Images in a folder or a zip file, which is read without being unpacked.

    Sub-folders train, val (valid, validation) and test are taken as splits; what is missing of val and test is cut
    off train. Below them, one folder for each class gives the labels. Other folders are searched to any depth, and
    files that are no images are ignored. Transparent images are laid over white.

    Args:
        path: The folder or the zip file, as it is or below the data root
        labels: Take folders as classes, where every training image lies in one of several
        test_size: Images cut off the training set for testing, where there is no test folder. Default: 5000, or a
            tenth of the training set where that is less
    """

    published_pixels = False

    def __init__(self, path: str, labels: bool = True, test_size: Whole | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.test_size = test_size
        self.path = find(path, self.root)
        self.reader, images = opened(self.path)
        self.images = _layout(images, self.path)
        self.own_splits = tuple(self.images)
        folders = sorted({folder for _, folder in self.images["train"]})
        if labels and len(folders) > 1 and "" not in folders:
            self.classes = tuple(folders)

    def split(self, stage: Stage) -> Split:
        names, folders = zip(*self.images[stage], strict=True)
        label = None
        if self.classes and any(folders):  # test images often come without classes
            number = {folder: k for k, folder in enumerate(self.classes)}
            if unknown := set(folders) - set(number):
                raise UserError(
                    f"Images for `{stage}` in {self.path} lie in the class folder `{unknown.pop()}`, which no "
                    "training image has. Add some, or say `--data.labels false`."
                )
            label = torch.tensor([number[folder] for folder in folders])
        return Split(len(names), FilePictures(self.reader, names), names, label=label)


def find(path: str, root: Path) -> Path:
    """A folder or zip file, as it is or below the data root. Raises UserError where there is none."""
    places = [Path(path).expanduser(), root / path]
    for place in places:
        if place.is_dir() or zipfile.is_zipfile(ordinary(place)):
            return place
        if place.is_file():
            raise UserError(f"{place} is neither a folder nor a whole zip file.")
    looked = " and ".join(str(place.absolute()) for place in places)
    raise UserError(f"There is no folder or zip file `{path}`: looked at {looked}. Say where it is with `--data.path`.")


def images_among(files: list[str], path: Path) -> list[str]:
    """Sorted, those of the files in `path` that are named as images are. Raises UserError where there are none."""
    images = sorted(name for name in files if name.lower().endswith(EXTENSIONS))
    if not images:
        others = f" among its {len(files)} files" if files else ", which is empty"
        raise UserError(f"There is no image in {path}{others}. The names of images end in {', '.join(EXTENSIONS)}.")
    return images


def opened(path: Path) -> tuple[Files | ZipFiles, list[str]]:
    """What reads a folder or zip file, and the sorted names of its images. Raises UserError where there are none."""
    reader = ZipFiles(path) if path.is_file() else Files(path)
    files = reader.names()
    images = images_among(files, path)
    if len(images) < len(files):
        rank_zero_warn(f"{path}: {len(files) - len(images)} files that are no images are ignored.")
    return reader, images


def _layout(images: list[str], path: Path) -> dict[Stage, list[tuple[str, str]]]:
    """The images of each split, each with the name of its class folder ("" if it is in none)."""
    paths = [PurePosixPath(name).parts for name in images]

    def folders(depth: int) -> list[str]:
        return [parts[depth] if len(parts) > depth + 1 else "" for parts in paths]

    depth = 0
    # a folder around everything, as most zips have one, says nothing
    while len(set(outer := folders(depth))) == 1 and outer[0] and outer[0].lower() not in SPLIT_FOLDERS:
        depth += 1
    stages = [SPLIT_FOLDERS.get(folder.lower()) for folder in outer]
    found = set(stages)
    if "train" in found and found != {"train", None}:  # that would be a class of trains among others
        if None in found:
            stray = images[stages.index(None)]
            raise UserError(
                f"{path} has folders for train and {', '.join(sorted(found - {'train', None}))}, and {stray} "
                "lies in none of them. Move it, or give the path of one folder."
            )
        depth += 1
    else:
        stages = ["train"] * len(images)
    layout: dict[Stage, list[tuple[str, str]]] = {}
    for stage, name, folder in zip(stages, images, folders(depth), strict=True):
        layout.setdefault(stage, []).append((name, folder))
    return layout


def _hidden(name: str) -> bool:
    """Files that a desktop leaves behind: .DS_Store, ._cat.jpg, __MACOSX/..."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


class Files:
    """Reads the images of a folder, by names relative to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        found, seen = [], set()
        for folder, inside, files in os.walk(self.path, followlinks=True):
            if (real := os.path.realpath(folder)) in seen:  # a link back to a folder above it
                inside.clear()
                continue
            seen.add(real)
            found += [Path(folder, file).relative_to(self.path).as_posix() for file in files]
        return [name for name in found if not _hidden(name)]

    def picture(self, name: str) -> Image.Image:
        return read_picture(self.path / name, str(self.path / name))

    def size(self, name: str) -> tuple[int, int]:
        return picture_size(self.path / name, str(self.path / name))


class ZipFiles:
    """Reads the files of a zip without unpacking it: names in it are keys and never paths on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: zipfile.ZipFile | None = None
        self._process = 0

    def names(self) -> list[str]:
        return [name for name in self._archive().namelist() if not name.endswith("/") and not _hidden(name)]

    def picture(self, name: str) -> Image.Image:
        return read_picture(lambda: io.BytesIO(self._archive().read(name)), f"{name} in {self.path}")

    def size(self, name: str) -> tuple[int, int]:
        return picture_size(lambda: self._archive().open(name), f"{name} in {self.path}")  # not all of the file

    def _archive(self) -> zipfile.ZipFile:
        # one for each process: after a fork, parent and child would move the same file's position
        if self._open is None or self._process != os.getpid():
            self._open, self._process = zipfile.ZipFile(self.path), os.getpid()
        return self._open

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": None}


class FilePictures:
    """rows -> images one by one; a class, so that it can be sent to a worker."""

    def __init__(self, reader: Files | ZipFiles, names: tuple[str, ...]) -> None:
        self.reader, self.names = reader, names

    def __call__(self, rows: np.ndarray) -> Iterator[Image.Image]:
        return (self.reader.picture(self.names[row]) for row in rows)
