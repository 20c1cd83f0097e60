"""Time to show the leaderboard of 1,000 records, compared with the start of Python.

python benchmarks/scripts/leaderboard.py [--records 1000] [--runs 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import RESULTS, report

from genbench.leaderboard.record import write
from tests.helpers.records import many

BOUND = 0.5  # seconds in addition to the start of Python
COMMANDS = {
    "python": ["-c", "pass"],
    "genbench leaderboard": ["-m", "genbench", "leaderboard"],
    "genbench leaderboard --format csv": ["-m", "genbench", "leaderboard", "--format", "csv"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "leaderboard.json")
    arguments = parser.parse_args()
    cases = {"3 seeds of a config": {"seeds": 3}, "every config alone": {"seeds": 1}}
    times: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as root:
        for case, shape in cases.items():
            records = many(models=arguments.records // (8 * shape["seeds"]) + 1, protocols=4, **shape)
            for record in records[: arguments.records]:
                write(record, Path(root, case, "runs", record.run["name"] if record.run else "real", "records"))
        for _ in range(arguments.runs):
            for case in cases:
                for name, command in COMMANDS.items():
                    start = time.perf_counter()
                    subprocess.run([sys.executable, *command], cwd=Path(root, case), capture_output=True, check=True)
                    times.setdefault((case, name), []).append(time.perf_counter() - start)
    rows = []
    for (case, name), found in times.items():
        beyond = statistics.median(found) - statistics.median(times[case, "python"])
        rows.append({"records": case, "command": name, "seconds": round(statistics.median(found), 3)})
        rows[-1] |= {"beyond_python": round(beyond, 3), "bound": BOUND, "runs": [round(x, 3) for x in found]}
    report(f"The leaderboard of {arguments.records:,} records, medians", rows, arguments.out)


if __name__ == "__main__":
    main()
