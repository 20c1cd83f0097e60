"""The hardware and the versions that a measurement depends on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import torch

import genbench


def processor() -> str:
    try:
        return next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """The name of the GPU, or the name of the processor and its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    names = ("numpy", "scipy", "torch", "torchvision", "lightning", "torchmetrics")
    return (
        {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in names}
        | {"genbench": genbench.__version__}
    )


def git_commit() -> str | None:
    """The commit of genbench's code, with a + if files have changed since; None for an installed package."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=Path(genbench.__file__).parent, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def peak_memory(device: torch.device) -> int:
    """Peak memory of the process in bytes: of the GPU since its counter was reset, else of the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # unit of ru_maxrss: kB, on macOS bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
