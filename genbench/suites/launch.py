"""Where a suite's runs are started, through submitit: on this machine, or on Slurm."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedSubmissionError, UncompletedJobError

from genbench.core.errors import UserError
from genbench.suites.suite import Launch

FOREVER = 60 * 24 * 365  # minutes: submitit ends jobs of this machine after a time
SECONDS_TO_SAVE = 120  # before a time limit on Slurm
# options of sbatch that follow from the suite, or that its work relies on
OURS = ("array", "output", "error", "open-mode", "signal", "nodes", "ntasks", "ntasks-per-node", "wrap", "parsable")
OVER = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"
)  # fmt: skip
# why jobs wait in vain: some clusters refuse them, and others let them
NEVER = ("BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionConfig", "PartitionTimeLimit")

Work = Callable[..., bool]  # (folder, run, again, modules): one run; False if it was somebody else's


class Here:
    """Runs on this machine, each in processes of its own: one for each GPU, or some at a time on the CPU.

    Jobs outlive this process, should it be killed: what they do is said in their claims.
    """

    def __init__(self, folder: Path, launch: Launch, gpus: int) -> None:
        """gpus  that this machine has"""
        self.folder = folder
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._gpus = list(range(gpus))  # that no run has
        self._on_gpus = gpus > 0
        self.threads = launch.threads or (max(1, self._cores // launch.at_once) if launch.at_once else 1)
        self.at_once = launch.at_once or gpus or max(1, self._cores // self.threads)
        self._jobs: dict[str, tuple[list[int], int, submitit.Job]] = {}
        self._killed_before: dict[str, int] = {}

    def room(self, devices: int) -> bool:
        """Whether a run on so many devices can begin now."""
        if not self._jobs:
            return True  # one that is too large for this machine says so itself
        if self._on_gpus:
            return len(self._jobs) < self.at_once and len(self._gpus) >= devices
        return sum(count for _, count, _ in self._jobs.values()) + devices <= self.at_once

    def running(self) -> list[str]:
        return list(self._jobs)

    def start(self, run: str, devices: int, work: Work, *arguments: Any) -> None:
        gpus, self._gpus = self._gpus[:devices], self._gpus[devices:]
        executor = submitit.LocalExecutor(self.folder / "jobs")
        executor.update_parameters(timeout_min=FOREVER, visible_gpus=gpus, gpus_per_node=len(gpus))
        self._killed_before[run] = killed_for_memory()
        with _environment(OMP_NUM_THREADS=self.threads), _not_interrupted():
            self._jobs[run] = gpus, devices, executor.submit(work, *arguments)

    def ended(self) -> Iterator[tuple[str, bool, str | None]]:
        """Runs whose jobs have ended: what their work returned, and a guess at why where one died without a word."""
        for run, (gpus, _, job) in list(self._jobs.items()):
            if job.done():
                del self._jobs[run]
                self._gpus = sorted(self._gpus + gpus)
                for_memory = killed_for_memory() > self._killed_before.pop(run)
                spoke = job.paths.result_pickle.exists()
                took, why = (job.results()[0], None) if spoke else (False, _why(job, for_memory))
                for path in (job.paths.submitted_pickle, job.paths.result_pickle, job.paths.stdout, job.paths.stderr):
                    with suppress(OSError):  # what the run printed is in its own log
                        path.unlink()
                yield run, took, why

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Ask all jobs to save and end."""
        for *_, job in self._jobs.values():
            with suppress(OSError):
                os.kill(int(job.job_id), signum)


