"""Convert leaderboards to tables and charts of a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from genbench.leaderboard import formats
from genbench.leaderboard.board import Board, Row
from genbench.leaderboard.columns import ARROWS, BLANK, PLUS_MINUS, checkpoint, printable
from genbench.leaderboard.columns import columns as columns_of
from genbench.leaderboard.formats import Namesakes
from genbench.leaderboard.intervals import Score
from genbench.leaderboard.record import history
from genbench.report.rows import Rows, as_yaml, words

MINOR = ("checkpoint", "seeds")  # columns that a narrow screen shows below the model's name


def table(board: Board, namesakes: Namesakes | None, rows: Rows, anchors: dict[Path, str]) -> dict[str, Any]:
    """Convert a leaderboard to a table: the text and the sort key of each cell."""
    metrics = {printable(m) + ARROWS[better]: m for m, better in board.metrics.items()}
    columns = []
    cells: list[list[dict[str, Any]]] = [[] for _ in board.rows]
    lead = board.by or next(iter(board.metrics))  # the score that a narrow screen shows next to the model
    for column in columns_of(board):
        metric = metrics.get(column.name)
        numbers = [
            row.scores[metric].mean if metric else _number(text)
            for text, row in zip(column.cells, board.rows, strict=True)
        ]
        blank = set(column.cells) <= {BLANK}
        text = column.is_text or column.name == "device" or not (metric or blank or any(n is not None for n in numbers))
        tail = max(len(cell.partition(PLUS_MINUS)[2]) for cell in column.cells)
        better = board.metrics[metric] if metric else "lower" if column.name == "rank" else None
        columns.append(
            {
                "name": column.name,
                "header": column.header or column.name,
                "text": text,
                "better": better,
                "tail": tail + 3 if tail else 0,
                "by": metric is not None and metric == lead,
                "minor": column.name in MINOR,
            }
        )
        for k, (cell, number, row) in enumerate(zip(column.cells, numbers, board.rows, strict=True)):
            head, sign, deviation = cell.partition(PLUS_MINUS)
            cells[k].append(
                {
                    "head": head,
                    "tail": sign + deviation,
                    "best": k in column.best,
                    "sort": cell if text else "" if number is None else repr(number),
                    "title": _exactly(row.scores[metric]) if metric else "",
                }
            )
    title, *about = formats.heading(board, namesakes)
    return {
        "title": title,
        "score": _widest(columns, cells),
        "about": about,
        "columns": columns,
        "rows": [_line(board, row, cells[k], rows, anchors) for k, row in enumerate(board.rows)],
        "notes": formats.notes(board),
        "protocol": as_yaml(board.protocol),
    }


def quality(board: Board, namesakes: Namesakes | None = None) -> dict[str, Any]:
    """Convert a leaderboard to the data of the quality charts."""
    metrics = {
        m: better for m, better in board.metrics.items() if any(r.scores[m].mean is not None for r in board.rows)
    }
    lines: dict[tuple[Any, ...], int] = {}
    points = [
        {
            "label": row.label,
            "model": row.name,
            "kind": row.kind,
            "checkpoint": row.checkpoint,
            "find": words(board, row),
            "hours": row.device_hours,
            "parameters": row.parameters,
            "seconds": row.sampling_seconds_per_image if board.track == "generation" else None,
            "evaluations": row.network_evaluations_per_image,
            "line": lines.setdefault(_line_of(row), len(lines)),
            "scores": {m: [row.scores[m].mean, row.scores[m].std] for m in metrics if row.scores[m].mean is not None},
        }
        for row in board.rows
    ]
    title = formats.heading(board, namesakes)[0]
    by = board.by if board.by in metrics else next(iter(metrics), None)
    records = [record for row in board.rows for seed in row.records for record in seed]
    entries = {m: next(record.metrics[m] for record in records if m in record.metrics) for m in metrics}
    ranges = {m: [entry.get("low"), entry.get("high")] for m, entry in entries.items()}
    return {"title": title, "by": by, "metrics": metrics, "ranges": ranges, "points": points}


def _line_of(row: Row) -> tuple[Any, ...]:
    """Identify what rows share that differ only in whole numbers of their sampling options, such as the steps.

    A line joins them in the charts. Other options, such as the name of a sampler, begin a line of their own.
    """
    others = {name: value for name, value in row.sampling.items() if type(value) is not int}
    sampling = json.dumps(others, sort_keys=True)
    checkpoint = (row.checkpoint or "").partition(" = ")[0]  # `best = last` belongs to `best`
    images = None if checkpoint == "best" else row.images_seen  # those of the best differ between seeds
    return row.kind, row.name, row.config_hash, history(row.segments), checkpoint, images, row.weights, sampling


def _widest(columns: list[dict[str, Any]], cells: list[list[dict[str, Any]]]) -> int:
    """Width in characters of the longest unbreakable text in the ranked column, the one shown on narrow screens."""
    at = next(k for k, column in enumerate(columns) if column["by"])
    return max(len(row[at][part]) for row in cells for part in ("head", "tail"))


def _line(board: Board, row: Row, cells: list[dict[str, Any]], rows: Rows, anchors: dict[Path, str]) -> dict[str, Any]:
    _, path = rows.first(row)[0]
    under = " · ".join(filter(None, [checkpoint(row), f"{len(row.seeds)} seeds" if len(row.seeds) > 1 else ""]))
    return {
        "baseline": row.kind == "baseline",
        "cells": cells,
        "under": under,
        "find": words(board, row),
        "anchor": anchors[path],
    }


def _exactly(score: Score) -> str:
    """Format a score with more digits, for the tooltip of a cell."""
    if score.mean is None:
        return score.note or ""
    parts = [f"{score.mean:.8g}"]
    if score.std is not None:
        parts.append(f"standard deviation {score.std:.4g} over {score.seeds} seeds")
    if score.low is not None:
        parts.append(f"95% interval of the mean {score.low:.6g} to {score.high:.6g}")
    if score.within is not None:
        parts.append(f"standard deviation within one sample {score.within:.4g}")
    return ", ".join(parts)


def _number(cell: str) -> float | None:
    """Parse 15.6k as 15600, also in `2 × 15.6k` and `15.6k to 17k`; None if the cell has no number."""
    match = re.match(r"(?:\d+ × )?[≤≥]? ?(-?[\d,]*\.?\d+(?:e[+-]?\d+)?)([kMGT]?)(?= |$)", cell)
    if match is None:
        return None
    return float(match[1].replace(",", "")) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[match[2]]
