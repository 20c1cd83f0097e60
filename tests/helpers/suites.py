"""A small suite of two models, the command that runs it in a process of its own, and waiting for its jobs."""

import os
import subprocess
import sys
import time

import yaml

from tests.cli.conftest import TINY


def write(folder, name="tiny", **more):
    """A suite of two tiny models on a few digits, as files in a folder."""
    for model, description in TINY.items():
        data = {"class_path": "genbench.data.Digits", "init_args": {"size": 16, "batch_size": 16, "subset": 80}}
        text = {"model": description, "data": data, "monitor": {"every_images": 64}, "ema": {"every_images": 64}}
        text |= {"checkpoint": {"every_images": 640}, "validation": {"every_images": 4000, "samples": 32}}
        text |= {"samples": {"every_images": 4000, "n": 4}}
        (folder / f"{model}.yaml").write_text(yaml.safe_dump(text))
    (folder / "few.yaml").write_text("split: val\nreal: 40\ngenerated: 64\nmetrics: [fid, reconstruction]\n")
    suite = {"models": ["dcgan.yaml", "vae.yaml"], "budget": {"images": 12_000}, "protocol": str(folder / "few.yaml")}
    suite |= {"launch": {"threads": 1}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(suite | more))
    return path


def command(*arguments):
    return [sys.executable, "-m", "genbench", "suite", *map(str, arguments)]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "160"}


def run(*arguments, cwd):
    done = subprocess.run(command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=200)
    return done.returncode, done.stdout, done.stderr


def start(*arguments, cwd):
    log = open(cwd / "launcher.log", "a")  # noqa: SIM115
    return subprocess.Popen(command(*arguments), cwd=cwd, env=environment(), stdout=log, stderr=log, process_group=0)


def wait_until(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)


def finish(here, seconds=60):
    ended = {}
    wait_until(lambda: ended.update({name: rest for name, *rest in here.ended()}) or not here.running(), seconds)
    return ended
