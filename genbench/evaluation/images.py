"""Sets of uint8 images, or of points, that can be compared: a split of a data set, a folder, a zip or an array file."""

from __future__ import annotations

import copy
import math
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from genbench.core.class_paths import loaded_classes
from genbench.core.errors import UserError
from genbench.data import medical
from genbench.data.array_file import STATISTICS, ArrayFile
from genbench.data.array_members import SUFFIXES, refuse_special, refuse_unread
from genbench.data.arrays import ArrayImages
from genbench.data.base import ImageData
from genbench.data.folder import ImageFolder, is_image, several
from genbench.data.image_files import Fit, How
from genbench.data.loader import Unpaired
from genbench.data.module import DataModule
from genbench.data.ranges import Range
from genbench.data.readers import EXTENSIONS, Files
from genbench.evaluation.extractor import in_channels
from genbench.evaluation.statistics import Statistics, read_statistics


class ImageSet(Protocol):
    """
    name    name of the set in messages
    shape   (C, H, W) of images, or (D,) of points
    label   labels [N] int64, or None
    """

    name: str
    shape: tuple[int, ...]

    @property
    def label(self) -> Tensor | None: ...
    def __len__(self) -> int: ...
    def images(self, rows: Tensor) -> Tensor:
        """uint8 [B, C, H, W], or float32 [B, D]"""


def choice(count: int, most: int | None) -> Tensor:
    """At most `most` of `count` rows, in order. They are chosen at random, since files and labels are often sorted."""
    if most is None or most >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values


class SplitImages:
    """At most `most` images of a split. The random choice depends only on the number of images.

    For data with two domains, `domain` selects the images of A or B. `unpaired` is True if the domains are not paired.
    """

    def __init__(self, data: DataModule, split: str, most: int | None = None, domain: Literal["A", "B"] = "B") -> None:
        found = data.source(split)
        self.unpaired = isinstance(found, Unpaired)
        if self.unpaired:
            found = found.image if domain == "B" else found.source
        self.data = data
        self.shape = tuple(data.spec.shape if domain == "B" else data.spec.source)
        self.name = f"{data.name} {split}" + (f", {domain}" if self.unpaired else "")
        # in memory if they fit, since each score reads them, and each validation of a run
        self.source, self.rows = data.selection(found, choice(len(found), most), self.name)

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, rows: Tensor) -> Tensor:
        # decode the repeated last row of a padded block only once
        rows, places = rows.unique_consecutive(return_inverse=True)
        return self.source.batch(self.rows[rows]).image.cpu()[places]

    def target(self, name: str) -> Tensor | None:
        """`label`, `caption`, `mask` or `source` of all rows, or None if the data has none."""
        found = self.source.target(name, self.rows)
        return None if found is None else found.cpu()

    @property
    def label(self) -> Tensor | None:
        return self.target("label")


class SomeImages:
    """Some rows of a set."""

    label = None

    def __init__(self, whole: ImageSet, rows: Tensor) -> None:
        self.whole, self.rows, self.name, self.shape = whole, rows, whole.name, whole.shape

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, rows: Tensor) -> Tensor:
        return self.whole.images(self.rows[rows])


def at_most(images: ImageSet, most: int) -> ImageSet:
    """The set itself, or at most `most` of its images, chosen in the same way as in `SplitImages`."""
    return images if len(images) <= most else SomeImages(images, choice(len(images), most))


class TensorImages:
    """Images uint8 [N, C, H, W], or points [N, D], that are in memory."""

    label = None

    def __init__(self, name: str, images: Tensor, **targets: Tensor) -> None:
        """`targets`: labels, captions, masks or sources of all images, by name."""
        self.name, self.all, self.shape, self.targets = name, images, tuple(images.shape[1:]), targets

    def __len__(self) -> int:
        return len(self.all)

    def images(self, rows: Tensor) -> Tensor:
        return self.all[rows]

    def target(self, name: str) -> Tensor | None:
        return self.targets.get(name)


