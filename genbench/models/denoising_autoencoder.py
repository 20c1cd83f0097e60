"""DenoisingAutoencoder: Vincent et al., "Stacked Denoising Autoencoders: Learning Useful Representations in a Deep
Network with a Local Denoising Criterion", JMLR 2010, https://www.jmlr.org/papers/v11/vincent10a.html."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from genbench.core.arguments import Weight, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.precision import to_float32
from genbench.networks import encoder_decoder
from genbench.objectives.corruption import corrupt


class DenoisingAutoencoder(GenerativeModule):
    """Autoencoder that reconstructs images from corrupted images. It has no prior, so it cannot sample.

    Args:
        corruption: gaussian (additive noise), masking (pixels become black) or salt_and_pepper (black or white)
        amount: Standard deviation of the noise, for pixels in [-1, 1]; or the fraction of corrupted pixels
        latent_dim: Dimensions of the latent code
        network: Convolutional (sizes 16, 32, 64, 128 and 256) or fully connected networks (any size)
        width: Channels of the convolutional layers nearest the image; doubled at each downsampling, up to 8 times
        hidden: Hidden widths of the fully connected encoder; the decoder uses them in reverse order
    """

    changeable = ("corruption", "amount")
    latent_dtype = "float32"

    def __init__(
        self,
        spec: DataSpec | None = None,
        corruption: Literal["gaussian", "masking", "salt_and_pepper"] = "gaussian",
        amount: Weight = 0.5,
        latent_dim: Width = 64,
        network: Literal["conv", "mlp"] = "conv",
        width: Width = 32,
        hidden: Sequence[Width] = (512, 256),
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        if corruption != "gaussian" and amount > 1:
            raise UserError(f"model.amount is {amount}; as a fraction of the pixels it must be at most 1.")
        self.corruption, self.amount, self.latent_shape = corruption, amount, (latent_dim,)
        shape = (self.spec.channels, *self.spec.shape[1:])
        self.encoder = encoder_decoder.encoder(network, shape, latent_dim, width, hidden)
        self.decoder = encoder_decoder.decoder(network, latent_dim, shape, width, hidden, output=nn.Tanh())

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x = batch.image  # [B, C, H, W]
        corrupted = corrupt(x, self.corruption, self.amount, self.draw)
        return {"reconstruction": mse_loss(to_float32(self.reconstruct(corrupted)), to_float32(x))}  # equation 4

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Mean squared error of each denoised image and of each corrupted image, [B] each."""
        x = batch.image
        corrupted = corrupt(x, self.corruption, self.amount, self.draw)
        images = {"denoised_mse": self.reconstruct(corrupted), "spoilt_mse": corrupted}
        return {name: (to_float32(y) - to_float32(x)).square().flatten(1).mean(1) for name, y in images.items()}

    def encode(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> codes [B, latent_dim]."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """[B, latent_dim] -> images [B, C, H, W] in [-1, 1]."""
        return self.decoder(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Corrupted images [B, C, H, W] -> denoised images [B, C, H, W]."""
        return self.decode(self.encode(x))
