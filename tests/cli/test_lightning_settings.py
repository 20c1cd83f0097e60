"""Every setting of Lightning's Trainer works, or is refused with ours in its place."""

import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch import callbacks

from genbench.callbacks import Acceleration
from genbench.cli.lightning_settings import DEFAULTS, REFUSED, REFUSED_CALLBACKS, refuse_lightning_settings
from genbench.core.errors import UserError

WORK = {
    "accelerator", "callbacks", "default_root_dir", "detect_anomaly", "deterministic", "devices", "logger", "num_nodes",
    "precision", "profiler", "strategy", "sync_batchnorm",
}  # fmt: skip
SIGNATURE = {name: p.default for name, p in inspect.signature(Trainer).parameters.items()}


class Seen(Callback):
    """Notes what is in force while a batch is trained on."""

    found: dict = {}

    def __init__(self, mark: int = 0) -> None:
        self.mark = mark

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        Seen.found[self.mark] = (torch.is_anomaly_enabled(), torch.are_deterministic_algorithms_enabled())


def test_every_argument_of_the_trainer_is_known_to_work_or_refused():
    assert set(SIGNATURE) == WORK | set(REFUSED)
    assert not WORK & set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_an_unsupported_setting_is_refused_and_names_the_one_to_use(name):
    config = SIGNATURE | DEFAULTS
    refuse_lightning_settings(config)
    default = config[name]
    value = not default if isinstance(default, bool) else 3
    with pytest.raises(UserError, match=rf"--trainer\.{name} {value} is not supported\. [A-Z].*[.]$"):
        refuse_lightning_settings(config | {name: value})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trainer.max_steps", "2"], "--trainer.max_steps 2 is not supported. The length of a run is its budget"),
        (["--trainer.limit_train_batches", "0.5"], "use `--data.subset`"),
        (["--trainer.overfit_batches", "1"], "use `--data.subset`"),
        (["--trainer.fast_dev_run", "true"], "use `--max_images 200`"),
        (["--trainer.gradient_clip_val", "1"], "use `--model.clip_norm`"),
        (["--trainer.max_epochs", "null"], "--trainer.max_epochs None is not supported"),
        (["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "a"], "Stopping is not supported"),
        (["--trainer.callbacks+", "ModelCheckpoint"], "written by `--checkpoint.every_images`"),
        (["--trainer.callbacks", "TQDMProgressBar"], "`--monitor.show`"),
        (["--trainer.callbacks", "SpikeDetection"], "SpikeDetection is not supported"),
        (["--trainer.callbacks", "genbench.callbacks.EMA"], "callbacks EMA: every run already has one"),
        (["--trainer.strategy", "null"], "--trainer.strategy null is not supported"),
        (["--trainer.logger", "MLFlowLogger"], "'mlflow>=1.0.0' not met"),
        (["--trainer.default_root_dir", "x"], "Set the run's folder with `--runs` and `--name`"),
        (["--trainer.num_nodes", "0"], "`num_nodes` must be a positive integer"),
        (["--trainer.devices", "x"], "--trainer.devices N"),
        (["--trainer.accelerator", "gpuu"], "invalid accelerator name"),
    ],
)  # fmt: skip
def test_a_refusal_leaves_no_files_and_names_what_to_use(cli, config, flags, message):
    status, _, err = cli("fit", "--config", config("vae"), "--name", "run", *flags)
    assert status == 2 and message in err and "Traceback" not in err
    assert not Path("runs").exists()


def test_callbacks_that_do_not_work_here_are_refused_with_their_subclasses():
    for cls in REFUSED_CALLBACKS:
        assert issubclass(cls, callbacks.Callback)
    found = {name for name in callbacks.__all__ if name != "Callback" and issubclass(
        getattr(callbacks, name), tuple(REFUSED_CALLBACKS))}  # fmt: skip
    assert set(callbacks.__all__) - found == {
        "BasePredictionWriter", "Callback", "DeviceStatsMonitor", "LambdaCallback", "LearningRateMonitor",
        "ModelSummary", "RichModelSummary", "ThroughputMonitor",
    }  # fmt: skip


def test_what_is_not_refused_works(cli, config):
    name = f"{__name__}.Seen"
    try:
        status, _, err = cli(
            "fit", "--config", config("vae"), "--name", "run", "--max_images", 32, "--trainer.deterministic", "true",
            "--trainer.detect_anomaly", "true", "--trainer.profiler", "SimpleProfiler", "--trainer.profiler.dirpath",
            ".", "--trainer.profiler.filename", "times", "--trainer.callbacks", name, "--trainer.callbacks+", name,
            "--trainer.callbacks.mark", 7, "--trainer.precision", "64-true",
        )  # fmt: skip
    finally:
        torch.use_deterministic_algorithms(False)
    assert status == 0, err
    assert Seen.found == {0: (True, True), 7: (True, True)}
    assert "run_training_batch" in Path("fit-times.txt").read_text()
    saved = torch.load("runs/run/checkpoints/last.ckpt", weights_only=True)
    assert next(iter(saved["state_dict"].values())).dtype == torch.float64


def test_one_callback_alone_is_called(cli, config):
    Seen.found.clear()
    assert cli("fit", "--config", config("vae"), "--name", "a", "--max_images", 16, "--trainer.callbacks",
               f"{__name__}.Seen")[0] == 0  # fmt: skip
    assert Seen.found == {0: (False, False)}


@pytest.mark.parametrize("deterministic", [False, True])
def test_on_a_gpu_the_fastest_algorithm_is_looked_for_unless_runs_are_to_be_repeated(monkeypatch, deterministic):
    trainer = SimpleNamespace(profiler=None, strategy=SimpleNamespace(root_device=torch.device("cuda")))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", deterministic)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()
    try:
        Acceleration(tf32=False).setup(trainer, SimpleNamespace(players={}), "fit")
        assert torch.backends.cudnn.benchmark is not deterministic
    finally:
        torch.set_float32_matmul_precision(before)
