"""Small runs on random images, with a validation split, callbacks and a folder: what `fit` does without its CLI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, Trainer

from genbench.callbacks import MaxImages
from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.data.loader import EvalLoader, MemorySource, TrainLoader

SGD = {"class_path": "torch.optim.SGD", "lr": 0.1}


class RandomImages(LightningDataModule):
    """40 images to train on, 24 held out in blocks of 10."""

    extractor = "digitsnet"
    targets: dict[str, torch.Tensor] = {}  # of all 64, where a test gives some

    def __init__(self, spec: DataSpec, batch_size: int = 8) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        images = torch.randint(0, 256, (64, *spec.shape), dtype=torch.uint8, generator=draw)
        if spec.binary:
            images = (images > 127) * torch.tensor(255, dtype=torch.uint8)
        self.batch_size = batch_size
        everything = Batch(images, **self.targets)
        self.train, self.val = MemorySource(everything[:40]), MemorySource(everything[40:])

    def train_dataloader(self) -> TrainLoader:
        module = self.trainer.lightning_module
        return TrainLoader(self.train, self.batch_size, seed=0, position=module.images_seen)

    def val_dataloader(self) -> EvalLoader:
        return EvalLoader(self.val, 10)

    def held_out(self) -> torch.Tensor:
        return torch.cat([batch.image for batch in self.val_dataloader()])


class Each(Callback):
    """Calls a function `(trainer, module)` at one of Lightning's hooks, and keeps what it returns."""

    def __init__(self, hook: str, look: Any) -> None:
        self.values: list[Any] = []
        setattr(self, hook, lambda trainer, module, *_: self.values.append(look(trainer, module)))


class Turns:
    """In place of a module's `turn`: keeps the loss terms of each player, and takes no step."""

    def __init__(self) -> None:
        self.terms: dict[str, dict[str, torch.Tensor]] = {}

    def __call__(self, player: str) -> Turns:
        self.player = player
        return self

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def minimize(self, **terms: torch.Tensor) -> None:
        self.terms[self.player] = terms

    def log(self, **_: torch.Tensor) -> None:
        pass


def run(
    module: GenerativeModule,
    images: int,
    callbacks: list[Callback] | tuple[Callback, ...] = (),
    folder: Path | None = None,
    ckpt: Path | None = None,
    batch_size: int = 8,
    **settings: Any,
) -> Trainer:
    """Train in silence on the CPU until so many images are seen."""
    defaults = {"accelerator": "cpu", "devices": 1, "logger": False, "num_sanity_val_steps": 0}
    trainer = Trainer(
        callbacks=[*callbacks, MaxImages(images)], default_root_dir=folder, max_epochs=-1, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, inference_mode=False, **defaults | settings,
    )  # fmt: skip
    trainer.fit(module, datamodule=RandomImages(module.spec, batch_size), ckpt_path=ckpt, weights_only=True)
    return trainer


def validate(module: GenerativeModule, callbacks: list[Callback], **settings: Any) -> dict[str, float]:
    trainer = Trainer(
        callbacks=callbacks, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, inference_mode=False, **settings,
    )  # fmt: skip
    return trainer.validate(module, datamodule=RandomImages(module.spec), verbose=False)[0]


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Bit for bit, buffers included."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def untrained(module: GenerativeModule, path: Path) -> Path:
    """Write a checkpoint of a model that has seen no images."""
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.strategy.connect(module)
    module.trainer = trainer
    trainer.save_checkpoint(path, weights_only=False)
    return path
