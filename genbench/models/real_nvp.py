"""RealNVP: Dinh et al., "Density estimation using Real NVP", ICLR 2017, https://arxiv.org/abs/1605.08803."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from genbench.core.arguments import Bounds, Depth, Weight, Width, refuse
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.passes import count_passes
from genbench.networks.coupling import (
    ActNorm,
    AffineCoupling,
    Chain,
    FactorOut,
    Flatten,
    Regroup,
    Squeeze,
    ToLogits,
    fully_connected,
    initialize,
    residual,
)
from genbench.objectives.flow import log_density, refuse_misfits
from genbench.objectives.pixels import dequantized

ROWS, CHECKERBOARD = (0, 1, 2, 3), (0, 3, 1, 2)  # order of the pixels of a 2×2 block, see `Squeeze`


class RealNVP(GenerativeModule):
    """Normalizing flow with affine couplings at several scales, for images and points.

    It differs from the paper in three ways. ActNorm replaces batch normalization, so that inverse and likelihood are
    exact in training. The networks of the couplings have no normalization. Checkerboard couplings are computed on 2×2
    blocks as channels, which needs a quarter of the operations and splits the pixels in the same way.

    Args:
        levels: Scales; each halves the sides of the images, which must be multiples of 2^levels. Half of the dimensions
            of each scale but the last become latents. For points, couplings are repeated as often
        couplings: Couplings per scale with a checkerboard mask, and as many with a channel mask. The last scale has one
            more with a checkerboard mask and none with a channel mask
        blocks: Residual blocks in the network of each coupling; for points, hidden layers after the first
        width: Features of these networks
        alpha: Images are transformed to logit(alpha + (1 - 2 alpha) x), for pixels x in [0, 1]
    """

    latent_dtype = "float32"

    def __init__(
        self,
        spec: DataSpec | None = None,
        levels: Depth = 3,
        couplings: Depth = 3,
        blocks: Depth = 1,
        width: Width = 32,
        alpha: Annotated[float, Bounds(above=0, below=0.5)] = 0.05,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        shape = self.spec.shape
        refuse_misfits(self.spec, levels)
        if len(shape) == 1:
            self.likelihood, self.pixels = "exact", "density"
            self.flow = points(shape[0], 2 * couplings * levels, width, blocks)
        else:
            self.likelihood, self.pixels = "lower bound", "8-bit"
            self.flow = Chain(ToLogits(alpha), images(shape, levels, couplings, width, blocks))
        self.latent_shape = (math.prod(shape),)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x = self._target(batch.image)
        if not self.updates["train"]:
            initialize(self.flow, x)
        return {"nll": -log_density(self.flow, x).mean() / x[0].numel()}  # nats per dimension

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log-likelihood [B] in nats, and for images bits per dimension [B]."""
        nats = log_density(self.flow, self._target(batch.image))
        return {"nats": nats} | ({"bits_per_dim": _bits(nats, batch.image)} if batch.image.ndim == 4 else {})

    def _target(self, x: Tensor) -> Tensor:
        return dequantized(x, self.draw(torch.rand, *x.shape).to(x.dtype)) if x.ndim == 4 else x

    def log_likelihood(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B] nats: a lower bound of log P(x) from one draw of uniform dequantization noise; for points
        [B, D] the exact log density."""
        return log_density(self.flow, dequantized(x, torch.rand_like(x)) if x.ndim == 4 else x)

    def encode(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> latents [B, D], D = C·H·W, without dequantization noise."""
        return self.flow(x)[0].to(self.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """[B, D] -> images [B, C, H, W] in [-1, 1]: the inverse of `encode`."""
        x = self.flow.inverse(z).to(self.dtype)
        return x.clamp(-1, 1) if x.ndim == 4 else x

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """int64 seeds [n] -> images [n, C, H, W] in [-1, 1].

        temperature  standard deviation of the latents. Below 1, images are more typical and less diverse; with 0, every
                     image is the image of the latent 0
        """
        self.check_condition(condition)
        refuse("temperature", temperature, Weight)
        count_passes(self.flow, len(seeds))  # its inverse is not a call
        return self.decode(temperature * self.sample_latents(seeds))

    def sample_latents(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> z [n, D], standard normal."""
        return per_seed(torch.randn, seeds, self.latent_shape).to(self.dtype)


def _bits(nats: Tensor, images: Tensor) -> Tensor:
    return -nats / (math.log(2) * images[0].numel())


def images(shape: tuple[int, ...], levels: int, couplings: int, width: int, blocks: int) -> Chain:
    """[B, C, H, W] -> [B, D]: the scales from this one to the last."""
    channels, height, width_ = 4 * shape[0], shape[1] // 2, shape[2] // 2
    network = partial(residual, width=width, blocks=blocks)

    def masked(count: int) -> list[Any]:
        pairs = [(ActNorm(channels), AffineCoupling(channels, network, swap=k % 2 == 1)) for k in range(count)]
        return [layer for pair in pairs for layer in pair]

    if levels == 1:
        return Chain(Squeeze(CHECKERBOARD), *masked(couplings + 1), Flatten((channels, height, width_)))
    rest = images((channels // 2, height, width_), levels - 1, couplings, width, blocks)
    back = Regroup([CHECKERBOARD.index(k) for k in ROWS])
    return Chain(
        Squeeze(CHECKERBOARD), *masked(couplings), back, *masked(couplings),
        FactorOut((channels, height, width_), rest),
    )  # fmt: skip


def points(dim: int, couplings: int, width: int, blocks: int) -> Chain:
    """[B, D] -> [B, D]."""
    if dim < 2:
        raise UserError("RealNVP splits the dimensions of a point into two halves, but this data has one dimension.")
    network = partial(fully_connected, width=width, blocks=blocks)
    layers = [(ActNorm(dim), AffineCoupling(dim, network, swap=k % 2 == 1)) for k in range(couplings)]
    return Chain(*(layer for pair in layers for layer in pair))
