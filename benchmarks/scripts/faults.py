"""Injects kills, full disks and signals into `fit`, `evaluate` and `suite`. No written data may be lost.

python benchmarks/scripts/faults.py [--seed 0] [--only NUMBER ...]

Tiny models are trained on Digits. Faults happen at random moments. A moment is a time, the n-th write operation (see
injected.py), or the size of a small disk. After each fault, all files are read. Then the command that was printed is
run, or else the same command again. The result must equal the result of the same command without a fault: weights bit
for bit, curve, records and images.
"""

from __future__ import annotations

import argparse
import atexit
import csv
import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import injected
import torch
import yaml
from machine import RESULTS, report
from PIL import Image

from genbench.core import checkpoint_io, history
from genbench.core.files import _TEMPORARY
from genbench.leaderboard.record import collect

HERE = Path(__file__).parent
MODELS = {
    "dcgan": {"class_path": "genbench.models.DCGAN", "init_args": {"width": 4, "latent_dim": 4}},
    "vae": {"class_path": "genbench.models.VAE", "init_args": {"width": 4, "latent_dim": 4}},
}
# keys of a record that differ between two evaluations, and keys of its run that differ between two trainings
VARIES, OF_TRAINING = ("cost", "training", "environment", "created"), ("checkpoint_hash", "config", "command", "suite")
TERMINAL = {"COLUMNS": "160"}
PATIENCE = 300.0  # timeout of a command in seconds

# kind of fault -> command -> number of faults
PLAN = {
    "kill": {"fit vae": 5, "fit dcgan": 5, "resume vae": 4, "resume dcgan": 4, "evaluate": 6, "suite": 6},
    "full disk": {"fit vae": 5, "fit dcgan": 5, "resume vae": 5, "resume dcgan": 4, "evaluate": 7, "suite": 4},
    "signals": {"fit vae": 5, "resume dcgan": 5, "evaluate": 2},
    "two at once": {"fit dcgan": 5, "resume dcgan": 20},
}


# ---- commands -------------------------------------------------------------------------------------------------------


class Command:
    """One `python -m genbench ...` in its own process, with stdout and stderr in two files.

    Commands with a single process are forked from this process, which has imported everything already. `suite` starts
    several processes, so it runs in a new Python process.
    """

    def __init__(self, argv: list[str], folder: Path, temporary: Path, fault: dict[str, Any] | None = None) -> None:
        self.argv, self.folder = argv, folder
        self._said = [temporary.parent / name for name in ("stdout", "stderr")]
        self.began = time.monotonic()
        if argv[0] == "suite":
            environment = (
                os.environ | TERMINAL | {"TMPDIR": str(temporary), "PYTHONPATH": _path_with_shim(temporary.parent)}
            )
            environment |= {injected.VARIABLE: json.dumps(fault)} if fault else {}
            with open(self._said[0], "wb") as out, open(self._said[1], "wb") as err:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "genbench", *argv], cwd=folder, env=environment, stdout=out, stderr=err,
                    start_new_session=True,
                )  # fmt: skip
            self.pid = self.process.pid
        else:
            self.process = None
            sys.stdout.flush()
            self.pid = os.fork() or self._be(temporary, fault)

    def _be(self, temporary: Path, fault: dict[str, Any] | None) -> int:
        status = 1
        try:
            os.setsid()
            for number, path in enumerate(self._said, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(k, "w"), write_through=True) for k in (1, 2))
            os.chdir(self.folder)
            os.environ |= TERMINAL | {"TMPDIR": str(temporary)}
            sys.argv = ["genbench", *self.argv]
            tempfile.tempdir = None
            torch.set_num_threads(1)  # the weights depend on the number of threads
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
            if fault:
                injected.install(**fault)
            from genbench.cli import main

            status = main(self.argv)
            atexit._run_exitfuncs()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit status, or minus the number of the signal that ended the process."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.process is not None:
                if (status := self.process.poll()) is not None:
                    return status
            else:
                done, status = os.waitpid(self.pid, os.WNOHANG)
                if done:
                    return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        raise Lost(f"{shlex.join(self.argv)} does not end in time")

    @property
    def said(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self._said)


def _path_with_shim(folder: Path) -> str:
    shim = folder / "shim"
    shim.mkdir(exist_ok=True)
    (shim / "sitecustomize.py").write_text((HERE / "injected.py").read_text())
    return os.pathsep.join([str(shim), *filter(None, [os.environ.get("PYTHONPATH")])])


