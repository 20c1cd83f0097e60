"""ConvAutoencoder: Masci et al., "Stacked Convolutional Auto-Encoders for Hierarchical Feature Extraction", ICANN
2011, with strided and transposed convolutions instead of pooling (Radford et al. 2016, section 3)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from genbench.core.arguments import Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.core.precision import to_float32
from genbench.networks.conv import down_net, up_net


class ConvAutoencoder(GenerativeModule):
    """Convolutional autoencoder for images of 16, 32, 64, 128 or 256 pixels. It has no prior, so it cannot sample.

    Args:
        latent_dim: Dimensions of the latent code
        width: Channels of the layers nearest the image; doubled at each downsampling, up to 8 times
    """

    latent_dtype = "float32"

    def __init__(
        self, spec: DataSpec | None = None, latent_dim: Width = 32, width: Width = 32, **training: Any
    ) -> None:
        super().__init__(spec, **training)
        self.latent_shape = (latent_dim,)
        self.encoder = down_net(self.spec.channels, self.spec.size, width, outputs=latent_dim)
        self.decoder = up_net(latent_dim, self.spec.channels, self.spec.size, width, output=nn.Tanh())

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x = batch.image  # [B, C, H, W]
        return {"reconstruction": mse_loss(to_float32(self.reconstruct(x)), to_float32(x))}

    def encode(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> codes [B, latent_dim]."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """[B, latent_dim] -> images [B, C, H, W] in [-1, 1]."""
        return self.decoder(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))
