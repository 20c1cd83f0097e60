"""Whether a process lives, told by its number alone: numbers are used again, so its start counts too."""

from __future__ import annotations

import os
from pathlib import Path


def boot() -> str | None:
    """This start of this machine, and its table of processes, since containers number alike; None without /proc."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def started(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; None if there is none (or no /proc), or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