class Cluster:
    """Runs as jobs of Slurm: one array for all that ask for the same machines.

    Raises:
        UserError: this machine has no Slurm.
    """

    def __init__(self, folder: Path, launch: Launch) -> None:
        if shutil.which("srun") is None or shutil.which("sbatch") is None:
            raise UserError(
                "This machine has no Slurm (there is no `srun`): leave `launch.where` out to train here, or run this "
                "where jobs are submitted."
            )
        self.folder, self.launch = folder, launch
        self.at_once = launch.at_once or 1  # known to be: how many Slurm gives is not

    def has_gpus(self) -> bool:
        """Whether the partition of the jobs has GPUs, which the machine that submits them need not have."""
        asked = self.launch.partition
        said = _said(["sinfo", "--noheader", "--format=%P %G", *([f"--partition={asked}"] if asked else [])])
        lines = [line.split() for line in said.stdout.splitlines() if asked or "*" in line.split()[0]]
        return any("gpu" in line[-1] for line in lines)

    def submit(self, runs: dict[str, tuple[Any, ...]], work: Work, devices: int, nodes: int, gpus: bool) -> list[str]:
        """Submit runs with the arguments of their work; the id of each one's job.

        Args:
            devices: Of one run on each of its nodes: so many processes
            gpus: Whether the devices are GPUs

        Raises:
            UserError: Slurm refuses, with its own words.
        """
        launch = self.launch
        options = {name.replace("_", "-").lstrip("-"): value for name, value in launch.sbatch.items()}
        if taken := [name for name in options if name in OURS]:
            raise UserError(f"launch.sbatch has {', '.join(taken)}, which the suite decides: see `launch`.")
        if options.get("requeue") is False:
            options["no-requeue"] = True
        options = {name: True if value is None else value for name, value in options.items() if value is not False}
        said_by_hand = launch.gres or any(name.startswith(("gpus", "gres")) for name in options)
        # Slurm tells a job how many cores it has, and only some clusters hold it to them
        threads = launch.threads or f"$(( (SLURM_CPUS_ON_NODE + {devices - 1}) / {devices} ))"
        parameters = {
            "job_name": re.sub(r"\W+", "-", f"genbench-{self.folder.name}"),
            "nodes": nodes,
            "ntasks_per_node": devices,
            "cpus_per_task": launch.threads,
            "gpus_per_node": devices if gpus and not said_by_hand else None,
            "mem": None if launch.memory is None else f"{round(launch.memory * 1024)}M",
            "partition": launch.partition,
            "account": launch.account,
            "qos": launch.qos,
            "gres": launch.gres,
            "time": launch.minutes,
            "signal_delay_s": min(SECONDS_TO_SAVE, 12 * launch.minutes) if launch.minutes else SECONDS_TO_SAVE,
            "array_parallelism": launch.at_once or len(runs),
            "wckey": None,  # submitit has one, and a cluster that accounts by them refuses those that it does not know
            "setup": [f"export OMP_NUM_THREADS={threads}", *launch.setup],
            "srun_args": [
                "--kill-on-bad-exit=1",  # a run's other processes would wait for one that is gone
                "--wait=0",  # and the first one measures when the others have ended
                *([f"--cpus-per-task={launch.threads}"] if launch.threads else []),  # srun no longer asks sbatch
            ],
            "additional_parameters": ({} if "no-requeue" in options else {"requeue": True}) | options,
        }
        executor = submitit.SlurmExecutor(self.folder / "jobs")
        executor.update_parameters(**parameters)
        try:
            # submitit prints what sbatch said, and we say it
            with _environment(), redirect_stderr(io.StringIO()), executor.batch(allow_implicit_submissions=True):
                jobs = [executor.submit(work, *arguments) for arguments in runs.values()]
            return [job.job_id for job in jobs]
        except (UncompletedJobError, subprocess.CalledProcessError, FailedSubmissionError) as error:
            lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in str(error).splitlines()]
            told = ". ".join(line.strip().rstrip(".") for line in lines if line.strip())
            raise UserError(f"Slurm refused the jobs: {told}. Nothing was begun; see `launch` in the suite.") from error

    @staticmethod
    def cancel(jobs: Iterable[str]) -> None:
        if jobs := sorted(jobs):
            _said(["scancel", *jobs])


