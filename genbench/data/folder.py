"""Any folder or zip of images as a data set."""

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
from genbench.data.readers import EXTENSIONS, FilePictures, Files, Frame, Picture, ZipFiles
from genbench.data.streams import Split

Frames = Literal["first", "each", "channels"]


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
        warn_ignored(self.path, set(files) - {*images, *found.used})
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
    """A folder, zip or file of several images. Raises UserError if there is none at the path."""
    place = existing(path, root)
    if not place.is_dir() and not several(ordinary(place).name) and not zipfile.is_zipfile(place):
        raise UserError(f"{place} is neither a folder nor a whole zip file, and no file of several images.")
    return place


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


def warn_ignored(path: Path, names: set[str]) -> None:
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
