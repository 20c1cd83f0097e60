"""Do one run of a suite in its own process: train, then evaluate the best and the last checkpoint.

The process calls `fit` and `test`, and can be killed and restarted at any point.
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

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)  # Slurm sends SIGUSR2 before a job's time limit
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGUSR2, 128 + signal.SIGHUP)
FULL = "the disk is full"
HEADER = "==== "  # begins the first line of each attempt in a run's log
WAIT = 1800.0  # seconds that the other processes of a run wait for the first one


class Failed(Exception):
    """A child process printed an error and ended."""


def work(folder: str, run: str, again: bool, modules: list[str]) -> bool:
    """Do a run. Return False if it is done or if another process does it.

    Args:
        folder: The suite's folder
        run: Name of the run
        again: Whether to retry a failed run
        modules: Modules with the user's own models, imported first
    """
    with suppress(OSError):
        os.setsid()  # Ctrl-C does not reach this process: the launcher sends a signal
    for signum in SIGNALS:
        signal.signal(signum, _stop)
    kept, first = Folder(Path(folder)), _rank() == 0
    if not first:
        with _until_signal():
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
        for signum in SIGNALS:  # the attempt has ended
            signal.signal(signum, signal.SIG_IGN)
        limit = outcome == "stopped" and reason == "SIGUSR2" and job() is not None
        if limit and _saved(kept, run) == saved:
            outcome, limit = "failed", False
            reason = "it reached its time limit before it had saved anything new: increase `launch.minutes`"
        claim.end(outcome, reason)
    if limit:  # Slurm ends the job, and starts it again later
        requeue = subprocess.run(["scontrol", "requeue", job()], capture_output=True, text=True)
        if requeue.returncode:
            print(f"Slurm did not requeue this job: {requeue.stderr.strip()}. `suite run` resumes it.", flush=True)
    signaled = (reason or "").startswith("SIG")  # the other processes got the signal too
    if outcome != "done" and not signaled and int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        sys.exit(1)  # Slurm then ends the other processes, which may wait for this one
    return True


def _attempt(kept: Folder, run: str, modules: list[str]) -> tuple[str, str | None]:
    """Train and evaluate. Return the outcome (done, failed or stopped) and the reason."""
    try:
        with _until_signal():
            status = _train(kept, run, modules)
            if status in STOPPED:
                return "stopped", signal.Signals(status - 128).name
            _measure(kept, run)
            return "done", None
        return "stopped", signal.Signals(_received[0]).name
    except Failed as error:
        return "stopped" if str(error).startswith(FULL) else "failed", str(error)
    except Exception as error:
        return "stopped" if full(error) else "failed", _reason(error)


def _train(kept: Folder, run: str, modules: list[str]) -> int:
    """Train in all processes of the run. Return the exit status of `fit`, or 0 if the training was already complete."""
    from genbench.cli.flags import import_modules

    imports = [f"--import={module}" for module in modules]
    import_modules(imports)
    experiment, seed = kept.runs()[run]
    facts = kept.plan()["experiments"][experiment]
    config = [*imports, f"--config={kept.path / 'configs' / experiment}.yaml"]
    images = _agreed(kept, "images", lambda: kept.images(experiment))
    if images is None:
        found = _speed(config, facts)
        images = _agreed(kept, "measured", lambda: _store_budget(kept, experiment, facts, found))
    checkpoint = _last_checkpoint(kept.path / run)
    begun = _agreed(kept, "checkpoint", lambda: _images_seen(checkpoint))
    if begun is not None and begun >= images:
        return 0
    if begun is not None:
        config.append(f"--ckpt={checkpoint}")
    else:
        if _rank() == 0 and (kept.path / run).exists():
            shutil.rmtree(kept.path / run)  # an earlier attempt was killed before it saved anything
        _agreed(kept, "empty", lambda: True)
    flags = [f"--seed_everything={seed}", f"--name={run}", f"--runs={kept.path}", f"--max_images={images}"]
    return _fit([*config, *flags], facts)


def _last_checkpoint(run: Path) -> Path:
    """Return the checkpoint to resume from: `last.ckpt`, or the newest if `last.ckpt` could not be written."""
    last = run / "checkpoints" / "last.ckpt"
    others = sorted(last.parent.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    return last if last.is_file() or not others else others[-1]


def _images_seen(checkpoint: Path) -> int | None:
    if not checkpoint.is_file():
        return None
    from genbench.core import checkpoint_io

    return checkpoint_io.read(checkpoint)["genbench"]["images_seen"]


def _fit(argv: list[str], facts: dict[str, Any]) -> int:
    """Run `fit` in this process, or in a child process for several devices, since Lightning starts copies of it."""
    from genbench.cli import fit

    if facts["devices"] == 1 or "SLURM_PROCID" in os.environ:
        import torch.distributed as dist

        status = fit.main("fit", argv)
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()  # only the first process evaluates
        return status
    child = None

    def forward(signum: int, frame: Any) -> None:
        _received.append(signum)
        if child is not None:
            child.send_signal(signum)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        child = subprocess.Popen([sys.executable, "-m", "genbench", "fit", *argv], preexec_fn=_die_with_parent)
        if _received:
            child.send_signal(_received[0])
        status = child.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    if status in (0, 128, *STOPPED):
        return status
    if _received or status == -signal.SIGTERM:  # the child was killed before it could save
        return 128 + signal.SIGTERM
    raise Failed(_with_cause(_last_error() or f"`fit` ended with status {status}; see its log"))


def _die_with_parent() -> None:
    """Have Linux kill this process when its parent dies. Otherwise it would train during the next attempt."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _last_error() -> str:
    """Return the last error in the log of this attempt. This process and its children print to that log."""
    found = ""
    with suppress(OSError), open("/proc/self/fd/1", errors="replace") as log:
        for line in log:
            if line.startswith(("error: ", HEADER)):
                found = line.removeprefix("error: ").strip() if line.startswith("error: ") else ""
    return found


