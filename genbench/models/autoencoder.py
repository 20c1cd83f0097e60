"""Autoencoder: Rumelhart, Hinton & Williams, "Learning Internal Representations by Error Propagation", 1986; stacked
as in Hinton & Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks", Science 2006.

Without hidden layers the encoder and the decoder are linear, and the latent code spans the principal subspace (Baldi &
Hornik 1989, "Neural Networks and Principal Component Analysis").
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from genbench.core.arguments import Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.core.precision import to_float32
from genbench.networks.mlp import mlp


class Autoencoder(GenerativeModule):
    """Fully connected autoencoder of images of any size, or of points. It has no prior, so it cannot sample.

    Args:
        latent_dim: Dimensions of the latent code
        hidden: Widths of the encoder's hidden layers; the decoder uses them in reverse order. No hidden layers by
            default
    """

    latent_dtype = "float32"

    def __init__(
        self, spec: DataSpec | None = None, latent_dim: Width = 32, hidden: Sequence[Width] = (), **training: Any
    ) -> None:
        super().__init__(spec, **training)
        self.latent_shape = (latent_dim,)
        shape = self.spec.shape
        self.encoder = nn.Sequential(nn.Flatten(), mlp([prod(shape), *hidden, latent_dim]))
        self.decoder = nn.Sequential(mlp([latent_dim, *hidden[::-1], prod(shape)]), nn.Unflatten(1, shape))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x = batch.image  # [B, C, H, W]
        return {"reconstruction": mse_loss(to_float32(self.decoder(self.encoder(x))), to_float32(x))}

    def encode(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> codes [B, latent_dim]."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """[B, latent_dim] -> images [B, C, H, W] in [-1, 1]."""
        x = self.decoder(z)
        return x.clamp(-1, 1) if x.ndim == 4 else x  # points are not bounded

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))
