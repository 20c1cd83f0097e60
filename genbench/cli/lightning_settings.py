"""Settings of Lightning's Trainer that a run here does not follow, each with ours that does the same.

What is not named here works: accelerator, devices, num_nodes, strategy (of ours), precision, logger, callbacks,
deterministic, detect_anomaly, profiler, sync_batchnorm.
"""

from __future__ import annotations

import inspect
from typing import Any

from lightning import Trainer
from lightning.pytorch import callbacks

from genbench import callbacks as ours
from genbench.cli.settable import find_class
from genbench.core.errors import UserError

# in place of Trainer's own defaults: our callbacks do these, counted in images
DEFAULTS = {
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "inference_mode": False,  # data decoded under it could not be changed in place later
}

BUDGET = "A run is as long as its budget of images: use `--max_images`."
VALIDATION = "Validation runs every so many images: use `--validation.every_images`."
FEWER = "To train on fewer images use `--data.subset`; for a short run, `--max_images`."
LOADERS = "The loaders here share out, order and keep their images by themselves."
CLIPPING = "Each player's gradient is clipped by itself: use `--model.clip_norm` or `--model.clip_value`."

REFUSED = {
    "fast_dev_run": "For a quick try use `--max_images 200`; it has checkpoints and pictures like any run.",
    "max_epochs": "The budget is counted in images: use `--max_images` in place of epochs.",
    "min_epochs": BUDGET,
    "max_steps": BUDGET,
    "min_steps": BUDGET,
    "max_time": BUDGET + " A suite turns minutes into images: `budget: {minutes: 5}`.",
    "limit_train_batches": FEWER,
    "limit_val_batches": "What validation takes is set by `--data.val_size` and `--validation.samples`.",
    "limit_test_batches": "What a test takes is set by its protocol: use `--protocol`.",
    "limit_predict_batches": "To draw fewer images use `sample --n`.",
    "overfit_batches": FEWER,
    "val_check_interval": VALIDATION,
    "check_val_every_n_epoch": VALIDATION,
    "num_sanity_val_steps": VALIDATION,
    "log_every_n_steps": "Curves have a row every so many images: use `--monitor.every_images`.",
    "enable_checkpointing": "When a checkpoint is written is set by `--checkpoint.every_images`.",
    "enable_progress_bar": "Progress is shown by `--monitor.show`.",
    "enable_model_summary": "The number of parameters is printed at the start.",
    "accumulate_grad_batches": "Players add up gradients by `--model.accumulate`.",
    "gradient_clip_val": CLIPPING,
    "gradient_clip_algorithm": CLIPPING,
    "benchmark": "On GPUs the fastest algorithms are chosen, unless `--trainer.deterministic true` is given.",
    "inference_mode": "Validation always runs without gradients.",
    "use_distributed_sampler": LOADERS,
    "reload_dataloaders_every_n_epochs": LOADERS,
    "barebones": "A run always has curves and checkpoints; how often is set by `monitor` and `checkpoint`.",
    "plugins": "Choose a precision by `--trainer.precision`; start processes by `--trainer.devices` or torchrun.",
    "enable_autolog_hparams": "The config is always given to every logger.",
    "model_registry": "A model is its checkpoint, in the run's folder.",
}
REFUSED_CALLBACKS = {
    callbacks.Checkpoint: "Checkpoints are written by `--checkpoint.every_images` and `--checkpoint.keep_every`.",
    callbacks.ProgressBar: "Progress is shown by `--monitor.show`.",
    callbacks.EarlyStopping: "The best checkpoint is kept whatever comes after it; a run ends by `--max_images`.",
    callbacks.Timer: BUDGET,
    callbacks.GradientAccumulationScheduler: REFUSED["accumulate_grad_batches"],
    callbacks.WeightAveraging: "Weights are averaged by `--ema.halflife`.",
    callbacks.StochasticWeightAveraging: "Weights are averaged by `--ema.halflife`.",
    callbacks.BatchSizeFinder: "Give `--data.batch_size`.",
    callbacks.LearningRateFinder: "Give `--model.optimizer.lr`.",
    callbacks.BaseFinetuning: "Players are trained whole, by optimizers of their own.",
    callbacks.ModelPruning: "Players are trained whole, by optimizers of their own.",
    callbacks.SpikeDetection: "A loss that is no longer finite ends the run by itself, with a sentence.",
    ours.MaxImages: BUDGET,
}
# every run has one of each of ours
OWN_CALLBACKS = (
    ours.Acceleration, ours.GANMonitor, ours.Checkpoint, ours.Codebook, ours.EMA, ours.Monitor, ours.SampleLogger,
    ours.ValidationMetrics, ours.StopSafely,
)  # fmt: skip


def refuse_what_is_not_followed(trainer: Any) -> None:
    """Raise UserError for a setting of `trainer` that would be ignored, or obeyed in part."""
    defaults = {name: p.default for name, p in inspect.signature(Trainer).parameters.items()} | DEFAULTS
    for name, instead in REFUSED.items():
        if trainer[name] != defaults[name]:
            raise UserError(f"--trainer.{name} {trainer[name]} is not followed here. {instead}")
    given = trainer["callbacks"] or []
    for one in given if isinstance(given, (list, tuple)) else [given]:
        cls = find_class(getattr(one, "class_path", one), callbacks.Callback)
        for refused, instead in REFUSED_CALLBACKS.items():
            if cls is not None and issubclass(cls, refused):
                raise UserError(f"--trainer.callbacks {cls.__name__} does not work here. {instead}")
        if cls in OWN_CALLBACKS:
            raise UserError(
                f"--trainer.callbacks {cls.__name__}: every run has one. Its settings are flags of their own, which "
                "`fit --help` lists."
            )
