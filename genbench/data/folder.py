"""A folder or zip of images as a data set."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from genbench.core.arguments import Whole, key_of
from genbench.core.errors import UserError
from genbench.core.files import ordinary
from genbench.data import medical
from genbench.data.base import ImageData, Stage
from genbench.data.image_files import SEVERAL
from genbench.data.layouts import layout, listed
from genbench.data.module import existing
from genbench.data.readers import EXTENSIONS, FilePictures, Files, Frame, Picture, ZipFiles, file_of
from genbench.data.streams import Split

Frames = Literal["first", "each", "channels"]


class ImageFolder(ImageData):
    """Images in a folder, or in a zip file, which is read without unpacking.

    Sub-folders train, val (valid, validation) and test are used as splits; a missing val or test is held out of train.
    Below the splits, one folder for each class gives the labels. Other folders are searched to any depth, and files
    that are not images are ignored. Transparent images are composited over white. The layouts of the dataset_tool of
    StyleGAN and EDM, tiny-imagenet and MVTec are recognized. DICOM files and NIfTI volumes are read if the extra
    `medical` is installed.

    Args:
        path: The folder, the zip file or a single file of many frames, absolute or relative to the current folder or
            the data root
        labels: Use folders as classes, if there are several and every training image is in one of them; or use the
            labels in the dataset_tool's dataset.json
        test_size: Images held out of the training set for testing, if there is no test folder. Default: 5000, or a
            tenth of the training set if that is less
        frames: What to use of a file of several frames (TIFF, GIF, WebP, APNG, DICOM, or slices of a NIfTI volume): the
            first frame, each frame as an image, or all frames as the channels of one image. Default: each, if all
            frames have the same size. If there are several files, whole files are held out for validation and testing
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
        warn_ignored(self.path, set(files) - {*images, *found.used})
        for note in (*found.notes, *notes):
            rank_zero_warn(f"{self.path}: {note}")
        self.images: dict[Stage, list[tuple[Picture, str]]] = {
            stage: [(picture, folder) for name, folder in some for picture in pictures[name]]
            for stage, some in found.images.items()
        }
        self.own_splits = tuple(self.images)
        self._contents: str | None = None
        count = len({file_of(picture) for picture, _ in self.images["train"]})
        held_out = {"val", "test"} - {*self.own_splits}
        if count <= len(held_out) and len(self.images["train"]) > count:
            rank_zero_warn(
                f"{self.path}: {' and '.join(sorted(held_out))} images are frames of the same "
                f"{'file' if count == 1 else 'files'} as the training images, since there are no other files."
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
        if self.classes and any(folders):  # test images often have no class folders
            number = {folder: k for k, folder in enumerate(self.classes)}
            if "" in folders:
                raise UserError(
                    f"{names[folders.index('')]} for `{stage}` in {self.path} is in no class folder, but other images "
                    "are. Move it into one, or use `--data.labels false`."
                )
            if unknown := set(folders) - set(number):
                raise UserError(
                    f"Images for `{stage}` in {self.path} are in the class folder `{unknown.pop()}`, but no training "
                    "image has this class. Add training images of the class, or use `--data.labels false`."
                )
            label = torch.tensor([number[folder] for folder in folders])
        return Split(len(names), FilePictures(self.reader, names), names, label=label, group=grouped(names))


def grouped(pictures: Sequence[Picture]) -> Tensor | None:
    """The index of each image's file, int64 [N]; None if each image has a file of its own."""
    files = [file_of(picture) for picture in pictures]
    number = {file: k for k, file in enumerate(dict.fromkeys(files))}
    return None if len(number) == len(files) else torch.tensor([number[file] for file in files])


def find(path: str, root: Path) -> Path:
    """A folder, zip or file of several images. Raises UserError if there is none at the path."""
    place = existing(path, root)
    if not place.is_dir() and not is_image(ordinary(place).name) and not zipfile.is_zipfile(place):
        raise UserError(f"{place} is not a folder, a complete zip file, or a file of several images.")
    return place


def several(name: str) -> bool:
    """Whether a single file of this name may hold many images."""
    return name.lower().endswith((*SEVERAL, *medical.EXTENSIONS))


def is_image(name: str) -> bool:
    """Whether a file of this name holds an image."""
    return name.lower().endswith((*EXTENSIONS, *medical.EXTENSIONS))


def opened(path: Path) -> tuple[Files | ZipFiles, list[str], list[str]]:
    """The reader of a folder, zip or single file, the sorted names of its images, and the names of all its files.

    DICOM files may have no extension. Raises UserError if there are no images.
    """
    if path.is_file() and is_image(path.name):
        return Files(path.parent), [path.name], [path.name]
    reader = ZipFiles(path) if path.is_file() else Files(path)
    files, extensions = reader.names(), EXTENSIONS + medical.EXTENSIONS
    reader.nameless = frozenset(name for name in files if medical.nameless(name) and reader.is_dicom(name))
    images = sorted({*reader.nameless, *(name for name in files if name.lower().endswith(extensions))})
    if images:
        return reader, images, files
    if not files:
        raise UserError(f"{path} is empty. Expected images ({', '.join(extensions)}).")
    hint = ""
    if any(name.endswith((".npy", ".npz")) for name in files):
        hint = " For arrays use `ArrayImages`."
    archives = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
    if inner := next((name for name in files if name.lower().endswith(archives)), None):
        hint += f" Unpack {inner} first: a zip must contain the images themselves."
    raise UserError(
        f"There is no image in {path} among its {len(files)} files. The names of images end in {', '.join(extensions)}."
        f"{hint}"
    )


def warn_ignored(path: Path, names: set[str]) -> None:
    if names:
        rank_zero_warn(f"{path}: {len(names)} files that are not images are ignored: {listed(sorted(names))}.")


def expanded(
    reader: Files | ZipFiles, names: Sequence[str], frames: Frames | None, path: Path
) -> tuple[dict[str, list[Picture]], list[str]]:
    """The images of each file, and notes for the user.

    Raises UserError if `frames` is None and a file has frames of several sizes, or if `frames` is `channels` and the
    frames of a file cannot be channels.
    """
    pictures: dict[str, list[Picture]] = {}
    multiple: dict[str, str] = {}
    # a PNG of several frames is an error only when it is read: such files are rare, and counting all frames is slow
    extensions = SEVERAL if frames is None else (".png", *SEVERAL)
    for name in names:
        kind = reader.kind(name)
        if kind is None and (frames == "first" or not name.lower().endswith(extensions)):
            pictures[name] = [Frame(name, (0,))] if name.lower().endswith(extensions) else [name]
            continue
        found = reader.frames(name)
        numbers, word = [number for number, _ in found], "slice" if kind == "nifti" else "frame"
        if numbers == [0] and kind != "nifti":
            pictures[name] = [name]
            continue
        if len(numbers) > 1:
            multiple[name] = f"{len(numbers)} {word}s"
        if frames is None and len({size for _, size in found}) > 1:
            raise UserError(
                f"{path}: {name} has {len(numbers)} frames of several sizes. Use `--data.frames first` for only the "
                "first frame of such files, or `--data.frames each` for all frames."
            )
        if frames == "channels" and len(numbers) not in (0, 1, 3):
            raise UserError(
                f"{path}: {name} has {len(numbers)} {word}s, but data.frames `channels` needs 1 or 3. Use "
                "`--data.frames each` or `first`."
            )
        parts = [tuple(numbers)] if frames == "channels" and numbers else [(number,) for number in numbers]
        pictures[name] = [Frame(name, part, word) for part in (parts[:1] if frames == "first" else parts)]
    notes = []
    if empty := [name for name, found in pictures.items() if not found]:
        notes.append(f"{len(empty)} DICOM files without pixels are ignored: {listed(empty)}.")
        if len(empty) == len(names):
            raise UserError(f"There is no image in {path}: its DICOM files, such as {empty[0]}, have no pixels.")
    if multiple:
        taken = {"first": "only the first is used", "channels": "they are used as the channels of one image"}
        first = next(iter(multiple))
        notes.append(
            f"{len(multiple)} files have several frames ({first} has {multiple[first]}): "
            f"{taken.get(frames or 'each', 'each is used as an image')}. To change this, set `--data.frames "
            "first|each|channels`."
        )
    return pictures, notes
