"""Reads `metrics.csv`, the learning curves of a run, even if a spreadsheet program has saved it."""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

COLUMN = "images_seen"
LARGEST = 2**30  # bytes: a thousand times the file size of a long run
BOMS = {  # UTF-32 first: its byte order mark begins with the mark of UTF-16
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
WITH_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
WITH_POINT = re.compile(r"[+-]?(\d*\.\d+|\d+\.)([eE][+-]?\d+)?")


class Unreadable(Exception):
    """A file cannot be read as learning curves. The message is the reason, as a part of a sentence."""


@dataclass
class History:
    """The contents of a `metrics.csv`.

    columns  names, `images_seen` first
    rows     name -> text. `images_seen` is a whole number, numbers have decimal points, "" means no value
    changes  how the file differs from what genbench writes, as text
    doubts   what could not be read, as text; such rows are dropped, such cells are kept unchanged
    torn     whether the last line is incomplete, for example because a process was killed
    """

    columns: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    torn: bool = False


def read(path: Path) -> History:
    """The curves in a file; empty if the file does not exist.

    Raises:
        Unreadable: it is not a regular file, not text, or not a table.
    """
    try:
        if not path.exists():
            return History()
        if not path.is_file():  # reading a named pipe would never end
            raise Unreadable("it is not a regular file")
        if path.stat().st_size > LARGEST:
            raise Unreadable("it is larger than 1 GiB")
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    return _parsed(data)


def _parsed(data: bytes) -> History:
    text, changes = _decoded(data)
    found = History(changes=changes, torn=data.endswith(b"\0") and not changes)
    plain = not changes and "\r" not in text and '"' not in text
    if plain and not text.endswith("\n"):  # genbench's own line, incomplete since its process was killed
        text, found.torn = text[: text.rfind("\n") + 1], bool(text)
    lines = text.splitlines()
    if lines and lines[0].lower().startswith("sep="):  # a hint for Excel
        text, lines = text[len(lines[0]) :].lstrip("\r\n"), lines[1:]
    head = next((line for line in lines if line.strip()), "")
    if not head:
        return found
    delimiter = next((d for d in ",;\t|" if COLUMN in map(_plain, _cells(head, d))), None)
    if delimiter is None and head.startswith('"') and COLUMN in _cells(head, ",")[0]:
        # a spreadsheet program has read each line as one cell
        return _parsed("".join(f"{''.join(_cells(line, ','))}\r\n" for line in lines if line).encode())
    if delimiter is None:
        found.doubts = [f"its first line has no column `{COLUMN}`"]
        return found
    if "\r" in text:
        changes.append("other line ends")
    if '"' in text:
        changes.append("quotes")
    if delimiter != ",":
        changes.append({";": "semicolons", "\t": "tabs"}.get(delimiter, f"'{delimiter}'") + " between columns")
    table = _table(text, delimiter)
    if not all(map(str.strip, lines)):
        changes.append("empty lines")
    _fill(found, table, complete=text.endswith(("\n", "\r")))
    return found


def _decoded(data: bytes) -> tuple[str, list[str]]:
    """The text, and how its encoding differs from what genbench writes."""
    changes: list[str] = []
    mark = next((mark for mark in BOMS if data.startswith(mark)), b"")
    encoding = BOMS.get(mark, "utf-8")
    if mark:
        data, changes = data[len(mark) :], [f"{encoding.upper()} with a byte order mark"]
    elif data[1:2] == b"\0" != data[:1] or data[:1] == b"\0" != data[1:2]:
        encoding = "utf-16-le" if data[:1] != b"\0" else "utf-16-be"
        changes = [encoding.upper()]
    else:
        data = data.rstrip(b"\0")  # a file system may append zeros when the power fails
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        try:
            text, changes = data.decode("cp1252"), ["Windows-1252"]
        except UnicodeDecodeError as error:
            raise Unreadable("it is not text") from error
    if "\0" in text:
        raise Unreadable("it is not text")
    return text, changes


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [""])
    except csv.Error:
        return [""]


