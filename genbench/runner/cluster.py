"""Run a suite as Slurm jobs."""

from __future__ import annotations

import time

from genbench.core.errors import UserError
from genbench.runner.work import work
from genbench.suites.definition import Launch
from genbench.suites.show import Lines
from genbench.suites.slurm import Cluster, submit, with_jobs
from genbench.suites.suite_folder import Folder, State, is_open

SLURM_POLL = 5.0  # seconds between two queries; other users need the Slurm controller too
ACTIVE = ("queued", "running")


def run_on_cluster(
    kept: Folder, launch: Launch, wanted: list[str], modules: list[str], *, retry_failed: bool, wait: bool
) -> int | None:
    """Submit the runs to Slurm. Arguments as in `run_here`; with `wait`, return only after all runs have ended.

    Returns:
        With `wait`, or if no run is left: 0 if all runs are done, else 1. Otherwise None.
    """
    cluster = Cluster(kept.path.absolute(), launch)
    show = Lines(kept, launch.at_once or 1)  # 1 is a lower bound: Slurm does not report how many jobs it will run
    try:
        states = with_jobs(kept, kept.states(wanted))
        todo = [state.run for state in states if is_open(state, retry_failed)]
        if todo:
            numbers = sorted(submit(cluster, kept, todo, work, retry_failed, modules))
            show.say(f"{len(todo)} run{'s' * (len(todo) > 1)} submitted to Slurm as {', '.join(numbers)}")
        if wait or not (todo or any(state.state in ACTIVE for state in states)):
            return _wait(kept, wanted, show)
    except KeyboardInterrupt:
        show.say("Stopped waiting; the jobs continue.")
    finally:
        show.close()
    return None


def _wait(kept: Folder, wanted: list[str], show: Lines) -> int:
    """Wait until no job is queued or running, and return the exit status."""
    before: dict[str, State] = {}
    last_error = ""
    while True:
        try:
            states = {state.run: state for state in with_jobs(kept, kept.states(wanted))}
        except UserError as error:  # the controller is restarting or busy
            if not last_error:
                show.say(str(error))
            last_error = str(error)
        else:
            last_error = ""
            for run, state in states.items():
                if run in before and state.state == "running" != before[run].state:
                    show.begins(before[run])
                elif state.state != (before[run].state if run in before else "done"):
                    show.ended(run)
            if not any(state.state in ACTIVE for state in states.values()):
                return 1 if any(state.state != "done" for state in states.values()) else 0
            before = states
            show.refresh(states.values())
        time.sleep(SLURM_POLL)