def _speed(config: list[str], facts: dict[str, Any]) -> dict[str, Any] | None:
    """Measure images per second of a config on its devices, by a short training run in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "speed.json"
        watch = ["--trainer.callbacks+=genbench.callbacks.stopwatch.Stopwatch", f"--trainer.callbacks.out={out}"]
        quiet = ["--trainer.logger=false", "--max_images=1e12", "--name=speed", f"--runs={folder}"]
        status = _fit([*config, *quiet, *watch], facts)
        if status in STOPPED:
            _stop(status - 128, None)
        return json.loads(out.read_text()) if out.exists() else None


def _store_budget(kept: Folder, experiment: str, facts: dict[str, Any], found: dict[str, Any]) -> int:
    """Convert device minutes to images, and store the number so that all seeds use the same."""
    devices = facts["devices"] * facts["nodes"]
    images = found["images_per_second"] * 60 * facts["budget"]["minutes"] / devices
    images = round(images, -3) if images >= 20_000 else max(1, images)
    return kept.keep_images(experiment, {"images": int(images), "minutes": facts["budget"]["minutes"]} | found)


def _measure(kept: Folder, run: str) -> None:
    """Evaluate the best and the last checkpoint under the suite's protocol, unless they have records."""
    from genbench.cli import evaluate
    from genbench.evaluation import protocol as protocols
    from genbench.leaderboard.record import collect

    folder, protocol = kept.path / run, protocols.load(kept.config(kept.runs()[run][0])["protocol"]).name
    found = collect([folder / "records"])[0] if (folder / "records").is_dir() else []
    there = {record.run["checkpoint"] for record in found if record.protocol["name"] == protocol}
    for name in ("best", "last"):
        path = folder / "checkpoints" / f"{name}.ckpt"
        if path.is_file() and name not in there:
            evaluate.main("test", [f"--ckpt={path}"])


def _agreed(kept: Folder, what: str, decide: Callable[[], Any] | None) -> Any:
    """Share a decision of the first process with all processes that Slurm started for the run, through a file."""
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
            raise UserError("The first process of this run has not answered for half an hour. Check its log.")
        time.sleep(0.2)
        with suppress(OSError):
            os.listdir(path.parent)  # refreshes the NFS cache
    return json.loads(path.read_text())


def _rank() -> int:
    return int(os.environ.get("SLURM_PROCID", 0))


def _saved(kept: Folder, run: str) -> set[tuple[Path, int]]:
    """Return files of a run with their modification times, which show whether an attempt made progress."""
    folder = kept.path / run
    found = [folder / "checkpoints" / "last.ckpt", *(folder / "records").glob("*"), *(kept.path / "budgets").glob("*")]
    return {(path, path.stat().st_mtime_ns) for path in found if path.exists()}


_received: list[int] = []  # received signals


def _stop(signum: int, _: Any) -> None:
    _received.append(signum)
    raise KeyboardInterrupt


@contextmanager
def _until_signal() -> Iterator[None]:
    """Leave the block when a signal arrives."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning replaces KeyboardInterrupt by SystemExit
        if not _received:
            raise


def _print_to(path: Path) -> None:
    """Append the output of this process and its children to a file."""
    path.parent.mkdir(exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.stdout.flush()
    sys.stderr.flush()
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)


def _reason(error: Exception) -> str:
    """Return the error as a sentence. The traceback is logged, except for a user error."""
    from genbench.cli import sentence
    from genbench.core.errors import no_memory

    message = None if no_memory(error) else sentence(error)  # the log keeps how much memory was asked for
    if message is None:
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
    else:
        print(f"error: {message}", file=sys.stderr, flush=True)
    if full(error):
        return f"{FULL}: {message}"
    return f"out of memory: {message}" if isinstance(error, MemoryError) else _with_cause(message)


def _with_cause(message: str) -> str:
    """Return the message, preceded by `the disk is full` or `out of memory` if that is the cause."""
    if "No space left on device" in message:
        return f"{FULL}: {message}"
    out = "out of memory" in message.lower() or "can't allocate memory" in message
    return f"out of memory: {message}" if out else message


def full(error: BaseException | None) -> bool:
    """Whether an error was caused by a full disk."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