@dataclass(frozen=True)
class Job:
    """A job as Slurm knows it.

    state   PENDING, RUNNING, OUT_OF_MEMORY, ...
    reason  why it is not in another one, in Slurm's word: Resources, Priority, ...
    """

    state: str
    reason: str = ""

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def hopeless(self) -> bool:
        return self.state == "PENDING" and self.reason in NEVER


def jobs_of(wanted: Iterable[str]) -> dict[str, Job]:
    """Jobs as Slurm knows them; those that it has forgotten are left out.

    Raises:
        UserError: Slurm does not answer.
    """
    wanted = set(wanted)
    found = {}
    for number in sorted({job.partition("_")[0] for job in wanted}):
        said = _said(["scontrol", "show", "job", number, "--oneliner"])
        if said.returncode and "Invalid job id" not in said.stderr:
            raise UserError(f"Slurm does not answer: {' '.join(said.stderr.split()) or said.returncode}.")
        for line in said.stdout.splitlines():
            facts = dict(word.split("=", 1) for word in line.split() if "=" in word)
            job = Job(facts.get("JobState", ""), facts.get("Reason", "").replace("None", ""))
            tasks = _tasks(facts["ArrayTaskId"]) if "ArrayTaskId" in facts else [None]
            found |= {number if task is None else f"{number}_{task}": job for task in tasks}
    if missing := sorted(wanted - set(found)):  # it forgets after some minutes, where its accounts do not
        said = _said(["sacct", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={','.join(missing)}"])
        for line in said.stdout.splitlines():
            number, _, state = line.partition("|")
            found[number] = Job(state.split()[0] if state else "")  # `CANCELLED by 1000`
    return {job: found[job] for job in wanted if job in found}


def how_it_died(job: Job, errors: Path) -> tuple[str, str]:
    """Outcome and reason of a run whose job is over without its having said so; `errors` is what the job printed."""
    said = ""
    with suppress(OSError):
        said = errors.read_text(errors="replace")[-10_000:]
    if job.state == "OUT_OF_MEMORY" or re.search(r"oom.kill|exceeded (job |step )?memory limit", said, re.IGNORECASE):
        return (
            "failed",
            "killed for memory: its job had no more. A larger `launch.memory` or smaller batches help",
        )
    if job.state in ("FAILED", "COMPLETED"):
        return "failed", f"it ended without a word, as a process does that is killed. What its job printed: {errors}"
    words = {
        "CANCELLED": "its job was cancelled",
        "TIMEOUT": "its job's time limit was over",
        "PREEMPTED": "its job had to make room for another",
        "NODE_FAIL": "its machine failed",
    }
    return "stopped", words.get(job.state, f"Slurm says of its job: {job.state}")


def _tasks(text: str) -> Iterator[int]:
    """`0-2,5,8-12:2%1` -> 0, 1, 2, 5, 8, 10, 12"""
    for part in filter(None, text.partition("%")[0].split(",")):
        part, _, step = part.partition(":")
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1, int(step or 1))


def _said(command: list[str]) -> subprocess.CompletedProcess[str]:
    """What a command of Slurm's says; one that is not there, or hangs, has failed."""
    environment = os.environ | {"SLURM_BITSTR_LEN": "0"}  # all tasks of an array, not the first of them and dots
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def killed_for_memory() -> int:
    """Processes that this machine's kernel has ended because memory ran out, since it started."""
    with suppress(OSError, ValueError), open("/proc/vmstat") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _why(job: submitit.Job, for_memory: bool) -> str:
    """A guess at why a job's process died without a word."""
    if for_memory:
        return "killed for memory: the machine had none left. Smaller batches, or fewer runs at once (--at-once), help"
    said = ""
    with suppress(OSError):
        said = job.paths.stderr.read_text(errors="replace").strip().rpartition("\n")[2]
    return "it ended without a word, as a process does that is killed" + (f"; its last one was: {said}" if said else "")


@contextmanager
def _environment(**changes: Any) -> Iterator[None]:
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
