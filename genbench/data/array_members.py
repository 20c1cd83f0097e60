"""The arrays in .npy and .npz files, read row by row."""

from __future__ import annotations

import math
import os
import re
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from genbench.core.errors import UserError
from genbench.core.files import kind_of
from genbench.data.medical import kind_of as kind_of_scan
from genbench.data.module import Stage, free_memory
from genbench.data.readers import EXTENSIONS

Layout = Literal["NHW", "NHWC", "NCHW"]
SUFFIXES = (".npy", ".npz")
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
            channels = flat_channels(rest[0])
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


def flat_channels(length: int) -> int | None:
    """Channels of square images of so many numbers, 1 or 3; None where they are no square."""
    for channels in (1, 3):
        side = math.isqrt(length // channels)
        if length and side * side * channels == length:
            return channels
    return None
