"""Which records stand behind each row of a board, and by what a row is found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from genbench.leaderboard.board import Board, Row
from genbench.leaderboard.record import Record


class Rows:
    """Which records, with their files, each row of a board stands for; of several seeds the first seed first."""

    def __init__(self, found: Iterable[tuple[Record, Path]], boards: Sequence[Board]) -> None:
        self._found: dict[tuple[Any, ...], list[tuple[Record, Path]]] = {}
        for record, path in found:
            key = (record.data["name"], record.protocol["key"], *_what(record))
            self._found.setdefault(key, []).append((record, path))
        for pairs in self._found.values():
            pairs.sort(key=lambda pair: (str((pair[0].run or {}).get("seed")).zfill(20), pair[1]))
        self.labels = {
            path: row.label for board in reversed(boards) for row in board.rows for _, path in self.of(board, row)
        }

    def of(self, board: Board, row: Row) -> list[tuple[Record, Path]]:
        images = None if row.checkpoint == "best" else row.images_seen
        name = None if row.kind == "floor" else row.name
        what = (row.kind, name, row.config_hash, row.checkpoint, row.weights, images, _key(row.sampling))
        return self._found[(board.data["name"], board.protocol["key"], *what)]


def _what(record: Record) -> tuple[Any, ...]:
    """A record's identity, from what its row says of it too."""
    run, own = record.run or {}, record.model.get("hash") if record.kind == "images" else None
    images = None if run.get("checkpoint") == "best" or run.get("images_seen") is None else round(run["images_seen"])
    name = None if record.kind == "floor" else record.model["name"]
    config = own or run.get("config_hash")
    sampling = _key(run.get("sampling") or {})
    return record.kind, name, config, run.get("checkpoint"), run.get("weights"), images, sampling


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def words(board: Board, row: Row) -> str:
    """What a row is found by."""
    words = (row.label, *row.runs, row.kind, row.checkpoint, board.data["name"], board.protocol["name"], row.device)
    return " ".join(str(word) for word in words if word).lower()
