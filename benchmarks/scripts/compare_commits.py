"""Compares two commits on one machine, to check that a refactoring changed no number in training or evaluation.

python benchmarks/scripts/compare_commits.py main                        # against the working tree, all configs
python benchmarks/scripts/compare_commits.py main --head HEAD --only dcgan vq_prior papers/maps --data FOLDER --jobs 2

Both commits train each config on a few hundred images, on the CPU with one torch thread, and evaluate the result. These
must be equal bit for bit: the text in metrics.csv except for speeds, and the weights, averaged weights and optimizer
states of last.ckpt, in order. Scores in the record must be equal up to a relative difference of 1e-12. Otherwise the
exit status is 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from machine import RESULTS, ROOT, report
from PIL import Image
from torch import Tensor

# Old names -> new names: flags (without --), commands, configs, columns of metrics.csv, scores, settings of a
# protocol, keys of a record and of a checkpoint. All other names in this file are old names; `Side.old` tells which
# names a commit uses. A whole name is looked up first ("data.labelled": "data.labelled"), then each part between / . -:
# {"monitor": "progress"} changes --monitor.samples to --progress.samples. A whole name that maps to itself is not
# changed in its parts. Values of flags are translated only as whole words. A name that maps to None does not exist any
# more: its flag is omitted, and its numbers are not compared.
ONE = ("autoencoder", "mixture", "pixelcnn", "prior", "unet", "vae")  # names of the only optimizer of a model
TERMS = ("bound", "codebook", "commitment", "cross_entropy", "dice", "elbo", "grad_norm", "kl", "l1", "l2", "lr", "nll",
         "perplexity", "reconstruction")  # fmt: skip
RENAMED: dict[str, str | None] = {f"{optimizer}/{term}": f"train/{term}" for optimizer in ONE for term in TERMS}
RENAMED["autoencoder/used"] = "train/codebook_usage"
RENAMED |= {
    "quality": "validation", "pictures": "samples", "balance": "gan_monitor", "ssgan": "semi_supervised_gan",
    "pix2pix_colourise": "pix2pix_colorize", "unet_colourise": "unet_colorize", "colourise": "colorize",
}  # fmt: skip

TIMED = re.compile("per_second|seconds|memory")  # columns that differ between any two runs
NEEDS = {"latent_mixture": "conv_autoencoder", "vq_prior": "vqvae"}  # config -> config whose checkpoint it needs

# data set -> its path in the data folder, and the data set that replaces it if the path does not exist
FILES = {"MNIST": ("MNIST/raw", "Digits"), "CIFAR10": ("cifar-10-batches-py", "Shapes")}
SMALL = {
    "Shapes": {"data.train_images": 700, "data.val_images": 100, "data.test_images": 100},
    "Ring": {"data.train_images": 2000, "data.val_images": 500, "data.test_images": 500},
    **{name: {"data.subset": 700, "data.val_size": 100} for name in ("MNIST", "CIFAR10", "Digits")},
    **{name: {"data.size": 64, "data.val_size": 4} for name in ("PairedFolder", "UnpairedFolder")},
}
NARROW = {"Pix2Pix": {"model.depth": 6}, "CycleGAN": {"model.blocks": 1}}  # for configs/papers
PROTOCOL = {"split": "test", "real": 100, "generated": 64, "train": 200, "kid_subsets": 10, "kid_subset_size": 50}

_stopped = threading.Event()
Found = dict[Any, tuple[Any, str]]  # key -> (number or text to compare, description of its place)


@dataclass
class Side:
    """One of the two commits: `name` is BASE or HEAD, and `work` is the folder of its runs."""

    name: str
    commit: str
    checkout: Path
    work: Path

    @cached_property
    def old(self) -> bool:
        """Whether the commit uses old names: it has no list of renamed names that contains one of them."""
        listed = self.checkout / "genbench/core/renamed.py"
        return not listed.is_file() or '"pictures": "samples"' not in listed.read_text()

    def call(self, name: str) -> str | None:
        """The name in this commit for an old name, or for a name in BASE; None if it does not exist in this commit."""
        return name if self.old else renamed(name)

    def genbench(self, verb: str, flags: dict[str, Any], folder: Path, data: Path) -> None:
        words = ["-m", "genbench", self.call(verb)]
        for flag, value in flags.items():
            if (name := self.call(flag)) is not None:
                words += [f"--{name}", self.call(value) if value in RENAMED else str(value)]
        self.python(words, folder, data)

    def python(self, command: list[str], folder: Path, data: Path) -> str:
        """Run Python and return its stdout. Raises RuntimeError with the last lines of its stderr."""
        if _stopped.is_set():
            raise RuntimeError("stopped")
        folder.mkdir(parents=True, exist_ok=True)
        env = {"PYTHONPATH": str(self.checkout), "GENBENCH_DATA": str(data), "CUDA_VISIBLE_DEVICES": ""}
        env = os.environ | env | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, *command]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
        if done.returncode:
            lines = [line.rstrip() for line in done.stderr.splitlines() if line.strip()][-4:]
            raise RuntimeError("\n    ".join([f"{command[3]} in {self.name} ended with {done.returncode}:", *lines]))
        return done.stdout


def renamed(name: str) -> str | None:
    """The new name for an old name, None if there is none; a new name stays as it is."""
    parts = re.split(r"([/.-])", name)
    return RENAMED[name] if name in RENAMED else "".join(RENAMED.get(part) or part for part in parts)


def run(side: Side, config: str, settings: dict[str, Any], data: Path) -> Path:
    """Train and evaluate a config. Returns the folder with all outputs."""
    model, kind = (settings[part]["class_path"].rpartition(".")[2] for part in ("model", "data"))
    images = 8 if (paper := config.startswith("papers/")) else 500
    flags = {"config": side.call(config), "name": "run", "max_images": images, "pictures.n": 16}
    if kind in FILES and not (data / FILES[kind][0]).is_dir():
        kind = FILES[kind][1]
        arguments = settings["data"].get("init_args", {})
        flags |= {"data": kind} | {f"data.{name}": value for name, value in arguments.items()}
    flags |= SMALL[kind]
    flags |= (NARROW[model] | {"model.width": 4, "model.discriminator_width": 4}) if paper else {}
    flags |= {"quality.every_images": images // 2, "quality.samples": 32, "monitor.every_images": images // 4}
    flags |= {"checkpoint.every_images": images, "pictures.every_images": images, "trainer.accelerator": "cpu"}
    measure = {"ckpt": "runs/run/checkpoints/last.ckpt", "protocol": side.work / "small.yaml", "device": "cpu"}
    if kind not in ("MNIST", "Digits", "Shapes", "Ring"):  # these data sets have small extractors
        flags["quality.extractor"] = measure["extractor"] = "digitsnet"
    if config in NEEDS:
        flags["model.autoencoder"] = side.work / NEEDS[config] / measure["ckpt"]
    folder = side.work / config
    side.genbench("fit", flags, folder, data)
    side.genbench("evaluate", measure | {"out": folder / "records"}, folder, data)
    return folder


def curve(side: Side, folder: Path) -> Found:
    rows = csv.DictReader((folder / "runs/run/metrics.csv").read_text().splitlines())
    return {
        (name, k): (text, f"{name} at {next(iter(row.values()))} images (row {k})")
        for k, row in enumerate(rows, 1)
        for column, text in row.items()
        if text and not TIMED.search(column) and (name := renamed(column)) is not None
    }


def checkpoint(side: Side, folder: Path) -> Found:
    contents = torch.load(folder / "runs/run/checkpoints/last.ckpt", map_location="cpu", weights_only=True)
    return {
        (part, k): (value, f"{part}, number {k} ({path})")
        for part in ("state_dict", "ema", "optimizer_states")
        for k, (path, value) in enumerate(_leaves(contents[side.call(part)]))
    }


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors and numbers in a nested structure, in order, with their paths."""
    if isinstance(tree, (dict, list, tuple)):
        for name, branch in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _leaves(branch, f"{path}.{name}".lstrip("."))
    elif isinstance(tree, (Tensor, int, float)):
        yield path, tree


