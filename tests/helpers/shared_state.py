"""Models with state that is made from the batch: reduced over processes, not reduced, or exempted by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genbench.core import ranks
from genbench.core.batch import Batch, DataSpec
from genbench.models import VAE


class Reduced(VAE):
    """Keeps a moving mean of the images' brightness, as a codebook keeps one of its codes."""

    def __init__(self, spec: DataSpec | None = None, **training: Any) -> None:
        super().__init__(spec, width=4, latent_dim=4, **training)
        self.register_buffer("brightness", torch.zeros(()))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        self.brightness.lerp_(self.of_all(batch.image.mean()), 0.1)
        return super().training_step(batch, batch_idx)

    def of_all(self, value: Tensor) -> Tensor:
        return ranks.mean(value)


class Drifting(Reduced):
    def of_all(self, value: Tensor) -> Tensor:
        return value


class Exempted(Drifting):
    per_process = ("brightness",)


class Astray(Reduced):
    """Changes a weight by its share of the batch, outside of the optimizer's step."""

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        with torch.no_grad():
            self.encoder[0].bias += 1e-3 * batch.image.mean()
        return super().training_step(batch, batch_idx)
