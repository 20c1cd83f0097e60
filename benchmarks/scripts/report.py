"""Time to write the report of 200 runs with curves and images, and to open it in Chromium.

python benchmarks/scripts/report.py [--runs 200] [--times 3]
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

from tests.helpers.browser import opened
from tests.helpers.run_folders import fill

BOUNDS = {"seconds to write": 10, "MB": 20, "seconds to open": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "report.json")
    arguments = parser.parse_args()
    rows = []
    for case, seeds, channels in (
        ("4 seeds of a config, color", 4, 3), ("every config alone, color", 1, 3), ("every config alone, gray", 1, 1),
    ):  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            runs = fill(Path(folder, "runs"), arguments.runs // seeds, seeds, channels=channels)
            found: dict[str, list[float]] = {name: [] for name in BOUNDS}
            for _ in range(arguments.times):
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-m", "genbench", "report"], cwd=folder, capture_output=True, check=True
                )
                found["seconds to write"].append(time.perf_counter() - start)
                page = Path(folder, "report.html")
                found["MB"].append(page.stat().st_size / 1e6)
                with opened(page) as driver:
                    script = "return (performance.timing.loadEventEnd - performance.timing.navigationStart) / 1000"
                    found["seconds to open"].append(driver.execute_script(script))
        for name, values in found.items():
            row = {"case": f"{runs} runs, {case}", "what": name, "median": round(statistics.median(values), 2)}
            rows.append(row | {"bound": BOUNDS[name], "times": [round(v, 3) for v in values]})
    report("The report of many runs, medians", rows, arguments.out)


if __name__ == "__main__":
    main()
