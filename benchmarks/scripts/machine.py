"""Prints benchmark results and writes them with the machine and the versions that they were measured with."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from genbench.core.machine import processor

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"

# turns off features of Lightning's Trainer that genbench's callbacks provide
SILENT: dict[str, Any] = {
    "max_epochs": -1,
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "inference_mode": False,
}


def conditions() -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "load_average": round(os.getloadavg()[0], 2),  # over the last minute, including this process
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("numpy", "torch", "torchvision", "lightning")},
    }


def report(title: str, rows: list[dict[str, Any]], out: Path | None, **more: Any) -> None:
    """Print the rows as a table, and write them as JSON together with `conditions()`."""
    columns = [name for name, value in rows[0].items() if not isinstance(value, list)]
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(f"{row[c]:,}" if isinstance(row[c], (int, float)) else str(row[c]) for c in columns))
    Console().print(table)
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"what": title, **conditions(), **more, "rows": rows}, indent=2) + "\n")
    print(f"Written to {out}")
