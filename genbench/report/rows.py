"""Records and search text of leaderboard rows, and values as YAML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from genbench.leaderboard.board import Board, Row
from genbench.leaderboard.record import Record

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # 10 times as fast, if libyaml is installed


class Rows:
    """The file of each record, and the label of the leaderboard row that the record is in."""

    def __init__(self, found: Iterable[tuple[Record, Path]], boards: Sequence[Board]) -> None:
        self._paths = {id(record): path for record, path in found}
        self.labels = {
            self._paths[id(record)]: row.label
            for board in reversed(boards)
            for row in board.rows
            for seed in row.records
            for record in seed
        }

    def first(self, row: Row) -> list[tuple[Record, Path]]:
        """Return the records of the first seed, newest first."""
        return [(record, self._paths[id(record)]) for record in row.records[0]]


def words(board: Board, row: Row) -> str:
    """Return the text that the filter of the page searches to find a row."""
    words = (row.label, *row.runs, row.kind, row.checkpoint, board.data["name"], board.protocol["name"], row.device)
    return " ".join(str(word) for word in words if word).lower()


def as_yaml(value: Any) -> str:
    """Format plain data as YAML, as in a config."""
    value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))  # replaces lone surrogates
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100).rstrip("\n")
