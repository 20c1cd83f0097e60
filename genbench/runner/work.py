"""One run of a suite, in a process of its own: train it, measure its best and its last checkpoint, write records.

It is what a person would do with `fit` and `test`, and can be killed and begun again at any point.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from genbench.cli.run_folders import job
from genbench.core.errors import UserError
from genbench.core.files import replacing
from genbench.suites import claims
from genbench.suites.suite_folder import Folder

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)  # Slurm sends the second before a time limit
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGUSR2, 128 + signal.SIGHUP)
CHECKPOINTS = ("best", "last")
FULL = "the disk is full"
HEADER = "==== "  # of an attempt in a run's log
WAIT = 1800.0  # seconds that a process waits for what the first one decides


class Failed(Exception):
    """A command ended with an error that it has told itself."""


def work(folder: str, run: str, again: bool, modules: list[str]) -> bool:
    """Do a run; False if somebody else does or has done it.

    Args:
        folder: The suite's
        run: Which
        again: Also if it has failed before
        modules: What the models come from, besides genbench
    """
    with suppress(OSError):
        os.setsid()  # a terminal's Ctrl-C is not for us: who started us tells us to save
    for signum in SIGNALS:
        signal.signal(signum, _stop)
    kept, first = Folder(Path(folder)), _rank() == 0
    if not first:
        with _until_told():
            if _agreed(kept, "begun", None):
                _train(kept, run, modules)
        return True
    claim = claims.take(kept.claims, run, again=again, job=job())
    _agreed(kept, "begun", lambda: claim is not None)
    if claim is None:
        return False
    _print_to(kept.log(run))
    print(f"{HEADER}{claim.attempt.begun} attempt {claim.attempt.number} at {run}", flush=True)
    saved = _saved(kept, run)
    with claim:
        outcome, reason = _attempt(kept, run, modules)
        for signum in SIGNALS:  # it has been told, or is over
            signal.signal(signum, signal.SIG_IGN)
        limit = outcome == "stopped" and reason == "SIGUSR2" and job() is not None
        if limit and _saved(kept, run) == saved:
            outcome, limit = "failed", False
            reason = "its time limit was over before anything new was saved: give `launch.minutes` more"
        claim.end(outcome, reason)
    if limit:
        _queue_again()
    told = (reason or "").startswith("SIG")  # as the others are
    if outcome != "done" and not told and int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        sys.exit(1)  # and Slurm ends the others, which may be waiting for us
    return True


def _attempt(kept: Folder, run: str, modules: list[str]) -> tuple[str, str | None]:
    """How it ended: done, failed or stopped, and why."""
    try:
        with _until_told():
            status = _train(kept, run, modules)
            if status in STOPPED:
                return "stopped", signal.Signals(status - 128).name
            _measure(kept, run)
            return "done", None
        return "stopped", signal.Signals(_told[0]).name
    except Failed as error:
        return "stopped" if str(error).startswith(FULL) else "failed", str(error)
    except Exception as error:
        return "stopped" if full(error) else "failed", _reason(error)


def _train(kept: Folder, run: str, modules: list[str]) -> int:
    """The exit status of `fit`, by all processes of the run; 0 if it has been trained already."""
    from genbench.cli.flags import import_modules

    import_modules([f"--import={module}" for module in modules])
    experiment, seed = kept.runs()[run]
    facts = kept.plan()["experiments"][experiment]
    config = [f"--import={module}" for module in modules] + [f"--config={kept.path / 'configs' / experiment}.yaml"]
    images = _agreed(kept, "images", lambda: kept.images(experiment))
    if images is None:
        found = _speed(config, facts)
        images = _agreed(kept, "measured", lambda: _keep(kept, experiment, facts, found))
    checkpoint = _last_checkpoint(kept.path / run)
    begun = _agreed(kept, "checkpoint", lambda: _images_seen(checkpoint))
    if begun is not None and begun >= images:
        return 0
    if begun is None:
        if _rank() == 0 and (kept.path / run).exists():
            shutil.rmtree(kept.path / run)  # it was killed before it had saved anything
        _agreed(kept, "empty", lambda: True)
        argv = [*config, f"--seed_everything={seed}", f"--name={run}", f"--runs={kept.path}"]
    else:
        argv = [*config, f"--ckpt={checkpoint}", f"--seed_everything={seed}", f"--name={run}", f"--runs={kept.path}"]
    return _fit([*argv, f"--max_images={images}"], facts)


def _last_checkpoint(run: Path) -> Path:
    """What a run goes on from. A kill or a full disk may have left others than `last.ckpt`, which is written last."""
    last = run / "checkpoints" / "last.ckpt"
    others = sorted(last.parent.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    return last if last.is_file() or not others else others[-1]


def _images_seen(checkpoint: Path) -> int | None:
    if not checkpoint.is_file():
        return None
    from genbench.core import checkpoint_io

    return checkpoint_io.read(checkpoint)["genbench"]["images_seen"]


def _fit(argv: list[str], facts: dict[str, Any]) -> int:
    """`fit` in this process; but on several devices of this machine in those that Lightning starts from a command."""
    from genbench.cli import fit

    if facts["devices"] == 1 or "SLURM_PROCID" in os.environ:
        status = fit.main("fit", argv)
        _leave_the_others()
        return status
    child = None

    def hand_on(signum: int, frame: Any) -> None:
        _told.append(signum)
        if child is not None:
            child.send_signal(signum)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        child = subprocess.Popen([sys.executable, "-m", "genbench", "fit", *argv], preexec_fn=_die_with_us)
        if _told:
            child.send_signal(_told[0])
        status = child.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    if status in (0, 128, *STOPPED):
        return status
    if _told or status == -signal.SIGTERM:  # before it could save
        return 128 + signal.SIGTERM
    raise Failed(_what_ran_out(_last_error() or f"`fit` ended with {status}; its log says why"))


def _die_with_us() -> None:
    """Linux ends this process with the one that has started it: or it would train on beside its successor."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _last_error() -> str:
    """What a command that prints where we print has said last, in this attempt."""
    said = ""
    with suppress(OSError), open("/proc/self/fd/1", errors="replace") as log:
        for line in log:
            if line.startswith(("error: ", HEADER)):
                said = line.removeprefix("error: ").strip() if line.startswith("error: ") else ""
    return said