def warm() -> None:
    """Import the modules that the commands need, before forking."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot
    import submitit  # noqa: F401


# ---- what must be true ----------------------------------------------------------------------------------------------


class Lost(Exception):
    """A guarantee was violated."""


def need(true: Any, words: str) -> None:
    if not true:
        raise Lost(words)


@dataclass
class Kind:
    """A command, and its result without faults.

    argv    arguments of the command
    before  folder with the files before the command
    after   folder with the files after the command
    log     write operations of the command and of the processes that it starts
    """

    name: str
    argv: list[str]
    before: Path
    after: Path = Path()
    log: list[str] = field(default_factory=list)
    seconds: float = 0.0


def runs(folder: Path) -> list[Path]:
    return sorted({path.parent for path in folder.glob("runs/**/config.yaml")})


def whole(folder: Path) -> None:
    """Check that all files with their final name are complete."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or ".lock" in path.parts or "claims" in path.parts or "jobs" in path.parts:
            continue
        try:
            if path.suffix == ".ckpt":
                checkpoint_io.read(path)
            elif path.suffix in (".png", ".gif"):
                with Image.open(path) as picture:
                    picture.load()
            elif path.suffix == ".yaml":
                need(isinstance(yaml.safe_load(path.read_text()), dict), "no YAML")
            elif path.name == "metrics.csv":
                need(not history.read(path).doubts, str(history.read(path).doubts))
            elif path.suffix == ".json":
                json.loads(path.read_text())
        except Exception as error:
            raise Lost(f"{path.relative_to(folder)} is not complete: {error}") from error
    for run in runs(folder):
        skipped = collect([run / "records"])[1] if (run / "records").is_dir() else []
        need(not [s for s in skipped if "older record" not in s[1]], f"records are skipped: {skipped}")


def kept(before: Path, folder: Path, log: list[str]) -> None:
    """Check that no file is missing that existed before or was given its final name, and that no run lost images."""
    wanted = {path.relative_to(before) for path in before.rglob("*") if path.is_file() and ".lock" not in path.parts}
    for line in log:
        what, _, path = line.split(" ", 2)[2].partition(" ")
        name = os.path.relpath(path, os.path.realpath(folder))
        if what == "kept" and not name.startswith("..") and ".lock" not in path:
            wanted.add(Path(name))
    lost = [name for name in wanted if not (folder / name).exists() and not _TEMPORARY.fullmatch(name.name)]
    alone = not any(name.suffix == ".ckpt" for name in wanted)  # a run without a checkpoint may start again
    need(not lost or (alone and all(name.name in ("config.yaml", "metrics.csv") for name in lost)), f"lost: {lost}")
    for name in wanted:
        if name.name == "last.ckpt" and (before / name).is_file():
            old, new = (checkpoint_io.read(where / name)["genbench"]["images_seen"] for where in (before, folder))
            need(new >= old, f"{name} went back from {old} to {new} images")


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "images_per_second" and v} for row in csv.DictReader(file)]


def curve_so_far(after: Path, folder: Path) -> None:
    """Check that the curve of each run, up to its checkpoint, equals the curve without faults."""
    for run in runs(folder):
        last = run / "checkpoints" / "last.ckpt"
        if last.is_file() and (run / "metrics.csv").is_file():
            seen = checkpoint_io.read(last)["genbench"]["images_seen"]
            there, peace = (
                [row for row in rows(one) if int(row["images_seen"]) <= seen]
                for one in (run, after / run.relative_to(folder))
            )
            # rows at the checkpoint's number of images may be missing
            need([r for r in there if r in peace] == there, f"{run.name} has a different curve up to {seen}")
            held = [row for row in peace if int(row["images_seen"]) < seen]
            need(there[: len(held)] == held, f"the curve of {run.name} lacks rows before {seen} images")


def differences(a: Any, b: Any, at: str = "") -> Iterator[str]:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or not torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)):
            yield at
    elif isinstance(a, dict) and isinstance(b, dict):
        for name in [*a, *(name for name in b if name not in a)]:
            yield from differences(a.get(name), b.get(name), f"{at}.{name}")
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{at}.{k}")
    elif a != b:
        yield f"{at} ({a!s:.40} and {b!s:.40})"


