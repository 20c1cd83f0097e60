"""Injects faults into writes of this process below given folders: a kill or a full disk at the n-th write operation.

Write operations are: opening a file for writing, write, fsync, rename, link, truncate and unlink of a file, and mkdir.
When this module is installed as `sitecustomize`, it reads its plan from the environment, so it works in any Python
process.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import signal
import sys
import threading
from typing import Any

VARIABLE = "INJECTED_FAULT"
NO_ROOM = ("room", "inodes", "sync")  # what fails on a full disk: writing bytes, creating files, or fsync


class Disk:
    """The plan of a fault.

    Args:
        below: Folders in which write operations are counted; others are not affected
        at: Number of the write operation at which the fault happens, counted from 1
        kind: `count` (no fault), `kill`, or one of NO_ROOM
        times: Number of operations that fail before there is room again. Default: all
        log: File to which a line is written for each operation
        process: If set, only processes whose command line contains this text are affected
    """

    def __init__(
        self, below: list[str], at: int, kind: str, log: str, times: int | None = None, process: str | None = None
    ) -> None:
        self.below = tuple(os.path.join(os.path.realpath(folder), "") for folder in below)
        self.at, self.kind, self.times = at, kind, times
        self.count = self.failed = 0
        self._lock = threading.RLock()
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def holds(self, path: Any) -> str | None:
        """The path, if it lies below one of the folders; else None."""
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return None
        path = os.path.join(os.path.realpath(os.path.dirname(os.fspath(path))), os.path.basename(os.fspath(path)))
        return path if path.startswith(self.below) else None

    def point(self, what: str, path: str, *, half: Any = None) -> bool:
        """Count a write operation. Returns True if only half of the data may be written.

        Raises:
            OSError: the disk is full.
        """
        with self._lock:
            self.count += 1
            os.write(self._log, f"{os.getpid()} {self.count} {what} {path}\n".encode())
            if self.count < self.at or self.kind == "count":
                return False
            if self.kind == "kill":
                if half is not None:
                    half()
                os.kill(os.getpid(), signal.SIGKILL)
            refused = {"room": ("write",), "inodes": ("create", "mkdir"), "sync": ("fsync",)}[self.kind]
            if what not in refused or (self.times is not None and self.failed >= self.times):
                return False
            self.failed += 1
            if half is not None and self.failed == 1:
                return True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def done(self, what: str, path: str) -> None:
        os.write(self._log, f"{os.getpid()} 0 {what} {path}\n".encode())


def install(**plan: Any) -> Disk:
    """Inject the fault into this process from now on."""
    disk = Disk(**plan)
    real = {name: getattr(os, name) for name in ("open", "fsync", "replace", "rename", "link", "mkdir", "unlink")}
    real_open, real_truncate = io.open, os.truncate

    class Raw(io.FileIO):
        place = ""

        def write(self, data: Any) -> int:
            data = memoryview(data).cast("B")
            half = data[: len(data) // 2]
            if disk.point("write", self.place, half=lambda: super(Raw, self).write(half)) and len(half):
                return super().write(half)
            return super().write(data)

    def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        place = disk.holds(file) if set(mode) & set("wax+") else None
        if place is None:
            return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if not isinstance(file, int) and opener is None:
            disk.point("open" if os.path.exists(place) else "create", place)
        raw = Raw(file, mode.replace("t", "").replace("b", ""), closefd, opener)
        raw.place = place
        if "b" in mode and buffering == 0:
            return raw
        buffer = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline, buffering == 1)

    def os_open(path, flags, *more, **options):
        place = disk.holds(path) if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else None
        if place is not None and not options.get("dir_fd"):
            disk.point("open" if os.path.exists(place) else "create", place)
        return real["open"](path, flags, *more, **options)

    def watched(name):
        def call(path, *more, **options):
            target = more[0] if name in ("replace", "rename", "link") else path
            place = None if options.get("dir_fd") is not None else disk.holds(target)
            if place is not None:
                disk.point(name, place)
            found = real[name](path, *more, **options)
            if place is not None and name in ("replace", "link"):
                disk.done("kept", place)
            return found

        return call

    def truncate(path, size):
        if place := disk.holds(path):
            disk.point("truncate", place)
        return real_truncate(path, size)

    builtins.open = io.open = opened
    os.open, os.truncate = os_open, truncate
    for name in ("fsync", "replace", "rename", "link", "mkdir", "unlink"):
        setattr(os, name, watched(name))
    os.remove = os.unlink
    return disk


def from_environment() -> None:
    plan = json.loads(os.environ.get(VARIABLE, "null"))
    if plan and (plan.get("process") or "") in " ".join(sys.orig_argv):
        install(**plan)


if __name__ == "sitecustomize":
    from_environment()
