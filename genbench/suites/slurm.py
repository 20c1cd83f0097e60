"""Submit runs as Slurm jobs, and read the states of these jobs."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import submitit
from submitit.core.utils import FailedSubmissionError, UncompletedJobError

from genbench.core.errors import UserError
from genbench.core.files import replacing
from genbench.suites import claims
from genbench.suites.definition import Launch
from genbench.suites.launch import Work, environment
from genbench.suites.suite_folder import Folder, State

SECONDS_TO_SAVE = 120  # a job is told to save this long before its time limit
SUBMITTED = "jobs/submitted.json"
# sbatch options that the suite sets, or that its jobs rely on
OURS = ("array", "output", "error", "open-mode", "signal", "nodes", "ntasks", "ntasks-per-node", "wrap", "parsable")
OVER = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"
)  # fmt: skip
# reasons why a pending job never starts: some clusters reject such jobs, others let them wait
NEVER = ("BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionConfig", "PartitionTimeLimit")


class Cluster:
    """Submits runs as Slurm jobs: one array for all runs with the same resources.

    Raises:
        UserError: Slurm is not installed on this machine.
    """

    def __init__(self, folder: Path, launch: Launch) -> None:
        if shutil.which("srun") is None or shutil.which("sbatch") is None:
            raise UserError(
                "This machine has no Slurm (`srun` was not found): remove `launch.where` to train here, or use a login "
                "node of the cluster."
            )
        self.folder, self.launch = folder, launch

    def has_gpus(self) -> bool:
        """Whether the partition of the jobs has GPUs, even if the login node has none."""
        partition = self.launch.partition
        found = _slurm(["sinfo", "--noheader", "--format=%P %G", *([f"--partition={partition}"] if partition else [])])
        lines = [line.split() for line in found.stdout.splitlines() if partition or "*" in line.split()[0]]
        return any("gpu" in line[-1] for line in lines)

    def submit(self, runs: list[tuple[Any, ...]], work: Work, devices: int, nodes: int, gpus: bool) -> list[str]:
        """Submit `work(*arguments)` for the arguments of each run, and return the job ids.

        Args:
            devices: Devices per node of one run; each device has one process
            gpus: Whether the devices are GPUs

        Raises:
            UserError: Slurm rejects the jobs. The message contains Slurm's error.
        """
        launch = self.launch
        options = {name.replace("_", "-").lstrip("-"): value for name, value in launch.sbatch.items()}
        if taken := [name for name in options if name in OURS]:
            raise UserError(f"launch.sbatch contains {', '.join(taken)}, which the suite itself sets: see `launch`.")
        if options.get("requeue") is False:
            options["no-requeue"] = True
        options = {name: True if value is None else value for name, value in options.items() if value is not False}
        gpus_given = launch.gres or any(name.startswith(("gpus", "gres")) for name in options)
        # Slurm reports the number of cores of a job, but only some clusters restrict the job to them
        threads = launch.threads or f"$(( (SLURM_CPUS_ON_NODE + {devices - 1}) / {devices} ))"
        parameters = {
            "job_name": re.sub(r"\W+", "-", f"genbench-{self.folder.name}"),
            "nodes": nodes,
            "ntasks_per_node": devices,
            "cpus_per_task": launch.threads,
            "gpus_per_node": devices if gpus and not gpus_given else None,
            "mem": None if launch.memory is None else f"{round(launch.memory * 1024)}M",
            "partition": launch.partition,
            "account": launch.account,
            "qos": launch.qos,
            "gres": launch.gres,
            "time": launch.minutes,
            "signal_delay_s": min(SECONDS_TO_SAVE, 12 * launch.minutes) if launch.minutes else SECONDS_TO_SAVE,
            "array_parallelism": launch.at_once or len(runs),
            "wckey": None,  # submitit sets a wckey, but clusters with accounting reject unknown keys
            "setup": [f"export OMP_NUM_THREADS={threads}", *launch.setup],
            "srun_args": [
                "--kill-on-bad-exit=1",  # else the other processes of a run would wait for a dead process
                "--wait=0",  # the first process evaluates after the others have ended
                *([f"--cpus-per-task={launch.threads}"] if launch.threads else []),  # srun does not inherit this option
            ],
            "additional_parameters": ({} if "no-requeue" in options else {"requeue": True}) | options,
        }
        executor = submitit.SlurmExecutor(self.folder / "jobs")
        executor.update_parameters(**parameters)
        try:
            # hides the output of sbatch, which the error contains too
            with environment(), redirect_stderr(io.StringIO()), executor.batch(allow_implicit_submissions=True):
                jobs = [executor.submit(work, *arguments) for arguments in runs]
            return [job.job_id for job in jobs]
        except (UncompletedJobError, subprocess.CalledProcessError, FailedSubmissionError) as error:
            lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in str(error).splitlines()]
            text = ". ".join(line.strip().rstrip(".") for line in lines if line.strip())
            raise UserError(
                f"Slurm rejected the jobs: {text}. No run was started; see `launch` in the suite."
            ) from error


def submit(cluster: Cluster, kept: Folder, todo: list[str], work: Work, again: bool, modules: list[str]) -> set[str]:
    """Submit runs, as one job array per number of devices and nodes. Return the ids of the arrays."""
    known, experiments = kept.runs(), kept.plan()["experiments"]
    kinds: dict[tuple[int, int, bool], list[str]] = {}
    cluster_has_gpus = cluster.has_gpus()
    for run in todo:
        name, _ = known[run]
        accelerator = kept.config(name)["trainer"]["accelerator"]
        gpus = cluster_has_gpus if accelerator == "auto" else accelerator != "cpu"
        kinds.setdefault((experiments[name]["devices"], experiments[name]["nodes"], gpus), []).append(run)
    jobs: dict[str, str] = {}
    try:
        for kind, runs in kinds.items():
            arguments = [(str(kept.path.absolute()), run, again, modules) for run in runs]
            jobs |= zip(runs, cluster.submit(arguments, work, *kind), strict=True)
        found = jobs_of(jobs.values()).values()
        if hopeless := {job.reason for job in found if job.state == "PENDING" and job.reason in NEVER}:
            raise UserError(
                f"Slurm would never start the jobs: {', '.join(sorted(hopeless))}. No run was started; see `launch` in "
                "the suite."
            )
    except UserError:
        if jobs:  # submit all runs or none
            _slurm(["scancel", *sorted(jobs.values())])
        raise
    with replacing(kept.path / SUBMITTED) as file:
        file.write(json.dumps(submitted(kept) | jobs, indent=1).encode())
    return {job.partition("_")[0] for job in jobs.values()}


def submitted(kept: Folder) -> dict[str, str]:
    """Return run -> id of its last Slurm job, for every run that was submitted."""
    try:
        return json.loads((kept.path / SUBMITTED).read_text())
    except (OSError, ValueError):
        return {}


class Job(NamedTuple):
    """A job as Slurm reports it.

    state   PENDING, RUNNING, OUT_OF_MEMORY, ...
    reason  Slurm's reason for the state: Resources, Priority, ...
    """

    state: str
    reason: str = ""


def jobs_of(wanted: Iterable[str]) -> dict[str, Job]:
    """Return jobs as Slurm reports them. Jobs that Slurm no longer knows are omitted.

    Raises:
        UserError: Slurm does not answer.
    """
    wanted = set(wanted)
    found: dict[str, Job] = {}
    for number in sorted({job.partition("_")[0] for job in wanted}):
        shown = _slurm(["scontrol", "show", "job", number, "--oneliner"])
        if shown.returncode and "Invalid job id" not in shown.stderr:
            raise UserError(f"Slurm does not answer: {' '.join(shown.stderr.split()) or shown.returncode}.")
        for line in shown.stdout.splitlines():
            facts = dict(word.split("=", 1) for word in line.split() if "=" in word)
            job = Job(facts.get("JobState", ""), facts.get("Reason", "").replace("None", ""))
            tasks = _tasks(facts["ArrayTaskId"]) if "ArrayTaskId" in facts else [None]
            found |= {number if task is None else f"{number}_{task}": job for task in tasks}
    if missing := sorted(wanted - set(found)):  # scontrol forgets jobs after some minutes, sacct does not
        shown = _slurm(["sacct", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={','.join(missing)}"])
        for line in shown.stdout.splitlines():
            number, _, state = line.partition("|")
            found[number] = Job(state.split()[0] if state else "")  # `CANCELLED by 1000`
    return {job: found[job] for job in wanted if job in found}


def how_it_died(job: Job, errors: Path) -> tuple[str, str]:
    """Return outcome and reason of a run whose job ended without recording them; `errors` is the job's error output."""
    printed = ""
    with suppress(OSError):
        printed = errors.read_text(errors="replace")[-10_000:]
    oom = re.search(r"oom.kill|exceeded (job |step )?memory limit", printed, re.IGNORECASE)
    if job.state == "OUT_OF_MEMORY" or oom:
        return "failed", "out of memory: killed by Slurm. Use a larger `launch.memory` or smaller batches"
    if job.state in ("FAILED", "COMPLETED"):
        return "failed", f"its process ended without recording a result, probably killed. Output of its job: {errors}"
    reasons = {
        "CANCELLED": "its job was canceled",
        "TIMEOUT": "its job reached the time limit",
        "PREEMPTED": "its job was preempted",
        "NODE_FAIL": "its node failed",
    }
    return "stopped", reasons.get(job.state, f"the Slurm state of its job is {job.state}")


