"""VQVAE: van den Oord, Vinyals & Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017,
https://arxiv.org/abs/1711.00937. Restart of dead codes: Williams et al., "Hierarchical Quantized
Autoencoders", NeurIPS 2020, section 3.1; Dhariwal et al., "Jukebox", 2020, section 3.1. Batch normalization
of the encoder's output: Łańcucki et al., "Robust Training of Vector Quantized Bottleneck Models", IJCNN 2020,
section 3; without it, the encoder's output and the codebook collapsed to a single point.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu

from genbench.core.arguments import Bounds, Weight, Whole, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.precision import to_float32
from genbench.core.units import Images
from genbench.networks.quantizer import Quantizer


class VQVAE(GenerativeModule):
    """Autoencoder whose code is a grid of codebook indices, with a quarter of the image's side.

    To sample new images, train a `VQPrior` on a checkpoint of this model.

    Args:
        num_embeddings: Number of vectors in the codebook; 512 in the paper
        embedding_dim: Dimensions of a vector; 64 in the paper
        width: Channels of encoder and decoder; 256 in the paper
        blocks: Residual blocks in the encoder and in the decoder; 2 in the paper
        codebook: How the codebook is learned: by moving averages (ema) or by gradient
        decay: Decay of the moving average per batch
        commitment: Weight of the commitment loss, beta of equation 3
        restart_dead_codes: Interval in images at which dead vectors are replaced by outputs of the encoder. A vector is
            dead if it is used less than a tenth as often as under uniform use. The interval should be long compared to
            `decay`. No restarts by default
    """

    players = {"train": ("encoder", "decoder", "quantizer")}  # the order of the optimizer state in checkpoints
    changeable = ("decay", "commitment", "restart_dead_codes")
    latent_dtype = "int64"

    def __init__(
        self,
        spec: DataSpec | None = None,
        num_embeddings: Width = 512,
        embedding_dim: Width = 64,
        width: Width = 128,
        blocks: Whole = 2,
        codebook: Literal["ema", "gradient"] = "ema",
        decay: Annotated[float, Bounds(at_least=0, below=1, words="it must be in [0, 1)")] = 0.99,
        commitment: Weight = 0.25,
        restart_dead_codes: Images | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        channels, size = self.spec.channels, self.spec.size
        if size % 4:
            raise UserError(
                f"VQVAE needs images whose sides are multiples of 4, but the data has {size} pixels per side. Set "
                "`--data.size`."
            )
        self.commitment = commitment
        self.restart_dead_codes = Images(restart_dead_codes) if restart_dead_codes else None
        self.latent_shape, self.latent_values = (size // 4, size // 4), num_embeddings
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width // 2, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 2, width, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            *(Residual(width) for _ in range(blocks)),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, embedding_dim, 1),
            nn.BatchNorm2d(embedding_dim),
        )
        self.quantizer = Quantizer(num_embeddings, embedding_dim, codebook, decay)
        self.decoder = nn.Sequential(
            nn.Conv2d(embedding_dim, width, 3, padding=1),
            *(Residual(width) for _ in range(blocks)),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(width // 2, channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        x = batch.image  # [B, C, H, W]
        with self.turn("train") as turn:
            z = self.encoder(x)  # [B, D, H/4, W/4]
            quantized, code, terms = self.quantizer(z)
            terms["commitment"] = self.commitment * terms["commitment"]
            reconstruction = mse_loss(to_float32(self.decoder(quantized)), to_float32(x))
            turn.minimize(reconstruction=reconstruction, **terms)  # equation 3
            self.quantizer.learn(z.detach(), code)
            turn.log(perplexity=self.quantizer.perplexity, codebook_usage=self.quantizer.codebook_usage)
        # after the optimizer step, which moves a codebook that is learned by gradient
        if self.restart_dead_codes and self.due(self.restart_dead_codes):
            which = self.draw(torch.rand, self.latent_values)
            self.quantizer.restart_dead_codes(z.detach(), which, least=0.1)

    def encode(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> codes int64 [B, H/4, W/4]."""
        return self.quantizer.nearest(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        """Codes int64 [B, H/4, W/4] -> images [B, C, H, W] in [-1, 1]."""
        return self.decoder(self.quantizer.look_up(z).to(self.dtype))

    def encode_vectors(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> vectors before quantization [B, D, H/4, W/4]."""
        return self.encoder(x)

    def decode_vectors(self, z: Tensor) -> Tensor:
        """Vectors [B, D, H/4, W/4], which are quantized -> images [B, C, H, W] in [-1, 1]."""
        return self.decode(self.quantizer.nearest(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class Residual(nn.Module):
    """[B, width, H, W] -> the same shape: ReLU, 3×3 convolution, ReLU, 1×1 convolution, skip connection (section
    4.1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(relu(self.conv1(relu(x))))
