import os
import sys
import time

import pytest
import yaml

from genbench.cli import main

TINY = {
    "dcgan": {"class_path": "genbench.models.DCGAN", "init_args": {"width": 4, "latent_dim": 4}},
    "vae": {"class_path": "genbench.models.VAE", "init_args": {"width": 4, "latent_dim": 4}},
}


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd):
    """Runs the command line in an empty folder; returns (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["genbench"])

    def run(*arguments):
        capfd.readouterr()
        status = main([str(a) for a in arguments])
        for name in ("PL_GLOBAL_SEED", "GENBENCH_RUN"):
            os.environ.pop(name, None)
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def config(tmp_path):
    """Writes a config of a tiny model on a few digits; returns its path."""

    def write(name="dcgan", **more):
        text = {
            "max_images": 320,
            "model": TINY[name],
            "data": {"class_path": "genbench.data.Digits", "init_args": {"size": 16, "batch_size": 16, "subset": 80}},
            "monitor": {"every_images": 32},
            "ema": {"every_images": 32},
            "checkpoint": {"every_images": 80},
            "validation": {"every_images": 160, "samples": 32},
            "samples": {"every_images": 160, "n": 4},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(text | more))
        return path

    return write


@pytest.fixture
def child(tmp_path):
    """Runs a function in a process of its own; returns its number."""

    def start(function):
        number = os.fork()
        if number == 0:
            log = os.open(tmp_path / "child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1)
            os.dup2(log, 2)
            try:
                status = function() or 0
            except BaseException as error:
                print(repr(error))
                status = 99
            sys.stdout.flush()
            os._exit(status)
        return number

    return start


def wait(number, seconds=120):
    """The exit status of a child, or minus the signal that ended it."""
    for _ in range(seconds * 20):
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(number, 9)
    raise TimeoutError("the child hangs")
