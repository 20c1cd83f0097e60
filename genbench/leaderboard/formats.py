"""Leaderboards as text. Text from records is escaped, so it never acts as markup, formula, command or control code."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genbench.core.errors import dimensions
from genbench.leaderboard.board import Board, Row
from genbench.leaderboard.columns import (
    ARROWS,
    BLANK,
    BLANK_PRIORITY,
    INTERVAL,
    PLUS_MINUS,
    Column,
    columns,
    is_bound,
    printable,
)
from genbench.leaderboard.differences import apart, difference
from genbench.leaderboard.intervals import SEEDS

GAP = "  "  # space between two columns
HEADER = 2  # lines of a header
LONGEST, SHORTEST = 40, 12  # limits of the length of a name in a terminal, in characters


@dataclass(frozen=True)
class Namesakes:
    """How a leaderboard differs from others whose data set and protocol have the same names.

    settings  settings that distinguish the leaderboard, such as `task=denoise`; empty if only hashes differ
    note      number of such leaderboards, and all their differences
    """

    settings: str
    note: str


def measured_on(board: Board, namesakes: Namesakes | None = None) -> str:
    """Return data set and protocol, plus key and distinguishing settings if other leaderboards have the same names."""
    data, name = board.data["name"], board.protocol["name"]
    if namesakes:
        data += f" ({namesakes.settings})" if namesakes.settings else ""
        name += f" [{board.protocol['key']}]"
    return f"{data} · {name}"


def heading(board: Board, namesakes: Namesakes | None = None) -> list[str]:
    """Return the title of a table, and lines about its split, features and ranking."""
    title = f"{measured_on(board, namesakes)} · {board.track}"
    facts = [f"{board.protocol['split']} split" if isinstance(board.protocol.get("split"), str) else ""]
    extractor = board.protocol.get("extractor")
    if isinstance(extractor, dict) and isinstance(extractor.get("name"), str):
        facts.append(f"features of {extractor['name']}")
    ranked = f"ranked by {board.by}{ARROWS[board.metrics[board.by]]}" if board.by else "unranked"
    several = any(len(row.seeds) > 1 for row in board.rows)
    if board.track == "likelihood" and isinstance(board.protocol.get("pixels"), str):
        reference = board.protocol.get("reference")
        shape = reference.get("shape") if isinstance(reference, dict) else None
        # only the metric `nats` depends on the image size
        size = dimensions(shape) if isinstance(shape, list) and "nats" in board.metrics else ""
        facts.append(", ".join(filter(None, [f"of {board.protocol['pixels']} pixels", size])))
    facts += [ranked, "mean ± standard deviation over seeds" if several else ""]
    note = namesakes.note if namesakes else ""
    return [printable(line) for line in (title, ", ".join(filter(None, facts)), note) if line]


def notes(board: Board, without: Iterable[str] = ()) -> list[str]:
    """Return notes on blank cells, signs and changed settings. `without` lists the omitted columns."""
    lines: dict[str, list[str]] = {}
    for row in board.rows:
        for metric, score in row.scores.items():
            if score.note:
                lines.setdefault(f"{metric}: {score.note}", []).append(row.label)
    found = [f"{BLANK} {text} ({', '.join(dict.fromkeys(rows))})" for text, rows in lines.items()]
    if any(row.kind == "baseline" for row in board.rows):
        found.append("baseline: real images compared with real images; a perfect model has about this score.")
    bounds: dict[str, list[str]] = {}
    for row in board.rows:
        for bound in {score.bound for score in row.scores.values() if score.bound and is_bound(score.bound)}:
            bounds.setdefault(bound, []).append(row.label)
    if bounds:
        each = "; ".join(f"{bound} ({', '.join(dict.fromkeys(rows))})" for bound, rows in bounds.items())
        found.append(f"≥ and ≤ mark bounds; the exact likelihood is at least as good: {each}.")
    if any(0 < s.seeds < len(row.seeds) for row in board.rows for s in row.scores.values()):
        found.append("(n) after a score: only n seeds of the row have this score.")
    if INTERVAL not in without and board.by and any(row.scores[board.by].low is not None for row in board.rows):
        found.append(f"{INTERVAL}: by Student's t, for {SEEDS} seeds or more, within the range of the score.")
    found += dict.fromkeys(f"{row.label}: {changes(row.segments)}" for row in board.rows if row.segments)
    return [printable(line) for line in found]


def changes(segments: Iterable[dict[str, Any]]) -> str:
    """List the settings changed on resume: `model.optimizer.lr 0.001 -> 1e-05 from 50,000 images`."""
    parts = []
    for segment in segments:
        changed = [f"{name} {_setting(old)} -> {_setting(new)}" for name, (old, new) in segment["changed"].items()]
        if changed:
            parts.append(f"{', '.join(changed)} from {segment['from']:,} images")
    return "; ".join(parts)


def _setting(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:,}"
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def print_tables(boards: Sequence[Board], width: int) -> None:
    """Print tables to a terminal. Columns that do not fit are omitted by priority, and their names are printed."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for board, namesakes in with_namesakes(boards):
        chosen, left_out = fitting(shortened(columns(board), width), width)
        laid_out = [_laid_out(column) for column in chosen]
        title, *about = heading(board, namesakes)
        text = Text().append(f"{title}\n", style="bold").append("\n".join([*about, "", ""]))
        rule = GAP.join("─" * len(lines[0]) for lines in laid_out) + "\n"
        baseline = len(board.rows) - sum(row.kind == "baseline" for row in board.rows)
        for k, line in enumerate(zip(*laid_out, strict=True), start=-HEADER):
            text.append(rule if k in (0, baseline) else "")
            start = len(text)
            text.append(GAP.join(line) + "\n")
            for j, column in enumerate(chosen):
                if k in column.best:
                    at = start + sum(len(cell) + len(GAP) for cell in line[:j])
                    text.stylize("bold", at, at + len(line[j]))
        under = notes(board, left_out)
        if left_out:
            under.append(f"Too wide for {width} columns: {', '.join(left_out)}. --format markdown and csv show them.")
        console.print(text.append("\n".join(["", *under, ""]) if under else ""))


