"""TIFF files of scientific instruments: any type, several pages, white as zero.

Pillow reads ordinary 8-bit files faster and supports more compressions. But it reads uint32 as int32, reduces 16-bit
color to 8 bits, confuses signed and unsigned values, and does not support 64-bit values, or white-is-zero for more than
8 bits. These files are read with tifffile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from genbench.data.ranges import Levels

if TYPE_CHECKING:
    from tifffile import TiffFile

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2  # values of the tag PhotometricInterpretation
REDUCED, MASK = 1, 4  # bits of the tag NewSubfileType: the page is a thumbnail or a mask of a different page

# tags
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _EXTRA, _FORMAT = 258, 262, 274, 277, 338, 339
# values of PhotometricInterpretation that Pillow reads correctly: gray, RGB, palette, CMYK, YCbCr, but not LAB
_KNOWN = (0, 1, 2, 3, 5, 6)
_KINDS = {
    (8, 2): "int8", (12, 1): "uint16", (16, 1): "uint16", (16, 2): "int16", (32, 1): "uint32", (32, 2): "int32",
    (32, 3): "float32",
}  # fmt: skip


def ordinary(image: Image.Image) -> bool:
    """Whether Pillow reads the current page correctly."""
    bits, formats = (_values(image, tag) for tag in (_BITS, _FORMAT))
    photometric = image.tag_v2.get(_PHOTOMETRIC, BLACK_IS_ZERO)
    samples, extra = _values(image, _SAMPLES)[0], _values(image, _EXTRA, ())
    plain = photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) or samples - len(extra) in (1, 3)
    channels = 0 in extra or not plain  # extra channels, which Pillow drops or reads as opacity
    return max(bits) <= 8 and set(formats) <= {1} and photometric in _KNOWN and not channels


def inverted(image: Image.Image) -> bool:
    """Whether Pillow inverts the current 8-bit page."""
    return image.mode == "L" and image.tag_v2.get(_PHOTOMETRIC) == WHITE_IS_ZERO


def _values(image: Image.Image, tag: int, default: int | tuple[int, ...] = 1) -> tuple[int, ...]:
    found = image.tag_v2.get(tag, default)
    return found if isinstance(found, tuple) else (found,)


def by_pillow(image: Image.Image, reason: str) -> np.ndarray | Levels:
    """Read one channel of more than 8 bits, in a compression that tifffile does not support without imagecodecs.

    Raises ValueError if Pillow would return wrong values.
    """
    image.load()
    kind = _KINDS.get((_values(image, _BITS)[0], _values(image, _FORMAT)[0]))
    little = image.tag_v2.prefix == b"II"  # Pillow does not swap bytes of compressed big-endian files, except `I;16B`
    if kind is None or not (image.mode.startswith("I;16") or (little and image.mode in ("I", "F", "L"))):
        raise ValueError(reason)
    array = np.asarray(image)
    if kind in ("uint32", "int8"):
        array = array.view(kind)
    array = array.astype(kind)
    return Levels(array, inverted=True) if image.tag_v2.get(_PHOTOMETRIC) == WHITE_IS_ZERO else array


@contextmanager
def _open(file: BinaryIO) -> Iterator[TiffFile]:
    import tifffile  # only when it is needed

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # errors are raised instead
    with tifffile.TiffFile(file) as found:
        yield found


def pages(file: BinaryIO) -> list[tuple[int, tuple[int, int]]]:
    """(index, (width, height)) of each page that is not a thumbnail or a mask of a different page."""
    with _open(file) as found:
        first = found.pages[0]
        images = (found.imagej_metadata or {}).get("images", 1) if found.is_imagej else 1
        truncated = found.is_shaped and "truncated" in first.description
        if len(found.pages) == 1 and (first.imagedepth > 1 or images > 1 or truncated):
            raise ValueError("it has several frames in one page; save each frame as a page")
        every = [
            (k, (page.imagewidth, page.imagelength))
            for k, page in enumerate(found.pages)
            if not page.aspage().subfiletype & (REDUCED | MASK)
        ]
        return every or [(0, (first.imagewidth, first.imagelength))]


def read(file: BinaryIO, page: int) -> np.ndarray | Levels:
    """A page with its stored values: [H, W], or [H, W, C] with opacity as the last of 2 or 4 channels.

    Raises ValueError if the kind of page is not supported, and any error of tifffile if the page is damaged.
    """
    with _open(file) as found:
        here = found.pages[page].aspage()
        most = Image.MAX_IMAGE_PIXELS
        if most and here.imagewidth * here.imagelength > 2 * most:  # the limit of Pillow
            raise Image.DecompressionBombError(f"it claims {here.imagewidth}×{here.imagelength} pixels")
        if here.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
            raise ValueError(f"its color space is {here.photometric.name}; convert it to RGB or gray")
        array = here.asarray()
        if here.samplesperpixel > 1:
            if here.planarconfig == 2:
                array = np.moveaxis(array, 0, -1)
            array = _colors(array, [int(x) for x in here.extrasamples])
        if array.ndim not in (2, 3):
            raise ValueError(f"it has the axes {here.axes}; expected height and width")
        array = upright(array, here.tags.valueof(_ORIENTATION, 1))
        return Levels(array, inverted=True) if here.photometric == WHITE_IS_ZERO else array


def _colors(array: np.ndarray, extra: list[int]) -> np.ndarray:
    """Convert [H, W, S] to 1 or 3 colors, and opacity if there is one. The last samples (`extra`) are not colors."""
    if extra == [0, 0] and array.shape[-1] == 3:  # three channels that are not marked as red, green and blue
        return array
    colors = array.shape[-1] - len(extra)
    if colors not in (1, 3) or 0 in extra:  # 0: unspecified
        raise ValueError(
            f"it has {array.shape[-1]} channels; an image must have 1 (gray) or 3 (RGB), and may have one marked as "
            "opacity"
        )
    if 2 in extra:  # unassociated opacity
        return array[..., [*np.arange(colors), colors + extra.index(2)]]
    if 1 in extra:  # associated: the colors are multiplied by the opacity
        alpha = array[..., colors + extra.index(1)][..., None]
        whole = 1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max
        plain = array[..., :colors] * (whole / np.maximum(alpha, 1e-30))
        return np.concatenate([plain.clip(None, whole).astype(array.dtype), alpha], axis=-1)
    return array[..., :colors]


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate and mirror [H, W, ...] by the value of the tag Orientation, like `ImageOps.exif_transpose`."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
