"""Whether a process is alive. Its number may be reused, so the time of its start identifies it too."""

from __future__ import annotations

import os
from pathlib import Path


def boot() -> str | None:
    """Identity of this boot and process namespace, since containers have the same numbers; None without /proc."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def started(pid: int) -> int | None:
    """Start of a process in ticks since boot; None if it does not exist or is a zombie, and without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