def _leave_the_others() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()  # what follows is the first process's own


def _speed(config: list[str], facts: dict[str, Any]) -> dict[str, Any] | None:
    """Images per second of a config on its devices, from a short training that leaves nothing behind."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "speed.json"
        watch = ["--trainer.callbacks+=genbench.callbacks.stopwatch.Stopwatch", f"--trainer.callbacks.out={out}"]
        quiet = ["--trainer.logger=false", "--max_images=1e12", "--name=speed", f"--runs={folder}"]
        status = _fit([*config, *quiet, *watch], facts)
        if status in STOPPED:
            _stop(status - 128, None)
        return json.loads(out.read_text()) if out.exists() else None


def _keep(kept: Folder, experiment: str, facts: dict[str, Any], found: dict[str, Any]) -> int:
    """Minutes of a device as images, the same for all seeds."""
    devices = facts["devices"] * facts["nodes"]
    images = found["images_per_second"] * 60 * facts["budget"]["minutes"] / devices
    images = round(images, -3) if images >= 20_000 else max(1, images)
    return kept.keep_images(experiment, {"images": int(images), "minutes": facts["budget"]["minutes"]} | found)


def _measure(kept: Folder, run: str) -> None:
    """Records of the best and the last checkpoint under the suite's protocol, where there are none yet."""
    from genbench.cli import evaluate
    from genbench.evaluation import protocol as protocols
    from genbench.leaderboard.record import collect

    folder, protocol = kept.path / run, protocols.load(kept.config(kept.runs()[run][0])["protocol"]).name
    found = collect([folder / "records"])[0] if (folder / "records").is_dir() else []
    there = {record.run["checkpoint"] for record in found if record.protocol["name"] == protocol}
    for name in CHECKPOINTS:
        path = folder / "checkpoints" / f"{name}.ckpt"
        if path.is_file() and name not in there:
            evaluate.main("test", [f"--ckpt={path}"])


def _agreed(kept: Folder, what: str, decide: Callable[[], Any] | None) -> Any:
    """What the first process of a run decides, in all those that Slurm has started for it; they meet in a file."""
    if int(os.environ.get("SLURM_NTASKS", 1)) == 1:
        return decide()
    path = kept.path / "jobs" / f"{job()}.{os.environ.get('SLURM_RESTART_COUNT', 0)}.{what}.json"
    if _rank() == 0:
        value = decide()
        with replacing(path) as file:
            file.write(json.dumps(value).encode())
        return value
    until = time.monotonic() + WAIT
    while not path.exists():
        if time.monotonic() > until:
            raise UserError("The first process of this run has decided nothing for half an hour.")
        time.sleep(0.2)
        with suppress(OSError):
            os.listdir(path.parent)  # NFS looks anew
    return json.loads(path.read_text())


def _rank() -> int:
    return int(os.environ.get("SLURM_PROCID", 0))


def _saved(kept: Folder, run: str) -> set[tuple[Path, int]]:
    """What there is of a run, to see whether an attempt has come any further."""
    folder = kept.path / run
    found = [folder / "checkpoints" / "last.ckpt", *(folder / "records").glob("*"), *(kept.path / "budgets").glob("*")]
    return {(path, path.stat().st_mtime_ns) for path in found if path.exists()}


def _queue_again() -> None:
    """Our job's time is over: Slurm ends it, and begins it anew when its turn comes."""
    said = subprocess.run(["scontrol", "requeue", job()], capture_output=True, text=True)
    if said.returncode:
        print(f"Slurm has not queued this job again: {said.stderr.strip()}. `suite run` goes on with it.", flush=True)


_told: list[int] = []  # signals


def _stop(signum: int, _: Any) -> None:
    _told.append(signum)
    raise KeyboardInterrupt


@contextmanager
def _until_told() -> Iterator[None]:
    """Leave what is inside when a signal tells us to stop."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the one into the other
        if not _told:
            raise


def _print_to(path: Path) -> None:
    """What this process and its children print goes on at the end of a file."""
    path.parent.mkdir(exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.stdout.flush()
    sys.stderr.flush()
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)


def _reason(error: Exception) -> str:
    """An error in a sentence; what is no user's mistake has its traceback in the log."""
    from genbench.cli import sentence

    told = sentence(error)
    if told is None:
        traceback.print_exc()
        told = f"{type(error).__name__}: {error}"
    else:
        print(f"error: {told}", file=sys.stderr, flush=True)
    if full(error):
        return f"{FULL}: {told}"
    return f"out of memory: {told}" if isinstance(error, MemoryError) else _what_ran_out(told)


def _what_ran_out(told: str) -> str:
    """An error's words, after those of what there was too little of."""
    if "No space left on device" in told:
        return f"{FULL}: {told}"
    out = "out of memory" in told.lower() or "can't allocate memory" in told
    return f"out of memory: {told}" if out else told


def full(error: BaseException | None) -> bool:
    """Whether an error comes from a disk with no room left."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
