"""TIFF files as scientific instruments write them: any type, several pages, white as zero.

Pillow opens ordinary 8-bit ones faster and with more compressions; it wraps uint32, gives 8 bits of 16-bit color, and
does not know unsigned from signed, 64 bits, or white-is-zero beyond 8 bits. tifffile reads these, and counts pages.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from genbench.data.ranges import Negative

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2  # of the tag PhotometricInterpretation
REDUCED, MASK = 1, 4  # bits of the tag NewSubfileType: a page that is a thumbnail or a mask of another

# tags
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _EXTRA, _FORMAT = 258, 262, 274, 277, 338, 339
_KNOWN = (0, 1, 2, 3, 5, 6)  # to Pillow: gray, RGB, palette, CMYK, YCbCr; it reads the colors of LAB otherwise
_KINDS = {
    (8, 2): "int8", (12, 1): "uint16", (16, 1): "uint16", (16, 2): "int16", (32, 1): "uint32", (32, 2): "int32",
    (32, 3): "float32",
}  # fmt: skip


def ordinary(image: Image.Image) -> bool:
    """Whether Pillow reads the page right that it stands at."""
    bits, formats = (_values(image, tag) for tag in (_BITS, _FORMAT))
    photometric = image.tag_v2.get(_PHOTOMETRIC, BLACK_IS_ZERO)
    samples, extra = _values(image, _SAMPLES)[0], _values(image, _EXTRA, ())
    plain = photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) or samples - len(extra) in (1, 3)
    channels = 0 in extra or not plain  # which Pillow drops, or takes as opacity
    return max(bits) <= 8 and set(formats) <= {1} and photometric in _KNOWN and not channels


def inverted(image: Image.Image) -> bool:
    """Whether Pillow has inverted the 8-bit page that it stands at."""
    return image.mode == "L" and image.tag_v2.get(_PHOTOMETRIC) == WHITE_IS_ZERO


def _values(image: Image.Image, tag: int, default: int | tuple[int, ...] = 1) -> tuple[int, ...]:
    found = image.tag_v2.get(tag, default)
    return found if isinstance(found, tuple) else (found,)


def by_pillow(image: Image.Image, reason: str) -> np.ndarray | Negative:
    """One channel of more than 8 bits, compressed in a way that tifffile alone cannot undo.

    Raises ValueError where Pillow would give wrong values.
    """
    image.load()
    kind = _KINDS.get((_values(image, _BITS)[0], _values(image, _FORMAT)[0]))
    little = image.tag_v2.prefix == b"II"  # of compressed big-endian ones Pillow swaps no bytes, but for `I;16B`
    if kind is None or not (image.mode.startswith("I;16") or (little and image.mode in ("I", "F", "L"))):
        raise ValueError(reason)
    array = np.asarray(image)
    if kind in ("uint32", "int8"):
        array = array.view(kind)
    array = array.astype(kind)
    return Negative(array) if image.tag_v2.get(_PHOTOMETRIC) == WHITE_IS_ZERO else array


@contextmanager
def _open(file: str | Path | BinaryIO) -> Iterator[TiffFile]:
    import tifffile  # only where there are such files

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong becomes an error of ours
    with tifffile.TiffFile(file) as found:
        yield found


def pages(file: str | Path | BinaryIO) -> list[tuple[int, tuple[int, int]]]:
    """Place, and width and height, of each page that is no thumbnail or mask of another."""
    with _open(file) as found:
        first = found.pages[0]
        told = (found.imagej_metadata or {}).get("images", 1) if found.is_imagej else 1
        truncated = found.is_shaped and "truncated" in first.description
        if len(found.pages) == 1 and (first.imagedepth > 1 or told > 1 or truncated):
            raise ValueError("it holds several frames in one page; save them as one page each")
        every = [
            (k, (page.imagewidth, page.imagelength))
            for k, page in enumerate(found.pages)
            if not page.aspage().subfiletype & (REDUCED | MASK)
        ]
        return every or [(0, (first.imagewidth, first.imagelength))]


def read(file: str | Path | BinaryIO, page: int) -> np.ndarray | Negative:
    """A page as it is stored: [H, W], or [H, W, C] where the last of 2 or 4 is opacity.

    Raises whatever tifffile does where it is damaged, and ValueError where it is read by no rule here.
    """
    with _open(file) as found:
        here = found.pages[page].aspage()
        _refuse_immense(here)
        if here.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
            raise ValueError(f"its colors are of the kind {here.photometric.name}; convert them to RGB or gray")
        array = here.asarray()
        if here.samplesperpixel > 1:
            if here.planarconfig == 2:
                array = np.moveaxis(array, 0, -1)
            array = _colors(array, [int(x) for x in here.extrasamples])
        if array.ndim not in (2, 3):
            raise ValueError(f"it has the axes {here.axes}; a page has height and width")
        array = upright(array, here.tags.valueof(_ORIENTATION, 1))
        return Negative(array) if here.photometric == WHITE_IS_ZERO else array


def _refuse_immense(page: TiffPage) -> None:
    most = Image.MAX_IMAGE_PIXELS
    if most and page.imagewidth * page.imagelength > 2 * most:  # as Pillow does
        raise Image.DecompressionBombError(f"it claims {page.imagewidth}×{page.imagelength} pixels")


def _colors(array: np.ndarray, extra: list[int]) -> np.ndarray:
    """[H, W, S] of which the last `extra` are no colors, to 1 or 3 colors and opacity where there is some."""
    if extra == [0, 0] and array.shape[-1] == 3:  # three channels that are not called red, green and blue
        return array
    colors = array.shape[-1] - len(extra)
    if colors not in (1, 3) or 0 in extra:  # 0: nobody knows what
        raise ValueError(
            f"it has {array.shape[-1]} channels; a picture has 1 (gray) or 3 (RGB), and opacity that is marked as such"
        )
    if 2 in extra:  # opacity, and colors that do not know of it
        return array[..., [*np.arange(colors), colors + extra.index(2)]]
    if 1 in extra:  # colors multiplied by the opacity
        alpha = array[..., colors + extra.index(1)][..., None]
        whole = 1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max
        plain = array[..., :colors] * (whole / np.maximum(alpha, 1e-30))
        return np.concatenate([plain.clip(None, whole).astype(array.dtype), alpha], axis=-1)
    return array[..., :colors]


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, ...] turned by the tag Orientation, as `ImageOps.exif_transpose` turns an image."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
