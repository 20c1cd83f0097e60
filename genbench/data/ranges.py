"""From the values that a file stores to 8 bits: which value is black and which is white.

Pictures of a data set may have any integer or floating-point type. A `Range` maps them linearly to 0..255, rounded;
what lies outside is clipped. `find` chooses the range of a data set from its training split.
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
    "where none are trained on) or LOW,HIGH"
)


@dataclass(frozen=True)
class Negative:
    """A picture whose smallest value is white, as it is stored: it is inverted once it has 8 bits."""

    pixels: np.ndarray


@dataclass(frozen=True)
class Levels:
    """A picture as it is stored, whose file states which value is white, in place of the largest of its type."""

    pixels: np.ndarray
    white: int


Stored = Image.Image | np.ndarray | Negative | Levels  # one picture as a file keeps it


@dataclass(frozen=True)
class Range:
    """The values that become 0 and 255.

    low, high  None: the whole range of the type that each picture is stored in
    only       the type by which the range was chosen, where nobody stated one: pictures of another are refused
    """

    low: float | None = None
    high: float | None = None
    only: str | None = None

    def __str__(self) -> str:
        return "dtype" if self.low is None or self.high is None else f"{_written(self.low)},{_written(self.high)}"

    def apply(self, picture: Stored, name: str) -> Image.Image:
        """An image of mode L or RGB of one picture: an image, or an array [H, W] or [H, W, C]."""
        if isinstance(picture, Image.Image) and self.low is None and self.only in (None, "uint8"):
            return picture
        if isinstance(picture, Levels) and self.low is None:
            return replace(self, low=0, high=picture.white).apply(picture.pixels, name)
        levels = self.levels(pixels(picture)[None], lambda k: name)[0]
        if isinstance(picture, Negative):
            levels = 255 - levels
        return Image.fromarray(levels[..., 0] if levels.ndim == 3 and levels.shape[-1] == 1 else levels)

    def levels(self, pictures: np.ndarray, name: Callable[[int], str]) -> np.ndarray:
        """uint8 [N, H, W] or [N, H, W, 1 or 3] of pictures [N, H, W] or [N, H, W, C] of any type.

        The last of 2 or 4 channels is opacity, of its type's whole range: the picture is laid over white.
        Raises UserError, with the name of the k-th picture, where values have no place in the range.

        Example:
            >>> Range(0, 1000).levels(np.array([[[-5, 500, 2000]]], np.int16), name=str)
            array([[[  0, 128, 255]]], dtype=uint8)
        """
        kind = np.dtype(pictures.dtype.newbyteorder("="))
        if self.only not in (None, kind.name):
            raise UserError(
                f"{name(0)} has values of type {kind}, and other pictures {self.only}. Say how they become 8 bits: "
                "`--data.range dtype` takes each by the whole range of its own type, and `--data.range LOW,HIGH` all "
                "by the same one."
            )
        if pictures.ndim == 4 and not 1 <= pictures.shape[-1] <= 4:
            raise UserError(f"{name(0)} has {pictures.shape[-1]} channels; a picture has 1 (gray) or 3 (RGB).")
        if pictures.ndim == 4 and pictures.shape[-1] in (2, 4):
            opacity = self._opacity(pictures[..., -1:], name)
            return np.rint(255 + (self.levels(pictures[..., :-1], name) - 255.0) * opacity).astype(np.uint8)
        low, high = self._ends(kind, name)
        if kind == np.uint8 and (low, high) == (0, 255):
            return pictures
        if kind.kind in "ui" and kind.itemsize <= 2:
            smallest = np.iinfo(kind).min
            return _table(kind.name, low, high)[pictures.astype(np.int32) - smallest]
        if kind.kind == "f" and np.isnan(pictures).any():
            raise _no_number(name(int(np.isnan(pictures).reshape(len(pictures), -1).any(1).argmax())))
        return _scaled(pictures, low, high)

    def _ends(self, kind: np.dtype, name: Callable[[int], str]) -> tuple[float, float]:
        if self.low is not None and self.high is not None:
            return self.low, self.high
        if kind.kind not in "uib":
            raise UserError(
                f"{name(0)} has values of type {kind}, which has no whole range that pictures fill. Say `--data.range "
                "data` or `--data.range LOW,HIGH` in place of `dtype`."
            )
        return type_range(kind)

    def _opacity(self, alpha: np.ndarray, name: Callable[[int], str]) -> np.ndarray:
        if alpha.dtype.kind == "f":
            return alpha.clip(0, 1)
        return alpha / type_range(alpha.dtype)[1]


DTYPE = Range()
DARK = 32  # of 255: pictures of no larger value look black; numbers of classes in masks are such


def pixels(picture: Stored) -> np.ndarray:
    """The values of one picture as they are stored."""
    return picture.pixels if isinstance(picture, Negative | Levels) else np.asarray(picture)


def _no_number(name: str) -> UserError:
    return UserError(f"{name} has values that are not a number (NaN). Replace them, or remove it.")


def _written(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (values.astype(np.float64).clip(low, high) - low) * (255 / (high - low))
    return np.rint(scaled).astype(np.uint8)


@lru_cache(maxsize=8)
def _table(kind: str, low: float, high: float) -> np.ndarray:
    """uint8 [256 or 65,536]: the level of each value of a type, from its smallest on."""
    whole = np.iinfo(kind)
    return _scaled(np.arange(whole.min, whole.max + 1), low, high)


def type_range(kind: np.dtype) -> tuple[int, int]:
    """The smallest and the largest value of an integer type; 0 and 1 of truth values.

    Example:
        >>> type_range(np.dtype("int16"))
        (-32768, 32767)
    """
    if kind.kind == "b":
        return 0, 1
    return int(np.iinfo(kind).min), int(np.iinfo(kind).max)


# ---- what a user states -----------------------------------------------------------------------------------------


def stated(value: str | Sequence[float] | None, setting: str = "data.range") -> Range | str | None:
    """A stated range; `data` where it is to be found from the data; None where nothing is stated.

    Raises UserError for anything else.

    Example:
        >>> stated("0,4095")
        Range(low=0.0, high=4095.0, only=None)
    """
    if value is None:
        return None
    if isinstance(value, str) and value.strip() in ("dtype", "data"):
        return DTYPE if value.strip() == "dtype" else "data"
    low, high = _two_numbers(value, f"{setting} is {_shown(value)}; {EXPECTED} was expected.")
    if not low < high:
        raise UserError(f"{setting} is {_shown(value)}; the first of the two, which becomes black, must be less.")
    return Range(low, high)


def for_other_files(value: str | None) -> str | None:
    """What a checkpoint keeps of ranges, where other files are shown to the model: `dtype` is left out.

    It was the range of the training images. Others of more bits may fill a small part of their type, so theirs is found
    by the rule of training. Of two ranges with / in between, an empty one is to be found.
    """
    parts = ["" if part == "dtype" else part for part in (value or "").split("/")]
    return "/".join(parts) if any(parts) else None


def of_domain(value: str | None, domain: str) -> Range | None:
    """Of A or B in what a checkpoint keeps (one for both, or two with / in between): None where it is to be found."""
    found = stated((for_other_files(value) or "").split("/")[0 if domain == "A" else -1] or None)
    return found if isinstance(found, Range) else None


def refuse_unlike(picture: Stored, trained: Range, name: str) -> None:
    """Raise UserError where a picture of the type that it has would be black or white in the range of a training."""
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
        f"{name} has {what}, and the range of the training images is {trained}. Save it in their type, or say which of "
        "its values are black and white with `--data.range`."
    )


def windowed(value: str | Sequence[float]) -> Range:
    """The range of a window of CENTER,WIDTH. Raises UserError where it is none.

    Example:
        >>> windowed("40,400")
        Range(low=-160.0, high=240.0, only=None)
    """
    center, width = _two_numbers(value, f"data.window is {_shown(value)}; CENTER,WIDTH was expected, such as 40,400.")
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


# ---- what the data says -----------------------------------------------------------------------------------------


@dataclass
class Seen:
    """The types and the extreme values of pictures; `white` where their files state it."""

    kind: np.dtype
    low: float
    high: float
    first: str  # picture of that type
    white: int | None = None

    @property
    def ends(self) -> tuple[int, int]:
        return type_range(self.kind) if self.white is None else (0, self.white)

    @property
    def part(self) -> float:
        """Share of the type's range from the smallest value to the largest."""
        smallest, largest = self.ends
        return (self.high - self.low) / (largest - smallest)

    @property
    def full(self) -> bool:
        """Whether the whole range of the type is what the pictures were made for, whatever further ones show."""
        if self.kind.kind == "b":
            return True
        if self.kind.kind == "f":
            return False
        return self.high >= DARK if self.kind == np.uint8 and self.white is None else self.part >= 0.5