def scores(side: Side, folder: Path) -> Found:
    (file,) = (folder / "records").glob("*.json")
    return {
        names: (value, f"score {names[0]}, {names[1]}")
        for score, entry in json.loads(file.read_text())[side.call("metrics")].items()
        for key, value in entry.items()
        if None not in (names := (renamed(score), renamed(key))) and (value is None or isinstance(value, (int, float)))
    }


def distance(a: Any, b: Any) -> float:
    """0 if both are equal bit for bit, else the largest difference relative to the largest absolute value.

    If this is not defined, or is 0 although the bits differ, 2 is returned, the largest possible value.
    """
    x, y = np.asarray(a), np.asarray(b)
    if (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()):
        return 0.0
    try:
        x, y = x.astype(float), y.astype(float)
        found = abs(x - y).max() / (max(abs(x).max(), abs(y).max()) or 1.0)
    except (TypeError, ValueError):  # text that is not a number, or different shapes
        return 2.0
    return float(found) if found > 0 else 2.0  # NaN, or equal numbers with different bits


def shown(a: Any, b: Any) -> str:
    """Both values as text. For tensors, the first elements that differ."""
    x, y = np.asarray(a), np.asarray(b)
    if x.ndim and x.shape == y.shape and (x != y).any():
        first = tuple(np.argwhere(x != y)[0].tolist())
        return f"{x[first].item()!r} in BASE, {y[first].item()!r} in HEAD, at {list(first)} of {list(x.shape)}"
    kinds = (f"{list(value.shape)} of {value.dtype}" if value.ndim else str(value) for value in (x, y))
    return "{} in BASE, {} in HEAD".format(*kinds)


