"""Where a suite's runs are started, through submitit: on this machine, or on Slurm."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import UncompletedJobError

from genbench.core.errors import UserError
from genbench.suites.suite import Launch

FOREVER = 60 * 24 * 365  # minutes: submitit ends jobs of this machine after a time
SECONDS_TO_SAVE = 120  # before a time limit on Slurm
TIMEOUTS = 1000  # a run goes on where it stopped, as often as its time limit asks

Work = Callable[..., None]  # (folder, run, again, modules): one run


class Here:
    """Runs on this machine, each in processes of its own: one for each GPU, or some at a time on the CPU.

    Jobs outlive this process, should it be killed: what they do is said in their claims.
    """

    def __init__(self, folder: Path, launch: Launch, gpus: int, devices: int) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.folder, self.devices, self.gpus = folder, devices, gpus
        slots = max(1, gpus // devices if gpus else cores // (devices * (launch.threads or 1)))
        self.at_once = min(launch.at_once, slots) if launch.at_once and gpus else launch.at_once or slots
        self.threads = launch.threads or max(1, cores // (self.at_once * devices))
        self._free = list(range(self.at_once))
        self._jobs: dict[str, tuple[int, submitit.Job]] = {}
        self._killed_before: dict[str, int] = {}

    def room(self) -> bool:
        return bool(self._free)

    def running(self) -> list[str]:
        return list(self._jobs)

    def start(self, run: str, work: Work, *arguments: Any) -> None:
        slot = self._free.pop(0)
        gpus = list(range(slot * self.devices, (slot + 1) * self.devices)) if self.gpus else []
        executor = submitit.LocalExecutor(self.folder / "jobs")
        executor.update_parameters(timeout_min=FOREVER, visible_gpus=gpus, gpus_per_node=len(gpus))
        self._killed_before[run] = killed_for_memory()
        with _environment(OMP_NUM_THREADS=self.threads), _not_interrupted():
            self._jobs[run] = slot, executor.submit(work, *arguments)

    def ended(self) -> Iterator[tuple[str, bool]]:
        """Runs whose jobs have ended, and whether the kernel has ended processes for memory since they began."""
        for run, (slot, job) in list(self._jobs.items()):
            if job.done():
                del self._jobs[run]
                self._free.append(slot)
                for path in (job.paths.submitted_pickle, job.paths.result_pickle, job.paths.stdout, job.paths.stderr):
                    with suppress(OSError):  # what the run printed is in its own log
                        path.unlink()
                yield run, killed_for_memory() > self._killed_before.pop(run)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Ask all jobs to save and end."""
        for _, job in self._jobs.values():
            with suppress(OSError):
                os.kill(int(job.job_id), signum)


class Cluster:
    """Runs as jobs of Slurm: one array for all that ask for the same machines."""

    def __init__(self, folder: Path, launch: Launch) -> None:
        self.folder, self.launch = folder, launch

    def submit(
        self, runs: dict[str, tuple[Any, ...]], work: Work, devices: int, nodes: int, gpus: bool
    ) -> dict[str, str]:
        """Submit runs with the arguments of their work; run -> id of its job.

        Raises:
            UserError: Slurm is not there, or refuses, with its own words.
        """
        launch = self.launch
        try:
            executor = submitit.SlurmExecutor(self.folder / "jobs", max_num_timeout=TIMEOUTS)
        except RuntimeError as error:
            raise UserError(
                "This machine has no Slurm (there is no `srun`): leave `launch.where` out to train here, or run this "
                "where jobs are submitted."
            ) from error
        named = {"partition": launch.partition, "account": launch.account, "qos": launch.qos, "gres": launch.gres}
        more = {"requeue": True} | {name.replace("_", "-"): value for name, value in launch.sbatch.items()}
        parameters = {
            "job_name": re.sub(r"\W+", "-", f"genbench-{self.folder.name}"),
            "nodes": nodes,
            "ntasks_per_node": devices,
            "cpus_per_task": launch.threads,
            "gpus_per_node": devices if gpus and not launch.gres else None,
            "mem": None if launch.memory is None else f"{round(launch.memory * 1024)}M",
            "time": launch.minutes or 24 * 60,
            "signal_delay_s": SECONDS_TO_SAVE,
            "array_parallelism": launch.at_once or len(runs),
            "setup": launch.setup or None,
            "srun_args": ["--kill-on-bad-exit=1"],  # a run's other processes would wait for one that is gone
            "additional_parameters": more | {"account": named.pop("account")} if launch.account else more,
        } | {name: value for name, value in named.items() if name != "account"}
        executor.update_parameters(**{name: value for name, value in parameters.items() if value is not None})
        try:
            with executor.batch(allow_implicit_submissions=True):
                jobs = {run: executor.submit(work, *arguments) for run, arguments in runs.items()}
            return {run: job.job_id for run, job in jobs.items()}
        except (UncompletedJobError, subprocess.CalledProcessError, OSError) as error:
            said = getattr(error, "stderr", None) or str(error)
            said = said.decode(errors="replace") if isinstance(said, bytes) else said
            lines = [line.removeprefix("sbatch: error: ").strip() for line in said.splitlines()]
            told = [line for line in lines if line and not line.startswith(("Traceback", "File "))]
            raise UserError(
                f"Slurm refused the jobs: {' '.join(told[-2:])}. Nothing was begun; see `launch` in the suite."
            ) from error


def slurm_states(jobs: list[str]) -> dict[str, str]:
    """State of jobs as Slurm says: PENDING, RUNNING, OUT_OF_MEMORY, ...; jobs that it has forgotten are left out."""
    found = {}
    for number in sorted({job.partition("_")[0] for job in jobs}):
        with suppress(OSError, subprocess.TimeoutExpired):
            said = subprocess.run(
                ["scontrol", "show", "job", number, "--oneliner"], capture_output=True, text=True, timeout=30
            )
            for line in said.stdout.splitlines():
                facts = dict(word.split("=", 1) for word in line.split() if "=" in word)
                task = facts.get("ArrayTaskId")
                if task is None:
                    found[number] = facts.get("JobState", "")
                for one in _tasks(task or ""):
                    found[f"{number}_{one}"] = facts.get("JobState", "")
    return {job: state for job, state in found.items() if job in set(jobs)}


def _tasks(text: str) -> Iterator[int]:
    """`0-2,5%1` -> 0, 1, 2, 5"""
    for part in filter(None, text.partition("%")[0].split(",")):
        first, _, last = part.partition("-")
        if first.isdigit():
            yield from range(int(first), int(last or first) + 1)


def killed_for_memory() -> int:
    """Processes that this machine's kernel has ended because memory ran out, since it started."""
    with suppress(OSError, ValueError), open("/proc/vmstat") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


@contextmanager
def _environment(**changes: Any) -> Iterator[None]:
    """Other variables for processes started inside; and none of an allocation of Slurm's that we may be in."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
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
