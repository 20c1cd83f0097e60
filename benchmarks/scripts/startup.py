"""Time until the help text and until the first training step, compared with the time to import torch and lightning.

python benchmarks/scripts/startup.py [--runs 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import RESULTS, report

COMMANDS = {
    "python": ["-c", "pass"],
    "python -m genbench": ["-m", "genbench"],
    "import torch": ["-c", "import torch"],
    "import torch, lightning and its CLI": ["-c", "import torch, lightning.pytorch.cli"],
    "genbench fit --help": ["-m", "genbench", "fit", "--help"],
    "genbench fit, to the first step": ["-m", "genbench", "fit", "--config", "quickstart", "--max_images", "64"],
}

# ends the process at the start of the first training step
STOP = """
import os
from genbench.core.module import GenerativeModule
GenerativeModule.on_train_batch_start = lambda *_: os._exit(0)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json")
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.runs):
        for name, command in COMMANDS.items():
            with tempfile.TemporaryDirectory() as folder:
                if "first step" in name:
                    flags = command[2:]
                    command = ["-c", STOP + f"import sys; from genbench.cli import main; sys.exit(main({flags}))"]
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, *command], cwd=folder, env=os.environ, capture_output=True, check=True
                )  # fmt: skip
                times[name].append(time.perf_counter() - start)
    rows = [
        {"command": name, "seconds": round(statistics.median(t), 2), "runs": [round(x, 2) for x in t]}
        for name, t in times.items()
    ]
    report("From Enter to an answer, medians", rows, arguments.out)


if __name__ == "__main__":
    main()
