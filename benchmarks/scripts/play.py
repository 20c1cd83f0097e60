"""Time from `play` to a usable page, compared with the time to import torch, Lightning and Gradio. Runs alternate.

A page is usable when the browser, which is open already, shows the first samples of the model.

python benchmarks/scripts/play.py [--runs 5] [--ckpt PATH]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import RESULTS, report

from tests.helpers.browser import opened

IMPORTS = ["-c", "import torch, lightning, gradio"]
SHOWN = "return document.querySelectorAll('section.gb img').length > 0"


def imported() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *IMPORTS], check=True, env=os.environ | {"GRADIO_ANALYTICS_ENABLED": "False"})
    return time.perf_counter() - start


def usable(ckpt: Path, driver: Any) -> tuple[float, float]:
    """Seconds until the address is printed, and until the samples are shown."""
    driver.get("about:blank")
    start = time.perf_counter()
    command = [sys.executable, "-m", "genbench", "play", "--ckpt", str(ckpt), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            printed = time.perf_counter() - start
            driver.get(line.split()[line.split().index("at") + 1])
            while not driver.execute_script(SHOWN):
                time.sleep(0.02)
            return printed, time.perf_counter() - start
        finally:
            process.send_signal(signal.SIGTERM)


def trained(folder: Path) -> Path:
    """A small GAN, trained for a moment."""
    command = ["-m", "genbench", "fit", "--config", "quickstart", "--max_images", "640", "--name", "small"]
    subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True)
    return folder / "runs" / "small"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--ckpt", type=Path, help="checkpoint or run folder (default: a small GAN trained here)")
    parser.add_argument("--out", type=Path, default=RESULTS / "play.json")
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {"import torch, lightning, gradio": [], "address printed": [], "samples shown": []}
    with tempfile.TemporaryDirectory() as folder, opened("about:blank") as driver:
        ckpt = arguments.ckpt or trained(Path(folder))
        usable(ckpt, driver)  # reads the files from disk and fills the browser's cache
        for _ in range(arguments.runs):
            times["import torch, lightning, gradio"].append(imported())
            for name, seconds in zip(("address printed", "samples shown"), usable(ckpt, driver), strict=True):
                times[name].append(seconds)
    base = statistics.median(times["import torch, lightning, gradio"])
    rows = [
        {
            "until": name,
            "seconds": round(statistics.median(t), 2),
            "ratio": round(statistics.median(t) / base, 2),
            "runs": [round(x, 2) for x in t],
        }
        for name, t in times.items()
    ]
    report("From `play` to a usable page, medians", rows, arguments.out)


if __name__ == "__main__":
    main()