def equal(peace: Path, folder: Path, *, pictures: bool = True) -> None:
    """Check that the result equals the result of the same command without faults.

    pictures  whether all images written during training must exist, too
    """
    need([r.relative_to(peace) for r in runs(peace)] == [r.relative_to(folder) for r in runs(folder)], "different runs")
    for ours in runs(folder):
        theirs = peace / ours.relative_to(folder)
        names = {p.name for p in theirs.glob("checkpoints/*")}
        need({p.name for p in ours.glob("checkpoints/*")} == names, f"checkpoints of {ours.name} are not {names}")
        for name in names:
            a, b = (checkpoint_io.read(one / "checkpoints" / name) for one in (ours, theirs))
            for part in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "genbench"):
                found = next(differences(a.get(part), b.get(part)), None)
                need(found is None, f"{ours.name}/{name}: {part}{found}")
        for row, other in zip(rows(ours), rows(theirs), strict=False):
            need(row == other, f"the curve of {ours.name} differs at {row['images_seen']}: {row}, {other}")
        need(len(rows(ours)) == len(rows(theirs)), f"the curve of {ours.name} has a different number of rows")
        a, b = (yaml.safe_load((one / "config.yaml").read_text()) for one in (ours, theirs))
        need(a == b, f"config.yaml: {next(differences(a, b), None)}")
        for path in theirs.rglob("*.png"):
            name = path.relative_to(theirs)
            last = path == max(path.parent.glob("*.png"))
            # names of records end in a hash of their content, which includes times
            pattern = re.sub("-[0-9a-f]{8}/", "-*/", str(name)) if name.parts[0] == "records" else str(name)
            mine = list(ours.glob(pattern))
            need(mine or not (pictures or last), f"{pattern} of {ours.name} is missing")
            if mine and path.name != "curves.png":  # curves.png shows the speed
                same = any(one.read_bytes() == path.read_bytes() for one in mine)
                need(same, f"{pattern} of {ours.name} is a different image")
        for name in ("samples.gif", "curves.png"):
            need((ours / name).exists() == (theirs / name).exists(), f"{name} of {ours.name}")
        found = next(differences(records(ours), records(theirs)), None)
        need(found is None, f"records of {ours.name}: {found}")
    left = [p for p in folder.rglob(".*.tmp") if _TEMPORARY.fullmatch(p.name)]
    need(not left, f"temporary files are left: {[str(p.relative_to(folder)) for p in left]}")


def records(run: Path) -> dict[str, Any]:
    found = {}
    for record in collect([run / "records"])[0] if (run / "records").is_dir() else []:
        text = {name: value for name, value in record.to_dict().items() if name not in VARIES}
        text["run"] = {name: value for name, value in (text["run"] or {}).items() if name not in OF_TRAINING}
        found[f"{record.protocol['name']} {text['run'].get('checkpoint')}"] = text
    return found


# ---- one fault ------------------------------------------------------------------------------------------------------


@contextmanager
def disk(folder: Path, megabytes: float | None) -> Iterator[Callable[[], None]]:
    """Mount a disk of this size at a folder. Yields a function that makes room on it."""
    if megabytes is None:
        yield lambda: None
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=100m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder, suppress(OSError, subprocess.CalledProcessError):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True, capture_output=True)
        subprocess.run(["umount", folder], check=True)
        return True
    return False


