"""Start runs on this machine with submitit."""

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

KILLED = "its process ended without an error message, probably killed"
AFTER = 10.0  # maximum seconds until the death of a process is detected
FOREVER = 60 * 24 * 365  # minutes: submitit's time limit of local jobs

Work = Callable[..., bool]  # (folder, run, again, modules): executes one run; False if another process executes it


class Here:
    """Starts jobs on this machine, each in its own process: one per GPU, or `at_once` jobs on the CPU.

    Jobs continue if this process is killed; their claims record their state.
    """

    def __init__(self, folder: Path, launch: Launch, gpus: int) -> None:
        """`gpus` is the number of GPUs of this machine."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        names = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._free_gpus = names.split(",")[:gpus] if names else [str(k) for k in range(gpus)]
        self._on_gpus = gpus > 0
        self.threads = launch.threads or (max(1, cores // launch.at_once) if launch.at_once else 1)
        self.at_once = launch.at_once or gpus or max(1, cores // self.threads)
        self._jobs: dict[str, tuple[list[str], int, submitit.Job]] = {}
        self._killed, self._killed_at = killed_for_memory(), -AFTER  # number of killed processes, time of the last
        # submitit names files by process id, which is not unique across machines
        self._own = folder / "jobs" / f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"

    def room(self, devices: int) -> bool:
        """Whether a run on this number of devices can start now."""
        if not self._jobs:
            return True  # a run that is too large for this machine fails with its own message
        if self._on_gpus and len(self._free_gpus) < devices:
            return False
        return sum(count for _, count, _ in self._jobs.values()) + devices <= self.at_once

    def running(self) -> list[str]:
        return list(self._jobs)

    def start(self, run: str, devices: int, work: Work, *arguments: Any) -> None:
        """Call `work(*arguments)` in a new process."""
        gpus, self._free_gpus = self._free_gpus[:devices], self._free_gpus[devices:]
        executor = submitit.LocalExecutor(self._own)
        executor.update_parameters(timeout_min=FOREVER, gpus_per_node=len(gpus))
        executor.parameters["visible_gpus"] = gpus  # `update_parameters` takes integers only
        # a terminal sends Ctrl-C to all processes: the jobs ignore it, and `stop` tells them to save
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with environment(OMP_NUM_THREADS=self.threads):
                self._jobs[run] = gpus, devices, executor.submit(work, *arguments)
        finally:
            signal.signal(signal.SIGINT, before)

    def ended(self) -> Iterator[tuple[str, bool, str | None]]:
        """Yield each run whose job has ended, the result of `work`, and the probable reason if the process died."""
        if (killed := killed_for_memory()) > self._killed:
            self._killed, self._killed_at = killed, time.monotonic()
        for run, (gpus, _, job) in list(self._jobs.items()):
            if job.done():
                del self._jobs[run]
                self._free_gpus += gpus
                took, why = _outcome(job, for_memory=time.monotonic() - self._killed_at < AFTER)
                for path in (job.paths.submitted_pickle, job.paths.result_pickle, job.paths.stdout, job.paths.stderr):
                    path.unlink(missing_ok=True)  # the run has its own log
                yield run, took, why

    def stop(self) -> None:
        """Ask all jobs to save and end. After a second call they end at once."""
        for *_, job in self._jobs.values():
            with suppress(OSError):
                os.kill(int(job.job_id), signal.SIGTERM)

    def close(self) -> None:
        """Remove submitit's files."""
        shutil.rmtree(self._own, ignore_errors=True)


def killed_for_memory() -> int:
    """Return how many processes the kernel has killed for lack of memory since this machine started."""
    with suppress(OSError, ValueError), open("/proc/vmstat") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _outcome(job: submitit.Job, for_memory: bool) -> tuple[bool, str | None]:
    """Return the result of a job's `work`, or False and the probable reason why its process died."""
    if job.paths.result_pickle.exists():
        error = job.exception()
        if error is None:
            return job.result(), None
        trace = [line for line in str(error).splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt): ", line)]
        return False, trace[-1] if trace else "its process ended with an error"
    if for_memory:
        return False, "out of memory: killed by the kernel. Use smaller batches or fewer runs at once"
    last_line = ""
    with suppress(OSError):
        last_line = job.paths.stderr.read_text(errors="replace").strip().rpartition("\n")[2]
    if last_line and "INFO" not in last_line:
        return False, f"its process ended before the run began: {last_line}"
    return False, KILLED


@contextmanager
def environment(**changes: Any) -> Iterator[None]:
    """Set variables for processes started inside, and hide the variables of a surrounding Slurm allocation."""
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
