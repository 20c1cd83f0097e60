"""The columns of a leaderboard, which are the same in every format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from genbench.leaderboard.board import Board, Row
from genbench.leaderboard.intervals import NO_BOUND

BLANK = "—"
PLUS_MINUS = " ± "
INTERVAL = "95% interval of the mean"
BLANK_PRIORITY = 99  # priority of a column without values
ARROWS = {"lower": " ↓", "higher": " ↑", None: ""}


@dataclass(frozen=True)
class Column:
    """name      of the column, on one line
    cells     text of each row
    header    the name, broken into lines if that saves space
    best      indices of the rows with the best value
    priority  columns with high numbers are omitted first if a table is too wide; 0 is never omitted
    """

    name: str
    cells: list[str]
    header: str = ""
    best: frozenset[int] = frozenset()
    priority: int = 0

    @property
    def is_text(self) -> bool:
        return self.name in ("model", "checkpoint")


def columns(board: Board) -> list[Column]:
    """Return the columns of a leaderboard, from left to right."""
    rows = board.rows
    found = [
        Column("rank", [BLANK if row.rank is None else str(row.rank) for row in rows]),
        Column("model", [printable(row.label) for row in rows]),
        Column("checkpoint", [checkpoint(row) for row in rows]),
        Column("seeds", [str(len(row.seeds) or BLANK) for row in rows]),
    ]
    others = [metric for metric in board.metrics if metric != board.by]
    for metric in [board.by, *others] if board.by else others:
        place = others.index(metric) + 1 if metric in others else 0
        # the generation track has many scores: cost columns are more important than the third and later scores
        column = _metric(board, metric, place + 10 if place > 2 and board.track == "generation" else min(place, 3))
        found.append(column if set(column.cells) != {BLANK} else replace(column, priority=BLANK_PRIORITY))
        if metric == board.by and any(row.scores[metric].low is not None for row in rows):
            found.append(_interval(board, metric, 8))
    cost = [
        Column("images seen", [compact(row.images_seen) for row in rows], "images\nseen", priority=4),
        Column("parameters", [compact(row.parameters) for row in rows], "param-\neters", priority=5),
        Column("tried", [BLANK if row.tried is None else str(row.tried) for row in rows], "configs\ntried", priority=8),
        Column("updates", [_updates(row) for row in rows], priority=9),
        Column("training images/s", _compacts(rows, "training_images_per_second"), "training\nimages/s", priority=7),
        Column("NFE", [_count(row.network_evaluations_per_image) for row in rows], priority=6),
        Column("sampling s/image", _compacts(rows, "sampling_seconds_per_image"), "sampling\ns/image", priority=6),
        Column("device hours", [_hours(row.device_hours) for row in rows], "device\nhours", priority=10),
        Column("device", [printable(row.device) if row.device else BLANK for row in rows], priority=30),
    ]
    if board.track != "generation":  # other scores need no samples
        cost = [column for column in cost if column.name not in ("NFE", "sampling s/image")]
    return found + [column for column in cost if set(column.cells) != {BLANK}]


def printable(text: str) -> str:
    """Replace control characters, so that the text is one printable line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def compact(value: float | None) -> str:
    """Format a number in short form: 1,234,567 as 1.23M."""
    if value is None:
        return BLANK
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 0.9995 * 10**power:
            return f"{value / 10**power:.3g}{unit}"
    return f"{value:.3g}"


def checkpoint(row: Row) -> str:
    """Return the checkpoint of a row, or its kind (images, baseline) if no model was evaluated."""
    if row.kind != "model":
        return row.kind
    weights = "" if row.weights in (None, "ema") else f" ({row.weights})"
    return printable(row.checkpoint or BLANK) + printable(weights)


def _metric(board: Board, metric: str, priority: int) -> Column:
    """Build the column of a metric: mean ± std. With several models, the best mean is marked."""
    better, decimals = board.metrics[metric], _decimals(board, metric)
    cells, means = [], {}
    for k, row in enumerate(board.rows):
        score = row.scores[metric]
        if score.mean is None:
            cells.append(BLANK)
            continue
        sign = bound_sign(better, score.bound)
        deviation = "" if score.std is None else f"{PLUS_MINUS}{score.std:,.{decimals}f}"
        some = f" ({score.seeds})" if score.seeds < len(row.seeds) else ""
        cells.append(f"{sign}{_fixed(score.mean, decimals)}{deviation}{some}")
        if row.kind != "baseline":
            means[k] = score.mean
    best = (min if better == "lower" else max)(means.values(), default=0)
    bold = frozenset(k for k, mean in means.items() if mean == best) if better and len(means) > 1 else frozenset()
    name = printable(metric) + ARROWS[better]
    return Column(name, cells, name.replace("-", "-\n", 1), bold, priority)


def _interval(board: Board, metric: str, priority: int) -> Column:
    decimals = _decimals(board, metric)
    scores = [row.scores[metric] for row in board.rows]
    cells = [
        BLANK if s.low is None or s.high is None else f"{_fixed(s.low, decimals)} to {_fixed(s.high, decimals)}"
        for s in scores
    ]
    return Column(INTERVAL, cells, "95% interval\nof the mean", priority=priority)


def _compacts(rows: Sequence[Row], field: str) -> list[str]:
    return [compact(getattr(row, field)) for row in rows]


def _decimals(board: Board, metric: str) -> int:
    """Return the number of decimals with which the smallest mean shows three digits and the median deviation one."""
    every = [row.scores[metric] for row in board.rows]
    scores = [score for score, row in zip(every, board.rows, strict=True) if row.kind != "baseline"]
    means = [abs(s.mean) for s in scores if s.mean] or [abs(s.mean) for s in every if s.mean]
    deviations = sorted(s.std for s in scores if s.std)
    digits = 2 - math.floor(math.log10(min(means, default=1)))
    if deviations:
        digits = max(digits, min(-math.floor(math.log10(deviations[len(deviations) // 2])), digits + 2))
    whole = all(s.mean == int(s.mean) for s in every if s.mean) and not deviations  # counts, such as a number of modes
    return 0 if whole else min(max(digits, 1), 5)


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    shows_nothing = value != 0 and not text.strip("-0.")
    if shows_nothing:
        return f"{value:.2g}"
    return f"{value:.1e}" if abs(value) >= 1e7 else text


def _count(value: float | None) -> str:
    """Format a mean number in full: 1024 as 1,024."""
    return BLANK if value is None else f"{value:,.{0 if value == int(value) else 1}f}"


def _hours(value: float | None) -> str:
    return BLANK if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def bound_sign(better: str | None, bound: str | None) -> str:
    """Return `≤ ` or `≥ ` for a bound, when the exact likelihood is at least as good; else an empty string."""
    return {"lower": "≤ ", "higher": "≥ ", None: ""}[better] if is_bound(bound) else ""


def is_bound(bound: str | None) -> bool:
    return bound is not None and not bound.startswith(NO_BOUND)


def _updates(row: Row) -> str:
    """Format the number of updates of each optimizer; `2 × 16k` if they are equal."""
    each = {player: compact(n) for player, n in row.updates.items()}
    if len(set(each.values())) == 1:
        return f"{len(each)} × {next(iter(each.values()))}" if len(each) > 1 else next(iter(each.values()))
    return printable(", ".join(f"{player} {n}" for player, n in each.items())) or BLANK
