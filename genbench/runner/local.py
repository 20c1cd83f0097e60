"""Run a suite on this machine: several runs at once, each in its own process."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from typing import Any

import torch

from genbench.runner import work
from genbench.suites import claims
from genbench.suites.definition import Launch
from genbench.suites.launch import KILLED, Here
from genbench.suites.show import Lines
from genbench.suites.suite_folder import Folder, is_open

POLL = 0.5  # seconds between two checks of the processes


def run_here(kept: Folder, launch: Launch, wanted: list[str], modules: list[str], *, retry_failed: bool) -> int:
    """Train and evaluate runs of a suite.

    Args:
        kept: The suite's folder, with a plan
        wanted: Names of the runs; finished runs are skipped
        modules: Modules with the user's own models, imported first
        retry_failed: Also run those that have failed before

    Returns:
        0 if all runs are done, 1 if not, or 128 + the number of the signal that stopped them.
    """
    here = Here(kept.path, launch, torch.cuda.device_count())
    experiments = kept.plan()["experiments"]
    devices = {run: experiments[name]["devices"] for run, (name, _) in kept.runs().items()}
    show = Lines(kept, here.at_once)
    begun: dict[str, int] = {}  # run -> number of its attempts before this process started it; no run is started twice
    signals: list[int] = []  # received signals
    full = False  # whether the disk is full

    def stop(signum: int, frame: Any) -> None:
        signals.append(signum)
        os.write(
            2,
            b"\nstopping: the runs save and end; interrupt again to end at once.\n" if len(signals) == 1 else b"",
        )
        here.stop()
        for run in here.running() if len(signals) > 2 else ():  # they ignored two signals
            attempt = claims.latest(kept.claims, run)
            if attempt is not None and attempt.alive and attempt.holder["host"] == socket.gethostname():
                os.killpg(attempt.holder["pid"], signal.SIGKILL)

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        while True:
            for run, took, why in here.ended():
                if not took and why is None and kept.states([run])[0].state == "running":
                    del begun[run]  # another process took the run, but may stop before the run is done
                    continue
                try:
                    record_death(kept, run, begun[run], why, bool(signals))
                except OSError as error:
                    full |= work.full(error)
                show.ended(run)
                full |= work.FULL in (kept.states([run])[0].reason or "") or "No space left" in (why or "")
            states = {state.run: state for state in kept.states(wanted)}
            show.refresh(states.values())
            todo = [run for run in wanted if is_open(states[run], retry_failed) and run not in begun]
            elsewhere = [run for run in wanted if states[run].state == "running" and run not in here.running()]
            if full and not here.running():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if signals and not here.running():
                return 128 + signals[0]
            if not (todo or elsewhere or here.running()):
                break
            while todo and here.room(devices[todo[0]]) and not (signals or full):
                run = todo.pop(0)
                begun[run] = states[run].attempts
                show.begins(states[run])
                here.start(run, devices[run], work.work, str(kept.path), run, retry_failed, modules)
                if signals:
                    here.stop()  # the signal arrived before this process started
            time.sleep(POLL)
    finally:
        show.close()
        here.close()
        for signum, handler in before.items():
            signal.signal(signum, handler)
    return 1 if any(state.state != "done" for state in kept.states(wanted)) else 0


def record_death(kept: Folder, run: str, attempts: int, why: str | None, stopping: bool) -> None:
    """Record the outcome of a run whose process died before recording it.

    `attempts` is the number of attempts before this process started.
    """
    attempt = claims.latest(kept.claims, run)
    if why is None or (attempt is not None and (attempt.alive or attempt.number > attempts + 1)):
        return  # the process recorded its outcome, or another process works on the run
    if attempt is None or attempt.number == attempts:  # the process died before it claimed the run
        if not stopping and (claim := claims.take(kept.claims, run, again=True)) is not None:
            claim.end("failed", why)
    elif attempt.outcome is None:
        # killed by an unknown process: the run is resumed the next time
        claims.close(kept.claims, run, attempt, "stopped" if stopping or why == KILLED else "failed", why)
