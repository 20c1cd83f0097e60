"""Training on several processes equals one run, and any number of processes can resume it."""

import inspect
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from lightning import Callback, LightningDataModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

import genbench
from genbench.callbacks import EMA, Acceleration, Checkpoint, MaxImages, PowerEMA
from genbench.core import ranks, strategy
from genbench.core.batch import Batch, DataSpec
from genbench.core.strategy import PlayersDDP
from genbench.data.loader import MemorySource, TrainLoader
from genbench.models import DCGAN, VAE
from tests.helpers.toy import SPEC, ToyGAN

ADAM = {"class_path": "torch.optim.Adam", "lr": 0.01}


def build(name):
    torch.manual_seed(3)
    if name == "gan":
        return ToyGAN(SPEC, r1_gamma=0.1, optimizer=ADAM, clip_norm=0.5)
    if name == "vae":
        return VAE(DataSpec((1, 8, 8)), latent_dim=3, network="mlp", hidden=[16], optimizer=ADAM, accumulate=2)
    return DCGAN(DataSpec((1, 16, 16)), latent_dim=4, width=4)


class Random(LightningDataModule):
    """40 images in batches of 8, over all processes."""

    def __init__(self, shape):
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.source = MemorySource(Batch(torch.randint(0, 256, (40, *shape), dtype=torch.uint8, generator=draw)))

    def train_dataloader(self):
        at = {"position": self.trainer.lightning_module.images_seen, "seed": 0}
        return TrainLoader(self.source, 8, rank=self.trainer.global_rank, world=self.trainer.world_size, **at)


class Curve(Callback):
    """Every term each 24 images, over all processes, as they are: a file would round them."""

    def __init__(self):
        self.rows = {}

    def on_train_batch_end(self, trainer, module, *_):
        if module.due(24):
            self.rows[module.images_seen] = module.read_terms()


def run(name, folder, world=1, images=160, ckpt=None, callbacks=(), **trainer):
    """In float64; returns the module and its curve, and leaves a checkpoint."""
    module, curve = build(name), Curve()
    if world > 1:
        trainer["strategy"] = PlayersDDP(process_group_backend="gloo")
    fitted = Trainer(
        accelerator="cpu", devices=world, precision="64-true", logger=False, max_epochs=-1, default_root_dir=folder,
        callbacks=[*callbacks, curve, Checkpoint(every_images=10**6), MaxImages(images)], limit_val_batches=0,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, **trainer,
    )  # fmt: skip
    fitted.fit(module, datamodule=Random(module.spec.shape), ckpt_path=ckpt, weights_only=True)
    return module, curve.rows


def forked(work):
    """The number of a process that does the work: a fork, which has loaded torch and Lightning already."""
    number = os.fork()
    if number:
        return number
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.__stderr__, flush=True)
        os._exit(1)


