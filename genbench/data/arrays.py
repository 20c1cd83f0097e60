"""Arrays of images in .npy and .npz files as a data set: MedMNIST, ImageNet32, dSprites, CIFAR-10-C, ADM, your own."""

from __future__ import annotations

import hashlib
import math
import os
import re
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn

from genbench.core.arguments import Bounds, Whole, key_of
from genbench.core.errors import UserError
from genbench.core.files import kind_of
from genbench.data.base import ImageData, Split, Stage, free_memory
from genbench.data.folder import EXTENSIONS
from genbench.data.layouts import SPLIT_FOLDERS, listed
from genbench.data.medical import kind_of as kind_of_scan
from genbench.data.module import data_root

Layout = Literal["NHW", "NHWC", "NCHW"]

SUFFIXES = (".npy", ".npz")
IMAGES = ("images", "image", "imgs", "data", "x", "samples")
LABELS = ("labels", "label", "targets", "target", "y")
STATISTICS = ("mu", "sigma", "m", "s")
NAMED = 8  # arrays that an error names
CHECKED = 2**30  # bytes of an array that is not compressed, up to which its checksum is compared: about a second

# formats that data sets come in and that are not read, by the end of a file's name
OTHERS = {
    ".mat": "a MATLAB file", ".h5": "an HDF5 file", ".hdf5": "an HDF5 file", ".he5": "an HDF5 file",
    ".parquet": "a Parquet file", ".arrow": "an Arrow file", ".feather": "an Arrow file",
    ".tfrecord": "a TFRecord file", ".tfrecords": "a TFRecord file", ".mdb": "part of an LMDB database",
    ".pt": "a PyTorch file", ".pth": "a PyTorch file", ".safetensors": "a safetensors file", ".bin": "raw bytes",
    ".pkl": "a pickle", ".pickle": "a pickle", ".idx": "an IDX file", "-ubyte": "an IDX file",
    ".idx.gz": "an IDX file", "-ubyte.gz": "an IDX file", ".tar": "a tar archive", ".tgz": "a tar archive",
    ".tar.gz": "a tar archive", ".tar.xz": "a tar archive", ".tar.bz2": "a tar archive", ".gz": "a gzip file",
}  # fmt: skip
# official files of built-in data sets, by the name of a file or of its folder
BUILT_IN = {
    r"(train|test|extra)_32x32\.mat": "SVHN",
    r"emnist-.*": "EMNIST",
    r"(train|t10k)-(images|labels)[-.]idx[13].*": "MNIST, FashionMNIST or KMNIST",
    r"data_batch_[1-6](\.bin)?|test_batch(\.bin)?|cifar-10-.*": "CIFAR10",
    r"cifar-100-.*": "CIFAR100",
    r"stl10_.*": "STL10",
}

# Hendrycks & Dietterich 2019: each file has five severities of all test images, one after the other
SEVERITIES = 5
CORRUPTIONS = (
    "brightness", "contrast", "defocus_blur", "elastic_transform", "fog", "frost", "gaussian_blur", "gaussian_noise",
    "glass_blur", "impulse_noise", "jpeg_compression", "motion_blur", "pixelate", "saturate", "shot_noise", "snow",
    "spatter", "speckle_noise", "zoom_blur",
)  # fmt: skip


