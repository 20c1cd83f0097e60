"""Which records stand behind each row of a board, and by what a row is found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from genbench.leaderboard.board import Board, Row
from genbench.leaderboard.record import Record


class Rows:
    """The records of each row of a board with their files, and the label of each record's row."""

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
        """Of the first seed: the record that counts, and others of the same checkpoint."""
        return [(record, self._paths[id(record)]) for record in row.records[0]]


def words(board: Board, row: Row) -> str:
    """What a row is found by."""
    words = (row.label, *row.runs, row.kind, row.checkpoint, board.data["name"], board.protocol["name"], row.device)
    return " ".join(str(word) for word in words if word).lower()
