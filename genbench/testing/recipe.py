"""Builds models from a config, and synthetic images to train them on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from lightning import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from torch.nn.functional import interpolate

from genbench.callbacks import EMA, Checkpoint, GANMonitor, MaxImages, Monitor, ValidationMetrics
from genbench.cli import compose
from genbench.core import composition, yaml_file
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.units import Images
from genbench.data.loader import EvalLoader, MemorySource, TrainLoader
from genbench.loggers import Curves

# settings of a Trainer that prints nothing and does not stop after a number of epochs
QUIET: dict[str, Any] = {"max_epochs": -1} | dict.fromkeys(
    ("enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False
)


class SyntheticData(LightningDataModule):
    """A few smooth random images, or points, in the shape of `spec`, with all targets that `spec` defines."""

    def __init__(self, spec: DataSpec, batch_size: int = 8, n: int = 36, labeled: bool = False) -> None:
        super().__init__()
        self.spec, self.batch_size = spec, batch_size
        draw = torch.Generator().manual_seed(0)
        if len(spec.shape) == 1:
            self.extractor = "points"
            # away from the origin, where the outputs of untrained models lie, so that training reduces the distance
            image = torch.rand(n, *spec.shape, generator=draw) / 2 + 0.5
        else:
            self.extractor = "digitsnet"  # small, and shipped with the package
            coarse = torch.rand(n, spec.channels, 4, 4, generator=draw)
            image = interpolate(coarse, spec.shape[1:], mode="bilinear")
            image = (image.round() if spec.binary else image).mul(255).to(torch.uint8)
        label = torch.arange(n) % len(spec.classes) if spec.classes else None
        words, length = len(spec.vocabulary), spec.caption_length or 4
        caption = torch.randint(1, words, (n, length), generator=draw) if words else None
        mask = image[:, 0].gt(127).long() if spec.target == "mask" else None
        source = None
        if spec.source:  # a function of the image: upside down, with inverted colors
            source = 255 - image.flip(2).float().mean(1, keepdim=True).to(torch.uint8).expand(
                -1, spec.source[0], -1, -1
            )
        self.known = torch.arange(0, n, 3) if labeled and label is not None else None
        self.everything = MemorySource(Batch(image, label, caption, mask, source=source))

    def train_dataloader(self) -> TrainLoader:
        t = self.trainer
        return TrainLoader(
            self.everything, self.batch_size, seed=t.lightning_module.seed, position=t.lightning_module.images_seen,
            rank=t.global_rank, world=t.world_size, known=self.known,
        )  # fmt: skip

    def val_dataloader(self) -> EvalLoader:
        return EvalLoader(self.everything, 16, rank=self.trainer.global_rank, world=self.trainer.world_size)


class Recipe:
    """Builds identical models from one config.

    Args:
        path: File of the config
        modules: Modules that a second process must import to find the config's classes by their short names

    Raises:
        UserError: the config has no `model` or no `data`, or contains invalid settings.
    """

    def __init__(self, path: Path, modules: Sequence[str] = ()) -> None:
        text = compose.settings(compose.Command([(path, yaml_file.read(path))])).config
        if not {"model", "data"} <= text.keys():
            raise UserError(f"{path} is not the config of an experiment: it needs `model` and `data`.")
        self.path, self.name, self.modules = path, path.stem, list(modules)
        data = text["data"] if isinstance(text["data"], dict) else {}
        self.labeled = bool((data.get("init_args") or {}).get("labeled"))
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(LightningDataModule, "data")
        parser.add_subclass_arguments(GenerativeModule, "model", skip={"spec"})
        try:
            config = parser.parse_object({"model": text["model"], "data": text["data"]})
        except Exception as error:
            raise UserError(f"{path}: {error}") from error
        self._model, config.model = config.model, None
        self.spec: DataSpec = parser.instantiate_classes(config).data.spec

    def model(self) -> GenerativeModule:
        seed_everything(0, verbose=False)
        module, _, name = self._model.class_path.rpartition(".")
        arguments = self._model.init_args.as_dict()
        parts = {argument: _untrained(value, self.path.parent) for argument, value in arguments.items()}
        return getattr(sys.modules[module], name)(self.spec, **arguments | {a: p for a, p in parts.items() if p})

    def data(self) -> SyntheticData:
        return SyntheticData(self.spec, labeled=self.labeled)


def _untrained(value: Any, folder: Path) -> dict[str, Any] | None:
    """A replacement for a missing checkpoint: the description of an untrained model.

    If `value` is a checkpoint `runs/NAME/checkpoints/...` that does not exist, the model is built from the config NAME.
    Otherwise None is returned.
    """
    if not isinstance(value, str) or not value.endswith(".ckpt") or Path(value).is_file():
        return None
    other = folder / f"{Path(value).parts[-3]}.yaml"
    if not other.is_file():
        raise UserError(f"The checkpoint {value} does not exist.")
    return composition.described(Recipe(other).model())


class Crash(Callback):
    """Ends a run abruptly after `at` images, like a power failure."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_end(self, trainer: Trainer, module: GenerativeModule, *_: Any) -> None:
        if module.images_seen >= self.at:
            raise KeyError("crash")


def train(
    recipe: Recipe,
    folder: Path,
    images: int,
    ckpt: Path | None = None,
    crash_at: int | None = None,
    first: Callback | None = None,
    **trainer: Any,
) -> Trainer:
    """Train the model of the config briefly on the CPU, with EMA, validation, curves and checkpoints."""
    settings = {"accelerator": "cpu", "devices": 1} | trainer
    validation = ValidationMetrics(every_images=Images(32), samples=4)
    validation.protocol = validation.protocol.changed(block=4)  # the last block is padded, which would take long
    run = Trainer(
        default_root_dir=folder,
        logger=[Curves(folder)],
        callbacks=[
            *([first] if first else []),
            EMA(every_images=Images(16)),
            Monitor(every_images=Images(16), show=False),
            GANMonitor(every_images=Images(32)),
            validation,
            Checkpoint(every_images=Images(24)),
            MaxImages(images),
            *([Crash(crash_at)] if crash_at else []),
        ],
        num_sanity_val_steps=0, inference_mode=False, **QUIET, **settings,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(KeyError) if crash_at else nullcontext():
        run.fit(recipe.model(), datamodule=recipe.data(), ckpt_path=ckpt, weights_only=True)
    return run