class ArrayImages(ImageData):
    """Images in an .npy or .npz file, or in a folder of such files.

    Arrays whose names say train, val and test (`train_images`, `x_test`) are taken as splits; what is missing of val
    and test is cut off train. Images are [N, H, W], [N, H, W, C], [N, C, H, W] or flattened [N, H*W], of integers,
    floats or booleans. Pickled arrays are never loaded. Size and channels are by default those of the file; images of
    28×28 are padded to 32×32, as those of MNIST.

    Args:
        path: The file or folder, as it is or below the data root
        key: Name of the array of images; in a folder of .npy files a file's name. Default: by the names and shapes
        labels: Take labels as classes, where there are some: integers of any base, strings or one-hot vectors
        labels_key: Name of the array of labels. Default: `labels`, `label`, `targets`, `target`, `y`; `arr_1` of
            `arr_0`; one integer for each image under a name with such a word, `fine_labels` first; of an .npy a file
            of such a name beside it, labels.npy or y_train.npy of X_train.npy
        layout: Order of the axes: images, height, width and channels. Default: by the shape, where it says so
        severity: 1 to 5, which fifth of the images to take: the files of CIFAR-10-C have five severities in order
        test_size: Images cut off the training set for testing, where there is no test array. Default: 5000, or a tenth
            of the training set where that is less
    """

    published_pixels = False

    def __init__(
        self,
        path: str,
        key: str | None = None,
        labels: bool = True,
        labels_key: str | None = None,
        layout: Literal["NHW", "NHWC", "NCHW"] | None = None,
        severity: Annotated[int, Bounds(at_least=1, at_most=5)] | None = None,
        test_size: Whole | None = None,
        **kwargs,
    ) -> None:
        if labels_key is not None and not labels:
            raise UserError(f"data.labels_key is {labels_key}, and data.labels is false. Leave one of them out.")
        self.file = ArrayFile(find(path, data_root(kwargs.get("root"))))
        self.images = self.file.images(key, layout, severity)
        if len(self.images) > 1 and "train" not in self.images:
            raise UserError(
                f"{self.file.path} has no training images. Choose an array with `--data.key`: "
                f"{', '.join(images.name for images in self.images.values())}."
            )
        if len(self.images) == 1:
            self.images = {"train": next(iter(self.images.values()))}
        shapes = [images.shape for images in self.images.values()]
        self.native_size = min(shapes[0][:2])
        if shapes[0][:2] == (28, 28):  # as MNIST and its kin, which are padded by 2
            self.native_size, self.native_resize_mode = 32, "pad"
        self.native_channels = 1 if all(shape[2] == 1 for shape in shapes) else 3
        super().__init__(**kwargs)
        self.test_size = test_size
        self.own_splits = tuple(self.images)
        self.label: dict[Stage, torch.Tensor] = {}
        if labels:
            self._read_labels(labels_key)

    def contents(self) -> str:
        labels = {stage: label.tolist() for stage, label in self.label.items()}
        names = key_of(
            {s: [images.name, images.count, list(images.shape), labels.get(s)] for s, images in self.images.items()}
        )
        digest = hashlib.sha256()
        for path in sorted({member.path for images in self.images.values() for member in images.members}):
            with open(path, "rb") as file:
                size = file.seek(0, 2)
                for place in np.linspace(0, max(0, size - 2**16), 16).astype(int):  # some of it: files may be large
                    file.seek(place)
                    digest.update(file.read(2**16))
        return f"{names}.{digest.hexdigest()[:16]}"

    def split(self, stage: Stage) -> Split:
        images = self.images[stage].opened()
        return Split(len(images), images, images.names, label=self.label.get(stage))

    def _read_labels(self, key: str | None) -> None:
        found = {stage: self.file.labels(images, key) for stage, images in self.images.items()}
        if found["train"] is None:
            return
        values = np.unique(found["train"])
        if len(values) < 2:
            return
        for stage, labels in found.items():
            if labels is None:  # test images often come without
                continue
            if len(unknown := np.setdiff1d(labels, values)):
                raise UserError(
                    f"Labels for `{stage}` in {self.file.path} hold {unknown[0]}, which no training image has. Say "
                    "`--data.labels false` to train without."
                )
            self.label[stage] = torch.from_numpy(np.searchsorted(values, labels)).long()
        if len(values) == len(found["train"]):
            raise UserError(
                f"Each of the {len(values):,} training images in {self.file.path} has a label of its own: such are no "
                "classes, but numbers that are measured or that name the image. Say `--data.labels false` to train "
                "without, or choose other labels with `--data.labels_key`."
            )
        self.classes = tuple(map(str, values.tolist()))
        if values.dtype.kind in "iu" and not np.array_equal(values, np.arange(len(values))):
            rank_zero_warn(
                f"{self.file.path}: {len(values)} different labels from {values[0]} to {values[-1]} are taken as "
                f"classes 0 to {len(values) - 1}, in that order."
            )


