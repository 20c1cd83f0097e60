"""Overhead of a suite: starting, claiming runs, timing the first steps, the leaderboard and the report.

python benchmarks/scripts/suite.py mnist shapes
python benchmarks/scripts/suite.py runs/mnist runs/shapes --wall 2210 2250    # wall seconds of finished suites

The records contain the time of training (with validation and images) and of evaluation. All other time is overhead.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from machine import RESULTS, report

from genbench.leaderboard.record import collect
from genbench.suites import claims

BOUND = 0.05


def costs(folder: Path, wall: float) -> dict[str, Any]:
    """Costs of a suite in seconds, if its runs ran one at a time."""
    records = collect([folder])[0]
    last = [r for r in records if r.run["checkpoint"] == "last"]
    attempts = [a for r in last for a in claims.history(folder / "claims", r.run["name"])]
    if len(attempts) != len(last):
        raise SystemExit(
            f"{folder}: some runs took several attempts, so the total time is not that of a single attempt."
        )
    training = sum(r.training["seconds"] for r in last)
    measuring = sum(r.cost["evaluation_seconds"] for r in records)
    between = wall - sum(a.seconds for a in attempts)
    return {
        "suite": folder.name,
        "runs": len(last),
        "wall_seconds": round(wall),
        "training_seconds": round(training),
        "measuring_seconds": round(measuring),
        "between_runs_seconds": round(between, 1),
        "overhead_seconds": round(wall - training - measuring, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="+", help="names of suites, or folders of finished suites")
    parser.add_argument("--wall", type=float, nargs="+", help="wall seconds of the finished suites, one run at a time")
    parser.add_argument("--out", type=Path, default=RESULTS / "suite.json")
    arguments = parser.parse_args()
    rows = []
    for k, name in enumerate(arguments.suites):
        folder, wall = Path(name), arguments.wall[k] if arguments.wall else None
        if wall is None:
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "genbench", "suite", "run", name, "--at-once", "1"], check=True)
            folder, wall = Path("runs") / Path(name).stem, time.perf_counter() - start
        rows.append(costs(folder, wall))
        plan = yaml.safe_load((folder / "suite.yaml").read_text())
        rows[-1]["minutes_a_run"] = next(iter(plan["experiments"].values()))["budget"]["minutes"]
    names = ("wall_seconds", "overhead_seconds")
    wall, overhead = (sum(row[name] for row in rows) for name in names)
    for row in rows:
        row["overhead"] = round(row["overhead_seconds"] / row["wall_seconds"], 4)
    fraction = round(overhead / wall, 4)
    report(f"Suites one run at a time: {fraction:.1%} of {wall / 60:.0f} minutes is overhead", rows, arguments.out,
           overhead=fraction, bound=BOUND)  # fmt: skip


if __name__ == "__main__":
    main()