def compare(config: str, settings: dict[str, Any], sides: list[Side], data: Path, needed: Future | None) -> dict:
    """A row of the report: for each kind of number, how many were compared, and the first that differs."""
    row: dict[str, Any] = {"config": config, "result": "equal", "cells": 0, "tensors": 0, "scores": 0}
    row |= {"difference": 0.0, "seconds": 0.0, "differences": []}
    if needed is not None:
        needed.result()  # wait until its checkpoints exist
    start = time.perf_counter()
    try:
        folders = [run(side, config, settings, data) for side in sides]
        for what, read, tolerance in (("cells", curve, 0), ("tensors", checkpoint, 0), ("scores", scores, 1e-12)):
            base, head = (read(*place) for place in zip(sides, folders, strict=True))
            row[what], told = len(base.keys() & head.keys()), []
            for key in dict.fromkeys((*base, *head)):
                if key not in base or key not in head:
                    told.append(f"{(base.get(key) or head[key])[1]} is only in {'BASE' if key in base else 'HEAD'}")
                elif (apart := distance(base[key][0], head[key][0])) > 0:
                    row["difference"] = max(row["difference"], apart)
                    if apart > tolerance:
                        told.append(f"{base[key][1]}: {shown(base[key][0], head[key][0])}")
            if told:
                row["result"] = "differs"
                row["differences"].append(told[0] + f" (and {len(told) - 1} {what} more)" * bool(told[1:]))
    except Exception as error:  # an error in one config must not stop the comparison of the others
        row["result"] = "failed"
        row["differences"].append(f"{type(error).__name__}: {error}")
    row["seconds"] = round(time.perf_counter() - start, 1)
    line = "{config:24} {result:8} {cells} cells, {tensors} tensors, {scores} scores, {seconds} s".format_map(row)
    print("\n    ".join([line, *row["differences"]]), flush=True)
    return row


