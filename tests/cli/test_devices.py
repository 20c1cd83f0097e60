"""Several devices by the command: what is refused, who may start the processes, and what happens when one is gone."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import genbench
from genbench.cli import main
from genbench.cli.trainer import GenbenchCLI

from .conftest import wait
from .test_fit import curve, saved

CPU = ["--trainer.accelerator", "cpu"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--trainer.strategy", "fsdp"],
            "--trainer.strategy fsdp cannot train several optimizers in turns: strategies other than `auto`",
        ),
        (
            ["--trainer.strategy", "deepspeed_stage_2"],
            "wrap or shard one module for one backward pass per step. Remove `--trainer.strategy`",
        ),
        (
            ["--trainer.strategy", "ddp_find_unused_parameters_true"],
            "Remove `--trainer.strategy`: with several devices, each optimizer then steps on averaged gradients",
        ),
        (["--trainer.strategy.class_path", "lightning.pytorch.strategies.FSDPStrategy"], "FSDPStrategy cannot train"),
        (["--trainer.strategy.class_path", "lightning.pytorch.strategies.DDPStrategy"], "DDPStrategy cannot train"),
        (
            ["--trainer.sync_batchnorm", "true"],
            "synchronizes batch normalization on GPUs only",
        ),
    ],
)
def test_unsupported_strategies_are_refused_before_anything_is_built(cli, config, monkeypatch, flags, message):
    monkeypatch.setattr(GenbenchCLI, "instantiate_classes", lambda self: pytest.fail("something was built"))
    status, _, err = cli("fit", "--config", config(), "--name", "run", *CPU, *flags)
    assert status == 2 and message in err and "Traceback" not in err
    assert not Path("runs").exists()


def test_one_device_trains_under_the_strategy_of_several(cli, config, child):
    command = ["fit", "--config", str(config()), *CPU, "--max_images", "64"]
    ours = ["--trainer.strategy", "genbench.core.strategy.PlayersDDP", "--trainer.strategy.timeout", "0:05:00"]
    assert wait(child(lambda: main([*command, "--name", "ddp", *ours]))) == 0
    assert cli(*command, "--name", "auto")[0] == 0
    a, b = (saved(f"runs/{name}/checkpoints/last.ckpt")["state_dict"] for name in ("auto", "ddp"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_batch_that_the_devices_do_not_divide_is_refused_once_before_processes_are_started(cli, config, monkeypatch):
    monkeypatch.setattr(
        "genbench.core.strategy.Launcher.launch", lambda *_, **__: pytest.fail("processes were started")
    )
    status, _, err = cli("fit", "--config", config(), "--name", "run", *CPU, "--trainer.devices", 3)
    assert status == 2 and "data.batch_size is 16" in err and "is not divisible by 3 devices. Choose a multiple" in err
    assert not Path("runs").exists()


def slurm(rank, port):
    return {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def test_processes_started_by_slurm_are_one_run_without_device_flags(cli, config, child):
    path = config("vae")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def task(rank):
        os.environ |= slurm(rank, port)
        return main(["fit", "--config", str(path), *CPU])

    numbers = [child(lambda rank=rank: task(rank)) for rank in range(2)]
    assert [wait(number) for number in numbers] == [0, 0], Path("child.log").read_text()
    (run,) = Path("runs").iterdir()
    assert run.name == "vae-digits-4711"
    assert [int(row["images_seen"]) for row in curve(run) if row["train/kl"]] == list(range(32, 321, 32))
    assert saved(run / "checkpoints" / "last.ckpt")["run"]["training"]["world_size"] == 2


@pytest.mark.parametrize(
    ("changed", "flags", "message"),
    [
        ({"SLURM_NTASKS_PER_NODE": None}, [], "Slurm has started 2 processes: set the number per machine"),
        ({}, ["--trainer.devices", "1"], "2 processes were started on each of 1 machines, but the config has 1"),
    ],
)
def test_processes_that_do_not_fit_the_config_are_refused(cli, config, monkeypatch, changed, flags, message):
    for name, value in (slurm(0, 1) | changed).items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    status, _, err = cli("fit", "--config", config(), "--name", "run", *CPU, *flags)
    assert status == 2 and message in err


def members(folder, *marks):
    """Numbers of the living processes of a run, by their environment: also when the one that started them is gone."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if {f"MARK={folder}", *marks} <= set((path / "environ").read_text().split("\0")):
                found.append(int(path.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize(("starter", "victim"), [("fit", 1), ("fit", 0), ("torchrun", 1)])
def test_a_killed_process_ends_the_run_with_a_message_and_the_run_can_be_resumed(
    cli, config, tmp_path, starter, victim
):
    start = [sys.executable, "-m", *(["torch.distributed.run", "--nproc-per-node=2", "-m"] if starter != "fit" else [])]
    devices = ["--trainer.devices", "2"] if starter == "fit" else []
    rare = {"samples": {"every_images": 10**8}, "validation": {"every_images": 10**8, "samples": 32}}
    command = [*start, "genbench", "fit", "--config", str(config("vae", **rare)), "--name", "run", *CPU, *devices]
    with open(tmp_path / "log", "w") as log:
        marked = os.environ | {"MARK": str(tmp_path)}
        run = subprocess.Popen([*command, "--max_images", "1e9"], stdout=log, stderr=log, env=marked)
    last = Path("runs/run/checkpoints/last.ckpt")
    try:
        deadline = time.monotonic() + 120
        while not last.exists() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert last.exists(), (tmp_path / "log").read_text()
        os.kill(members(tmp_path, "LOCAL_RANK=1")[0] if victim else run.pid, signal.SIGKILL)
        killed = time.monotonic()
        assert run.wait(timeout=60) not in (0, None)
        while members(tmp_path) and time.monotonic() < killed + 60:
            time.sleep(0.1)
        assert not members(tmp_path)
    finally:
        for number in members(tmp_path):
            os.kill(number, signal.SIGKILL)
        run.wait()
    said = (tmp_path / "log").read_text()
    assert said.count("error: A process of this run has ended, and the others cannot continue without it") == 1
    assert f"To continue from the last checkpoint:  python -m genbench fit --ckpt {last}" in said
    if starter == "fit":
        assert ("(process 1 got signal 9)" if victim else "(the first one has ended)") in said
        assert "Traceback" not in said  # torchrun adds one of its own
    seen = genbench.load(last).images_seen
    status, _, err = cli("fit", "--ckpt", "last", "--trainer.devices", 1, "--max_images", seen + 160)
    assert status == 0, err
    assert genbench.load(last).images_seen == seen + 160