def size(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


class Trial:
    """One command with one fault, in its own folder."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.work, self.temporary, self.log = folder / "work", folder / "temporary", folder / "log"
        for path in (self.work, self.temporary):
            path.mkdir(parents=True)
        self.said: list[str] = []

    def fill(self) -> None:
        shutil.copytree(self.kind.before, self.work, dirs_exist_ok=True, symlinks=True)

    def run(self, argv: list[str], fault: dict[str, Any] | None = None, after: Callable | None = None) -> int:
        """Run a command, store its output and return its exit status. `after` is called when the command has
        started."""
        command = Command(argv, self.work, self.temporary, fault)
        if after is not None:
            after(command)
        status = command.wait()
        self.said.append(f"$ {shlex.join(argv)}  -> {status}\n{command.said}")
        need("Traceback" not in command.said, "a traceback")
        return status

    def points(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def end_in_peace(self) -> None:
        """Continue like a user: run the command that was printed, or else the same command, and follow its message."""
        printed = self.said[-1]
        for word in re.findall(r"`(mv [^`]+)`", printed):
            subprocess.run(shlex.split(word), cwd=self.work, check=True)
            self.said.append(f"$ {word}")
        command = [] if "\nDone: " in printed else re.findall(r"python -m genbench (fit --ckpt [^\n`]+)", printed)
        if self.kind.name == "suite":
            command = []  # a suite also trains runs that were moved
        argv = shlex.split(command[-1].rstrip(".")) if command else self.kind.argv
        status = self.run(argv)
        if status == 2 and not command:
            again = re.findall(r"python -m genbench (fit --ckpt \S+)", self.said[-1])
            done = "is done" in self.said[-1] and not again
            need(again or done, "the same command is rejected without suggesting a different one")
            if again:
                status = self.run(shlex.split(again[-1]))
        elif status == 2 and "is done" in self.said[-1]:  # a resumed run uses the budget of its flags
            status = self.run(self.kind.argv)
        need(status == 0 or "is done" in self.said[-1], f"it cannot continue: exit status {status}")


def killed(trial: Trial, draw: random.Random, at: int | None = None) -> str:
    """Kill the command at a random moment, or at the write operation `at`. Returns the moment as text."""
    kind = trial.kind
    trial.fill()
    by_point = at is not None or draw.random() < 0.6
    lines = [line.split() for line in kind.log]
    if kind.name == "suite":
        worker = draw.random() < 0.5
        words = "submitit" if worker else "genbench suite"
        moment = f"{'worker' if worker else 'parent'}, "
    else:
        words, moment = None, ""
    if by_point:
        counts: dict[str, int] = {}
        for line in lines:
            counts[line[0]] = max(counts.get(line[0], 0), int(line[1]))
        if kind.name == "suite":  # the parent process writes less than the workers
            parent = lines[0][0]
            of = [n for pid, n in counts.items() if (pid != parent) == worker and n > 20 * worker]
        else:
            of = list(counts.values())
        at = at or draw.randint(1, max(1, min(of)))
        fault = {"below": [str(trial.work)], "at": at, "kind": "kill", "log": str(trial.log), "process": words}
        status = trial.run(kind.argv, fault)
        moment += f"point {at}"
    else:
        seconds = draw.uniform(0.02, 1.0) * kind.seconds
        fault = {"below": [str(trial.work)], "at": 1, "kind": "count", "log": str(trial.log)}
        status = trial.run(kind.argv, fault, lambda command: kill_after(command, seconds, moment.startswith("worker")))
        moment += f"{seconds:.2f} s"
    if not moment.startswith("worker"):
        need(status in (-9, 0), f"exit status {status}")
    if points := [line for line in trial.points() if line.split()[1] != "0"]:
        moment += f" ({points[-1].split(' ', 2)[2].replace(str(trial.work) + '/', '')})"
    whole_at_last(trial)
    if status == -9 or kind.name == "suite":
        trial.end_in_peace()
    equal(kind.after, trial.work)
    return moment


def whole_at_last(trial: Trial) -> None:
    """Check all files after a fault. First wait for the jobs of a suite, which continue after it was killed."""
    until = time.monotonic() + PATIENCE
    while trial.kind.name == "suite" and jobs(trial.work) and time.monotonic() < until:
        time.sleep(0.2)
    whole(trial.work)
    kept(trial.kind.before, trial.work, trial.points())
    curve_so_far(trial.kind.after, trial.work)


def jobs(folder: Path) -> list[int]:
    """Processes of a suite in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder) == os.readlink(path / "cwd") and b"submitit" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def kill_after(command: Command, seconds: float, worker: bool) -> None:
    time.sleep(max(0.0, command.began + seconds - time.monotonic()))
    found = [pid for pid in jobs(command.folder) if b"_submit" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    with suppress(OSError):
        if not worker:
            os.kill(command.pid, signal.SIGKILL)
        elif found:
            os.kill(found[0], signal.SIGKILL)


def filled(trial: Trial, draw: random.Random, mounted: bool, at: int | None = None) -> str:
    """Fill the disk at a random moment, or at the write operation `at`. Returns the moment as text."""
    kind = trial.kind
    before, after = size(kind.before), size(kind.after)
    megabytes, fault = None, None
    if mounted:
        megabytes = (before + draw.uniform(0.05, 1.02) * (after - before) + 8192) / 2**20
        moment = f"a disk of {megabytes:.2f} MB"
    else:
        at = at or draw.randint(1, len(kind.log) if kind.name != "suite" else len(kind.log) // 3)
        what = draw.choice(injected.NO_ROOM)
        times = draw.choice((1, 3, None))
        below = [str(trial.work)] + ([str(trial.temporary)] if draw.random() < 0.3 else [])
        fault = {"below": below, "at": at, "kind": what, "times": times, "log": str(trial.log)}
        moment = f"point {at}, {what}, {times or 'all'} fail{', temporary folder too' * (len(below) > 1)}"
    with disk(trial.work, megabytes) as make_room:
        trial.fill()
        status = trial.run(kind.argv, fault)
        moment += f": exit status {status}"
        said = trial.said[-1]
        need(status in (0, 2) or (kind.name == "suite" and status == 1), f"exit status {status}")
        failed = [line for line in said.splitlines() if "No space left" in line]
        if status:
            full = failed or re.search("disk (of .*)?is full", said)
            need(full or "MB" in said, "no message says that the disk is full")
            need(kind.name == "suite" or "work" in said or "runs/" in said, "no message contains a path")
        whole_at_last(trial)
        make_room()
        scores_are_not_lost(trial, said, status)
        fitted = kind.argv[0] == "fit"
        if status or (failed and fitted):
            trial.end_in_peace()
        equal(kind.after, trial.work, pictures=False)
    return moment


def scores_are_not_lost(trial: Trial, said: str, status: int) -> None:
    """Check that the scores of `evaluate` are in a record, in the file it names, or printed; or that it stopped
    before."""
    if trial.kind.name != "evaluate" or status == 0:
        return
    there = len(records(next(iter(runs(trial.work))))) == len(records(next(iter(runs(trial.kind.after)))))
    elsewhere = [path for path in trial.temporary.rglob("*.json") if str(path) in said]
    printed = '"metrics"' in said
    refused = "cannot be written to" in said
    need(there or elsewhere or printed or refused, "scores are lost")


# ---- signals, and two at once ---------------------------------------------------------------------------------------


def signaled(trial: Trial, draw: random.Random) -> str:
    """Send a signal at a random moment, and in half of the trials a second one soon after. Returns the moments as
    text."""
    kind, asked, moment = trial.kind, set(), []

    def ask(command: Command) -> None:
        waits = (draw.uniform(0.02, 1.0) * kind.seconds, draw.uniform(0.0, 0.3))
        for wait in waits[: draw.randint(1, 2)]:
            time.sleep(wait)
            signum = draw.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
            moment.append(f"{signum.name} after {wait:.2f} s")
            asked.add(signum)
            with suppress(OSError):
                os.kill(command.pid, signum)

    trial.fill()
    fault = {"below": [str(trial.work)], "at": 1, "kind": "count", "log": str(trial.log)}
    status = trial.run(kind.argv, fault, ask)
    moment.append(f"exit status {status}")
    need(status in {0, *(-n for n in asked), *(128 + n for n in asked)}, f"exit status {status} of {moment}")
    whole_at_last(trial)
    if status:
        trial.end_in_peace()
    equal(kind.after, trial.work)
    return ", ".join(moment)


def together(trial: Trial, draw: random.Random) -> str:
    """Start the same command twice at once: one must train, the other must be rejected. Returns which one trained."""
    trial.fill()
    places = [trial.temporary, trial.folder / "other" / "temporary"]
    places[1].mkdir(parents=True)
    commands = [Command(trial.kind.argv, trial.work, where) for where in places]
    statuses = [command.wait() for command in commands]
    trial.said += [command.said for command in commands]
    need(sorted(statuses) == [0, 2], f"exit statuses {statuses}")
    words = commands[statuses.index(2)].said
    need("Another process trains in" in words or "exists already" in words, "no message contains the reason")
    equal(trial.kind.after, trial.work)
    return "the first trains" if statuses[0] == 0 else "the second trains"


# ---- all of them ----------------------------------------------------------------------------------------------------


def configs(folder: Path, images: int) -> None:
    """Write two configs that train on `images` images, a protocol and a suite."""
    data = {"class_path": "genbench.data.Digits", "init_args": {"size": 16, "batch_size": 16, "subset": 80}}
    for name, model in MODELS.items():
        text: dict[str, Any] = {"max_images": images, "model": model, "data": data, "protocol": "few.yaml"}
        text |= {"monitor": {"every_images": 80}, "ema": {"every_images": 64}}
        text |= {
            "checkpoint": {"every_images": 240, "keep_every": images // 2},
            "samples": {"every_images": 320, "n": 4},
        }
        text |= {"validation": {"every_images": 480, "samples": 32}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(text))
    (folder / "few.yaml").write_text("split: test\nreal: 40\ngenerated: 64\nmetrics: [fid, reconstruction]\n")
    suite = {"models": ["dcgan.yaml", "vae.yaml"], "budget": {"images": images}, "protocol": "few.yaml"}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(suite | {"launch": {"threads": 1, "at_once": 2}}))


def in_peace(kind: Kind, folder: Path) -> Kind:
    trial = Trial(kind, folder)
    trial.fill()
    fault = {"below": [str(trial.work)], "at": 1, "kind": "count", "log": str(trial.log)}
    began = time.monotonic()
    status = trial.run(kind.argv, fault)
    need(status == 0, f"{kind.name} fails without a fault: {trial.said}")
    kind.after, kind.seconds = trial.work, time.monotonic() - began
    kind.log = [line for line in trial.points() if line.split()[1] != "0"]
    return kind


def kinds(folder: Path, names: set[str], images: int = 1600) -> dict[str, Kind]:
    """The commands, each with its result without faults. Each trains on `images` images."""
    empty = folder / "empty"
    empty.mkdir(parents=True)
    configs(empty, images)
    found = {}
    for model in MODELS:
        fit = ["fit", "--config", f"{model}.yaml", "--name", "a"]
        if names & {f"fit {model}", "evaluate"}:
            found[f"fit {model}"] = in_peace(Kind(f"fit {model}", fit, empty), folder / f"fit-{model}")
        if f"resume {model}" in names:
            half = in_peace(Kind("half", [*fit, "--max_images", str(images // 2)], empty), folder / f"half-{model}")
            argv = ["fit", "--ckpt", "runs/a", "--max_images", str(images)]
            found[f"resume {model}"] = in_peace(Kind(f"resume {model}", argv, half.after), folder / f"resume-{model}")
    if "evaluate" in names:
        argv = ["evaluate", "--ckpt", "runs/a", "--protocol"]
        first = in_peace(Kind("first", [*argv, "few.yaml"], found["fit vae"].after), folder / "measured")
        again = [*argv, "few.yaml", "--generated", "48"]
        found["evaluate"] = in_peace(Kind("evaluate", again, first.after), folder / "evaluate")
    if "suite" in names:
        found["suite"] = in_peace(Kind("suite", ["suite", "run", "tiny.yaml"], empty), folder / "suite")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", help="only faults with these numbers")
    parser.add_argument("--commands", nargs="+", choices=PLAN["kill"], help="only faults of these commands")
    parser.add_argument("--keep", action="store_true", help="keep the folders of all faults, not only of failed ones")
    parser.add_argument("--out", type=Path, default=RESULTS / "faults.json")
    arguments = parser.parse_args()
    planned = [(name, what) for what, counts in PLAN.items() for name in counts for _ in range(counts[name])]
    chosen = {
        number: each
        for number, each in enumerate(planned)
        if (not arguments.only or number in arguments.only)
        and (not arguments.commands or each[0] in arguments.commands)
    }
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    warm()
    print(f"seed {arguments.seed}; all files are in {folder}", flush=True)
    found = kinds(folder / "peace", {name for name, _ in chosen.values()})
    mounts = can_mount()
    lines = []
    trials = {"kill": killed, "signals": signaled, "two at once": together}
    for number, (name, what) in chosen.items():
        draw = random.Random(f"{arguments.seed} {number}")
        trial = Trial(found[name], folder / f"{number:02d}")
        began = time.monotonic()
        moment, fault = "", ""
        try:
            if what == "full disk":
                moment = filled(trial, draw, mounts and draw.random() < 0.4)
            else:
                moment = trials[what](trial, draw)
        except Lost as error:
            fault = str(error)
            (trial.folder / "said").write_text("\n".join(trial.said))
        except Exception:
            fault = traceback.format_exc()
            (trial.folder / "said").write_text("\n".join(trial.said))
        lines.append({"number": number, "command": name, "fault": what, "moment": moment, "lost": fault})
        print(f"{number:2d} {name}, {what}: {moment or 'see below'}  ({time.monotonic() - began:.1f} s)", flush=True)
        if fault:
            print(f"   LOST: {fault}\n   {trial.folder}/said", flush=True)
        elif not arguments.keep:
            shutil.rmtree(trial.folder)
    rows = [
        {"command": name}
        | {what: sum((x["command"], x["fault"]) == (name, what) for x in lines) for what in PLAN}
        | {"something lost": sum(x["command"] == name and bool(x["lost"]) for x in lines)}
        for name in PLAN["kill"]
    ]
    everything = not arguments.only and not arguments.commands
    report("Faults at random moments", rows, arguments.out if everything else None, seed=arguments.seed,
           faults=lines)  # fmt: skip
    if not any(line["lost"] for line in lines) and not arguments.keep:
        shutil.rmtree(folder)
    sys.exit(any(line["lost"] for line in lines))


if __name__ == "__main__":
    main()
