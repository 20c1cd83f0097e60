"""Runs on this machine, started through submitit."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import submitit

from genbench.suites.definition import Launch

KILLED = "it ended without a word, as a process does that is killed"
AFTER = 10.0  # seconds in which the death of a process is seen
FOREVER = 60 * 24 * 365  # minutes: submitit ends jobs of this machine after a time

Work = Callable[..., bool]  # (folder, run, again, modules): one run; False if it was somebody else's


class Here:
    """Runs on this machine, each in processes of its own: one for each GPU, or some at a time on the CPU.

    Jobs outlive this process, should it be killed: what they do is said in their claims.
    """

    def __init__(self, folder: Path, launch: Launch, gpus: int) -> None:
        """gpus  that this machine has"""
        self.folder = folder
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        names = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._gpus = names.split(",")[:gpus] if names else [str(k) for k in range(gpus)]  # that no run has
        self._on_gpus = gpus > 0
        self.threads = launch.threads or (max(1, self._cores // launch.at_once) if launch.at_once else 1)
        self.at_once = launch.at_once or gpus or max(1, self._cores // self.threads)
        self._jobs: dict[str, tuple[list[str], int, submitit.Job]] = {}
        self._killed, self._killed_at = killed_for_memory(), -AFTER  # so many, the last of them then
        # submitit calls files by the number of a process, which others on other machines may have too
        self._own = folder / "jobs" / f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"

    def room(self, devices: int) -> bool:
        """Whether a run on so many devices can begin now."""
        if not self._jobs:
            return True  # one that is too large for this machine says so itself
        if self._on_gpus and len(self._gpus) < devices:
            return False
        return sum(count for _, count, _ in self._jobs.values()) + devices <= self.at_once

    def running(self) -> list[str]:
        return list(self._jobs)

    def start(self, run: str, devices: int, work: Work, *arguments: Any) -> None:
        gpus, self._gpus = self._gpus[:devices], self._gpus[devices:]
        executor = submitit.LocalExecutor(self._own)
        executor.update_parameters(timeout_min=FOREVER, gpus_per_node=len(gpus))
        executor.parameters["visible_gpus"] = gpus  # which `update_parameters` takes as numbers alone
        with environment(OMP_NUM_THREADS=self.threads), _not_interrupted():
            self._jobs[run] = gpus, devices, executor.submit(work, *arguments)

    def ended(self) -> Iterator[tuple[str, bool, str | None]]:
        """Runs whose jobs have ended: what their work returned, and a guess at why where one died without a word."""
        if (killed := killed_for_memory()) > self._killed:
            self._killed, self._killed_at = killed, time.monotonic()
        for run, (gpus, _, job) in list(self._jobs.items()):
            if job.done():
                del self._jobs[run]
                self._gpus += gpus
                took, why = _outcome(job, for_memory=time.monotonic() - self._killed_at < AFTER)
                for path in (job.paths.submitted_pickle, job.paths.result_pickle, job.paths.stdout, job.paths.stderr):
                    with suppress(OSError):  # what the run printed is in its own log
                        path.unlink()
                yield run, took, why

    def stop(self) -> None:
        """Ask all jobs to save and end; asked twice, they end at once."""
        for *_, job in self._jobs.values():
            with suppress(OSError):
                os.kill(int(job.job_id), signal.SIGTERM)

    def close(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self._own, ignore_errors=True)


def killed_for_memory() -> int:
    """Processes that this machine's kernel has ended because memory ran out, since it started."""
    with suppress(OSError, ValueError), open("/proc/vmstat") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _outcome(job: submitit.Job, for_memory: bool) -> tuple[bool, str | None]:
    """What a job's work returned; or False and a guess at why its process died."""
    if job.paths.result_pickle.exists():
        error = job.exception()
        if error is None:
            return job.result(), None
        trace = [line for line in str(error).splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt): ", line)]
        return False, trace[-1] if trace else "its process ended with an error"
    if for_memory:
        reason = "killed for memory: the machine had none left. Smaller batches, or fewer runs at once, help"
        return False, reason
    said = ""
    with suppress(OSError):
        said = job.paths.stderr.read_text(errors="replace").strip().rpartition("\n")[2]
    return False, f"its process ended before it began: {said}" if said and "INFO" not in said else KILLED


@contextmanager
def environment(**changes: Any) -> Iterator[None]:
    """Other variables for processes started inside; and none of an allocation of Slurm's that we may be in."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("SLURM_", "TORCHELASTIC_")) and name != "SLURM_CONF":
            del os.environ[name]
    os.environ.update({name: str(value) for name, value in changes.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _not_interrupted() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C: a terminal sends it to all, and we tell them ourselves to save."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
