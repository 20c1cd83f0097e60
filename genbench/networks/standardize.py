"""Standardization of latents by statistics of the first images of a run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genbench.core import ranks
from genbench.core.precision import to_float32


class Standardize(nn.Module):
    """Latents [B, D, ...] with zero mean and unit variance in each channel, by the moments of the first images that
    training saw, over all processes.

    Args:
        channels: Channels of a latent, D
        images: Number of images whose moments are computed; afterwards they are constant
    """

    count: Tensor
    sum: Tensor
    squares: Tensor

    def __init__(self, channels: int, images: int = 5000) -> None:
        super().__init__()
        self.images = images
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("sum", torch.zeros(channels, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(channels, dtype=torch.float64))

    @torch.no_grad()
    def learn(self, z: Tensor) -> None:
        """Add latents [B, D, ...] to the moments, until `images` latents were added."""
        if self.count >= self.images:
            return
        flat = z.double().flatten(2).mean(2) if z.ndim > 2 else z.double()
        squares = z.double().square().flatten(2).mean(2) if z.ndim > 2 else flat.square()
        self.count += ranks.total(torch.tensor(float(len(z)), dtype=torch.float64, device=z.device))
        self.sum += ranks.total(flat.sum(0))
        self.squares += ranks.total(squares.sum(0))

    def moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, [1, D, ...]."""
        count = self.count.clamp(min=1)
        mean = self.sum / count
        variance = torch.where(self.count > 0, self.squares / count - mean.square(), torch.ones_like(mean))
        shape = (1, -1, *(1,) * (like.ndim - 2))
        dtype = to_float32(like).dtype
        return mean.to(dtype).view(shape), variance.clamp(min=1e-8).sqrt().to(dtype).view(shape)

    def forward(self, z: Tensor) -> Tensor:
        """Latents -> standardized latents."""
        mean, std = self.moments(z)
        return (to_float32(z) - mean) / std

    def inverse(self, z: Tensor) -> Tensor:
        """Standardized latents -> latents."""
        mean, std = self.moments(z)
        return to_float32(z) * std + mean
