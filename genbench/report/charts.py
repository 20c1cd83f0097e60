"""What the charts of a page are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genbench.core.history import Unreadable
from genbench.leaderboard import formats
from genbench.leaderboard.board import Board
from genbench.leaderboard.formats import Namesakes
from genbench.report import curves
from genbench.report.rows import words


def quality(board: Board, namesakes: Namesakes | None = None) -> dict[str, Any]:
    """What the charts of quality need of a board."""
    metrics = {
        m: better for m, better in board.metrics.items() if any(r.scores[m].mean is not None for r in board.rows)
    }
    points = [
        {
            "label": row.label,
            "model": row.name,
            "kind": row.kind,
            "checkpoint": row.checkpoint,
            "find": words(board, row),
            "hours": row.device_hours,
            "parameters": row.parameters,
            "scores": {m: [row.scores[m].mean, row.scores[m].std] for m in metrics if row.scores[m].mean is not None},
        }
        for row in board.rows
    ]
    title = formats.heading(board, namesakes)[0]
    by = board.by if board.by in metrics else next(iter(metrics), None)
    ranges = {m: _range(board, m) for m in metrics}
    return {"title": title, "by": by, "metrics": metrics, "ranges": ranges, "points": points}


def _range(board: Board, metric: str) -> list[float | None]:
    """The least and the greatest value that a score can have, where its records say so."""
    entries = [r.metrics[metric] for row in board.rows for seed in row.records for r in seed if metric in r.metrics]
    return [entries[0].get("low"), entries[0].get("high")]


def learning(runs: Sequence[dict[str, Any]], skipped: list[tuple[Path, str]]) -> list[dict[str, Any]]:
    found = []
    for run in runs:
        folder = curves.folder_of(run["paths"][0]) if run["trained"] else None
        series: dict[str, list[tuple[str, str]]] = {}
        if folder is not None:
            try:
                series = curves.read(folder / "metrics.csv")
            except Unreadable as error:
                skipped.append((folder / "metrics.csv", f"not readable ({error})"))
        found.append(series)
    return [
        {"name": run["name"], "label": run["label"], "model": run["model"], "data": run["data"], "find": run["find"]}
        | thin
        for run, thin in zip(runs, curves.thinned(found), strict=True)
    ]
