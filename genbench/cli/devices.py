"""Set the strategy, precision and devices of a run from its trainer settings."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import SingleDeviceStrategy

from genbench.cli.lightning_settings import refuse_lightning_settings
from genbench.core.errors import UserError
from genbench.core.strategy import PlayersDDP

MOST_PROCESSES = 10_000  # devices per machine, and machines, at most; a larger number is assumed to be a typo


def refuse_unsupported(config: Any) -> None:
    """Raise UserError for unsupported trainer settings, strategies or devices, before anything is built."""
    refuse_lightning_settings(config)
    for name in ("devices", "num_nodes"):
        given = str(config[name])
        if given.isdecimal() and int(given[:20]) > MOST_PROCESSES:
            raise UserError(
                f"--trainer.{name} is {given[:20]}; expected at most {MOST_PROCESSES:,}. This machine has "
                f"{torch.cuda.device_count()} GPUs and {os.cpu_count()} CPU cores."
            )
    strategy = config.strategy
    if strategy is None:
        raise UserError("--trainer.strategy null is not supported. Remove it, or use `auto`.")
    known = strategy in ("auto", "ddp")
    if not isinstance(strategy, str):
        strategy = strategy.class_path
        module, _, name = strategy.rpartition(".")
        known = issubclass(getattr(sys.modules[module], name), (PlayersDDP, SingleDeviceStrategy))
    if not known:
        raise UserError(
            f"--trainer.strategy {strategy} cannot train several optimizers in turns: strategies other than `auto` "
            "wrap or shard one module for one backward pass per step. Remove `--trainer.strategy`: with several "
            "devices, each optimizer then steps on averaged gradients. Every model here fits on one device."
        )
    if config.sync_batchnorm and on_cpu(config):
        raise UserError(
            "--trainer.sync_batchnorm: PyTorch synchronizes batch normalization on GPUs only, and this run is on a "
            "CPU. Remove this setting, or train on GPUs with `--trainer.accelerator gpu`."
        )


def on_cpu(config: Any) -> bool:
    return config["accelerator"] == "cpu" or (config["accelerator"] == "auto" and not torch.cuda.is_available())


def _launched() -> tuple[int, int] | None:
    """Return (processes per machine, machines) if torchrun or Slurm has started several processes, else None."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        world, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    elif SLURMEnvironment.detect():
        world, here = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NTASKS_PER_NODE", 0))
    else:
        return None
    if world == 1:
        return None
    if not here:
        raise UserError(f"Slurm has started {world} processes: set the number per machine with `--ntasks-per-node`.")
    return here, world // here


def use_own_strategy(config: dict[str, Any]) -> None:
    """Use PlayersDDP if the run has several devices, set by flags or by the processes that a launcher has started."""
    devices, accelerator = config["devices"], config["accelerator"]
    launched = _launched()
    if launched and devices == "auto":
        devices, config["num_nodes"] = launched
        config["devices"] = devices
    if accelerator in ("auto", "gpu", "cuda") and devices in ("auto", -1, "-1"):
        count = torch.cuda.device_count()
    elif isinstance(devices, (list, tuple)):
        count = len(devices)
    else:
        text = str(devices)
        number = text.isdecimal() and len(text) < 10  # Lightning rejects longer numbers
        count = int(text) if number else len([d for d in text.split(",") if d.strip()])
    if launched and (count, config["num_nodes"]) != launched:
        raise UserError(
            f"{launched[0]} processes were started on each of {launched[1]} machines, but the config has {count} "
            f"devices on {config['num_nodes']} machines. Remove `--trainer.devices` and `--trainer.num_nodes`."
        )
    if config["strategy"] in ("auto", "ddp") and (count > 1 or config["num_nodes"] > 1):
        config["strategy"] = PlayersDDP()
    elif config["strategy"] == "ddp":
        config["strategy"] = "auto"


def use_real_fp16(config: dict[str, Any]) -> None:
    """Use real fp16 with a gradient scaler for fp16 on a CPU, where Lightning would silently use bf16."""
    if on_cpu(config) and str(config["precision"]) in ("16-mixed", "16"):
        config["precision"] = None
        config["plugins"] = [*as_list(config["plugins"]), MixedPrecision("16-mixed", device="cpu")]


def as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