# ---- one array ------------------------------------------------------------------------------------------------------


@dataclass
class Member:
    """An array in a file, by its header.

    path     the file
    inside   its name in an .npz; None of an .npy
    offset   of its first number in the file, in bytes; None where it is compressed
    fortran  the first axis moves fastest
    """

    path: Path
    inside: str | None
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    offset: int | None
    _array: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def pickled(self) -> bool:
        return self.dtype.hasobject

    @property
    def described(self) -> str:
        return "pickled objects" if self.pickled else f"{self.dtype} {list(self.shape)}"

    def array(self) -> np.ndarray:
        """Memory-mapped, or where it is compressed read once.

        Raises:
            UserError: it is a pickle, damaged or larger than the free memory.
        """
        if self._array is None:
            self._array = self._read()
        return self._array

    def _read(self) -> np.ndarray:
        where = f"{self.path}" if self.inside is None else f"{self.inside} in {self.path}"
        if self.pickled:
            raise UserError(
                f"{where} is a pickle, which can run any code when it is read, and is not loaded. Save it as an array "
                "of numbers."
            )
        size = math.prod(self.shape) * self.dtype.itemsize
        if not size:
            return np.empty(self.shape, self.dtype)
        if self.offset is None and size > free_memory():
            raise UserError(
                f"{where} takes {size / 2**30:.1f} GiB, more than the memory that is free. Save it uncompressed, with "
                "np.savez or np.save: then it is read piece by piece."
            )
        try:
            if self.inside is not None and (self.offset is None or size <= CHECKED):
                with zipfile.ZipFile(self.path) as archive, archive.open(self.inside) as stream:
                    if self.offset is None:
                        return np.lib.format.read_array(stream, allow_pickle=False)
                    while stream.read(1 << 20):  # compares the checksum at its end
                        pass
            order = "F" if self.fortran else "C"
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order).view(np.ndarray)
        except Exception as error:  # a damaged file can fail anywhere in NumPy's reader and in zipfile
            raise UserError(f"{where} is not a readable array of numbers ({error}). Replace the file.") from error

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_array": None}  # a worker opens the file by itself


def members_of(path: Path) -> dict[str, Member]:
    """The arrays of an .npy (one, under the file's own name) or .npz by name; of both only the headers are read.

    Raises:
        UserError: it is neither, or cut off.
    """
    refuse_special(path)
    try:
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                return {path.stem: _member(path, None, file, 0, os.path.getsize(path))}
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            found = {}
            for info in archive.infolist():
                if not info.filename.endswith(".npy"):
                    continue
                start = None
                if info.compress_type == zipfile.ZIP_STORED:
                    file.seek(info.header_offset + 26)
                    start = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
                with archive.open(info) as stream:
                    name = info.filename.removesuffix(".npy")
                    found[name] = _member(path, info.filename, stream, start, info.file_size)
            return found
    except Exception as error:  # a damaged header gives a TokenError of Python's own tokenizer, among others
        raise UserError(f"{path} is not a readable array of numbers ({error}). Replace the file.") from error


def _member(path: Path, inside: str | None, stream, start: int | None, size: int) -> Member:
    """The array whose header `stream` begins with, `size` bytes in all, from `start` on in the file."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version[0]}.{version[1]} of the format is for structures")
    shape, fortran, dtype = readers[version](stream)
    if not dtype.hasobject and size - stream.tell() < math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{inside or 'the file'} is cut off")
    return Member(path, inside, dtype, shape, fortran, None if start is None else start + stream.tell())


def refuse_special(path: Path) -> None:
    """Raise UserError where a path is no file or folder: a named pipe or a device would be waited for without end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is {kind_of(path)}. Give a file or a folder.")


