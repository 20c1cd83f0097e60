"""Run folders and their names, agreed on by all processes before training starts."""

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
    """The run folder that a checkpoint lies in, if it lies in one."""
    folder = ckpt.absolute().parent.parent
    if folder != Path.cwd():  # which `.` would leave without a name
        with suppress(ValueError):
            folder = folder.relative_to(Path.cwd())  # shorter to read and to type
    made = any((folder / name).is_file() for name in ("config.yaml", "metrics.csv"))
    return folder if ckpt.parent.name == "checkpoints" and made else None


def new_name(stem: str, runs: Path) -> str:
    """A name for a run that no other has, the same in all its processes: rank 0's, handed on by the launcher.

    Ranks start seconds apart, so a time read in each would differ.
    """
    name = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    if "SLURM_JOB_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        name = f"{stem}-{os.environ['SLURM_JOB_ID']}"
        if (step := os.environ.get("SLURM_STEP_ID", "0")) != "0":  # several may train within one job
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
    # Lightning starts the other processes of this machine as children of the first
    return os.environ.setdefault("GENBENCH_RUN", name)


def _unused(name: str, runs: Path) -> str:
    """The name, with a number behind it where another run took it in the same second. Its folder is made."""
    runs.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        numbered = name if number == 1 else f"{name}-{number}"
        with suppress(FileExistsError):
            (runs / numbered).mkdir()
            return numbered


def inside(runs: Path, name: str) -> Path:
    """The folder of the run of that name.

    Raises:
        UserError: it would lie outside of the runs folder, or cannot be a folder's name.
    """
    folder = runs / name
    if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).parts:
        raise UserError(
            f"--name {name!r} leads out of {runs}. Give a name such as `first`, and `--runs` for its folder."
        )
    if any(ord(character) < 32 for character in name) or max(len(os.fsencode(part)) for part in Path(name).parts) > 200:
        raise UserError(f"--name {name!r} cannot be the name of a folder. Give letters, digits and hyphens.")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"--name {name!r}: {folder} is a link, or no folder. Give another name.")
    return folder


def version_of(path: Path) -> tuple[int, int, int]:
    """Which file lies there now: another one after it was replaced."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


# what `fit` makes in a run's folder
LOCK = ".lock"
MADE = ("config.yaml", "metrics.csv", "curves.png", "checkpoints", "wandb", "lightning_logs", LOCK)
PICTURES = ("samples", "reconstructions", "translations", "masks")


class Place:
    """A run's folder, and the lock that keeps a second process from training in it.

    The lock is a file that shows a sign of life, as in `genbench.suites.claims`.
    """

    def __init__(self, folder: Path, resumed: bool) -> None:
        self.folder, self.resumed = folder, resumed
        self._claim: claims.Claim | None = None

    def refuse_if_taken(self) -> None:
        """Raise UserError where another process trains in the folder; writes nothing."""
        lock = self.folder / LOCK
        if lock.exists() and not lock.is_dir():
            raise UserError(f"{lock} is no folder, as the lock of a run is. Remove it, if nothing trains there.")
        last = claims.latest(lock, "fit")
        if last is None or not last.alive:
            return
        # one of the same job on another machine is over: Slurm has queued the job again
        if _step() is None or last.holder.get("job") != _step() or claims.lives_here(last.holder):
            raise self._taken(last)

    def take(self) -> None:
        """Lock the folder; make it where it is not there, and begin again in that of a run without a checkpoint.

        Raises:
            UserError: another process trains in it; or it is a new run's and holds something already.
        """
        if not self.resumed:
            self._refuse_if_kept()
        self.refuse_if_taken()
        try:
            self._claim = claims.take(self.folder / LOCK, "fit", again=True, job=_step())
        except OSError as error:
            advice = "Free some of the disk, or give" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Give"
            raise UserError(
                f"{self.folder} cannot be written to: {error.strerror}. {advice} another `--runs`."
            ) from error
        if self._claim is None:
            raise self._taken(claims.latest(self.folder / LOCK, "fit"))
        self._claim.__enter__()
        for name in ("", LOCK, "checkpoints", *PICTURES):
            files.remove_orphans(self.folder / name)
        if not self.resumed:
            self._empty()

    def leave(self, *, wanted: bool = False) -> None:
        """Unlock it; remove it where nothing came of it, unless it is wanted."""
        if self._claim is None:
            return
        self._claim.__exit__()
        with suppress(OSError):  # of a disk that is full, too
            self._claim.end("stopped")
        self._claim = None
        made = (path for path in self.folder.rglob("*") if path.is_file() and LOCK not in path.parts)
        if not self.resumed and not wanted and all(path.name == "config.yaml" for path in made):
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # others may have runs there
                self.folder.parent.rmdir()

    def _refuse_if_kept(self) -> None:
        if not self.folder.is_dir():
            return
        checkpoints = sorted(self.folder.glob("checkpoints/*.ckpt"))
        if checkpoints:
            last = self.folder / "checkpoints" / "last.ckpt"
            raise UserError(
                f"{self.folder} exists already. Go on with it:  python -m genbench fit --ckpt "
                f"{last if last in checkpoints else checkpoints[-1]}\nor give this run another `--name`."
            )
        others = sorted(p.name for p in self.folder.iterdir() if not self._made(p))
        if others:
            raise UserError(
                f"{self.folder} exists already and holds {', '.join(others[:3])}, which is not of a run that ended "
                "before its first checkpoint. Give this run another `--name`, or remove it."
            )

    @staticmethod
    def _made(path: Path) -> bool:
        films = {f"{name}.{kind}" for name in PICTURES for kind in ("gif", "webp")}
        return path.name in (*MADE, *PICTURES, *films) or path.name.startswith("events.out.tfevents")

    def _empty(self) -> None:
        """Remove what a run left that ended before its first checkpoint."""
        left = [path for path in self.folder.iterdir() if path.name != LOCK]
        if left:
            print(f"note: {self.folder} has no checkpoint, so the run in it begins again.", file=sys.stderr)
        for path in left:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _taken(self, by: claims.Attempt) -> UserError:
        if not by.holder:
            return UserError(
                f"{self.folder / LOCK} has been written to just now and does not say by whom: another process may "
                f"begin to train there. Wait {claims.STALE:.0f} seconds, or give this run another `--name`."
            )
        return UserError(
            f"Another process trains in {self.folder} already: {by.holder['pid']} on {by.holder['host']}, since "
            f"{by.begun}. Wait until it has ended, stop it, or give this run another `--name`. One that is gone "
            f"without a word is noticed after {claims.STALE:.0f} seconds."
        )


def job() -> str | None:
    """What Slurm calls this process's job; the same after it was queued again."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")


def _step() -> str | None:
    """The job and the step in it, of which each may train in a folder of its own."""
    return job() and f"{job()}.{os.environ.get('SLURM_STEP_ID', 'batch')}"


def is_first_process() -> bool:
    """Whether this is the process that names the run and makes its folder."""
    ranks = [os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK")]
    return all(rank in (None, "0") for rank in ranks)
