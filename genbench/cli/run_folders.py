"""Run folders and their names, which are the same in all processes of a run."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from genbench.core import files
from genbench.core.errors import UserError
from genbench.suites import claims


def run_of(ckpt: Path) -> Path | None:
    """The run folder of a checkpoint; None if it is not in one."""
    folder = ckpt.absolute().parent.parent
    if folder != Path.cwd():  # `.` has no name
        with suppress(ValueError):
            folder = folder.relative_to(Path.cwd())  # a relative path is shorter in messages
    made = any((folder / name).is_file() for name in ("config.yaml", "metrics.csv"))
    return folder if ckpt.parent.name == "checkpoints" and made else None


def new_name(stem: str, runs: Path) -> str:
    """Return a new run name, equal in all processes. Rank 0 chooses it, because ranks start at different times."""
    name = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    if "SLURM_JOB_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        name = f"{stem}-{os.environ['SLURM_JOB_ID']}"
        if (step := os.environ.get("SLURM_STEP_ID", "0")) != "0":  # several steps of a job may train
            name += f".{step}"
    elif os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        import torch.distributed as dist

        store, rank, _ = next(dist.rendezvous("env://"))
        store = dist.PrefixStore("genbench", store)
        if rank == 0:
            store.set("name", _unused(name, runs))
        name = store.get("name").decode()
    elif "GENBENCH_RUN" not in os.environ:
        name = _unused(name, runs)
    # Lightning starts the other processes of this machine as children, which inherit this variable
    return os.environ.setdefault("GENBENCH_RUN", name)


def _unused(name: str, runs: Path) -> str:
    """Create a folder of this name and return the name; a number is appended if another run has just taken it."""
    runs.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        numbered = name if number == 1 else f"{name}-{number}"
        with suppress(FileExistsError):
            (runs / numbered).mkdir()
            return numbered


def inside(runs: Path, name: str) -> Path:
    """Return the folder of the run with this name.

    Raises:
        UserError: the folder would be outside of `runs`, or the name is not valid.
    """
    folder, parts = runs / name, Path(name).parts
    if Path(name).is_absolute() or ".." in parts or not parts:
        raise UserError(
            f"--name {name!r} is outside of {runs}. Use a name such as `first`, and set its folder with `--runs`."
        )
    if any(ord(character) < 32 for character in name) or max(len(os.fsencode(part)) for part in parts) > 200:
        raise UserError(f"--name {name!r} is not a valid folder name. Use letters, digits and hyphens.")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"--name {name!r}: {folder} is a link, or not a folder. Use a different name.")
    return folder


def version_of(path: Path) -> tuple[int, int, int]:
    """Return an id of the file at a path, which changes when the file is replaced."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


# files and folders that `fit` creates in a run's folder
LOCK = ".lock"
MADE = ("config.yaml", "metrics.csv", "curves.png", "checkpoints", "wandb", "lightning_logs", LOCK)
PICTURES = ("samples", "reconstructions", "translations", "masks")


class Place:
    """A run's folder, with a lock against other processes that would train in it: see `genbench.suites.claims`."""

    def __init__(self, folder: Path, resumed: bool) -> None:
        self.folder, self.resumed = folder, resumed
        self._claim: claims.Claim | None = None

    def refuse_if_taken(self) -> None:
        """Raise UserError if another process trains in the folder. Writes nothing."""
        lock = self.folder / LOCK
        if lock.exists() and not lock.is_dir():
            raise UserError(f"{lock} is not a folder, but a lock must be one. Remove it if no process trains there.")
        last = claims.latest(lock, "fit")
        if last is None or not last.alive:
            return
        # an attempt of the same job on another machine has ended: Slurm has requeued the job
        if _step() is None or last.holder.get("job") != _step() or claims.lives_here(last.holder):
            raise self._taken(last)

    def take(self) -> None:
        """Create and lock the folder. If its run has no checkpoint, the folder is emptied.

        Raises:
            UserError: another process trains in it; or the run is new, and the folder contains a checkpoint or
                files that `fit` did not write.
        """
        if not self.resumed:
            self._refuse_if_kept()
        self.refuse_if_taken()
        try:
            self._claim = claims.take(self.folder / LOCK, "fit", again=True, job=_step())
        except OSError as error:
            advice = "Free some space, or use" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Use"
            raise UserError(
                f"{self.folder} cannot be written to: {error.strerror}. {advice} a different `--runs`."
            ) from error
        if self._claim is None:
            raise self._taken(claims.latest(self.folder / LOCK, "fit"))
        self._claim.__enter__()
        for name in ("", LOCK, "checkpoints", *PICTURES):
            files.remove_orphans(self.folder / name)
        if not self.resumed:
            self._empty()

    def leave(self, *, wanted: bool = False) -> None:
        """Unlock the folder. It is removed if it contains only a config, unless `wanted`."""
        if self._claim is None:
            return
        self._claim.__exit__()
        with suppress(OSError):  # the disk may be full
            self._claim.end("stopped")
        self._claim = None
        made = (path for path in self.folder.rglob("*") if path.is_file() and LOCK not in path.parts)
        if not self.resumed and not wanted and all(path.name == "config.yaml" for path in made):
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # the parent may contain other runs
                self.folder.parent.rmdir()

    def _refuse_if_kept(self) -> None:
        if not self.folder.is_dir():
            return
        checkpoints = sorted(self.folder.glob("checkpoints/*.ckpt"))
        if checkpoints:
            last = self.folder / "checkpoints" / "last.ckpt"
            raise UserError(
                f"{self.folder} exists already. Resume it:  python -m genbench fit --ckpt "
                f"{last if last in checkpoints else checkpoints[-1]}\nor use a different `--name`."
            )
        made = {*MADE, *PICTURES, *(f"{name}.{kind}" for name in PICTURES for kind in ("gif", "webp"))}
        names = sorted(path.name for path in self.folder.iterdir())
        others = [name for name in names if name not in made and not name.startswith("events.out.tfevents")]
        if others:
            raise UserError(
                f"{self.folder} exists already and contains {', '.join(others[:3])}, which `fit` did not write. Use a "
                "different `--name`, or remove the folder."
            )

    def _empty(self) -> None:
        left = [path for path in self.folder.iterdir() if path.name != LOCK]
        if left:
            print(f"note: {self.folder} has no checkpoint, so its run starts again.", file=sys.stderr)
        for path in left:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _taken(self, by: claims.Attempt) -> UserError:
        if not by.holder:
            return UserError(
                f"{self.folder / LOCK} has just been written by an unknown process, which may be about to train there. "
                f"Wait {claims.STALE:.0f} seconds, or use a different `--name`."
            )
        return UserError(
            f"Another process trains in {self.folder} already: process {by.holder['pid']} on {by.holder['host']}, "
            f"since {by.begun}. Wait until it ends, stop it, or use a different `--name`. A killed process is detected "
            f"after {claims.STALE:.0f} seconds."
        )


def job() -> str | None:
    """Slurm's id of this process's job, which stays the same when it is requeued."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")


def _step() -> str | None:
    """The job and its step; each step may train in its own folder."""
    return job() and f"{job()}.{os.environ.get('SLURM_STEP_ID', 'batch')}"


def is_first_process() -> bool:
    """Whether this process has rank 0, which names the run and creates its folder."""
    ranks = [os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK")]
    return all(rank in (None, "0") for rank in ranks)
