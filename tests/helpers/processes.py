"""Two processes that run a function of a test module and can meet in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def two_processes(module: str, folder: Path, **environment: str) -> None:
    """Run `worker(rank, folder)` of a module in two processes, with these additional environment variables."""
    script = f"import sys; from {module} import worker; worker(int(sys.argv[1]), sys.argv[2])"
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script, str(rank), str(folder)],
            env=os.environ | {"PYTHONPATH": path} | environment,
        )
        for rank in range(2)
    ]
    try:
        assert [w.wait(timeout=200) for w in workers] == [0, 0]
    finally:
        for w in workers:
            w.kill()
