"""Parses numbers of images: 50000, 5e4, 50k, 1M."""

from __future__ import annotations

import re

_SUFFIX = {"k": 10**3, "m": 10**6, "g": 10**9}
# commas and underscores are allowed only between groups of three digits: 1,5 may mean one and a half
_GROUPS = re.compile(r"\d{1,3}(?:[,_]\d{3})+")


class Images(int):
    """A whole number of images: `Images("1M") == Images("1e6") == 1_000_000`.

    Example:
        >>> Images("50k"), Images("1.5M"), Images("1e6")
        (50000, 1500000, 1000000)
    """

    def __new__(cls, value: int | float | str) -> Images:
        text = str(value).strip().lower()
        factor = _SUFFIX.get(text[-1:], 1)
        text = text[:-1] if factor > 1 else text
        if _GROUPS.fullmatch(text):
            text = re.sub("[,_]", "", text)
        try:
            number = float("" if "_" in text else text) * factor  # Python itself reads 1_5 as 15
        except ValueError:
            number = float("nan")
        if not 1 <= number < float("inf") or number != int(number):
            raise ValueError(
                f"{value!r} is not a number of images: expected at least 1, such as 1000000, 1e6, 1000k or 1M"
            )
        return super().__new__(cls, number)