def compare_all(sides: list[Side], only: list[str] | None, data: Path | None, drawn: Path, jobs: int) -> list[dict]:
    """All rows of the report. `drawn` is a data folder for images that are generated here."""
    folder = sides[0].checkout / "configs"
    files = (*folder.glob("*.yaml"), *folder.glob("papers/*.yaml"))
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)
    if unknown := set(only or ()) - set(names):
        raise SystemExit(f"BASE has no config {min(unknown)}. Choose from: {', '.join(names)}.")
    wanted = {*(only or names), *(NEEDS[name] for name in only or () if name in NEEDS)}
    for side in sides:
        where = side.python(["-c", "import genbench as g; print(g.__file__)", "import"], side.work, drawn).strip()
        if side.checkout.resolve() not in Path(where).resolve().parents:
            raise SystemExit(f"{side.name} is at {side.checkout}, but Python imports {where} instead.")
        (side.work / "small.yaml").write_text(yaml.safe_dump({side.call(name): x for name, x in PROTOCOL.items()}))
    started: dict[str, Future] = {}
    pool = ThreadPoolExecutor(jobs)
    try:
        # start the configs that others need first, so that no config waits for one that has not started
        for name in sorted(wanted, key=lambda name: (name not in NEEDS.values(), names.index(name))):
            settings, paper = yaml.safe_load((folder / f"{name}.yaml").read_text()), name.startswith("papers/")
            if paper:
                draw(drawn / settings["data"]["init_args"]["path"], "Unpaired" in settings["data"]["class_path"])
            root, needed = drawn if paper else data or drawn, started.get(NEEDS.get(name, ""))
            started[name] = pool.submit(compare, name, settings, sides, root, needed)
        return [future.result() for future in started.values()]
    finally:
        _stopped.set()  # after an interrupt, wait only for the running commands
        pool.shutdown(cancel_futures=True)


def draw(path: Path, unpaired: bool) -> None:
    """Write random images: two domains, or pairs side by side, in the format of the papers' data sets."""
    rng = np.random.default_rng(0)
    for part in ("trainA", "trainB", "testA", "testB") if unpaired else ("train", "test"):
        (path / part).mkdir(parents=True)
        for k in range(12):
            coarse = Image.fromarray(rng.integers(256, size=(8, 8 if unpaired else 16, 3), dtype=np.uint8))
            coarse.resize((coarse.width * 9, 72)).save(path / part / f"{k}.png")


def git(*words: str | Path) -> str:
    done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("base", metavar="BASE", help="commit with the expected numbers")
    parser.add_argument(
        "--head", metavar="COMMIT", help="commit that must have the same numbers (default: the working tree)"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="configs of BASE, such as dcgan or papers/maps")
    parser.add_argument("--data", type=Path, default=os.environ.get("GENBENCH_DATA"), metavar="FOLDER",
                        help="MNIST and CIFAR-10 (default: $GENBENCH_DATA); else Digits and Shapes")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="number of configs compared at a time, one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS / "compare_commits.json")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # exit normally, so that the worktrees are removed
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        work, sides = Path(folder), []
        for name, commit in (("BASE", arguments.base), ("HEAD", arguments.head)):
            found = git("rev-parse", "--verify", f"{commit or 'HEAD'}^{{commit}}")
            if commit:
                git("worktree", "add", "--detach", work / name, found)
                stack.callback(git, "worktree", "remove", "--force", work / name)
            sides.append(Side(name, found, work / name if commit else ROOT, work / f"runs-{name}"))
        rows = compare_all(sides, arguments.only, arguments.data and arguments.data.resolve(), work, arguments.jobs)
    count = {result: sum(row["result"] == result for row in rows) for result in ("equal", "differs", "failed")}
    report(", ".join(f"{n} {result}" for result, n in count.items()), rows, arguments.out, base=sides[0].commit,
           head=sides[1].commit, working_tree=not arguments.head, renamed=RENAMED)  # fmt: skip
    return int(count["equal"] < len(rows))


if __name__ == "__main__":
    sys.exit(main())