def with_jobs(kept: Folder, states: list[State]) -> list[State]:
    """Update the states with Slurm's report: which jobs are queued, and why a job died.

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
    """Update a run's state with its job. `job` is None if Slurm no longer knows it. A job has died if it has ended and
    its attempt has no outcome."""
    attempt = claims.latest(kept.claims, state.run)
    its_own = attempt is not None and attempt.holder.get("job") == number
    if job is None:
        if state.state not in ("waiting", "stopped") or not (attempt is None or its_own):
            return state
        reason = f"Slurm no longer knows its job {number}: it was canceled, or ended some time ago"
        return replace(state, state="stopped", reason=reason)
    if job.state not in OVER:
        waits = state.state in ("waiting", "stopped") or (state.state == "failed" and not its_own)
        waits |= state.state == "running" and its_own and job.state == "PENDING"  # its node has just failed
        return replace(state, state="queued", reason=job.reason) if waits else state
    outcome, reason = how_it_died(job, kept.path / "jobs" / f"{number}_0_log.err")
    if attempt is not None and its_own and attempt.outcome is None and not attempt.alive:
        claims.close(kept.claims, state.run, attempt, outcome, reason)
        return kept.states([state.run])[0]
    if state.state not in ("waiting", "stopped") or job.state == "COMPLETED":
        return state  # the run recorded its outcome, or another process will record it
    if outcome == "failed" and (claim := claims.take(kept.claims, state.run)) is not None:
        claim.end(outcome, reason)  # the job died before it claimed the run
        return kept.states([state.run])[0]
    return replace(state, state="stopped", reason=reason)


def _tasks(text: str) -> Iterator[int]:
    """`0-2,5,8-12:2%1` -> 0, 1, 2, 5, 8, 10, 12"""
    for part in filter(None, text.partition("%")[0].split(",")):
        part, _, step = part.partition(":")
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1, int(step or 1))


def _slurm(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a Slurm command. If it does not exist or does not answer, the result has exit status 1."""
    environment = os.environ | {"SLURM_BITSTR_LEN": "0"}  # list all tasks of an array, unabridged
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