def ended(number):
    """Its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def together(world, work):
    """`work(rank)` in so many processes that are one group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def one(rank):
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
        work(rank)

    numbers = [forked(lambda rank=rank: one(rank)) for rank in range(world)]
    assert [ended(number) for number in numbers] == [0] * world


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What 1, 2 and 4 processes made of both models: world -> what each rank saved."""
    folder = tmp_path_factory.mktemp("runs")

    def work(world, rank):
        for name in ("gan", "vae"):
            module, rows = run(name, folder / f"{name}{world}", world)
            module.draw.seed("look")
            state = {"weights": module.state_dict(), "rows": rows, "seen": module.images_seen}
            torch.save(state | {"noise": module.draw(torch.randn, 2, 2)}, folder / f"{name}{world}.{rank}.pt")

    for world in (1, 2, 4):
        together(world, lambda rank, world=world: work(world, rank))
    return {
        (name, world): [torch.load(folder / f"{name}{world}.{rank}.pt") for rank in range(world)]
        for name in ("gan", "vae")
        for world in (1, 2, 4)
    }


def furthest(a, b):
    """The largest difference between two curves, or between two sets of weights."""
    assert a.keys() == b.keys()
    return max(furthest(a[k], b[k]) if isinstance(a[k], dict) else float(abs(a[k] - b[k]).max()) for k in a)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", ["gan", "vae"])
def test_all_processes_have_equal_weights_and_different_noise(runs, name, world):
    first, *others = runs[name, world]
    for other in others:
        assert all(torch.equal(first["weights"][k], other["weights"][k]) for k in first["weights"])
        assert not torch.equal(first["noise"], other["noise"])
        assert first["seen"] == other["seen"] == 160


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", ["gan", "vae"])
def test_several_processes_have_the_curve_and_the_weights_of_one_at_the_same_global_batch(runs, name, world):
    (one,), (several, *_) = runs[name, 1], runs[name, world]
    assert list(one["rows"]) == [24, 48, 72, 96, 120, 144]
    one_rows, several_rows = ({k: torch.tensor(list(r.values())) for k, r in x["rows"].items()} for x in (one, several))
    assert furthest(one_rows, several_rows) < 1e-8
    assert furthest(one["weights"], several["weights"]) < 1e-8


@pytest.mark.parametrize("name", ["gan", "vae"])
def test_a_run_resumes_with_another_number_of_processes(runs, name, tmp_path):
    # 7, 13 and 17 batches: in the middle of a pass, between two readings, and with a VAE's gradients half made
    rows, ckpt = {}, None
    for world, images in [(1, 56), (2, 104), (4, 136), (1, 160)]:
        folder = tmp_path / str(images)

        def work(rank, world=world, images=images, folder=folder, ckpt=ckpt):
            module, found = run(name, folder, world, images, ckpt)
            if rank == 0:
                torch.save({"weights": module.state_dict(), "rows": found}, folder / "found.pt")

        together(world, work)
        found = torch.load(folder / "found.pt")
        rows |= found["rows"]
        ckpt = folder / "checkpoints" / "last.ckpt"
        assert ("gradients" in torch.load(ckpt)["genbench"]) == (name == "vae" and images < 160)
    (one,) = runs[name, 1]
    assert rows.keys() == one["rows"].keys()
    assert max(abs(rows[k][term] - value) for k, row in one["rows"].items() for term, value in row.items()) < 1e-8
    assert furthest(one["weights"], found["weights"]) < 1e-8


class AllReduce(torch.autograd.Function):
    """A sum over processes that gradients pass, back to all of them."""

    @staticmethod
    def forward(ctx, x):
        return ranks.total(x)

    @staticmethod
    def backward(ctx, gradient):
        return ranks.total(gradient)


def synchronized(self, x):
    """What `SyncBatchNorm` computes while training; PyTorch's own runs on GPUs only."""
    count = ranks.world() * x.numel() // x.shape[1]
    mean = AllReduce.apply(x.sum((0, 2, 3))) / count
    centerd = x - mean[:, None, None]
    var = AllReduce.apply(centerd.square().sum((0, 2, 3))) / count
    self.num_batches_tracked += 1
    self.running_mean.lerp_(mean.detach(), self.momentum)
    self.running_var.lerp_(var.detach() * count / (count - 1), self.momentum)
    return centerd * (self.weight / (var + self.eps).sqrt())[:, None, None] + self.bias[:, None, None]


def test_with_synchronized_batch_norm_two_processes_equal_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.SyncBatchNorm, "forward", synchronized)

    class Look(Callback):
        def on_train_end(self, trainer, module):
            norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
            assert norms and all(isinstance(m, torch.nn.SyncBatchNorm) for m in norms)
            for player, optimizer in zip(module.players, trainer.optimizers, strict=True):
                moved = {id(p) for p in optimizer.param_groups[0]["params"]}
                assert moved == {id(p) for p in module.parameters_of(player)} == {id(p) for p in module._own[player]}

    def usual():
        return [Acceleration(), EMA(every_images=16)]

    def work(rank):
        run("dcgan", tmp_path / "two", 2, callbacks=[*usual(), Look()], sync_batchnorm=True)

    together(2, work)
    run("dcgan", tmp_path / "one", callbacks=usual())
    one, two = (torch.load(tmp_path / k / "checkpoints" / "last.ckpt") for k in ("one", "two"))
    assert furthest(one["state_dict"], two["state_dict"]) < 1e-8
    assert furthest(one["ema"]["state_dict"], two["ema"]["state_dict"]) < 1e-8
    assert genbench.load(tmp_path / "two" / "checkpoints" / "last.ckpt").images_seen == 160