def _table(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """(line number in an editor, cells) of each line that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise Unreadable(f"line {reader.line_num} is not a row of a table: {error}") from error


def _fill(found: History, table: list[tuple[int, list[str]]], complete: bool) -> None:
    """Fill in columns and rows. `complete`: whether the last line ends with a line break."""
    names = [name.strip() for name in table[0][1]]
    place = next(k for k, name in enumerate(names) if _plain(name) == COLUMN)
    if names[place] != COLUMN or place:
        found.changes.append(f"`{COLUMN}` written or placed differently")
    names[place] = COLUMN
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise Unreadable(f"two columns have the name `{min(twice)}`")
    rows: list[tuple[int, list[str]]] = []
    for k, (line, row) in enumerate(table[1:], 2):
        cells = [cell.strip() for cell in row]
        if len(cells) < len(names) and not complete and k == len(table):
            found.torn = True
        elif len(cells) < len(names) and not found.changes:
            found.doubts.append(f"line {line} has {len(cells)} of {len(names)} columns")
        elif any(cells[len(names) :]) or any(cell for cell, name in zip(cells, names, strict=False) if not name):
            found.doubts.append(f"line {line} has more values than there are column names")
        else:  # a spreadsheet may drop the empty cells at the end of a row
            rows.append((line, cells + [""] * (len(names) - len(cells))))
    number = _number_in(rows, found)
    for line, cells in rows:
        seen = _images(number(cells[place]))
        if seen is None:
            found.doubts.append(f"line {line}: `{COLUMN}` is '{cells[place]}'")
        else:
            if seen != cells[place]:
                found.changes.append("other numbers of images")
            values = {name: number(cell) for name, cell in zip(names, cells, strict=True) if name}
            found.rows.append(values | {COLUMN: seen})
    found.columns = [COLUMN, *(name for name in names if name not in ("", COLUMN))]
    found.changes = list(dict.fromkeys(found.changes))
    if any(int(a[COLUMN]) > int(b[COLUMN]) for a, b in zip(found.rows, found.rows[1:], strict=False)):
        found.rows.sort(key=lambda row: int(row[COLUMN]))
        found.changes.append("other order of rows")
    _check(found)


def _number_in(rows: list[tuple[int, list[str]]], found: History) -> Callable[[str], str]:
    """A function that replaces decimal commas with points, if all numbers of the file have decimal commas."""
    cells = [cell for _, row in rows for cell in row] if found.changes else []
    if not any(map(WITH_COMMA.fullmatch, cells)):
        return str
    if any(map(WITH_POINT.fullmatch, cells)):
        found.doubts.append("some numbers have decimal commas and some have points")
        return str
    found.changes.append("decimal commas")
    return lambda cell: cell.replace(",", ".") if WITH_COMMA.fullmatch(cell) else cell


def _images(cell: str) -> str | None:
    """The cell as a whole number of images; None if it is not a number, or ambiguous like `100.000`."""
    if cell.isascii() and cell.isdecimal():
        return cell
    if not re.fullmatch(r"\d+(\.\d*)?([eE]\+?\d{1,2})?", cell) or re.fullmatch(r"\d+\.\d{3}", cell):
        return None
    value = float(cell)
    return str(int(value)) if value == int(value) else None


def _check(found: History) -> None:
    """Add doubts about columns whose numbers are no longer the logged numbers."""
    for name in found.columns[1:]:
        values = [row[name] for row in found.rows if row[name]]
        wrong = [value for value in values if not _is_number(value)]
        ours = "/" in name or name in ("diversity", "images_per_second")
        if wrong and (ours or len(wrong) < len(values)):  # a column of only words was added by the user
            found.doubts.append(f"`{name}` is '{wrong[0][:40]}'")
    if not found.changes:
        return
    given: set[tuple[str, str]] = set()
    for row in found.rows:
        for name, value in row.items():
            if value and name != COLUMN:
                if (row[COLUMN], name) in given:  # for example if a spreadsheet has rounded 102,000 to 1E+05
                    found.doubts.append(f"`{name}` has two values at {int(row[COLUMN]):,} images")
                    return
                given.add((row[COLUMN], name))


def _is_number(value: str) -> bool:
    return finite(value) is not None or value.strip().lower().lstrip("+-") in ("nan", "inf", "infinity")


def finite(text: str) -> float | None:
    """The number in a cell; None for other text, NaN and infinity."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
