"""Settings of Lightning's Trainer that genbench rejects, each with the setting to use instead.

All other settings work: accelerator, devices, num_nodes, strategy, precision, logger, callbacks, deterministic,
detect_anomaly, profiler, sync_batchnorm.
"""

from __future__ import annotations

import inspect
from typing import Any

from lightning import Trainer
from lightning.pytorch import callbacks

from genbench import callbacks as ours
from genbench.cli.settable import find_class
from genbench.core.errors import UserError

# replace the Trainer's defaults: genbench's callbacks do this work, at intervals counted in images
DEFAULTS = {
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "inference_mode": False,  # tensors created in inference mode cannot be changed in place later
}

BUDGET = "The length of a run is its budget of images: use `--max_images`."
VALIDATION = "The validation interval is counted in images: use `--validation.every_images`."
FEWER = "To train on fewer images use `--data.subset`; for a short run, `--max_images`."
LOADERS = "The data loaders here distribute, order and cache their images themselves."
CLIPPING = "The gradients of each optimizer are clipped separately: use `--model.clip_norm` or `--model.clip_value`."

REFUSED = {
    "fast_dev_run": "For a quick test use `--max_images 200`; it writes checkpoints and images like any run.",
    "max_epochs": "The budget is counted in images: use `--max_images` in place of epochs.",
    "min_epochs": BUDGET,
    "max_steps": BUDGET,
    "min_steps": BUDGET,
    "max_time": BUDGET + " A suite turns minutes into images: `budget: {minutes: 5}`.",
    "limit_train_batches": FEWER,
    "limit_val_batches": "The size of validation is set by `--data.val_size` and `--validation.samples`.",
    "limit_test_batches": "The size of a test is set by its protocol: use `--protocol`.",
    "limit_predict_batches": "To draw fewer images use `sample --n`.",
    "overfit_batches": FEWER,
    "val_check_interval": VALIDATION,
    "check_val_every_n_epoch": VALIDATION,
    "num_sanity_val_steps": VALIDATION,
    "log_every_n_steps": "The logging interval is counted in images: use `--monitor.every_images`.",
    "enable_checkpointing": "The checkpoint interval is counted in images: use `--checkpoint.every_images`.",
    "enable_progress_bar": "Progress is shown by `--monitor.show`.",
    "enable_model_summary": "The number of parameters is printed at the start.",
    "accumulate_grad_batches": "Gradients are accumulated by `--model.accumulate`.",
    "gradient_clip_val": CLIPPING,
    "gradient_clip_algorithm": CLIPPING,
    "benchmark": "It is always on for GPUs, unless `--trainer.deterministic true` is set.",
    "inference_mode": "Validation always runs without gradients.",
    "use_distributed_sampler": LOADERS,
    "reload_dataloaders_every_n_epochs": LOADERS,
    "barebones": "A run always has curves and checkpoints; their intervals are set by `monitor` and `checkpoint`.",
    "plugins": "Choose a precision with `--trainer.precision`; start processes with `--trainer.devices` or torchrun.",
    "enable_autolog_hparams": "Every logger always gets the config.",
    "model_registry": "A model is stored as its checkpoint in the run's folder.",
}
REFUSED_CALLBACKS = {
    callbacks.Checkpoint: "Checkpoints are written by `--checkpoint.every_images` and `--checkpoint.keep_every`.",
    callbacks.ProgressBar: "Progress is shown by `--monitor.show`.",
    callbacks.EarlyStopping: "The best checkpoint is always kept; a run ends at `--max_images`.",
    callbacks.Timer: BUDGET,
    callbacks.GradientAccumulationScheduler: REFUSED["accumulate_grad_batches"],
    callbacks.WeightAveraging: "Weights are averaged by `--ema.halflife`.",
    callbacks.StochasticWeightAveraging: "Weights are averaged by `--ema.halflife`.",
    callbacks.BatchSizeFinder: "Set `--data.batch_size`.",
    callbacks.LearningRateFinder: "Set `--model.optimizer.lr`.",
    callbacks.BaseFinetuning: "Each optimizer always trains all of its parameters.",
    callbacks.ModelPruning: "Each optimizer always trains all of its parameters.",
    callbacks.SpikeDetection: "A loss that is not finite always ends the run with an error.",
    ours.MaxImages: BUDGET,
}
# genbench adds one of each of these callbacks to every run
OWN_CALLBACKS = (
    ours.Acceleration, ours.GANMonitor, ours.Checkpoint, ours.Codebook, ours.EMA, ours.Monitor, ours.SampleLogger,
    ours.ValidationMetrics, ours.StopSafely,
)  # fmt: skip


def refuse_lightning_settings(trainer: Any) -> None:
    """Raise UserError for a setting of `trainer` that genbench would ignore, or apply only in part."""
    defaults = {name: p.default for name, p in inspect.signature(Trainer).parameters.items()} | DEFAULTS
    for name, instead in REFUSED.items():
        if trainer[name] != defaults[name]:
            raise UserError(f"--trainer.{name} {trainer[name]} is not supported. {instead}")
    given = trainer["callbacks"] or []
    for one in given if isinstance(given, (list, tuple)) else [given]:
        cls = find_class(getattr(one, "class_path", one), callbacks.Callback)
        for refused, instead in REFUSED_CALLBACKS.items():
            if cls is not None and issubclass(cls, refused):
                raise UserError(f"--trainer.callbacks {cls.__name__} is not supported. {instead}")
        if cls in OWN_CALLBACKS:
            raise UserError(
                f"--trainer.callbacks {cls.__name__}: every run already has one. `fit --help` lists its flags."
            )
