"""Tells whether a process is alive. A process id may be reused, so the start time is also compared."""

from __future__ import annotations

import os
from pathlib import Path


def boot() -> str | None:
    """Identity of this boot and process namespace, since containers reuse process ids; None without /proc."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def started(pid: int) -> int | None:
    """Start time of a process in ticks since boot; None without /proc, or if the process is missing or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