def refuse_unread(path: Path) -> None:
    """Raise UserError where a path is in a format of the field that is not read, and say what to do about it.

    Of a folder without folders, arrays and images the first such file tells.
    """
    if not path.exists():
        return
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        if any(file.is_dir() or file.name.lower().endswith((*EXTENSIONS, ".zip", *SUFFIXES)) for file in files):
            return
        path = next((file for file in files if _format(file)), path)
    if (kind := _format(path)) is None:
        return
    names = (path.name.lower(), path.parent.name.lower())
    built_in = next((data for form, data in BUILT_IN.items() if any(re.fullmatch(form, name) for name in names)), None)
    convert = "save what it holds in an .npz, with `numpy.savez('data.npz', images=..., labels=...)`"
    if kind == "a pickle" and built_in is None:
        convert += ", or `mu=..., sigma=...` where it holds statistics of features"
    if kind in ("a tar archive", "a gzip file"):
        convert = "unpack it, and give the folder or file that was in it"
    use = f"use the built-in data set {built_in}, or {convert}" if built_in else convert
    raise UserError(f"{path} is {kind}, a format that is not read here: {use}.")


def _format(file: Path) -> str | None:
    """Which of the formats that are not read a file is in; pickles often have no extension."""
    if not file.is_file() or kind_of_scan(file.name) or not os.access(file, os.R_OK):
        return None
    ends = [end for end in OTHERS if file.name.lower().endswith(end)]
    if ends:
        return OTHERS[max(ends, key=len)]
    with open(file, "rb") as opened:
        start = opened.read(2)
    return "a pickle" if start[:1] == b"\x80" and start[1:] in (b"\2", b"\3", b"\4", b"\5") else None


# ---- which arrays, and how their axes are read ----------------------------------------------------------------------


@dataclass
class Images:
    """Arrays that one after the other are N images: rows int64 [B] -> [B, H, W] or [B, H, W, C] of the file's type.

    first, count  which of their rows
    """

    name: str
    stage: Stage | None
    members: list[Member]
    layout: Layout
    first: int
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def total(self) -> int:
        return sum(member.shape[0] for member in self.members)

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, W, C"""
        rest = self.members[0].shape[1:]
        if len(rest) == 1:
            channels = _flat_channels(rest[0])
            side = math.isqrt(rest[0] // channels)
            return side, side, channels
        if self.layout == "NHW":
            return *rest, 1
        return rest if self.layout == "NHWC" else (*rest[1:], rest[0])

    @property
    def names(self) -> Sequence[str]:
        return _Names(f"of {self.name} in {self.members[0].path}", self.first, self.count)

    def opened(self) -> Images:
        """The same with its arrays read, where they are compressed: once, before threads ask for them."""
        members = [replace(member, _array=None) for member in self.members]
        for member in members:
            member.array()
        return replace(self, members=members)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Raises UserError naming the image where there is a NaN or an infinity."""
        numbers = np.asarray(rows) + self.first
        starts = np.cumsum([0] + [member.shape[0] for member in self.members])
        among = np.searchsorted(starts, numbers, "right") - 1
        found = np.empty((len(numbers), *self.members[0].shape[1:]), self.members[0].dtype.newbyteorder("="))
        for k in np.unique(among):
            found[among == k] = self.members[k].array()[numbers[among == k] - starts[k]]
        if found.dtype.kind == "f" and not (finite := np.isfinite(found).reshape(len(found), -1).all(1)).all():
            bad = int(numbers[np.flatnonzero(~finite)[0]]) - self.first
            raise UserError(f"{self.names[bad]} has pixels that are NaN or infinite. Remove it or mend the file.")
        height, width, channels = self.shape
        if found.ndim == 2:
            shape = (channels, height, width) if self.layout == "NCHW" else (height, width, channels)
            found = found.reshape(len(found), *shape)
        if self.layout == "NCHW":
            found = found.transpose(0, 2, 3, 1)
        return found.reshape(len(found), height, width) if channels == 1 else found


@dataclass
class _Names(Sequence):
    """What images are called in an error, made when asked for: there may be millions."""

    of: str
    first: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> str:
        return f"Image {self.first + row} {self.of}"