def test_a_process_that_cannot_detect_the_end_of_another_process_is_ended_with_a_message(monkeypatch, tmp_path):
    monkeypatch.setattr(strategy, "GRACE", 0.1)
    monkeypatch.setenv("LOCAL_RANK", "0")
    trainer = SimpleNamespace(default_root_dir=tmp_path)

    def waits_on_a_gpu(procs):
        sys.stderr = open(tmp_path / "said", "w")  # noqa: SIM115
        launcher = strategy.Launcher(LightningEnvironment(), 1, 1)
        launcher.procs = procs
        launcher.launch(time.sleep, 60, trainer=trainer)

    def first():
        stuck, gone = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
        (tmp_path / "stuck").write_text(str(stuck.pid))
        gone.kill()
        waits_on_a_gpu([stuck, gone])

    def other():
        os.environ[strategy.PARENT] = "1" if os.getppid() != 1 else "2"
        waits_on_a_gpu([])

    for work, why in [(first, "process 2 got signal 9"), (other, "the first one has ended")]:
        start = time.monotonic()
        assert ended(forked(work)) == 2 and time.monotonic() - start < 30
        said = (tmp_path / "said").read_text()
        assert said.startswith("error: A process of this run has ended") and why in said
    status = Path(f"/proc/{(tmp_path / 'stuck').read_text()}/stat")
    assert not status.exists() or " Z " in status.read_text()  # ended with it


def test_an_error_of_the_training_itself_is_unchanged():
    launcher = strategy.Launcher(SimpleNamespace(validate_settings=lambda **_: 0, creates_processes_externally=1), 1, 1)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        launcher.launch(lambda: torch.zeros(2, 3) @ torch.zeros(2, 3))


def test_several_processes_write_the_snapshots_of_averages_of_one(tmp_path):
    def averages():
        return PowerEMA(enabled=True, every_images=8, snapshot_every=0.25)

    def work(rank):
        power = averages()
        run("gan", tmp_path / "2", 2, images=80, callbacks=[power])
        assert len(power.snapshots) == (4 if rank == 0 else 0)

    together(2, work)
    run("gan", tmp_path / "1", images=80, callbacks=[averages()])
    names = [sorted(path.name for path in (tmp_path / world / "ema").iterdir()) for world in "12"]
    assert names[0] == names[1] == [f"{at:010d}.pt" for at in (24, 40, 64, 80)]
    weights = [genbench.load(tmp_path / world / "checkpoints" / "last.ckpt", ema=0.075).state_dict() for world in "12"]
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-6, atol=1e-7)


def test_tensors_are_averaged_in_buckets_of_one_dtype(monkeypatch):
    monkeypatch.setattr(ranks, "BUCKET_BYTES", 32)
    monkeypatch.setattr(ranks, "world", lambda: 2)
    monkeypatch.setattr(ranks.dist, "all_reduce", lambda flat: flat.mul_(3))  # a peer that has twice ours
    tensors = [
        torch.full((n,), k + 1.0, dtype=d)
        for k, (n, d) in enumerate([(3, torch.float32), (9, torch.float64), (2, torch.float64), (5, torch.float32)])
    ]
    ranks.average_(tensors)
    assert [t.unique().item() for t in tensors] == [1.5, 3.0, 4.5, 6.0]


def test_mean_and_total_are_over_all_processes(tmp_path):
    assert ranks.mean(torch.tensor([1.0, 3.0])).tolist() == ranks.total(torch.tensor([1.0, 3.0])).tolist() == [1, 3]

    def work(rank):
        dist.init_process_group("gloo", rank=rank, world_size=2)
        own = torch.tensor([1.0 + rank, 3.0], requires_grad=True)
        assert ranks.mean(own).tolist() == [1.5, 3] and ranks.total(own).tolist() == [3, 6]
        assert own.tolist() == [1 + rank, 3] and not ranks.mean(own).requires_grad

    together(2, work)


def test_the_methods_of_lightning_that_genbench_overrides_still_exist():
    for name in ("configure_ddp", "pre_backward", "optimizer_step", "_configure_launcher"):
        assert callable(getattr(DDPStrategy, name))
    # an unwrapped module is what Lightning calls `training_step` on
    base = Path(sys.modules[DDPStrategy.__mro__[2].__module__].__file__).read_text()
    assert "self.model != self.lightning_module" in base
    # our launcher does what Lightning's does, with another watch over the processes
    launch = inspect.getsource(_SubprocessScriptLauncher.launch)
    for step in ("validate_settings", "_call_children_scripts()", "_launch_process_observer", "_set_num_threads"):
        assert step in launch
    assert launch.count("self.") == 7