class FileImages:
    """Images read from files in the same way as in training. They must all have the same size and channels, unless `at`
    is used to resize and convert them.

    range    the stored values that are black and white: set by the user, or determined from all images
    classes  names of the classes of `split.label`
    """

    label = None

    def __init__(self, data: ImageData, name: str, flags: str = "--images") -> None:
        """`flags` is the prefix of the data's arguments in error messages: `--images` for `--images.range`."""
        self.name, self.flags, self.classes = name, flags, data.classes
        self.channels: int | None = None
        self.fit: Fit | None = None
        with flags_called(flags):
            self.split, self.range = data.whole(name)
        self._look()

    def at(
        self, size: int | None = None, channels: int | None = None, resize_mode: How = "crop", enlarge: bool = False
    ) -> FileImages:
        """The same images, resized to a square and converted to `channels`, by the rules of `ImageFolder`.

        Raises:
            UserError: `resize_mode` or `enlarge` was set without a size.
        """
        if size is None and (resize_mode != "crop" or enlarge):
            raise UserError("`--resize-mode` and `--enlarge` need a size. Add `--size`.")
        images = copy.copy(self)
        images.channels = channels
        images._look()
        if size is not None:
            images.fit = Fit(size, images.shape[0], resize_mode, enlarge)
            images.shape = (images.shape[0], size, size)
        return images

    def by(self, range: Range, whose: str) -> FileImages:
        """The same images with the range of the reference images, if no range was set by the user.

        If each set used its own extremes, a set of half the brightness would look the same. 8-bit images keep the range
        of their dtype.
        """
        if self.range.only in (None, "uint8") or str(range) == str(self.range):
            return self
        warnings.warn(
            f"{self.name}: the range of {whose} is used, so {range} become black and white instead of {self.range}. "
            f"Set `{self.flags}.range` to change this.",
            stacklevel=2,
        )
        images = copy.copy(self)
        images.range = range
        return images

    def __len__(self) -> int:
        return self.split.length

    def images(self, rows: Tensor) -> Tensor:
        with flags_called(self.flags):
            return torch.from_numpy(np.stack([self._fitted(picture, row) for picture, row in self._pictures(rows)]))

    def _look(self) -> None:
        """Set `shape` from the first image. All images must have this shape."""
        with flags_called(self.flags):
            ((picture, row),) = self._pictures(torch.tensor([0]))
            array = self._colored(picture, self.split.name(row))
        self.shape: tuple[int, ...] = array.shape

    def _pictures(self, rows: Tensor) -> Iterator[tuple[Image.Image, int]]:
        for picture, row in zip(self.split.pictures(rows.numpy()), rows.tolist(), strict=True):
            yield self.range.apply(picture, self.split.name(row)), row

    def _colored(self, picture: Image.Image, name: str) -> np.ndarray:
        """uint8 [C, H, W]"""
        if self.channels is not None:
            picture = picture.convert("L" if self.channels == 1 else "RGB")
        array = np.asarray(picture)
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)

    def _fitted(self, picture: Image.Image, row: int) -> np.ndarray:
        name = self.split.name(row)
        array = self._colored(picture, name)
        if array.shape[0] == self.shape[0] and self.fit is not None:
            return self.fit.one(Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)), name)
        if array.shape != self.shape:
            raise UserError(
                f"{self.name}: {name} is {_described(array.shape)}, but {self.split.name(0)} is "
                f"{_described(self.shape)}. All images must have the same size and channels: use `--size` and "
                "`--channels` to convert them."
            )
        return array


def resizing_of(trained_on: dict[str, Any]) -> tuple[How, bool]:
    """How images of any size are resized for a model: as its training images, but no size is an error.

    Images that are too small are scaled up, except by `pad`, which centers them, as for MNIST. If all training images
    had one size, other images are cropped.

    Args:
        trained_on: Class and arguments of the training data, from the checkpoint; may be empty

    Returns:
        `resize_mode` and `enlarge`, for `FileImages.at` or `Fit`
    """
    settings = trained_on.get("arguments") or {}
    cls = loaded_classes(DataModule).get(trained_on.get("class", ""))
    how = settings.get("resize_mode") or getattr(cls, "native_resize_mode", "crop")
    return "crop" if how == "none" else how, bool(settings.get("enlarge")) or how != "pad"


@contextmanager
def flags_called(flags: str) -> Iterator[None]:
    """Rename the flags of training in errors and warnings: `data.size` to `--size`, and `--data.key` to `--images.key`.

    With empty `flags`, `--data.key` becomes `--key`.
    """

    def renamed(said: Any) -> str:
        said = str(said).replace("--data.enlarge true", "--enlarge")
        said = re.sub(r"(--)?\bdata\.(size|channels|resize_mode|enlarge)\b", r"\1\2", said)
        said = said.replace("--resize_mode", "--resize-mode")
        said = re.sub(r"(?<![-\w/])data\.(?=(range|window|frames|key|layout|severity)\b)", "--data.", said)
        return said.replace("--data.", f"{flags}." if flags else "--")

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            yield
        except UserError as error:
            raise UserError(renamed(error)) from error
    for warning in told:
        warnings.warn(renamed(warning.message), warning.category, stacklevel=3)


def _described(shape: Sequence[int]) -> str:
    return f"{shape[2]}×{shape[1]} {'gray' if shape[0] == 1 else 'RGB'}"


def reader_of(path: str | Path) -> type[ArrayImages | ImageFolder]:
    """The class of the data set that reads a folder, zip, .npz or .npy of images.

    Raises:
        UserError: the path does not exist, or is a different kind of file.
    """
    path = Path(path).expanduser()
    refuse_special(path)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return ArrayImages
    if path.is_dir():
        arrays = any(file.suffix.lower() in SUFFIXES for file in path.iterdir())
        return (
            ArrayImages
            if arrays
            and not any(name.lower().endswith(EXTENSIONS + medical.EXTENSIONS) for name in Files(path).names())
            else ImageFolder
        )
    if path.is_file() and several(path.name):
        return ImageFolder
    if path.is_file():
        refuse_unread(path)  # before the test for zips, since PyTorch files are zips
        if zipfile.is_zipfile(path):
            return ImageFolder
    raise UserError(
        f"{path} {'is not' if path.exists() else 'does not exist. Use'} a folder, zip, .npz or .npy of images."
    )


