"""Two processes are one run."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from toy import SPEC, ToyGAN

from genbench.core.batch import Batch, DataSpec
from genbench.core.strategy import average_gradients
from genbench.data.loader import MemorySource, TrainLoader
from genbench.models import VAE

ADAM = {"class_path": "torch.optim.Adam", "lr": 0.01}
IMAGE = DataSpec((1, 8, 8))


def build(name):
    torch.manual_seed(3)
    if name == "gan":
        return ToyGAN(SPEC, r1_gamma=0.1, optimizer=ADAM, clip_norm=0.5)
    return VAE(IMAGE, latent_dim=3, network="mlp", hidden=[16], optimizer=ADAM, accumulate=2)


def images(name):
    shape = SPEC.shape if name == "gan" else IMAGE.shape
    draw = torch.Generator().manual_seed(7)
    return MemorySource(Batch(torch.randint(0, 256, (40, *shape), dtype=torch.uint8, generator=draw)))


def run(name, rank=0, world=1, **trainer):
    """20 global batches of 8 in float64."""
    from lightning import Trainer

    from genbench.callbacks import Budget

    module = build(name)
    loader = TrainLoader(images(name), 8, seed=0, rank=rank, world=world)
    fitted = Trainer(
        accelerator="cpu", precision="64-true", logger=False, callbacks=[Budget(160)], max_epochs=-1,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, **trainer,
    )  # fmt: skip
    fitted.fit(module, train_dataloaders=loader)
    return module


def worker(folder):
    from genbench.core.strategy import PlayersDDP

    rank = int(os.environ["LOCAL_RANK"])
    for name in ("gan", "vae"):
        module = run(name, rank, 2, devices=2, strategy=PlayersDDP(process_group_backend="gloo"))
        module.draw.seed("look")
        state = {"weights": module.state_dict(), "noise": module.draw(torch.randn, 2, 2), "seen": module.images_seen}
        torch.save(state, f"{folder}/{name}{rank}.pt")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = Path(__file__)
    script = f"import test_strategy; test_strategy.worker({str(folder)!r})"
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script],
            env=os.environ
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
            | {"PYTHONPATH": os.pathsep.join([str(here.parent), str(here.parents[1]), *filter(None, sys.path)])},
        )
        for rank in range(2)
    ]
    try:
        assert [w.wait(timeout=200) for w in workers] == [0, 0]
    finally:
        for w in workers:
            w.kill()  # one that waits for a dead peer ignores SIGTERM
    return folder


@pytest.mark.parametrize("name", ["gan", "vae"])
def test_two_processes_have_equal_weights_and_different_noise(pair, name):
    a, b = (torch.load(pair / f"{name}{rank}.pt") for rank in range(2))
    assert all(torch.equal(a["weights"][k], b["weights"][k]) for k in a["weights"])
    assert not torch.equal(a["noise"], b["noise"])
    assert a["seen"] == b["seen"] == 160


@pytest.mark.parametrize("name", ["gan", "vae"])
def test_two_processes_equal_one_on_the_joined_batch(pair, name):
    whole = run(name, devices=1).state_dict()
    halves = torch.load(pair / f"{name}0.pt")["weights"]
    assert max((whole[k] - halves[k]).abs().max() for k in whole) < 1e-10


def test_gradients_are_averaged_in_buckets_of_one_dtype(monkeypatch):
    import genbench.core.strategy as strategy

    monkeypatch.setattr(strategy, "BUCKET_BYTES", 32)
    monkeypatch.setattr(strategy.dist, "all_reduce", lambda flat: flat.mul_(3))  # a peer that has twice ours
    monkeypatch.setattr(strategy.dist, "get_world_size", lambda: 2)
    parameters = [
        torch.nn.Parameter(torch.zeros(n, dtype=d))
        for n, d in [(3, torch.float32), (9, torch.float64), (2, torch.float64), (5, torch.float32)]
    ]
    parameters.append(torch.nn.Parameter(torch.zeros(4)))  # one without gradient
    for k, p in enumerate(parameters[:-1]):
        p.grad = torch.full_like(p, k + 1.0)
    average_gradients(parameters)
    assert [p.grad.unique().item() for p in parameters[:-1]] == [1.5, 3.0, 4.5, 6.0]
    assert parameters[-1].grad is None


def test_what_we_override_of_lightning_is_still_there():
    for name in ("configure_ddp", "pre_backward", "optimizer_step"):
        assert callable(getattr(DDPStrategy, name))
    # an unwrapped module is what Lightning calls `training_step` on
    assert (
        "self.model != self.lightning_module"
        in Path(sys.modules[DDPStrategy.__mro__[2].__module__].__file__).read_text()
    )
