"""One HTML file that shows all records: leaderboards, charts, images and configs. It loads nothing from the network."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from genbench.core.errors import UserError, counted
from genbench.core.html_page import html_page
from genbench.leaderboard import formats
from genbench.leaderboard.board import boards
from genbench.leaderboard.record import Record
from genbench.report.curves import learning
from genbench.report.gallery import galleries
from genbench.report.rows import Rows
from genbench.report.run_pages import runs
from genbench.report.tables import quality, table

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Report:
    """html     the page
    skipped  files next to records that cannot be read, with the reason
    """

    html: str
    skipped: list[tuple[Path, str]]


def report(found: Sequence[tuple[Record, Path]]) -> Report:
    """Build the page of records and their files. The same records give the same page, byte for byte.

    Raises:
        UserError: the records contain no scores.
    """
    records = [record for record, _ in found]
    tables = formats.with_namesakes(boards(records))
    if not tables:
        raise UserError("The records contain no scores. Evaluate under a protocol that includes metrics.")
    skipped: list[tuple[Path, str]] = []
    rows = Rows(found, [board for board, _ in tables])
    trained = runs(found, rows)
    anchors = {path: run["anchor"] for run in trained for path in run["paths"]}
    shown, left_out = galleries(rows, tables, skipped)
    data = {
        "boards": [quality(board, namesakes) for board, namesakes in tables],
        "runs": learning(trained, skipped),
        "models": sorted({record.model["name"] for record in records}),
    }
    css, js = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    html = html_page(
        HERE / "page.html",
        {"js": js, "plotly": get_plotlyjs()},
        summary=_summary(records, trained),
        boards=[table(board, namesakes, rows, anchors) for board, namesakes in tables],
        galleries=shown,
        left_out=left_out,
        runs=trained,
        has_cost=any(point["hours"] or point["parameters"] for board in data["boards"] for point in board["points"]),
        has_curves=any(run["series"] for run in data["runs"]),
        css=Markup(css),
        data=Markup(_embedded(data)),
    )
    return Report(html, skipped)


def _summary(records: Sequence[Record], runs: Sequence[dict[str, Any]]) -> str:
    trained = [run for run in runs if run["trained"]]
    parts = [
        counted(len({run["model"] for run in trained}), "model"),
        counted(len(trained), "run"),
        counted(len(records), "record"),
        counted(len({r.data["name"] for r in records}), "data set"),
        counted(len({(r.data["name"], r.protocol["key"]) for r in records}), "protocol"),
    ]
    days = sorted(r.created[:10] for r in records)
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return f"{', '.join(parts)}; measured {when}."


def _embedded(data: Any) -> str:
    """JSON that cannot end a script element or start a comment."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)