def open_images(path: str | Path, flags: str = "--images", *, labels: bool = False, **options: Any) -> ImageSet:
    """The images of a folder, zip, .npz, .npy or image file, or the points of an array of floats [N, D].

    Args:
        path: The folder or file
        flags: Prefix of the options in error messages
        labels: Also read labels, from class folders or an array
        options: Arguments of `ImageFolder` or `ArrayImages`, whichever reads the path

    Raises:
        UserError: the images cannot be read; the message contains the reason.
    """
    path = Path(path).expanduser()
    reader = ImageFolder if path.is_file() and is_image(path.name) else reader_of(path)
    with flags_called(flags):
        if reader is ArrayImages:
            file, key = ArrayFile(path), options.get("key")
            if options.get("layout") is None and (points := file.points(key)) is not None:
                array = np.array(points.array(), dtype=np.float32)
                return TensorImages(str(path), torch.from_numpy(array))
            found = file.images(key, options.get("layout"), options.get("severity"))
            if len(found) > 1:
                names = [images.name for images in found.values()]
                raise UserError(f"{path} contains images of several splits. Choose one: `--data.key {names[0]}`, or "
                                f"{', '.join(names[1:])}.")  # fmt: skip
        elif path.is_file() and zipfile.is_zipfile(path):
            refuse_leading_out(path)
        try:
            data = reader(path=str(path.absolute()), labels=labels, **options)
        except UserError:
            refuse_unread(path)
            raise
        return FileImages(data, str(path), flags)


def open_reference(path: str | Path, flags: str = "--reference", **options: Any) -> ImageSet | Statistics:
    """Like `open_images`, but also reads the statistics of an .npz with `mu` and `sigma`.

    If a file contains both images and statistics, images are read by default; the key `mu` selects the statistics.
    """
    path = Path(path).expanduser()
    if reader_of(path) is ArrayImages:
        file, key = ArrayFile(path), options.get("key")
        if file.statistics() and key in STATISTICS:
            return read_statistics(file)
        if key is None and not file.has_images and (names := _like_statistics(file)):
            raise UserError(
                f"{path} contains {names}, which may be feature statistics. Statistics must be named `mu` and `sigma`, "
                "or `m` and `s`, for the mean [D] and the covariance [D, D]. Save them under these names, or select "
                f"points with `{flags}.key NAME`."
            )
        if file.statistics() and key is None:
            if not file.has_images:
                return read_statistics(file)
            warnings.warn(
                f"{path} contains both images and feature statistics (mu, sigma). The images are used. Set "
                f"`{flags}.key mu` to use the statistics, with which only the FID can be computed.",
                stacklevel=2,
            )
    return open_images(path, flags, **options)


def _like_statistics(file: ArrayFile) -> str | None:
    """The arrays of a file without known statistics, if one has the shape of a covariance and one the shape of a
    mean."""
    if file.statistics():
        return None
    found = {name: some[0] for name, some in file.members.items() if some[0].dtype.kind == "f"}
    squares = {m.shape[0] for m in found.values() if len(m.shape) == 2 and m.shape[0] == m.shape[1]}
    means = squares & {math.prod(m.shape) for m in found.values() if len(m.shape) == 1 or m.shape[0] == 1}
    return ", ".join(f"{name} ({m.described})" for name, m in found.items()) if means else None


def refuse_leading_out(path: Path) -> None:
    """Raise UserError if a zip contains names that would be extracted outside of the target folder."""
    with zipfile.ZipFile(path) as archive:
        every = archive.namelist()  # including hidden files, such as "../x.png"
    for name in every:
        if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
            raise UserError(
                f"{path} contains a file named {name!r}, a path outside of the archive. The archive was not read."
            )


def bring(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Convert uint8 [B, C, H, W] to the channels and size of `shape`. Points must have that shape already.

    Raises:
        UserError: images are compared with points, or points have a different number of coordinates.
    """
    if images.ndim != 1 + len(shape) or (len(shape) == 1 and images.shape[1] != shape[0]):
        raise UserError(f"Cannot compare {_kind(images.shape[1:])} with {_kind(shape)}.")
    if len(shape) == 1:
        return images
    images = in_channels(images, shape[0])
    if tuple(images.shape[-2:]) == tuple(shape[-2:]):
        return images
    scaled = interpolate(images.float(), tuple(shape[-2:]), mode="bicubic", antialias=True, align_corners=False)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _kind(shape: Sequence[int]) -> str:
    return f"points of {shape[0]} numbers" if len(shape) == 1 else "images"