def shortened(found: Sequence[Column], width: int) -> list[Column]:
    """Shorten the text of columns until the columns with priority 0 fit, if possible."""
    numbers = sum(_size(column) + len(GAP) for column in found if column.priority == 0 and not column.is_text)
    room = width - numbers - len(GAP)
    longest = {"checkpoint": min(max(_size(c) for c in found if c.name == "checkpoint"), max(room // 3, SHORTEST))}
    longest["model"] = min(max(room - longest["checkpoint"], SHORTEST), LONGEST)
    return [replace(c, cells=[_cut(cell, longest[c.name]) for cell in c.cells]) if c.is_text else c for c in found]


def fitting(found: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """Return the columns that fit, chosen by priority, and the names of the other columns."""
    taken: set[int] = set()
    for place, k in enumerate(sorted(range(len(found)), key=lambda k: found[k].priority)):
        if found[k].priority == BLANK_PRIORITY and len(taken) < place:  # a column with values is already omitted
            continue
        size = _size(found[k]) + len(GAP)
        if found[k].priority == 0 or size <= width + len(GAP):
            taken.add(k)
            width -= size
    return [c for k, c in enumerate(found) if k in taken], [c.name for k, c in enumerate(found) if k not in taken]


def as_markdown(boards: Sequence[Board]) -> str:
    """Format Markdown tables, for a README or an issue."""
    parts = []
    for board, namesakes in with_namesakes(boards):
        found = columns(board)
        title, *about = [_markdown(line) for line in heading(board, namesakes)]
        rules = ["---" if c.is_text else "---:" for c in found]
        lines = [[_markdown(c.name) for c in found], rules]
        for k in range(len(board.rows)):
            cells = [(_markdown(c.cells[k]), k in c.best) for c in found]
            lines.append([f"**{cell}**" if best else cell for cell, best in cells])
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append("\n\n".join([f"### {title}", *about, table, *map(_markdown, notes(board))]))
    return "\n\n".join(parts)


def as_latex(boards: Sequence[Board]) -> str:
    """Format LaTeX tables, for a paper."""
    parts = ["% needs \\usepackage{booktabs}"]
    for board, namesakes in with_namesakes(boards):
        found = columns(board)
        spec = "".join("l" if c.is_text else "r" for c in found)
        lines = [" & ".join(_latex(c.name) for c in found) + r" \\", r"\midrule"]
        for k, row in enumerate(board.rows):
            if row.kind == "baseline" and k and board.rows[k - 1].kind != "baseline":
                lines.append(r"\midrule")
            cells = [(_latex(c.cells[k]), k in c.best) for c in found]
            lines.append(" & ".join(rf"\textbf{{{cell}}}" if best else cell for cell, best in cells) + r" \\")
        title, *about = [_latex(line) for line in heading(board, namesakes)]
        caption = ". ".join([title, *about, *(_latex(line) for line in notes(board))])
        begin = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{spec}}}",
            r"\toprule",
        ]
        parts.append("\n".join([*begin, *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(parts)


def as_json(boards: Sequence[Board]) -> str:
    """Format all data as JSON, in full precision."""

    def plain(row: Row) -> dict[str, Any]:
        found = vars(row) | {"scores": {name: vars(s) for name, s in row.scores.items() if s.seeds or s.note}}
        del found["records"]
        return found

    tables = [vars(board) | {"rows": list(map(plain, board.rows))} for board in boards]
    return json.dumps({"boards": tables}, indent=2, allow_nan=False)


def flat(boards: Sequence[Board]) -> tuple[list[str], list[list[Any]]]:
    """Return all data as one table: its columns, and a line per row of each leaderboard, with None for no value."""
    names = {"mean": "", "low": "_ci95_low", "high": "_ci95_high"}  # suffixes of the columns of a score
    lines: list[dict[str, Any]] = []
    for board in boards:
        for row in board.rows:
            plain = vars(row) | {
                n: json.dumps(v) if v else None for n, v in (("sampling", row.sampling), ("grid", row.grid))
            }
            del plain["records"]
            plain |= {"segments": len(row.segments) or None, "changes": changes(row.segments) or None}
            plain |= {"runs": " ".join(row.runs), "seeds": len(row.seeds), "model": plain.pop("name")}
            plain |= {"seed_list": " ".join(map(str, row.seeds))}
            for player, n in plain.pop("updates").items():
                plain[f"updates_{player}"] = n
            for name, score in plain.pop("scores").items():
                plain |= {name + names.get(field, f"_{field}"): value for field, value in vars(score).items()}
            protocol = board.protocol
            place = {"data": board.data["name"], "protocol": protocol["name"], "protocol_key": protocol["key"]}
            lines.append(place | {"track": board.track, "ranked_by": board.by} | plain)
    fields = list(dict.fromkeys(field for line in lines for field in line))
    return fields, [[line.get(field) for field in fields] for line in lines]


def as_csv(boards: Sequence[Board]) -> str:
    """Format all data as one CSV table, in full precision."""
    fields, lines = flat(boards)
    with io.StringIO() as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(_cell, fields))
        writer.writerows(map(_cell, line) for line in lines)
        return file.getvalue().rstrip("\n")


def _laid_out(column: Column) -> list[str]:
    """Return the lines of a column, padded to one width: header lines, then cells with aligned means."""
    header = column.header.split("\n") if column.header else [column.name]
    header = [""] * (HEADER - len(header)) + header
    if column.is_text:
        lines = [*header, *column.cells]
        size = max(map(_width, lines))
        return [line + " " * (size - _width(line)) for line in lines]
    split = [cell.partition(PLUS_MINUS) for cell in column.cells]
    room = max((len(sign + tail) for _, sign, tail in split), default=0)
    lines = [*header, *(head + (sign + tail).rjust(room) for head, sign, tail in split)]
    size = max(map(len, lines))
    return [line.rjust(size) for line in lines]


def _size(column: Column) -> int:
    return _width(_laid_out(column)[0])


def _cut(text: str, size: int) -> str:
    """Replace the middle of a text by … if it is wider than `size` terminal cells."""
    kept = size - 1
    short = text
    while _width(short) > size:
        short = f"{text[: kept // 2]}…{text[len(text) - kept + kept // 2 :]}"
        kept -= 1
    return short


def _width(text: str) -> int:
    from rich.cells import cell_len  # only tables need rich

    return len(text) if text.isascii() else cell_len(text)


def with_namesakes(boards: Sequence[Board]) -> list[tuple[Board, Namesakes | None]]:
    """Return each leaderboard, and how it differs from others of the same names, or None if there are no others."""
    same: dict[tuple[str, str], dict[str, Board]] = {}
    for board in boards:
        same.setdefault((board.data["name"], board.protocol["name"]), {})[board.protocol["key"]] = board
    found: dict[tuple[str, str], Namesakes] = {}
    for (data, _), same_names in same.items():
        if len(same_names) > 1:
            note = f"{len(same_names)} protocols have this name; they differ in {difference(same_names.values())}"
            settings = apart(list(same_names.values()))
            found |= {(data, key): Namesakes(s, note) for key, s in zip(same_names, settings, strict=True)}
    return [(board, found.get((board.data["name"], board.protocol["key"]))) for board in boards]


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", text)


_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    BLANK: "--",
}


def _latex(text: str) -> str:
    text = "".join(_LATEX.get(c, c) for c in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", text)  # typeset as a minus sign, not as a hyphen


def _cell(value: Any) -> Any:
    """Mark a value as text if a spreadsheet would read it as a formula."""
    if not isinstance(value, str):
        return value
    value = printable(value)
    return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value


TEXTS = {"markdown": as_markdown, "latex": as_latex, "json": as_json, "csv": as_csv}
