"""Two processes that a real srun started are one run."""

import os
import subprocess
import sys

import pytest

from tests.cli.conftest import config  # noqa: F401  a fixture
from tests.cli.test_fit import curve, saved

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]


def test_srun_with_two_tasks_is_one_run_without_a_word_about_devices(config, tmp_path):  # noqa: F811
    start = ["srun", "--ntasks=2", "--ntasks-per-node=2", sys.executable, "-m", "genbench", "fit"]
    command = [*start, "--config", str(config("vae")), "--trainer.accelerator", "cpu"]
    own = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("vae-digits-")
    assert [int(row["images_seen"]) for row in curve(run) if row["train/kl"]] == list(range(32, 321, 32))
    assert saved(run / "checkpoints" / "last.ckpt")["run"]["training"]["world_size"] == 2