def look(pictures: Iterable[Stored] | np.ndarray, name: Callable[[int], str]) -> Iterator[Seen]:
    """Type and extreme values of each picture; opacity does not count."""
    for k, picture in enumerate(pictures):
        array = pixels(picture)
        if array.ndim == 3 and array.shape[-1] in (2, 4):
            array = array[..., :-1]
        low, high = array.min(), array.max()
        if np.isnan(low):
            raise _no_number(name(k))
        if np.isinf(low) or np.isinf(high):
            raise UserError(f"{name(k)} has infinite values. State `--data.range LOW,HIGH`, to which they are clipped.")
        yield Seen(
            np.dtype(array.dtype.newbyteorder("=")), low.item(), high.item(), name(k), getattr(picture, "white", None)
        )


def _usual(seen: Seen) -> tuple[int, int] | None:
    """Of floating-point values the range that pictures usually have, if they lie in it and fill half of it."""
    if seen.kind.kind != "f":
        return None
    usual = ((0, 1), (-1, 1), (0, 255))
    return next(
        ((a, b) for a, b in usual if a <= seen.low and seen.high <= b and seen.high - seen.low >= (b - a) / 2), None
    )


def find(seen: Iterable[Seen], given: str | None, data: str) -> tuple[Range, str | None]:
    """The range of a data set, and what to say of it.

    seen   of each training picture; no more are taken than decide it
    given  `data`, or None where nothing is stated: then the whole range of the type, but for pictures of more than 8
           bits that fill less than half of it, pictures of 0 and 1, and floating-point ones: of these the extreme
           values; but [0, 1], [-1, 1] or [0, 255] of floating-point ones that lie in it and fill half of it
    data   what the data set is called

    Raises UserError where nothing is stated and pictures have several types, or where all have one value.
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
    assert whole is not None, "a training split has pictures"
    only = whole.kind.name if given is None else None
    values = f"{_written(whole.low)} to {_written(whole.high)}"
    if given is None and (usual := _usual(whole)):
        return Range(*usual, only), (
            f"{data} has floating-point pictures ({whole.kind}) of values from {values}, and no range is stated: "
            f"{usual[0]},{usual[1]} become black and white, as is usual. Say `--data.range LOW,HIGH` or `data` to "
            "change it."
        )
    if given is None and whole.kind == np.uint8 and whole.high > 1 and whole.white is None:
        return Range(only=only), (
            f"{data} has 8-bit pictures of values from {values} alone, which are nearly black. Say `--data.range data` "
            "if they are numbers of classes or levels, and not such pictures."
        )
    if whole.low == whole.high:
        if given is None and whole.kind.kind != "f":
            return Range(only=only), None
        raise UserError(
            f"All pictures of {data} have the one value {_written(whole.low)}, which is no range. State one "
            "with `--data.range LOW,HIGH`."
        )
    found = Range(whole.low, whole.high, only)
    if given is not None:
        return found, f"{data}: data.range is `data`: {values} become black and white."
    if whole.kind == np.uint8 and whole.high <= 1:
        why = "has 8-bit pictures of 0 and 1 alone"
    elif whole.kind.kind == "f":
        why = f"has floating-point pictures ({whole.kind}) of values from {values}"
    else:
        smallest, largest = whole.ends
        holder = "type holds" if whole.white is None else "files call black and white"
        why = (
            f"has {whole.kind} pictures of values from {values}, less than half of what the {holder} "
            f"({smallest} to {largest})"
        )
    return found, (
        f"{data} {why}, and no range is stated: {found} become black and white, as `--data.range data` does. Say "
        "`--data.range LOW,HIGH`" + ("" if whole.kind.kind == "f" else " or `--data.range dtype`") + " to change it."
    )
