"""Who works on which run: files in a folder that all machines share, with nothing that NFS cannot do.

A run is worked on in attempts. Attempt n of run R is the file `R.n.json`, and whoever creates it holds R until it
says how it ended. The file is created exclusively, so that of two who try one wins; its holder alone rewrites it (a
rename) and touches it as a sign of life. Attempt n + 1 may be created once attempt n has ended; or once its process is
gone, where that can be seen, and elsewhere once it has shown no sign of life for STALE seconds. Files are never
removed, so nothing can be held by two: a holder that slept through its own succession sees the next file and stops.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genbench.core import process
from genbench.core.files import create, ordinary, replacing, temporary_name

HEARTBEAT = 5.0  # seconds between two signs of life
STALE = 120.0  # without one for so long, a holder is given up: an NFS client may show times that are 60 s old


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run, as its file says.

    number   1 for the first
    holder   host, process and job that made it
    begun    ISO 8601
    outcome  done, failed, stopped (in order, to be gone on with); None while it lasts, or if it died without a word
    reason   why it failed, in a sentence
    alive    whether it lasts, as far as can be seen from here
    """

    number: int
    holder: dict[str, Any]
    begun: str
    outcome: str | None = None
    reason: str | None = None
    seconds: float | None = None
    alive: bool = False


def latest(folder: Path, run: str) -> Attempt | None:
    """The last attempt at a run; None if nobody has begun it."""
    number = _last(folder, run)
    return _read(folder, run, number) if number else None


def history(folder: Path, run: str) -> list[Attempt]:
    """All attempts at a run."""
    return [_read(folder, run, number) for number in range(1, _last(folder, run) + 1)]


def take(folder: Path, run: str, *, again: bool = False, job: str | None = None) -> Claim | None:
    """Begin the next attempt at a run.

    Args:
        again: Also after it has failed
        job: What a scheduler calls the process; an attempt by the same job is over, since it was queued again

    Returns:
        None if somebody works on it, it is done, or it has failed and is not to be tried again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = latest(folder, run)
    if before is not None:
        ours = job is not None and before.holder.get("job") == job
        if (before.alive and not ours) or before.outcome == "done" or (before.outcome == "failed" and not again):
            return None
    number = 1 if before is None else before.number + 1
    attempt = Attempt(number, holder(job), datetime.now(UTC).isoformat(timespec="seconds"))
    try:
        create(_path(folder, run, number), _text(attempt).encode())
    except FileExistsError:
        return None  # another was faster
    return Claim(folder, run, attempt)


class Claim:
    """A run that this process holds. As a context it gives signs of life until it ends."""

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
            if successor.exists():  # we seemed dead, and somebody else goes on: two would spoil each other's files
                os.write(2, f"\n{self.run} was taken over by another process while this one stood still.\n".encode())
                os._exit(1)
            with suppress(OSError):  # a server away for a moment
                os.utime(path)

    def end(self, outcome: str, reason: str | None = None) -> None:
        """Say how the attempt ended."""
        seconds = time.monotonic() - self._began
        close(self.folder, self.run, self.attempt, outcome, reason, seconds)


def close(
    folder: Path, run: str, attempt: Attempt, outcome: str, reason: str | None = None, seconds: float | None = None
) -> None:
    """Say how an attempt ended: its holder does, or the launcher that saw it die."""
    said = asdict(attempt) | {"outcome": outcome, "reason": reason, "seconds": seconds}
    with replacing(_path(folder, run, attempt.number)) as file:
        file.write(_text(Attempt(**said)).encode())


def holder(job: str | None = None) -> dict[str, Any]:
    """Who this process is: enough to tell from the same machine whether it still lives."""
    pid = os.getpid()
    host, boot = socket.gethostname(), process.boot()
    return {"host": host, "boot": boot, "pid": pid, "started": process.started(pid), "job": job}


def _path(folder: Path, run: str, number: int) -> Path:
    return folder / f"{run}.{number}.json"


def _last(folder: Path, run: str) -> int:
    number = 0
    while _path(folder, run, number + 1).exists():
        number += 1
    return number


def _text(attempt: Attempt) -> str:
    return json.dumps({k: v for k, v in asdict(attempt).items() if k != "alive"}, indent=1) + "\n"


def _read(folder: Path, run: str, number: int) -> Attempt:
    path = _path(folder, run, number)
    try:
        found = Attempt(**json.loads(ordinary(path).read_text()))
        if not {"host", "boot", "pid", "started"} <= found.holder.keys():
            raise ValueError("an attempt says who makes it")
    except (ValueError, TypeError, AttributeError):
        # where `create` has no links: its holder was about to write it, and may have died
        found = Attempt(number, {}, "")
    if found.outcome is not None:
        return found
    lives = lives_here(found.holder)
    if lives is None:
        lives = _now(folder) - path.stat().st_mtime < STALE
    return Attempt(**asdict(found) | {"alive": lives})


def _now(folder: Path) -> float:
    """The time by the clock that dates the files: a file server's may differ from ours."""
    try:
        with tempfile.NamedTemporaryFile(**temporary_name(folder / "now")) as file:
            file.write(b"\n")
            file.flush()
            return os.stat(file.name).st_mtime
    except OSError:  # a full disk, or somebody else's folder
        return time.time()


def lives_here(one: dict[str, Any]) -> bool | None:
    """Whether that process lives, be it that it sleeps; None where it cannot be seen from here."""
    if not one or one["host"] != socket.gethostname() or one["boot"] != process.boot() or one["started"] is None:
        return None
    return process.started(one["pid"]) == one["started"]
