"""Maps stored values to 8 bits: finds which value becomes black and which becomes white.

Images may have any integer or floating-point type. A `Range` maps them linearly to 0..255, rounded; values outside are
clipped. `find` chooses the range of a data set from its training split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image

from genbench.core.errors import UserError

EXPECTED = (
    "`dtype` (the whole range of the stored type), `data` (minimum and maximum of the training split, or of all images "
    "if none are trained on) or LOW,HIGH"
)


@dataclass(frozen=True)
class Levels:
    """Stored values of a file that defines white.

    white     the value of white, if it is not the largest value of the type
    inverted  whether the smallest value is white: then the image is inverted after conversion to 8 bits
    """

    pixels: np.ndarray
    white: int | None = None
    inverted: bool = False


Stored = Image.Image | np.ndarray | Levels  # one image as it is stored


@dataclass(frozen=True)
class Range:
    """The values that become 0 and 255.

    low, high  None: the whole range of the stored type
    only       the stored type for which the range was chosen automatically; images of other types are an error
    """

    low: float | None = None
    high: float | None = None
    only: str | None = None

    def __str__(self) -> str:
        return "dtype" if self.low is None or self.high is None else f"{_written(self.low)},{_written(self.high)}"

    def apply(self, picture: Stored, name: str) -> Image.Image:
        """Convert one image, or an array [H, W] or [H, W, C], to an image of mode L or RGB."""
        if isinstance(picture, Image.Image) and self.low is None and self.only in (None, "uint8"):
            return picture
        if isinstance(picture, Levels) and picture.white is not None and self.low is None:
            return replace(self, low=0, high=picture.white).apply(picture.pixels, name)
        levels = self.levels(pixels(picture)[None], lambda k: name)[0]
        if isinstance(picture, Levels) and picture.inverted:
            levels = 255 - levels
        return Image.fromarray(levels[..., 0] if levels.ndim == 3 and levels.shape[-1] == 1 else levels)

    def levels(self, pictures: np.ndarray, name: Callable[[int], str]) -> np.ndarray:
        """Convert arrays [N, H, W] or [N, H, W, C] of any type to uint8 [N, H, W] or [N, H, W, 1 or 3].

        The last of 2 or 4 channels is opacity. It uses the whole range of its type, and the image is composited over
        white. `name(k)` is the name of image k. Raises UserError, with that name, for a type or values that this range
        cannot convert.

        Example:
            >>> Range(0, 1000).levels(np.array([[[-5, 500, 2000]]], np.int16), name=str)
            array([[[  0, 128, 255]]], dtype=uint8)
        """
        kind = np.dtype(pictures.dtype.newbyteorder("="))
        if self.only not in (None, kind.name):
            raise UserError(
                f"{name(0)} has values of type {kind}, but other images have type {self.only}. Choose how they are "
                "converted to 8 bits: `--data.range dtype` uses the whole range of each image's type, and "
                "`--data.range LOW,HIGH` uses the same range for all."
            )
        if pictures.ndim == 4 and not 1 <= pictures.shape[-1] <= 4:
            raise UserError(f"{name(0)} has {pictures.shape[-1]} channels; an image must have 1 (gray) or 3 (RGB).")
        if pictures.ndim == 4 and pictures.shape[-1] in (2, 4):
            alpha = pictures[..., -1:]
            opacity = alpha.clip(0, 1) if alpha.dtype.kind == "f" else alpha / type_range(alpha.dtype)[1]
            return np.rint(255 + (self.levels(pictures[..., :-1], name) - 255.0) * opacity).astype(np.uint8)
        if self.low is not None and self.high is not None:
            low, high = self.low, self.high
        elif kind.kind in "uib":
            low, high = type_range(kind)
        else:
            raise UserError(
                f"{name(0)} has values of type {kind}, which `--data.range dtype` does not support. Use `--data.range "
                "data` or `--data.range LOW,HIGH`."
            )
        if kind == np.uint8 and (low, high) == (0, 255):
            return pictures
        if kind.kind in "ui" and kind.itemsize <= 2:
            smallest = np.iinfo(kind).min
            return _table(kind.name, low, high)[pictures.astype(np.int32) - smallest]
        if kind.kind == "f" and np.isnan(pictures).any():
            raise _no_number(name(int(np.isnan(pictures).reshape(len(pictures), -1).any(1).argmax())))
        return _scaled(pictures, low, high)


DTYPE = Range()
DARK = 32  # of 255: an image with only smaller values looks black, for example a mask of class numbers


def pixels(picture: Stored) -> np.ndarray:
    """The stored values of one image."""
    return picture.pixels if isinstance(picture, Levels) else np.asarray(picture)


def _no_number(name: str) -> UserError:
    return UserError(f"{name} has values that are not a number (NaN). Replace these values, or remove the image.")


def _written(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (values.astype(np.float64).clip(low, high) - low) * (255 / (high - low))
    return np.rint(scaled).astype(np.uint8)


@lru_cache(maxsize=8)
def _table(kind: str, low: float, high: float) -> np.ndarray:
    """The 8-bit level of each value of a type, from the smallest value on: uint8 [256 or 65,536]."""
    whole = np.iinfo(kind)
    return _scaled(np.arange(whole.min, whole.max + 1), low, high)


def type_range(kind: np.dtype) -> tuple[int, int]:
    """The smallest and the largest value of an integer type; 0 and 1 for booleans.

    Example:
        >>> type_range(np.dtype("int16"))
        (-32768, 32767)
    """
    if kind.kind == "b":
        return 0, 1
    return int(np.iinfo(kind).min), int(np.iinfo(kind).max)


# ---- given ranges -----------------------------------------------------------------------------------------------


def stated(value: str | Sequence[float] | None, setting: str = "data.range") -> Range | str | None:
    """Parse a range setting: a `Range`, "data" for a range found from the data, or None if no range is set.

    Raises UserError if the setting is invalid.

    Example:
        >>> stated("0,4095")
        Range(low=0.0, high=4095.0, only=None)
    """
    if value is None:
        return None
    if isinstance(value, str) and value.strip() in ("dtype", "data"):
        return DTYPE if value.strip() == "dtype" else "data"
    low, high = _two_numbers(value, f"{setting} is {_shown(value)}; expected {EXPECTED}.")
    if not low < high:
        raise UserError(f"{setting} is {_shown(value)}; the first value (black) must be less than the second (white).")
    return Range(low, high)


def for_other_files(value: str | None) -> str | None:
    """The ranges of a checkpoint for use with other files: `dtype` is removed.

    Other files may have a higher bit depth and use only a part of their type's range, so their range is found by the
    same rule as in training. If one of two ranges separated by / is empty, it is found from the data.
    """
    parts = ["" if part == "dtype" else part for part in (value or "").split("/")]
    return "/".join(parts) if any(parts) else None


def of_domain(value: str | None, domain: str) -> Range | None:
    """The range of domain A or B in a checkpoint (one for both, or two separated by /); None if it must be found."""
    found = stated((for_other_files(value) or "").split("/")[0 if domain == "A" else -1] or None)
    return found if isinstance(found, Range) else None


def refuse_unlike(picture: Stored, trained: Range, name: str) -> None:
    """Raise UserError if an image would be nearly all black or white in the range of the training images.

    This is decided by its type and, for integers, its largest value.
    """
    if trained.low is None or trained.high is None:
        return
    kind = pixels(picture).dtype
    if kind.kind == "u" and type_range(kind)[1] < trained.low + (trained.high - trained.low) / 2:
        what = f"values of type {kind.name}, which end at {type_range(kind)[1]}"
    elif kind.kind in "ui" and trained.high <= 1 < (most := pixels(picture).max()):
        what = f"integer values up to {most}"
    else:
        return
    raise UserError(
        f"{name} has {what}, but the range of the training images is {trained}. Save the image in the type of the "
        "training images, or set its black and white values with `--data.range`."
    )


def windowed(value: str | Sequence[float]) -> Range:
    """The range of a window CENTER,WIDTH. Raises UserError if it is invalid.

    Example:
        >>> windowed("40,400")
        Range(low=-160.0, high=240.0, only=None)
    """
    center, width = _two_numbers(value, f"data.window is {_shown(value)}; expected CENTER,WIDTH, such as 40,400.")
    if width <= 0:
        raise UserError(f"data.window is {_shown(value)}; its width must be above 0.")
    return Range(center - width / 2, center + width / 2)


def _shown(value: str | Sequence[float]) -> str:
    return value if isinstance(value, str) else ",".join(map(str, value))


def _two_numbers(value: str | Sequence[float], wrong: str) -> tuple[float, float]:
    try:
        parts = value.strip().strip("[]()").split(",") if isinstance(value, str) else value
        low, high = map(float, parts)
    except (TypeError, ValueError) as error:
        raise UserError(wrong) from error
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(wrong)
    return low, high


# ---- ranges found from the data ---------------------------------------------------------------------------------


@dataclass
class Seen:
    """Type and extreme values of one or more images; `white` is the value of white, if their files define it."""

    kind: np.dtype
    low: float
    high: float
    first: str  # the name of the first image
    white: int | None = None

    @property
    def ends(self) -> tuple[int, int]:
        return type_range(self.kind) if self.white is None else (0, self.white)

    @property
    def full(self) -> bool:
        """Whether these images suffice to know that the whole range of the type is used."""
        if self.kind.kind == "b":
            return True
        if self.kind.kind == "f":
            return False
        if self.kind == np.uint8 and self.white is None:
            return self.high >= DARK
        smallest, largest = self.ends
        return (self.high - self.low) / (largest - smallest) >= 0.5


def look(pictures: Iterable[Stored] | np.ndarray, name: Callable[[int], str]) -> Iterator[Seen]:
    """Type and extreme values of each image, without its opacity channel."""
    for k, picture in enumerate(pictures):
        array = pixels(picture)
        if array.ndim == 3 and array.shape[-1] in (2, 4):
            array = array[..., :-1]
        low, high = array.min(), array.max()
        if np.isnan(low):
            raise _no_number(name(k))
        if np.isinf(low) or np.isinf(high):
            raise UserError(f"{name(k)} has infinite values. Set `--data.range LOW,HIGH` to clip them.")
        yield Seen(
            np.dtype(array.dtype.newbyteorder("=")), low.item(), high.item(), name(k), getattr(picture, "white", None)
        )


def _usual(seen: Seen) -> tuple[int, int] | None:
    """The first usual range of floating-point images that contains the values, if they cover half of it or more."""
    if seen.kind.kind != "f":
        return None
    for low, high in ((0, 1), (-1, 1), (0, 255)):
        if low <= seen.low and seen.high <= high and seen.high - seen.low >= (high - low) / 2:
            return low, high
    return None


def find(seen: Iterable[Seen], given: str | None, data: str) -> tuple[Range, str | None]:
    """The range of a data set, and a note for the user.

    seen   each training image; reading stops as soon as the range is known
    given  `data`: the extreme values. None: the whole range of the type, with three exceptions: images of more than 8
           bits that use less than half of it, images of only 0 and 1, and floating-point images. For these it is the
           extreme values, but floating-point images that use half of [0, 1], [-1, 1] or [0, 255] get this range
    data   name of the data set

    Raises UserError if `given` is None and the images have different types, or if all pixels have the same value.
    """
    whole: Seen | None = None
    for one in seen:
        if whole is None:
            whole = one
        elif given is None and one.kind != whole.kind:
            Range(only=whole.kind.name).levels(np.zeros((1, 1, 1), one.kind), lambda k, one=one: one.first)
        whole.low, whole.high = min(whole.low, one.low), max(whole.high, one.high)
        whole.white = None if None in (whole.white, one.white) else max(whole.white, one.white)
        if given is None and whole.full:
            return Range(only=whole.kind.name), None
    assert whole is not None, "a training split has images"
    only = whole.kind.name if given is None else None
    values = f"{_written(whole.low)} to {_written(whole.high)}"
    if given is None and (usual := _usual(whole)):
        return Range(*usual, only), (
            f"{data} has floating-point images ({whole.kind}) with values from {values}, and no range is set. The "
            f"usual range is used: {usual[0]} becomes black and {usual[1]} white. To change it, set `--data.range "
            "LOW,HIGH` or `data`."
        )
    if given is None and whole.kind == np.uint8 and whole.high > 1 and whole.white is None:
        return Range(only=only), (
            f"{data} has 8-bit images with values only from {values}, which look nearly black. Use `--data.range "
            "data` if the values are numbers of classes or levels."
        )
    if whole.low == whole.high:
        if given is None and whole.kind.kind != "f":
            return Range(only=only), None
        raise UserError(
            f"All images of {data} have the same value {_written(whole.low)}, so no range can be found. Set "
            "`--data.range LOW,HIGH`."
        )
    found = Range(whole.low, whole.high, only)
    if given is not None:
        return found, f"{data}: data.range is `data`, so values from {values} are mapped to black to white."
    if whole.kind == np.uint8 and whole.high <= 1:
        why = "has 8-bit images with only the values 0 and 1"
    elif whole.kind.kind == "f":
        why = f"has floating-point images ({whole.kind}) with values from {values}"
    else:
        smallest, largest = whole.ends
        source = "type" if whole.white is None else "files"
        why = (
            f"has {whole.kind} images with values from {values}, less than half of the range of the {source} "
            f"({smallest} to {largest})"
        )
    return found, (
        f"{data} {why}, and no range is set. The range {found} is used, as with `--data.range data`. To change it, set "
        "`--data.range LOW,HIGH`" + ("." if whole.kind.kind == "f" else " or `--data.range dtype`.")
    )
