"""Pictures that evaluations left beside their records, made to fit into one page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

BUDGET = 9_000_000  # characters of all pictures in a page
SHARES = (1, 3 / 4, 1 / 2, 1 / 4, 1 / 8)  # of the rows of a sheet
QUALITY = 80  # of WebP, where PNG does not fit
PROBED = 24  # pictures that are encoded to see how large all will be


@dataclass(frozen=True)
class Picture:
    """A file as it lies on disk; rows of images that it says that it has, and pixels between two."""

    data: bytes
    rows: int
    gap: int


@dataclass(frozen=True)
class Shown:
    """A picture in a page: as a data URI, with its size in pixels, and how many of its rows are left."""

    uri: str
    width: int
    height: int
    rows: int
    of_rows: int


def read(path: Path) -> Picture | None:
    """A sheet; None where there is none.

    Raises:
        OSError: it is not readable, or no PNG, or a damaged one.
    """
    if not path.is_file():
        return None
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            rows, gap = (_whole(picture.info.get(name)) for name in ("rows", "gap"))
            picture.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError("no PNG, or a damaged one") from error
    return Picture(data, max(rows, 1), gap)


def _whole(text: Any) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 4 else 0


def fitted(pictures: Sequence[Picture], budget: int = BUDGET) -> list[Shown | None]:
    """Pictures for one page: as they are, else as WebP with fewer of their rows; None for those beyond the budget."""
    if sum(len(p.data) for p in pictures) * 4 / 3 <= budget:
        return [_as_it_is(p) for p in pictures]
    share = next((share for share in SHARES if _guessed(pictures, share) <= budget), SHARES[-1])
    found: list[Shown | None] = []
    with ThreadPoolExecutor() as pool:
        for shown in pool.map(lambda p: _as_webp(p, share), pictures):
            budget -= len(shown.uri)
            found.append(shown if budget >= 0 else None)
    return found


def _guessed(pictures: Sequence[Picture], share: float) -> float:
    """Characters of all, from some of them and with a margin."""
    some = pictures[:: max(1, len(pictures) // PROBED)]
    mean = sum(len(_as_webp(p, share).uri) for p in some) / len(some)
    return 1.1 * mean * len(pictures)


def _as_it_is(picture: Picture) -> Shown:
    with Image.open(io.BytesIO(picture.data)) as image:
        width, height = image.size
    return Shown(_uri("png", picture.data), width, height, picture.rows, picture.rows)


def _as_webp(picture: Picture, share: float) -> Shown:
    """The first rows of a sheet."""
    rows = max(1, round(picture.rows * share))
    with Image.open(io.BytesIO(picture.data)) as image:
        height = picture.gap + rows * (image.height - picture.gap) // picture.rows
        part = image.crop((0, 0, image.width, height)).convert("RGB")
    with io.BytesIO() as file:
        part.save(file, "WEBP", quality=QUALITY, method=2)
        return Shown(_uri("webp", file.getvalue()), part.width, height, rows, picture.rows)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
