"""Images next to records, compressed to fit into one page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

BUDGET = 9_000_000  # characters: limit for all encoded images of a page together
FRACTIONS = (1, 3 / 4, 1 / 2, 1 / 4, 1 / 8)  # fractions of the rows of a grid that are shown
QUALITY = 80  # quality of WebP, used if PNG does not fit
PROBED = 24  # images that are encoded to estimate the size of all


@dataclass(frozen=True)
class Picture:
    """An image file, its number of image rows, and the pixels between two rows, both from its metadata."""

    data: bytes
    rows: int
    gap: int


@dataclass(frozen=True)
class Shown:
    """An image in a page: data URI, size in pixels, and how many of its rows are shown."""

    uri: str
    width: int
    height: int
    rows: int
    of_rows: int


def read(path: Path) -> Picture | None:
    """Read an image file; None if it does not exist.

    Raises:
        OSError: the file cannot be read, or is not an intact PNG.
    """
    if not path.is_file():
        return None
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            rows, gap = (_whole(picture.info.get(name)) for name in ("rows", "gap"))
            picture.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError("not a PNG, or damaged") from error
    return Picture(data, max(rows, 1), gap)


def _whole(text: Any) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 4 else 0


def fitted(pictures: Sequence[Picture], budget: int = BUDGET) -> list[Shown | None]:
    """Prepare images for one page: unchanged, or else as WebP with fewer rows; None for images beyond the budget."""
    if sum(len(p.data) for p in pictures) * 4 / 3 <= budget:
        return [_as_it_is(p) for p in pictures]
    some = pictures[:: max(1, len(pictures) // PROBED)]

    def estimated(fraction: float) -> float:  # characters of all images, with a margin
        mean = sum(len(_as_webp(p, fraction).uri) for p in some) / len(some)
        return 1.1 * mean * len(pictures)

    fraction = next((fraction for fraction in FRACTIONS if estimated(fraction) <= budget), FRACTIONS[-1])
    found: list[Shown | None] = []
    with ThreadPoolExecutor() as pool:
        for shown in pool.map(lambda p: _as_webp(p, fraction), pictures):
            budget -= len(shown.uri)
            found.append(shown if budget >= 0 else None)
    return found


def _as_it_is(picture: Picture) -> Shown:
    with Image.open(io.BytesIO(picture.data)) as image:
        width, height = image.size
    return Shown(_uri("png", picture.data), width, height, picture.rows, picture.rows)


def _as_webp(picture: Picture, fraction: float) -> Shown:
    """Encode the first rows of an image."""
    rows = max(1, round(picture.rows * fraction))
    with Image.open(io.BytesIO(picture.data)) as image:
        height = picture.gap + rows * (image.height - picture.gap) // picture.rows
        part = image.crop((0, 0, image.width, height)).convert("RGB")
    with io.BytesIO() as file:
        part.save(file, "WEBP", quality=QUALITY, method=2)
        return Shown(_uri("webp", file.getvalue()), part.width, height, rows, picture.rows)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
