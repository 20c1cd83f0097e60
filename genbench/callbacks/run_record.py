"""Writes `config.yaml`, and adds a run's settings, data, segments and times to its checkpoints."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Callback, Trainer

from genbench.core import machine
from genbench.core.class_paths import path_of
from genbench.core.errors import warn
from genbench.core.files import replacing
from genbench.core.module import GenerativeModule
from genbench.data.module import DataModule
from genbench.loggers import Curves, Wandb


class RunRecord(Callback):
    """Writes `config.yaml` into the run's folder, and stores the settings and costs of the run in each checkpoint.

    Nothing is written until the model, the optimizers and the data are built and restored from the checkpoint.

    Args:
        folder: Folder of the run, `runs/<name>/`
        config: All settings
        command: The command that started the run
        segments: Parts of the training with different settings, from `genbench.cli.resume.segments`
        resumed: Whether the run continues in the same folder as its checkpoint
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        command: str | None,
        segments: list[dict[str, Any]],
        resumed: bool = False,
    ) -> None:
        self.folder, self.config, self.command, self.segments, self.resumed = folder, config, command, segments, resumed
        self._begun = False
        self._seconds = self._busy = 0.0  # up to this resume: total time, and time in training steps
        self._started = self._batch_started = time.monotonic()

    def on_save_checkpoint(self, trainer: Trainer, module: GenerativeModule, checkpoint: dict[str, Any]) -> None:
        if trainer.is_global_zero and self._begun and not (self.folder / "config.yaml").exists():
            warn(f"{self.folder} was moved or removed during training. It is created again.")
            self._write_config()
        config = {name: value for name, value in self.config.items() if name != "config"}
        checkpoint["run"] = {
            "environment": environment(),
            "wandb": next((logger.experiment.id for logger in trainer.loggers if isinstance(logger, Wandb)), None),
            "name": self.folder.name,
            "command": self.command,
            "config": config,
            "segments": [*self.segments[:-1], self.segments[-1] | {"to": module.images_seen}],
            "training": self._training(trainer, module),
        }
        waiting = [row for logger in trainer.loggers if isinstance(logger, Curves) for row in logger.waiting]
        if waiting:  # if the disk was full, store the rows in the checkpoint
            checkpoint["run"]["rows"] = waiting
        data = trainer.datamodule
        if isinstance(data, DataModule):
            arguments = {"arguments": data.arguments, "contents": data.contents()}
            checkpoint["data"] = {"class": path_of(type(data))} | arguments

    def on_load_checkpoint(self, trainer: Trainer, module: GenerativeModule, checkpoint: dict[str, Any]) -> None:
        before = checkpoint.get("run", {}).get("training") or {}
        self.command = checkpoint.get("run", {}).get("command") or self.command  # keep the command that started the run
        self._seconds, self._busy = before.get("seconds", 0.0), before.get("busy_seconds", 0.0)
        if self.resumed:
            for logger in trainer.loggers:
                if isinstance(logger, Curves):
                    logger.waiting = list(checkpoint.get("run", {}).get("rows", []))

    def on_train_start(self, trainer: Trainer, module: GenerativeModule) -> None:
        self._started = time.monotonic()
        if trainer.is_global_zero:
            (self.folder / "checkpoints").mkdir(exist_ok=True)  # a checkpoint saved elsewhere can be moved there
            self._write_config()
            for logger in trainer.loggers:
                logger.log_hyperparams(self.config)
        self._begun = True

    def _write_config(self) -> None:
        with replacing(self.folder / "config.yaml") as file:
            file.write(yaml.safe_dump(readable(self.config), sort_keys=False).encode())

    def on_train_batch_start(self, *_: Any) -> None:
        self._batch_started = time.monotonic()

    def on_train_batch_end(self, *_: Any) -> None:
        # this callback runs first, so the time of other callbacks, such as for samples, is not counted
        self._busy += time.monotonic() - self._batch_started

    def _training(self, trainer: Trainer, module: GenerativeModule) -> dict[str, Any]:
        """Costs of the training so far, summed over all resumes."""
        seconds = self._seconds + time.monotonic() - self._started
        device = trainer.strategy.root_device
        return {
            "device": machine.device_name(device),
            "precision": str(trainer.precision),
            "world_size": trainer.world_size,
            "seconds": seconds,
            "busy_seconds": self._busy,
            "images_per_second": module.images_seen / self._busy if self._busy else None,
            "peak_memory": machine.peak_memory(device),
            "device_hours": seconds * trainer.world_size / 3600,
        }


def readable(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run as written to `config.yaml`: model and data come first, and null is omitted where it is the
    default of Lightning's Trainer. `fit` reads the same settings from this file."""
    first = {name: config[name] for name in ("model", "data", "max_images", "seed_everything") if name in config}
    if "trainer" in config:
        null = {name for name, parameter in inspect.signature(Trainer).parameters.items() if parameter.default is None}
        first["trainer"] = {k: v for k, v in config["trainer"].items() if v is not None or k not in null}
    return first | {name: value for name, value in config.items() if name not in first}


def environment() -> dict[str, Any]:
    """Versions and settings that must stay the same for a bit-for-bit resume."""
    return {"torch": str(torch.__version__), "threads": torch.get_num_threads()}
