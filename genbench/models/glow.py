"""Glow: Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018,
https://arxiv.org/abs/1807.03039."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from genbench.core.arguments import Bounds, Depth, Weight, Width, refuse
from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.passes import count_passes
from genbench.networks.coupling import (
    ActNorm,
    AffineCoupling,
    Chain,
    FactorOut,
    Flatten,
    InvertibleConv,
    Squeeze,
    ToLogits,
    initialize,
    one_convolution,
    three_convolutions,
)
from genbench.objectives.flow import log_density, refuse_misfits
from genbench.objectives.pixels import dequantized


class Glow(GenerativeModule):
    """Normalizing flow for images. Each step consists of ActNorm, an invertible 1×1 convolution and an affine coupling.

    It differs from the paper in three ways: pixels are transformed to logits as in RealNVP, the networks of the
    couplings have no ActNorm, and the standard deviation of the latents is bounded as in RealNVP's couplings.

    Args:
        levels: Scales; each halves the sides of the images, which must be multiples of 2^levels. Half of the dimensions
            of each scale but the last become latents, whose mean and scale depend on the other half
        steps: Steps per scale; 32 in the paper
        width: Features of the network in each coupling; 512 in the paper
        alpha: Images are transformed to logit(alpha + (1 - 2 alpha) x), for pixels x in [0, 1]
    """

    latent_dtype = "float32"
    likelihood = "lower bound"
    pixels = "8-bit"

    def __init__(
        self,
        spec: DataSpec | None = None,
        levels: Depth = 3,
        steps: Depth = 8,
        width: Width = 64,
        alpha: Annotated[float, Bounds(above=0, below=0.5)] = 0.05,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        shape = (self.spec.channels, *self.spec.shape[1:])  # raises UserError for points
        refuse_misfits(self.spec, levels)
        self.flow = Chain(ToLogits(alpha), scales(shape, levels, steps, width))
        self.latent_shape = (math.prod(shape),)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x = self._target(batch.image)
        if not self.updates["train"]:
            initialize(self.flow, x)
        return {"nll": -log_density(self.flow, x).mean() / x[0].numel()}  # nats per dimension

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log-likelihood [B] in nats, and bits per dimension [B]."""
        nats = log_density(self.flow, self._target(batch.image))
        return {"nats": nats, "bits_per_dim": -nats / (math.log(2) * batch.image[0].numel())}

    def _target(self, x: Tensor) -> Tensor:
        return dequantized(x, self.draw(torch.rand, *x.shape).to(x.dtype))

    def log_likelihood(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B] nats: a lower bound of log P(x) from one draw of uniform dequantization noise."""
        return log_density(self.flow, dequantized(x, torch.rand_like(x)))

    def encode(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> latents [B, D], D = C·H·W, without dequantization noise."""
        return self.flow(x)[0].to(self.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """[B, D] -> images [B, C, H, W] in [-1, 1]: the inverse of `encode`."""
        return self.flow.inverse(z).to(self.dtype).clamp(-1, 1)

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """int64 seeds [n] -> images [n, C, H, W] in [-1, 1].

        temperature  standard deviation of the latents; 0.7 in the figures of the paper. Below 1, images are more
                     typical and less diverse; with 0, every image is the image of the latent 0
        """
        self.check_condition(condition)
        refuse("temperature", temperature, Weight)
        count_passes(self.flow, len(seeds))  # its inverse is not a call
        return self.decode(temperature * self.sample_latents(seeds))

    def sample_latents(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> z [n, D], standard normal."""
        return per_seed(torch.randn, seeds, self.latent_shape).to(self.dtype)


def scales(shape: tuple[int, ...], levels: int, steps: int, width: int) -> Chain:
    """[B, C, H, W] -> [B, D]: the scales from this one to the last."""
    channels, *sides = 4 * shape[0], shape[1] // 2, shape[2] // 2
    network = partial(three_convolutions, width=width)
    layers: list[Any] = [Squeeze()]
    for _ in range(steps):
        layers += [ActNorm(channels), InvertibleConv(channels), AffineCoupling(channels, network, scale="sigmoid")]
    if levels == 1:
        return Chain(*layers, Flatten((channels, *sides)))
    prior = AffineCoupling(channels, one_convolution)  # mean and scale of the half that becomes latents
    rest = scales((channels // 2, *sides), levels - 1, steps, width)
    return Chain(*layers, prior, FactorOut((channels, *sides), rest))
