"""Models as small as they can be, kept outside the package as a user's own would be."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Trainer
from torch import Tensor, nn

from genbench.callbacks import MaxImages
from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.data.loader import MemorySource, TrainLoader
from genbench.objectives.adversarial import r1_penalty
from genbench.objectives.adversarial_settings import AdversarialSettings

SPEC = DataSpec((1, 4, 4))


class ToyGAN(GenerativeModule):
    """A fully connected GAN without batch normalization."""

    players = {"generator": ("generator",), "discriminator": ("discriminator",)}
    ema = ("generator",)

    def __init__(self, spec: DataSpec | None = None, r1_gamma: float = 0.0, poison: int = -1, **training: Any) -> None:
        super().__init__(spec, **training)
        self.r1_gamma, self.poison = r1_gamma, poison
        self.generator = nn.Sequential(
            nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 16), nn.Tanh(), nn.Unflatten(1, (1, 4, 4))
        )
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1))
        self.adversarial = AdversarialSettings()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        fake = self.generator(self.draw(torch.randn, len(batch), 3).to(self.dtype))
        with self.turn("discriminator") as turn:
            terms = self.adversarial.discriminator_loss(
                self.discriminator(batch.image), self.discriminator(fake.detach())
            )
            if self.r1_gamma:
                terms["r1"] = self.r1_gamma * r1_penalty(self.discriminator, batch.image)
            if 0 <= self.poison < self.images_seen:
                terms["real"] = terms["real"] * float("nan")
            turn.minimize(**terms)
        with self.turn("generator") as turn:
            turn.minimize(**self.adversarial.generator_loss(self.discriminator(fake)))

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        return self.generator(per_seed(torch.randn, seeds, (3,)).to(self.dtype))


class ToyAutoencoder(GenerativeModule):
    """One optimizer, one linear layer each way."""

    def __init__(self, spec: DataSpec | None = None, **training: Any) -> None:
        super().__init__(spec, **training)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
        self.decoder = nn.Sequential(nn.Linear(4, 16), nn.Unflatten(1, (1, 4, 4)))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"mse": (self.decoder(self.encoder(batch.image)) - batch.image).square().mean()}

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class Loader(TrainLoader):
    """40 random 4×4 images; takes position, rank and world from the module that it trains."""

    def __init__(self, module: GenerativeModule, batch_size: int, rank: int = 0, world: int = 1) -> None:
        images = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
        source = MemorySource(Batch(images))
        super().__init__(source, batch_size, seed=0, position=module.images_seen, rank=rank, world=world)


def fit(
    module: GenerativeModule, images: int, batch_size: int = 8, callbacks: list | None = None, **trainer: Any
) -> Trainer:
    """Train in silence on the CPU."""
    settings = {"accelerator": "cpu", "devices": 1, "logger": False} | trainer
    run = Trainer(
        callbacks=[*(callbacks or []), MaxImages(images)], max_epochs=-1, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, **settings,
    )  # fmt: skip
    run.fit(module, train_dataloaders=Loader(module, batch_size))
    return run
