"""Runs as jobs of Slurm: submitting them, and what it says of them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedSubmissionError, UncompletedJobError

from genbench.core.errors import UserError
from genbench.core.files import replacing
from genbench.suites import claims
from genbench.suites.definition import Launch
from genbench.suites.launch import Work, environment
from genbench.suites.suite_folder import Folder, State

SECONDS_TO_SAVE = 120  # before a time limit on Slurm
# options of sbatch that follow from the suite, or that its work relies on
OURS = ("array", "output", "error", "open-mode", "signal", "nodes", "ntasks", "ntasks-per-node", "wrap", "parsable")
OVER = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"
)  # fmt: skip
# why jobs wait in vain: some clusters refuse them, and others let them
NEVER = ("BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionConfig", "PartitionTimeLimit")


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
            with environment(), redirect_stderr(io.StringIO()), executor.batch(allow_implicit_submissions=True):
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


def submit(
    cluster: Cluster,
    kept: Folder,
    facts: dict[str, Any],
    todo: list[str],
    work: Work,
    again: bool,
    modules: list[str],
) -> set[str]:
    """Submit runs: one array for all of the same devices, nodes and kind of device; the ids of the arrays."""
    known = kept.runs()
    kinds: dict[tuple[int, int, bool], list[str]] = {}
    there = cluster.has_gpus()
    for run in todo:
        name, _ = known[run]
        accelerator = kept.config(name)["trainer"]["accelerator"]
        gpus = there if accelerator == "auto" else accelerator != "cpu"
        kinds.setdefault((facts[name]["devices"], facts[name]["nodes"], gpus), []).append(run)
    jobs: dict[str, str] = {}
    try:
        for kind, runs in kinds.items():
            given = {run: (str(kept.path.absolute()), run, again, modules) for run in runs}
            jobs |= zip(runs, cluster.submit(given, work, *kind), strict=True)
        if hopeless := {job.reason for job in jobs_of(jobs.values()).values() if job.hopeless}:
            raise UserError(
                f"Slurm would never start the jobs: it says {', '.join(sorted(hopeless))}. Nothing was begun; see "
                "`launch` in the suite."
            )
    except UserError:
        cluster.cancel(jobs.values())  # all or nothing
        raise
    with replacing(_jobs_path(kept)) as file:
        file.write(json.dumps(submitted(kept) | jobs, indent=1).encode())
    return {job.partition("_")[0] for job in jobs.values()}


def submitted(kept: Folder) -> dict[str, str]:
    """The last job of every run that was submitted to Slurm."""
    try:
        return json.loads(_jobs_path(kept).read_text())
    except (OSError, ValueError):
        return {}


def _jobs_path(kept: Folder) -> Path:
    return kept.path / "jobs" / "submitted.json"


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
    found: dict[str, Job] = {}
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
        "CANCELLED": "its job was canceled",
        "TIMEOUT": "its job's time limit was over",
        "PREEMPTED": "its job had to make room for another",
        "NODE_FAIL": "its machine failed",
    }
    return "stopped", words.get(job.state, f"Slurm says of its job: {job.state}")


def with_jobs(kept: Folder, states: list[State]) -> list[State]:
    """States with what Slurm knows of their jobs: queued, and why one died without a word.

    Raises:
        UserError: Slurm does not answer.
    """
    last = submitted(kept)
    left = [state.run for state in states if state.state != "done" and state.run in last]
    if not left or shutil.which("scontrol") is None:
        return states
    jobs = jobs_of(last[run] for run in left)
    return [
        _with_job(kept, state, last[state.run], jobs.get(last[state.run])) if state.run in left else state
        for state in states
    ]


def _with_job(kept: Folder, state: State, number: str, job: Job | None) -> State:
    """A run's state with its job, which has died if it is over and its attempt is not; None for a forgotten one."""
    attempt = claims.latest(kept.claims, state.run)
    its_own = attempt is not None and attempt.holder.get("job") == number
    if job is None:
        if state.state not in ("waiting", "stopped") or not (attempt is None or its_own):
            return state
        reason = f"Slurm no longer knows its job {number}: it was canceled, or ended some time ago"
        return replace(state, state="stopped", reason=reason)
    if not job.over:
        waits = state.state in ("waiting", "stopped") or (state.state == "failed" and not its_own)
        waits |= state.state == "running" and its_own and job.state == "PENDING"  # its machine was lost a moment ago
        return replace(state, state="queued", reason=job.reason) if waits else state
    outcome, reason = how_it_died(job, kept.path / "jobs" / f"{number}_0_log.err")
    if attempt is not None and its_own and attempt.outcome is None and not attempt.alive:
        claims.close(kept.claims, state.run, attempt, outcome, reason)
        return kept.states([state.run])[0]
    if state.state not in ("waiting", "stopped") or job.state == "COMPLETED":
        return state  # it has said so itself, or found somebody else at work
    if outcome == "failed" and (claim := claims.take(kept.claims, state.run)) is not None:
        claim.end(outcome, reason)  # before it took the run
        return kept.states([state.run])[0]
    return replace(state, state="stopped", reason=reason)


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
