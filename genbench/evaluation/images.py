"""Sets of uint8 images, or of points, that are compared: a data set's split, or anybody's folder, zip or array."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from genbench.core.batch import to_uint8
from genbench.core.errors import UserError
from genbench.data.folder import EXTENSIONS, Files, ZipFiles
from genbench.data.loader import Source, Unpaired
from genbench.data.module import DataModule
from genbench.evaluation.extractors import in_channels


class ImageSet(Protocol):
    """
    name    for messages
    shape   (C, H, W), or (D,) of points
    label   [N] int64 or None
    """

    name: str
    shape: tuple[int, ...]
    label: Tensor | None

    def __len__(self) -> int: ...
    def images(self, rows: Tensor) -> Tensor:
        """uint8 [B, C, H, W], or float32 [B, D]"""


def choice(count: int, most: int | None) -> Tensor:
    """At most so many of `count` rows, in order; a random choice, since files and labels are often sorted."""
    if most is None or most >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values


class SplitImages:
    """At most `most` images of a split, a choice that depends on nothing but their number.

    Of data of two domains those of B, or of A. `unpaired` says that these have no relation.
    """

    def __init__(self, data: DataModule, split: str, most: int | None = None, domain: Literal["A", "B"] = "B") -> None:
        found = data.source(split)
        self.unpaired = isinstance(found, Unpaired)
        if self.unpaired:
            found = found.image if domain == "B" else found.source
        self.source: Source = found
        self.shape = tuple(data.spec.shape if domain == "B" else data.spec.source)
        self.name = f"{data.name} {split}" + (f", {domain}" if self.unpaired else "")
        self.rows = choice(len(self.source), most)

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, rows: Tensor) -> Tensor:
        rows, places = rows.unique_consecutive(return_inverse=True)  # of a padded block the last one is decoded once
        return self.source.batch(self.rows[rows]).image.cpu()[places]

    def target(self, name: str) -> Tensor | None:
        """`label`, `caption`, `mask` or `source` of all rows, if there are such."""
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
    """The set itself, or the choice of its images that `SplitImages` would make."""
    return images if len(images) <= most else SomeImages(images, choice(len(images), most))


class TensorImages:
    """uint8 [N, C, H, W], or points [N, D], in memory already."""

    label = None

    def __init__(self, name: str, images: Tensor, **targets: Tensor) -> None:
        """`targets`: `label` or `caption` of all, that a conditional model may be asked for."""
        self.name, self.all, self.shape, self.targets = name, images, tuple(images.shape[1:]), targets

    def __len__(self) -> int:
        return len(self.all)

    def images(self, rows: Tensor) -> Tensor:
        return self.all[rows]

    def target(self, name: str) -> Tensor | None:
        return self.targets.get(name)


class ArrayImages:
    """Images of an .npy or .npz file: uint8 [N, H, W, C] or [N, H, W], or floats in [0, 1] of that shape.

    Floats [N, D] are points.
    """

    label = None

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if isinstance(found, np.lib.npyio.NpzFile):
                if not found.files:
                    raise UserError(f"{path} holds no array.")
                found = _images_in(found, path)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path} is not a readable array of numbers ({error}).") from error
        if found.ndim == 2 and len(found) and np.issubdtype(found.dtype, np.floating):
            self.array, self.shape = found, (found.shape[1],)
            return
        if found.ndim == 3 and found.shape[-1] in (1, 3):
            raise UserError(
                f"{path} has the shape {list(found.shape)}, which may be one image or many. Give [N, H, W, C]."
            )
        array = found[..., None] if found.ndim == 3 else found
        if array.ndim != 4 or array.shape[-1] not in (1, 3):
            raise UserError(f"{path} has the shape {list(found.shape)}; images are [N, H, W, C] with 1 or 3 channels.")
        if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
            raise UserError(f"{path} holds {array.dtype}; images are uint8, or floats in [0, 1].")
        if not len(array):
            raise UserError(f"{path} holds no image.")
        self.array, self.shape = array, (array.shape[3], array.shape[1], array.shape[2])

    def __len__(self) -> int:
        return len(self.array)

    def images(self, rows: Tensor) -> Tensor:
        if len(self.shape) == 1:
            return torch.from_numpy(self.array[rows.numpy()]).float()
        part = np.ascontiguousarray(self.array[rows.numpy()].transpose(0, 3, 1, 2))
        if part.dtype == np.uint8:
            return torch.from_numpy(part)
        part = torch.from_numpy(part).float()
        if not ((part >= 0) & (part <= 1)).all():  # NaN is neither
            bad = int(rows[(~((part >= 0) & (part <= 1))).flatten(1).any(1).nonzero()[0, 0]])
            raise UserError(f"{self.name}: image {bad} has values that are not in [0, 1]. Give uint8, or floats there.")
        return to_uint8(part * 2 - 1)


def _images_in(archive: np.lib.npyio.NpzFile, path: Path) -> np.ndarray:
    """The array called images, else the only one that may be some."""
    if "images" in archive.files:
        return archive["images"]
    arrays = {name: archive[name] for name in archive.files}
    # points only where there are no images: one-hot labels and features lie beside images, too
    images = {name: array for name, array in arrays.items() if array.ndim in (3, 4)}
    found = images or {name: array for name, array in arrays.items() if array.ndim == 2}
    if len(found) != 1:
        raise UserError(f"{path} holds {', '.join(archive.files)}; call the array of images `images`.")
    return next(iter(found.values()))


class FileImages:
    """Images of a folder or a zip, all of one size and one colour."""

    label = None

    def __init__(self, path: Path) -> None:
        self.name, self.reader = str(path), ZipFiles(path) if path.is_file() else Files(path)
        names = self.reader.names()
        if path.is_file():
            with zipfile.ZipFile(path) as archive:
                every = archive.namelist()  # those that are hidden too, as "../x.png" is
            for name in every:
                if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
                    raise UserError(
                        f"{path} holds a file named {name!r}, which leads out of the archive. It was not read."
                    )
        self.files: Sequence[str] = sorted(name for name in names if name.lower().endswith(EXTENSIONS))
        if not self.files:
            raise UserError(f"There is no image in {path}. The names of images end in {', '.join(EXTENSIONS)}.")
        self.shape = self._read(0).shape

    def __len__(self) -> int:
        return len(self.files)

    def _read(self, row: int) -> np.ndarray:
        """uint8 [C, H, W]"""
        array = np.asarray(self.reader.picture(self.files[row]))
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)

    def images(self, rows: Tensor) -> Tensor:
        found = [self._read(row) for row in rows.tolist()]
        for row, array in zip(rows.tolist(), found, strict=True):
            if array.shape != tuple(self.shape):
                raise UserError(
                    f"{self.name}: {self.files[row]} is {_described(array.shape)}, and {self.files[0]} is "
                    f"{_described(self.shape)}. All images must have one size and be all grey or all in colour."
                )
        return torch.from_numpy(np.stack(found))


def _described(shape: Sequence[int]) -> str:
    return f"{shape[2]}×{shape[1]} {'grey' if shape[0] == 1 else 'RGB'}"


def open_images(path: str | Path) -> ImageSet:
    """The images of a folder, zip, .npz or .npy.

    Raises:
        UserError: there is nothing of that kind; what is odd is named.
    """
    path = Path(path).expanduser()
    if path.suffix in (".npy", ".npz") and path.is_file():
        return ArrayImages(path)
    if path.is_dir() or (path.is_file() and zipfile.is_zipfile(path)):
        return FileImages(path)
    raise UserError(
        f"{path} is {'no folder, zip, .npz or .npy' if path.exists() else 'not there'}. Give one of images."
    )


def pixel_hash(images: ImageSet, labels: Tensor | None = None) -> str:
    """16 hex digits of all pixels, in order, and of the labels."""
    digest = hashlib.sha256(str((len(images), *images.shape)).encode())
    for rows in torch.arange(len(images)).split(1000):
        digest.update(images.images(rows).contiguous().numpy())
    if labels is not None:
        digest.update(labels.contiguous().numpy())
    return digest.hexdigest()[:16]


def bring(images: Tensor, shape: Sequence[int]) -> Tensor:
    """uint8 [B, C, H, W] to the colour and size of `shape`; untouched where they have it already, as points must.

    Raises:
        UserError: one is an image and the other a point, or points have another number of coordinates.
    """
    if images.ndim != 1 + len(shape) or (len(shape) == 1 and images.shape[1] != shape[0]):
        raise UserError(f"Here are {_kind(images.shape[1:])}, and they are compared with {_kind(shape)}.")
    if len(shape) == 1:
        return images
    images = in_channels(images, shape[0])
    if tuple(images.shape[-2:]) == tuple(shape[-2:]):
        return images
    scaled = interpolate(images.float(), tuple(shape[-2:]), mode="bicubic", antialias=True, align_corners=False)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _kind(shape: Sequence[int]) -> str:
    return f"points of {shape[0]} numbers" if len(shape) == 1 else "images"
