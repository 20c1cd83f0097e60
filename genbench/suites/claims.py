"""Record which process works on which run, in files of a folder shared by all machines. Works on NFS.

Each try at a run is an attempt. Attempt n of run R is the file `R.n.json`, and the process that creates it holds R
until it records the outcome. If several processes try to create the file, only one succeeds. Only the holder rewrites
the file (by a rename), and it touches the file as a heartbeat. Attempt n + 1 may be created once attempt n has an
outcome, or once its process is dead. On the same machine a dead process is detected at once; on other machines, after
STALE seconds without a heartbeat. Files are never removed, so a run never has two holders: a holder that was suspended
and replaced finds the next file and exits.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genbench.core import process
from genbench.core.files import create, ordinary, replacing, temporary_name

HEARTBEAT = 5.0  # seconds between two heartbeats
STALE = 120.0  # seconds without a heartbeat after which a holder counts as dead: file times on NFS may be 60 s old


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run, as its file describes it.

    number   1 for the first attempt
    holder   host, process and job that created the attempt
    begun    start time, ISO 8601
    outcome  done, failed or stopped (can be resumed); None while it runs, or if its process died
    reason   why the attempt failed, in a sentence
    seconds  duration; None if not known
    alive    whether its process still runs, as far as this machine can tell; not stored in the file
    """

    number: int
    holder: dict[str, Any]
    begun: str
    outcome: str | None = None
    reason: str | None = None
    seconds: float | None = None
    alive: bool = False


def latest(folder: Path, run: str) -> Attempt | None:
    """The last attempt at a run; None if there was none."""
    number = _last(folder, run)
    return _read(folder, run, number) if number else None


def history(folder: Path, run: str) -> list[Attempt]:
    """All attempts at a run."""
    return [_read(folder, run, number) for number in range(1, _last(folder, run) + 1)]


def take(folder: Path, run: str, *, again: bool = False, job: str | None = None) -> Claim | None:
    """Begin the next attempt at a run.

    Args:
        again: Whether to retry a failed run
        job: The scheduler's id of this process. An earlier attempt of the same job has ended: the job was requeued

    Returns:
        The claim; None if another process works on the run, the run is done, or it failed and `again` is false.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = latest(folder, run)
    if before is not None:
        ours = job is not None and before.holder.get("job") == job
        if (before.alive and not ours) or before.outcome == "done" or (before.outcome == "failed" and not again):
            return None
    number = 1 if before is None else before.number + 1
    pid = os.getpid()
    holder = {
        "host": socket.gethostname(), "boot": process.boot(), "pid": pid, "started": process.started(pid), "job": job,
    }  # fmt: skip
    attempt = Attempt(number, holder, datetime.now(UTC).isoformat(timespec="seconds"))
    try:
        create(_path(folder, run, number), _json(attempt))
    except FileExistsError:
        return None  # another process was faster
    return Claim(folder, run, attempt)


class Claim:
    """The right of this process to work on a run. As a context manager it sends heartbeats."""

    def __init__(self, folder: Path, run: str, attempt: Attempt) -> None:
        self.folder, self.run, self.attempt = folder, run, attempt
        self._began = time.monotonic()
        self._over = threading.Event()

    def __enter__(self) -> Claim:
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        path = _path(self.folder, self.run, self.attempt.number)
        successor = _path(self.folder, self.run, self.attempt.number + 1)
        while not self._over.wait(HEARTBEAT):
            if successor.exists():  # two processes in one run would overwrite each other's files
                os.write(2, f"\n{self.run} was taken over by another process while this one was suspended.\n".encode())
                os._exit(1)
            with suppress(OSError):  # the file server may be unreachable for a moment
                os.utime(path)

    def end(self, outcome: str, reason: str | None = None) -> None:
        """Record how the attempt ended."""
        close(self.folder, self.run, self.attempt, outcome, reason, time.monotonic() - self._began)


def close(
    folder: Path, run: str, attempt: Attempt, outcome: str, reason: str | None = None, seconds: float | None = None
) -> None:
    """Record how an attempt ended: called by its holder, or by the launcher that saw the holder die."""
    with replacing(_path(folder, run, attempt.number)) as file:
        file.write(_json(replace(attempt, outcome=outcome, reason=reason, seconds=seconds)))


def _path(folder: Path, run: str, number: int) -> Path:
    return folder / f"{run}.{number}.json"


def _last(folder: Path, run: str) -> int:
    number = 0
    while _path(folder, run, number + 1).exists():
        number += 1
    return number


def _json(attempt: Attempt) -> bytes:
    return json.dumps({k: v for k, v in asdict(attempt).items() if k != "alive"}, indent=1).encode() + b"\n"


def _read(folder: Path, run: str, number: int) -> Attempt:
    path = _path(folder, run, number)
    try:
        found = Attempt(**json.loads(ordinary(path).read_text()))
        if not {"host", "boot", "pid", "started"} <= found.holder.keys():
            raise ValueError("the holder is incomplete")
    except (ValueError, TypeError, AttributeError):
        # without hard links a file is created empty: the holder may not have written it yet, or may have died
        found = Attempt(number, {}, "")
    if found.outcome is not None:
        return found
    lives = lives_here(found.holder)
    if lives is None:
        lives = _now(folder) - path.stat().st_mtime < STALE
    return replace(found, alive=lives)


def _now(folder: Path) -> float:
    """Return the time of the clock that dates the files: a file server's clock may differ from this machine's."""
    try:
        with tempfile.NamedTemporaryFile(**temporary_name(folder / "now")) as file:
            file.write(b"\n")
            file.flush()
            return os.stat(file.name).st_mtime
    except OSError:  # the disk is full, or the folder is read-only
        return time.time()


def lives_here(holder: dict[str, Any]) -> bool | None:
    """Whether the holder's process exists, suspended or not; None if it belongs to a different machine."""
    known = holder and holder["host"] == socket.gethostname() and holder["boot"] == process.boot()
    if not known or holder["started"] is None:
        return None
    return process.started(holder["pid"]) == holder["started"]
