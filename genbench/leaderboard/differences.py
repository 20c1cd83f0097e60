"""Differences between leaderboards that cannot be ranked together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from genbench.core.errors import UserError, dimensions
from genbench.leaderboard.record import Record

if TYPE_CHECKING:
    from genbench.leaderboard.board import Board

T = TypeVar("T")


def refuse_mixture(records: Iterable[Record]) -> None:
    """Raise UserError with the differences if records are from several data sets or protocols."""
    kinds = {(r.data["name"], r.protocol["key"]): r for r in records}.values()
    if len(kinds) > 1:
        names = listed(unique(f"{r.protocol['name']} on {r.data['name']}" for r in kinds))
        raise UserError(
            f"Rows of different protocols are not ranked together: {names} differ in {difference(kinds)}. "
            "Choose one protocol, or remove `--protocol` to get one table per protocol."
        )


def difference(measured: Iterable[Record | Board]) -> str:
    """Return the fields in which protocols and data sets of records or leaderboards differ, each with its values."""
    flat = [dict(_flat(one.protocol | {"data": one.data})) for one in measured]
    fields = unique(field for fields in flat for field in fields)
    values = {field: [fields.get(field) for fields in flat] for field in fields}
    different = {field: v for field, v in values.items() if any(x != v[0] for x in v)}
    own = [field for field in different if field not in ("name", "key")]
    shown = own or list(different)  # name and key follow from the other fields
    return "; ".join(f"{field} ({listed(unique(as_text(x) for x in different[field]))})" for field in shown)


def apart(found: Sequence[Board]) -> list[str]:
    """Return, for each leaderboard, the fewest settings of protocol and data set that distinguish it: `task=denoise`.

    Hashes are ignored, and so are settings that differ between the records of one leaderboard. If a protocol setting
    and a data set setting distinguish equally many leaderboards, the protocol setting is used.
    """
    every = [_settings(board) for board in found]
    values = {}
    for name in unique(name for settings in every for name in settings):
        of_data = name.startswith("data.arguments.")
        texts = [settings.get(name, "default" if of_data else None) for settings in every]
        if None not in texts:
            values[name] = [f"{name.removeprefix('data.arguments.')}={value}" for value in texts]
    chosen: list[tuple[str, ...]] = [()] * len(found)
    while values:
        more = {name: [(*a, b) for a, b in zip(chosen, texts, strict=True)] for name, texts in values.items()}
        best = max(more, key=lambda name: len(set(more[name])))
        if len(set(more[best])) == len(set(chosen)):
            break
        chosen = more[best]
        del values[best]
    return [", ".join(settings) for settings in chosen]


def _settings(board: Board) -> dict[str, str | None]:
    """Return settings of the protocol, then of the data set; None for a setting without a single readable value."""

    def text(name: str, value: Any) -> str | None:
        if name == "reference.shape" and isinstance(value, list):
            return dimensions(value)
        return None if isinstance(value, list) or re.fullmatch("[0-9a-f]{12,}", str(value)) else as_text(value)

    found = {name: text(name, value) for name, value in _flat(board.protocol) if name not in ("name", "key")}
    kept = [record.data.get("arguments") for row in board.rows for seed in row.records for record in seed]
    given = [arguments if isinstance(arguments, dict) else {} for arguments in kept]
    for name in unique(name for arguments in given for name in arguments):
        values = unique(as_text(arguments[name]) if name in arguments else "default" for arguments in given)
        found[f"data.arguments.{name}"] = values[0] if len(values) == 1 else None
    return found


def _flat(value: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, v in value.items():
        yield from _flat(v, f"{prefix}{name}.") if isinstance(v, dict) else [(prefix + name, v)]


def as_text(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:,}"
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text[:8] if re.fullmatch("[0-9a-f]{12,}", text) else text if len(text) <= 40 else f"{text[:37]}..."


def unique(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))


def listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