class ArrayFile:
    """What an .npy or .npz file, or a folder of these, holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: dict[str, list[Member]] = {}
        refuse_special(path)
        files = sorted(_arrays_in(path), key=_natural) if path.is_dir() else [path]
        for file in files:
            for name, member in members_of(file).items():
                if path.is_dir() and file.suffix.lower() == ".npz":  # batches of one data set
                    stage = _parted(file.stem)[0]
                    name = name if stage is None else f"{stage}_{name}"
                self.members.setdefault(name, []).append(member)
        if not self.members:
            raise UserError(f"{path} holds no array.")
        for name, members in self.members.items():
            if len({re.sub(r"\d+", "", member.path.stem) for member in members}) > 1:
                raise UserError(
                    f"{path}: {listed([member.path.name for member in members])} all have an array {name}, and are no "
                    "numbered parts of one data set by their names. Give the path of one file."
                )

    def statistics(self) -> tuple[Member, Member] | None:
        """Mean and covariance of features, if it has such: `mu` and `sigma`, or floats `m` [D] and `s` [D, D]."""
        if {"mu", "sigma"} <= self.members.keys():
            return self.members["mu"][0], self.members["sigma"][0]
        if {"m", "s"} <= self.members.keys():
            m, s = self.members["m"][0], self.members["s"][0]
            count = math.prod(m.shape)
            if m.dtype.kind == s.dtype.kind == "f" and s.shape == (count, count):
                return m, s
        return None

    @property
    def has_images(self) -> bool:
        """Whether an array has the shape of images."""
        return any(self._is_image(name) for name in self.members)

    def points(self, key: str | None = None) -> Member | None:
        """Floats [N, D], where no images or statistics are in the file.

        Raises:
            UserError: there are several.
        """
        if self.statistics() if key in (None, *STATISTICS) else False:
            return None
        if key is None and self.has_images:
            return None
        others = {*LABELS, "mu", "sigma"}  # one of the two alone is half of statistics
        names = [key] if key is not None else [name for name in self.members if _parted(name)[1] not in others]
        found = {name: self.members[name][0] for name in names if name in self.members}
        found = {name: m for name, m in found.items() if len(m.shape) == 2 and m.dtype.kind == "f" and m.shape[0]}
        if "images" in found:
            return found["images"]
        if len(found) > 1:
            raise self._several("points", list(found))
        return next(iter(found.values()), None)

    def _several(self, what: str, names: list[str]) -> UserError:
        found = _listed({name: self.members[name] for name in names})
        return UserError(f"{self.path} has several arrays of {what}: {found}. Choose one: `--data.key {names[0]}`.")

    def images(
        self, key: str | None = None, layout: Layout | None = None, severity: int | None = None
    ) -> dict[Stage | None, Images]:
        """The arrays of images by split; under None where they are of none.

        Raises:
            UserError: there are none, or it is not known which they are, how their axes are ordered, or which severity.
        """
        if layout is not None and layout not in get_args(Layout):
            raise UserError(f"data.layout is {layout}; it is one of {', '.join(get_args(Layout))}.")
        names = [key] if key is not None else self._image_names(layout)
        if key is not None and key not in self.members:
            raise UserError(f"{self.path} has no array {key}. It has {_listed(self.members)}.")
        return {_parted(name)[0]: self._images(name, layout, severity) for name in names}

    def _image_names(self, layout: Layout | None) -> list[str]:
        images = [name for name in self.members if self._is_image(name)]
        if not images:  # flattened
            images = [name for name in self.members if self._is_image(name, flat=True, floats=layout is not None)]
        groups: dict[str, list[str]] = {}
        for name in images:
            groups.setdefault(_parted(name)[1], []).append(name)
        if len(groups) > 1:
            groups = {base: names for base, names in groups.items() if base in IMAGES} or groups
            if "images" in groups:
                groups = {"images": groups["images"]}
        if not groups:
            if all(members[0].pickled for members in self.members.values()):
                next(iter(self.members.values()))[0].array()  # raises
            hint = ""
            if self.statistics():
                hint = ": mean and covariance of features, no images. Compare with them by `evaluate --reference`"
            raise UserError(
                f"{self.path} has no array of images, [N, H, W], [N, H, W, C] or [N, C, H, W] of numbers. It has "
                f"{_listed(self.members)}{hint}."
            )
        names = next(iter(groups.values()))
        stages = [_parted(name)[0] for name in names]
        if len(groups) > 1 or len(set(stages)) < len(stages) or (None in stages and len(stages) > 1):
            raise self._several("images", [name for group in groups.values() for name in group])
        return names

    def _is_image(self, name: str, flat: bool = False, floats: bool = False) -> bool:
        member = self.members[name][0]
        if member.dtype.kind not in "uifb" or _parted(name)[1] in LABELS:
            return False
        if not flat:
            return len(member.shape) in (3, 4)
        kinds = "uibf" if floats else "uib"
        return len(member.shape) == 2 and member.dtype.kind in kinds and _flat_channels(member.shape[1]) is not None

    def _images(self, name: str, layout: Layout | None, severity: int | None) -> Images:
        stage, base = _parted(name)
        members = self.members[name]
        one = members[0]
        if one.pickled:
            one.array()
        if one.dtype.kind not in "uifb":
            raise UserError(f"{name} in {self.path} holds {one.dtype}; images are integers, floats or booleans.")
        for other in members[1:]:
            if (other.dtype, other.shape[1:]) != (one.dtype, one.shape[1:]):
                raise UserError(
                    f"{name} is {one.described} in {one.path} and {other.described} in {other.path}. All parts must "
                    "have one type and one shape."
                )
        if one.shape and not math.prod(one.shape):
            raise UserError(f"{self.path} holds no image: {name} is {one.described}.")
        found = Images(name, stage, members, self._layout(name, base, one, layout), 0, 0)
        found.count = found.total
        corrupted = base in CORRUPTIONS and found.total % SEVERITIES == 0
        if severity is None and corrupted:
            raise UserError(
                f"{name} in {self.path} has five severities of {found.total // SEVERITIES:,} images, one after the "
                f"other. Choose one: `--data.severity 1` to 5."
            )
        if severity is not None:
            if not 1 <= severity <= SEVERITIES:
                raise UserError(f"data.severity is {severity}; it is from 1 to {SEVERITIES}.")
            if found.total % SEVERITIES:
                raise UserError(
                    f"data.severity is {severity}, and the {found.total:,} images of {name} are not five parts "
                    "of equal size. Leave it out."
                )
            found.count = found.total // SEVERITIES
            found.first = (severity - 1) * found.count
        return found

    def _layout(self, name: str, base: str, member: Member, asked: Layout | None) -> Layout:
        shape, flag = member.shape, "--data.layout"
        said = f"{name} in {self.path} is {member.described}"
        fits: list[Layout] = []
        if len(shape) == 2 and (flat := _flat_channels(shape[1])):
            if member.dtype.kind == "f" and asked is None:
                raise UserError(f"{said}, which may be points. Flattened images need `{flag} NHW`, NHWC or NCHW.")
            fits = ["NHWC", "NCHW"] if flat == 3 else ["NHW", "NHWC", "NCHW"]
            if asked is None and (flat == 1 or base == "data"):  # ImageNet32 and CIFAR keep flat images by channel
                return "NCHW"
        elif len(shape) == 3:
            fits = ["NHW"]
            if asked is None and shape[2] > 4 and shape[1] != shape[2] and _longer(*shape[:2]) <= _longer(*shape[1:]):
                raise UserError(
                    f"{said}, whose axes may be [N, H, W] or [H, W, N]. Say `{flag} NHW` where the first counts the "
                    "images, or move the last to the front and save it so."
                )
            if asked is None and (shape[0] == 3 or (shape[2] in (1, 3, 4) and shape[1] != shape[2])):
                raise UserError(
                    f"{said}, which may be one image or many. Say `{flag} NHW` where each is gray, or give "
                    "[N, H, W, C]."
                )
        elif len(shape) == 4:
            last = (1, 3, 4) if member.dtype.kind == "u" else (1, 3)  # four floats are rarely colors and opacity
            fits = ["NHWC"] * (shape[3] in last) + ["NCHW"] * (shape[1] in (1, 3))
        if asked in fits:
            return asked
        if not fits:
            raise UserError(f"{said}; images are [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels.")
        if asked is not None:
            raise UserError(f"data.layout is {asked}, and {said}, which is no such. Say {' or '.join(fits)}.")
        if len(fits) > 1:
            raise UserError(f"{said}, whose axes may be {' or '.join(fits)}. Say which: `{flag} {fits[0]}`.")
        return fits[0]

    # ---- labels -------------------------------------------------------------------------------------------------

    def labels(self, images: Images, key: str | None = None) -> np.ndarray | None:
        """Integers or strings [N], one for each of the images, or None where there are none.

        Raises:
            UserError: they are no classes, or not one for each image.
        """
        found = self._label_members(images, key)
        if found is None:
            return None
        name, members = found
        without = "Say `--data.labels false` to go without"
        said = f"{name} in {self.path if name in self.members else members[0].path}"
        if any(member.pickled for member in members):
            raise UserError(
                f"{said} is a pickle, which can run any code when it is read, and is not loaded. {without}, or save "
                "the labels as an array of integers."
            )
        kinds = {member.dtype.kind for member in members}
        if not kinds <= set("uibUS"):
            raise UserError(f"{said} holds {members[0].dtype}; labels are integers. {without}, or save them as such.")
        parts = [member.array() for member in members]
        if any(part.ndim == 0 or part.shape[1:] != parts[0].shape[1:] for part in parts):
            raise UserError(f"{said} is {members[0].described}; labels are [N], one for each image. {without}.")
        labels = np.concatenate(parts)
        if len(labels) != images.total:
            raise UserError(
                f"{said} has {len(labels):,} labels, and {images.name} has {images.total:,} images. Choose other "
                f"labels with `--data.labels_key`, or say `--data.labels false`."
            )
        labels = labels[images.first : images.first + images.count]
        if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "uib":
            if not (((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()):
                raise UserError(
                    f"{said} is {members[0].described}: several labels for each image, which are no classes. {without}."
                )
            labels = labels.argmax(1)
        if labels[0].size != 1:
            raise UserError(f"{said} is {members[0].described}; labels are [N], one for each image. {without}.")
        labels = labels.reshape(len(labels))
        if labels.dtype.kind == "S":
            labels = np.char.decode(labels, "utf-8", "replace")
        if labels.dtype.kind == "i" and labels.min() == -1 and 0 in labels:
            raise UserError(
                f"{said} holds -1 beside 0 and more, which often means that a label is not known. {without}."
            )
        return labels.astype(np.int64) if labels.dtype.kind in "bu" else labels

    def _label_members(self, images: Images, key: str | None) -> tuple[str, list[Member]] | None:
        members = {**self.members, **self._beside()}
        bases = LABELS if key is None else (_parted(key)[1],)
        names = [name for name in members if _parted(name)[1] in bases and _parted(name)[0] == images.stage]
        if key is not None and not names and key not in members:
            raise UserError(f"{self.path} has no array {key}. It has {_listed(members)}.")
        if not names and images.stage is not None and images.stage == _parted(images.name)[0] and key in members:
            names = [key]
        if not names and key is None:
            names = ["arr_1"] if images.name == "arr_0" and "arr_1" in members else self._alike(members, images)
        if len(names) > 1:
            raise UserError(
                f"{self.path} has several arrays that may be labels: {', '.join(names)}. Choose one: "
                f"`--data.labels_key {names[0]}`, or say `--data.labels false`."
            )
        return (names[0], members[names[0]]) if names else None

    def _beside(self) -> dict[str, list[Member]]:
        """Labels in the folder of an .npy: of its name but for the words for images and labels, else labels.npy."""
        if self.path.suffix.lower() != ".npy":
            return {}
        files = [file for file in sorted(self.path.parent.glob("*.npy")) if file != self.path and file.is_file()]
        named = [file for file in files if _same_but_labels(file.stem, self.path.stem)]
        found = {}
        for file in named or [file for file in files if file.stem == "labels"]:
            found |= {name: [member] for name, member in members_of(file).items()}
            rank_zero_warn(f"{file} is taken for labels of {self.path.name}. Say `--data.labels false` to go without.")
        return found

    def _alike(self, members: dict[str, list[Member]], images: Images) -> list[str]:
        """Arrays of one label for each image whose names have a word for labels: the finer ones, if names say so."""
        found = []
        for name, parts in members.items():
            shape = (sum(part.shape[0] for part in parts if part.shape), *parts[0].shape[1:])
            fits = shape in ((images.total,), (images.total, 1)) and parts[0].dtype.kind in "uibUS"
            called = _words(name) & {*LABELS} - {"y"} or _same_but_labels(name, images.name)  # center_y is a place
            if fits and called and _parted(name)[0] == images.stage:
                found.append(name)
        chosen = [name for name in found if "fine" in _words(name)] or found
        chosen = [name for name in chosen if _same_but_labels(name, images.name)] or chosen
        if len(chosen) == 1 and chosen[0] in self.members:
            others = [name for name in found if name not in chosen]
            other = f"`--data.labels_key {others[0]}` takes others, and " if others else ""
            rank_zero_warn(
                f"{self.path}: {chosen[0]} is taken for the labels of {images.name}; {other}`--data.labels false` none."
            )
        return chosen


def find(path: str, root: Path) -> Path:
    """An .npy or .npz file or a folder, as it is or below the data root. Raises UserError where there is none."""
    if not path.strip():
        raise UserError("data.path is empty. Say where the images are with `--data.path`.")
    places = [Path(path).expanduser(), root / path]
    for place in places:
        refuse_special(place)
        if place.is_dir() or (place.is_file() and place.suffix.lower() in SUFFIXES):
            return place
        if place.is_file():
            refuse_unread(place)
            raise UserError(f"{place} is no .npy or .npz file. Files and zips of images are read by `ImageFolder`.")
    looked = " and ".join(str(place.absolute()) for place in places)
    raise UserError(f"There is no file or folder `{path}`: looked at {looked}. Say where it is with `--data.path`.")


def _listed(members: dict[str, list[Member]]) -> str:
    return listed([f"{name} ({some[0].described})" for name, some in members.items()], NAMED)


def _arrays_in(folder: Path) -> list[Path]:
    """The .npy and .npz files of a folder. Raises UserError where there are none."""
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    arrays = [path for path in files if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not arrays:
        refuse_unread(folder)
        raise UserError(f"There is no .npy or .npz file in {folder}. Files of images are read by `ImageFolder`.")
    if others := sorted(path.name for path in set(files) - set(arrays)):
        rank_zero_warn(f"{folder}: {len(others)} files that are no arrays are ignored: {listed(others)}.")
    return arrays


def _natural(path: Path) -> list[tuple[int, str]]:
    """batch_2 before batch_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _parted(name: str) -> tuple[Stage | None, str]:
    """The split that an array's name says, and the rest of it: `train_images` -> train, images."""
    words = re.split(r"[_\-. ]", name.lower())
    stages = [word for word in words if word in SPLIT_FOLDERS]
    if len(stages) != 1:
        return None, name.lower()
    return SPLIT_FOLDERS[stages[0]], "_".join(word for word in words if word != stages[0])


def _longer(height: int, width: int) -> float:
    """How many times the longer side of an image is the shorter one."""
    return max(height, width) / min(height, width)


def _words(name: str) -> set[str]:
    return set(re.split(r"[_\-. ]", name.lower()))


def _same_but_labels(labels: str, images: str) -> bool:
    """Whether two names differ by words for labels and for images alone: y_train and X_train."""
    found = _words(labels)
    return bool(found & {*LABELS}) and found - {*LABELS} == _words(images) - {*IMAGES}


def _flat_channels(length: int) -> int | None:
    """Channels of square images of so many numbers, 1 or 3; None where they are no square."""
    for channels in (1, 3):
        side = math.isqrt(length // channels)
        if length and side * side * channels == length:
            return channels
    return None
