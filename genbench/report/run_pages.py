"""Runs, and images that were evaluated in place of a model: commands, configs, costs and versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genbench.leaderboard import columns, formats
from genbench.leaderboard.record import Record
from genbench.report.rows import Rows, as_yaml


def runs(found: Sequence[tuple[Record, Path]], rows: Rows) -> list[dict[str, Any]]:
    """List each run, or set of images evaluated in place of a model, once, with all its records."""
    groups: dict[tuple[Any, ...], list[tuple[Record, Path]]] = {}
    for record, path in found:
        run = record.run
        own = (run["name"], run["config_hash"], run.get("seed")) if run else (record.model.get("hash"), path)
        groups.setdefault((record.kind, record.model["name"], record.data["name"], *own), []).append((record, path))
    ordered = [group for _, group in sorted(groups.items(), key=lambda item: (item[0][0] != "model", str(item[0])))]
    return [_run(group, rows) | {"anchor": f"run-{k}"} for k, group in enumerate(ordered)]


def _run(group: Sequence[tuple[Record, Path]], rows: Rows) -> dict[str, Any]:
    record, _ = group[-1]  # the newest record
    run, training = record.run or {}, record.training or {}
    name = run.get("name", record.model["name"])
    label = next((rows.labels[path] for _, path in group if path in rows.labels), record.model["name"])
    facts = [label if run else record.kind, record.data["name"]]
    if run.get("seed") is not None:
        facts.append(f"seed {run['seed']}")
    if run:
        seen = max(r.run["images_seen"] for r, _ in group if r.run)
        facts.append(f"{columns.compact(seen)} images")
    segments = max((r.segments for r, _ in group), key=len)
    if segments and f"{len(segments)} segments" not in label:
        facts.append(f"{len(segments)} segments")
    if training.get("device_hours") is not None:
        facts.append(f"{training['device_hours']:.2g} device hours")
    if not run:
        facts += dict.fromkeys(r.protocol["name"] for r, _ in group)
    words = [name, label, record.kind, record.data["name"], record.environment.get("device")]
    config = run.get("config")
    return {
        "name": name,
        "label": label,
        "model": record.model["name"],
        "data": record.data["name"],
        "trained": bool(run),
        "facts": facts,
        "find": " ".join(str(word) for word in words if word).lower(),
        "paths": [path for _, path in group],
        "records": [_named(r, path) for r, path in group],
        "command": run.get("command") if isinstance(run.get("command"), str) else "",
        "config": as_yaml(config) if config else "",
        "changes": [columns.printable(formats.changes([s])) for s in segments if s["changed"]],
        "tables": [
            (title, [(columns.printable(str(k)), _fact(k, v)) for k, v in facts.items()])
            for title, facts in (
                ("Training", training),
                ("Evaluation", record.cost),
                ("Environment of the evaluation", record.environment),
            )
            if facts
        ],
    }


def _named(record: Record, path: Path) -> str:
    run = record.run
    facts = [record.protocol["name"]]
    if run:
        facts += [f"{run['checkpoint']} at {run['images_seen']:,} images", f"{run['weights']} weights"]
        facts += [f"{option}={value}" for option, value in (run.get("sampling") or {}).items()]
    return f"{', '.join(facts)}: {path.name}"


def _fact(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return columns.BLANK if value is None else columns.printable(str(value))
    if str(name).endswith("memory"):
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
