"""The same pictures in the files that people of this field bring."""

import struct
import warnings
import zlib

import numpy as np
import torch

from genbench.data import ImageFolder

SIZE = 8


def truth(count=24, size=SIZE):
    """uint8 [N, size, size]; black and white in each, and no two alike."""
    found = np.random.default_rng(0).integers(0, 256, size=(count, size, size), dtype=np.uint8)
    found[:, 0, 0], found[:, 0, 1] = 0, 255
    return found


def stretched(low, high, kind):
    """The truth with `low` in place of 0 and `high` in place of 255."""
    return np.rint(truth() / 255.0 * (high - low) + low).astype(kind)


def folder(path, pictures, write, suffix):
    """A folder with a file of each picture."""
    path.mkdir(parents=True, exist_ok=True)
    for k, picture in enumerate(pictures):
        write(str(path / f"{k:02d}{suffix}"), picture)
    return path


def load(path, kind=ImageFolder, **kwargs):
    return kind(path=str(path), **{"size": SIZE, "channels": 1, "workers": 0, **kwargs})


def everything(data, stages=("train", "val", "test")):
    """uint8 [N, C, H, W] of all splits, in any order; and the notes."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        parts = [source.batch(torch.arange(len(source))).image for source in map(data.source, stages)]
    return torch.cat(parts).numpy(), [str(note.message) for note in notes]


def same(found, expected, within=0):
    """Whether each of the pictures [N, 1, H, W] is one of those that were expected, and none is missing."""
    apart = abs(found[:, None, 0].astype(int) - expected[None].astype(int)).max((2, 3))
    return (apart <= within).any(0).all() and (apart <= within).any(1).all() and len(found) == len(expected)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png16(pixels, *more):
    """A PNG of uint16 [H, W, C]: gray, gray and opacity, RGB, or these with opacity."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
