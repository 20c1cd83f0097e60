"""The arrays in .npy and .npz files, read row by row."""

from __future__ import annotations

import math
import os
import re
import struct
import zipfile
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
# bytes: verifying a checksum of this size takes about a second; larger uncompressed arrays are not verified
CHECKED = 2**30
# formats that genbench does not read, by the end of the file name
OTHERS = {
    ".mat": "a MATLAB file", ".h5": "an HDF5 file", ".hdf5": "an HDF5 file", ".he5": "an HDF5 file",
    ".parquet": "a Parquet file", ".arrow": "an Arrow file", ".feather": "an Arrow file",
    ".tfrecord": "a TFRecord file", ".tfrecords": "a TFRecord file", ".mdb": "part of an LMDB database",
    ".pt": "a PyTorch file", ".pth": "a PyTorch file", ".safetensors": "a safetensors file", ".bin": "raw bytes",
    ".pkl": "a pickle", ".pickle": "a pickle", ".idx": "an IDX file", "-ubyte": "an IDX file",
    ".idx.gz": "an IDX file", "-ubyte.gz": "an IDX file", ".tar": "a tar archive", ".tgz": "a tar archive",
    ".tar.gz": "a tar archive", ".tar.xz": "a tar archive", ".tar.bz2": "a tar archive", ".gz": "a gzip file",
}  # fmt: skip
# built-in data sets by the name of their official files or folders
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
    """The header of an array in a file.

    path     the .npy or .npz file
    inside   name of the array's file in an .npz; None for an .npy
    fortran  whether the array is in Fortran order
    offset   position of the data in the file, in bytes; None if the data is compressed
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
        """The array: memory-mapped, or if it is compressed, read into memory once.

        Raises UserError if the array is a pickle, damaged, or compressed and larger than the free memory.
        """
        if self._array is None:
            self._array = self._read()
        return self._array

    def _read(self) -> np.ndarray:
        where = str(self.path) if self.inside is None else f"{self.inside} in {self.path}"
        if self.pickled:
            raise UserError(
                f"{where} is a pickle, which is not loaded because it could run any code. Save it as an array of "
                "numbers."
            )
        size = math.prod(self.shape) * self.dtype.itemsize
        if not size:  # cannot be memory-mapped
            return np.empty(self.shape, self.dtype)
        if self.offset is None and size > free_memory():
            raise UserError(
                f"{where} needs {size / 2**30:.1f} GiB, more than the free memory. Save it uncompressed, with "
                "np.savez or np.save, so that it can be read in parts."
            )
        try:
            if self.inside is not None and (self.offset is None or size <= CHECKED):
                with zipfile.ZipFile(self.path) as archive, archive.open(self.inside) as stream:
                    if self.offset is None:
                        return np.lib.format.read_array(stream, allow_pickle=False)
                    while stream.read(1 << 20):  # zipfile verifies the checksum at the end
                        pass
            order = "F" if self.fortran else "C"
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order).view(np.ndarray)
        except Exception as error:  # NumPy and zipfile may raise any exception for a damaged file
            raise UserError(f"{where} is not a readable array of numbers ({error}). Replace the file.") from error

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_array": None}  # not pickled: each worker opens the file itself


def members_of(path: Path) -> dict[str, Member]:
    """The headers of the arrays of an .npz by array name, or of an .npy by file name.

    Raises UserError if the file is not an .npy or .npz file, or is damaged.
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
    except Exception as error:  # any exception, such as a TokenError of Python's tokenizer for a damaged header
        raise UserError(f"{path} is not a readable array of numbers ({error}). Replace the file.") from error


def _member(path: Path, inside: str | None, stream, start: int | None, size: int) -> Member:
    """Read the header at the beginning of `stream`, which has `size` bytes and begins at `start` in the file."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version[0]}.{version[1]} of the format is only for structured arrays")
    shape, fortran, dtype = readers[version](stream)
    if not dtype.hasobject and size - stream.tell() < math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{inside or 'the file'} is truncated")
    return Member(path, inside, dtype, shape, fortran, None if start is None else start + stream.tell())


def refuse_special(path: Path) -> None:
    """Raise UserError if a path is neither a file nor a folder: reading a named pipe or a device might never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is {kind_of(path)}. Use a file or a folder.")


def refuse_unread(path: Path) -> None:
    """Raise UserError, with instructions, for a file or folder in a common format that genbench does not read.

    A folder without sub-folders, arrays and images has the format of its first file in one of these formats.
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
    convert = "save its content as an .npz, with `numpy.savez('data.npz', images=..., labels=...)`"
    if kind == "a pickle" and built_in is None:
        convert += ", or with `mu=..., sigma=...` if it contains statistics of features"
    if kind in ("a tar archive", "a gzip file"):
        convert = "unpack it, and use the path of the unpacked folder or file"
    use = f"use the built-in data set {built_in}, or {convert}" if built_in else convert
    raise UserError(f"{path} is {kind}, a format that genbench cannot read: {use}.")


def _format(file: Path) -> str | None:
    """The format of a file that genbench does not read, else None. A pickle needs no extension to be recognized."""
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
    """N images in one or more concatenated arrays: rows int64 [B] -> [B, H, W] or [B, H, W, C] of the stored type.

    first  row of the first image in the concatenated arrays
    count  number of images
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
        """Number of rows of all arrays together."""
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

    def name_of(self, row: int) -> str:
        """The name of an image in error messages."""
        return f"Image {self.first + row} of {self.name} in {self.members[0].path}"

    def opened(self) -> Images:
        """A copy with compressed arrays already in memory, so that several threads do not each read them."""
        members = [replace(member, _array=None) for member in self.members]
        for member in members:
            member.array()
        return replace(self, members=members)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Raises UserError with the name of the first image that contains NaN or infinity."""
        numbers = np.asarray(rows) + self.first
        starts = np.cumsum([0] + [member.shape[0] for member in self.members])
        among = np.searchsorted(starts, numbers, "right") - 1
        found = np.empty((len(numbers), *self.members[0].shape[1:]), self.members[0].dtype.newbyteorder("="))
        for k in np.unique(among):
            found[among == k] = self.members[k].array()[numbers[among == k] - starts[k]]
        if found.dtype.kind == "f" and not (finite := np.isfinite(found).reshape(len(found), -1).all(1)).all():
            bad = self.name_of(int(rows[np.flatnonzero(~finite)[0]]))
            raise UserError(f"{bad} has pixels that are NaN or infinite. Remove it or repair the file.")
        height, width, channels = self.shape
        if found.ndim == 2:
            shape = (channels, height, width) if self.layout == "NCHW" else (height, width, channels)
            found = found.reshape(len(found), *shape)
        if self.layout == "NCHW":
            found = found.transpose(0, 2, 3, 1)
        return found.reshape(len(found), height, width) if channels == 1 else found


def flat_channels(length: int) -> int | None:
    """Number of channels, 1 or 3, of a flattened square image of this length; None if no such image exists."""
    return next((c for c in (1, 3) if length and math.isqrt(length // c) ** 2 * c == length), None)
