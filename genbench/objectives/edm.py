"""EDM: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022,
https://arxiv.org/abs/2206.00364."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genbench.core.batch import per_image
from genbench.core.precision import to_float32

Net = Callable[[Tensor, Tensor], Tensor]  # network(x [B, ...], time [B]) -> [B, ...]


class Preconditioning:
    """The denoiser D(x; σ) built on a network F, and its loss. Noisy images are x + σ·noise.

    Args:
        sigma_data: Standard deviation of the pixels
        log_mean, log_std: Mean and standard deviation of ln σ in training (P_mean, P_std)
    """

    scale = 1.0  # of the times in the network's embedding, as in the authors' networks

    def __init__(self, sigma_data: float = 0.5, log_mean: float = -1.2, log_std: float = 1.2) -> None:
        self.sigma_data, self.log_mean, self.log_std = sigma_data, log_mean, log_std

    def denoise(self, net: Net, x: Tensor, sigma: Tensor) -> Tensor:
        """Noisy images [B, ...] at σ [B] -> clean images, in float32 (equation 7, coefficients of table 1)."""
        s = per_image(to_float32(sigma), x)
        total = s.square() + self.sigma_data**2
        skip, out, into = self.sigma_data**2 / total, s * self.sigma_data / total.sqrt(), 1 / total.sqrt()
        x = to_float32(x)
        return skip * x + out * to_float32(net(into * x, self.time(sigma)))

    def loss(self, net: Net, x: Tensor, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
        """The weighted squared error of the denoiser, [B, ...] -> [B] (equation 8, weight and noise of table 1)."""
        sigma = (
            (draw(torch.randn, len(x)) * self.log_std + self.log_mean)
            .exp()
            .to(torch.promote_types(x.dtype, torch.float32))
        )  # [B]
        noise = draw(torch.randn, *x.shape).to(sigma.dtype)
        x = to_float32(x)
        weight = (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()
        error = (self.denoise(net, x + per_image(sigma, x) * noise, sigma) - x).square()
        return {"mse": weight * error.flatten(1).mean(1)}

    @staticmethod
    def time(sigma: Tensor) -> Tensor:
        """The network's time, ln(σ) / 4 (c_noise of table 1)."""
        return to_float32(sigma).log() / 4

    @staticmethod
    def sigma(time: float) -> float:
        """The noise level at a time of the network."""
        return math.exp(4 * time)
