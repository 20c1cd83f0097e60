"""Learning curves of a run, from the `metrics.csv` in its folder, thinned for a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from genbench.core.history import COLUMN, Unreadable, finite
from genbench.core.history import read as read_history

VALUES = 300_000  # limit for all curves of a page, about 2.5 MB
MOST, LEAST = 300, 20  # limits of the number of points of one curve


def folder_of(path: Path) -> Path | None:
    """Return the run folder of a record: the parent of `records`."""
    return next((folder.parent for folder in path.parents if folder.name == "records"), None)


def read(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Read loss terms and validation scores as (images seen, value). A line that is cut off is ignored.

    Raises:
        Unreadable: the file exists and cannot be read.
    """
    history = read_history(path)
    found = {}
    for name in history.columns:
        if ("/" in name or name == "diversity") and not name.endswith("/lr"):
            points = [(row[COLUMN], row[name]) for row in history.rows if row[name]]
            if points:
                found[name] = points
    return found


def learning(runs: Sequence[dict[str, Any]], skipped: list[tuple[Path, str]]) -> list[dict[str, Any]]:
    """Return the thinned learning curves of runs; files that cannot be read are added to `skipped`."""
    found = []
    for run in runs:
        folder = folder_of(run["paths"][0]) if run["trained"] else None
        series: dict[str, list[tuple[str, str]]] = {}
        if folder is not None:
            try:
                series = read(folder / "metrics.csv")
            except Unreadable as error:
                skipped.append((folder / "metrics.csv", f"not readable ({error})"))
        found.append(series)
    return [
        {"name": run["name"], "label": run["label"], "model": run["model"], "data": run["data"], "find": run["find"]}
        | thin
        for run, thin in zip(runs, thinned(found), strict=True)
    ]


def thinned(runs: Iterable[dict[str, list[tuple[str, str]]]]) -> list[dict[str, Any]]:
    """Reduce curves for a page. A run becomes {"at": lists of images seen, "series": name -> [index in `at`, values]}.

    A curve of many points is reduced to evenly spaced points, including the last.
    """
    runs = list(runs)
    curves = sum(len(run) for run in runs)
    most = min(MOST, max(LEAST, VALUES // max(curves, 1)))
    return [_plain({name: _spread(points, most) for name, points in run.items()}) for run in runs]


def _spread(points: list[tuple[str, str]], most: int) -> list[tuple[float, float]]:
    if len(points) > most:
        points = [points[round(k * (len(points) - 1) / (most - 1))] for k in range(most)]
    found = [(_number(x), _number(y)) for x, y in points]
    return [(x, y) for x, y in found if x is not None and y is not None]


def _plain(series: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Store curves such that terms logged together share one list of images seen."""
    places: dict[tuple[float, ...], int] = {}
    found = {}
    for name, points in series.items():
        if points:
            at, values = zip(*points, strict=True)
            found[name] = [places.setdefault(at, len(places)), values]
    return {"at": list(places), "series": found}


def _number(text: str) -> float | None:
    """Parse a number; None if it is not finite. Fractions are rounded to four digits, more than a screen shows."""
    value = finite(text)
    if value is None:
        return None
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.4g}")
