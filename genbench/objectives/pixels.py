"""Distributions of pixels, given the output of a decoder. `pixels` is what the likelihood is defined over."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from genbench.core.errors import UserError
from genbench.core.noise import per_seed
from genbench.objectives.elbo import bernoulli_nll, gaussian_nll, logistic_nll

LEVELS = 255 / 2  # number of 8-bit levels per unit of [-1, 1]


class Bernoulli(nn.Module):
    """Black or white pixels. The output is the logit of white. A gray pixel is treated as the probability of white."""

    pixels: Literal["binary"] = "binary"
    density = False

    def outputs(self, channels: int) -> int:
        """Number of output channels of the decoder for images with `channels` channels."""
        return channels

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """-log p(x), [B, C, H, W] -> [B] nats."""
        return bernoulli_nll(output, x)

    def mean(self, output: Tensor) -> Tensor:
        """Output of the decoder -> mean image [B, C, H, W] in [-1, 1]."""
        return torch.sigmoid(output) * 2 - 1

    def draw(self, output: Tensor, seeds: Tensor) -> Tensor:
        """Sample pixels, with one seed per image: [B] -> [B, C, H, W]."""
        white = per_seed(torch.rand, seeds, output.shape[1:]) < torch.sigmoid(output)
        return white.to(output.dtype) * 2 - 1

    def scored(self, x: Tensor, draws: int) -> Tensor:
        """Images [B, ...] -> targets of `nll` for `draws` estimates, [B, draws, ...].

        Raises:
            UserError: the distribution does not define a probability for these pixels.
        """
        if bool((x.abs() < 0.999).any()):
            raise UserError(
                "A Bernoulli decoder defines a likelihood of binary pixels, but these images have gray pixels. "
                "Train and evaluate on binary images (`--data.binarize static` or `dynamic`), or choose a decoder for "
                "8-bit pixels (`--model.decoder logistic` or `gaussian`)."
            )
        return x[:, None].expand(-1, draws, *x.shape[1:])


class Gaussian(nn.Module):
    """A Gaussian density. The output of the decoder is its mean.

    Args:
        sigma: Standard deviation of pixels in [-1, 1], or `learned`: one value for all pixels (Rybkin et al. 2021,
            "Simple and Effective VAE Training with Calibrated Decoders", without their closed form)
    """

    pixels: Literal["8-bit"] = "8-bit"
    density = True

    def __init__(self, sigma: float | Literal["learned"]) -> None:
        super().__init__()
        if not isinstance(sigma, str) and not sigma > 0:
            raise UserError(f"model.sigma is {sigma}; it must be above 0, or `learned`.")
        if sigma == "learned":
            self.log_sigma = nn.Parameter(torch.zeros(()))
        self._sigma = sigma

    @property
    def sigma(self) -> float | Tensor:
        return self.log_sigma.exp() if isinstance(self._sigma, str) else self._sigma

    def outputs(self, channels: int) -> int:
        return channels

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """-log p(x) [B] nats. For images, p is a density per level (2/255 of [-1, 1]); for points it is the plain
        density."""
        nll = gaussian_nll(output, x, self.sigma)
        return nll + math.log(LEVELS) * x[0].numel() if x.ndim == 4 else nll

    def mean(self, output: Tensor) -> Tensor:
        return output.clamp(-1, 1)

    def draw(self, output: Tensor, seeds: Tensor) -> Tensor:
        noise = per_seed(torch.randn, seeds, output.shape[1:]).to(output.dtype)
        return (output + self.sigma * noise).clamp(-1, 1)

    def scored(self, x: Tensor, draws: int) -> Tensor:
        """Uniformly dequantized images. Points are not changed.

        With dequantization, the density is a lower bound of the probability of the levels (Theis et al. 2016, "A note
        on the evaluation of generative models", section 3.1).
        """
        targets = x[:, None].expand(-1, draws, *x.shape[1:])
        return targets if x.ndim == 2 else dequantized(targets, torch.rand_like(targets))


class Logistic(nn.Module):
    """A discretized logistic distribution over 256 levels, with a mean and a scale per pixel (Salimans et al. 2017)."""

    pixels: Literal["8-bit"] = "8-bit"
    density = False

    def outputs(self, channels: int) -> int:
        return 2 * channels

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        return logistic_nll(*self._parts(output), x)

    def mean(self, output: Tensor) -> Tensor:
        return self._parts(output)[0].clamp(-1, 1)

    def draw(self, output: Tensor, seeds: Tensor) -> Tensor:
        mean, log_scale = self._parts(output)
        u = per_seed(torch.rand, seeds, mean.shape[1:]).to(mean.dtype).clamp(1e-5, 1 - 1e-5)
        return (mean + log_scale.exp() * torch.logit(u)).clamp(-1, 1)

    def scored(self, x: Tensor, draws: int) -> Tensor:
        return x[:, None].expand(-1, draws, *x.shape[1:])

    @staticmethod
    def _parts(output: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 2C, ...] -> mean and log scale, [B, C, ...] each. The scale is at least about a fifth of an intensity
        level."""
        mean, log_scale = output.chunk(2, 1)
        return mean, log_scale.clamp(min=-6.5)


Pixels = Bernoulli | Gaussian | Logistic


def pixels_of(decoder: Literal["bernoulli", "gaussian", "logistic"], sigma: float | Literal["learned"]) -> Pixels:
    """The distribution with the name `decoder`."""
    if decoder == "gaussian":
        return Gaussian(sigma)
    return Bernoulli() if decoder == "bernoulli" else Logistic()


def dequantized(x: Tensor, u: Tensor) -> Tensor:
    """Dequantize pixels with 256 levels in [-1, 1]: u in [0, 1) shifts each within its bin (Uria et al. 2013,
    "RNADE")."""
    return x + (u - 0.5) / LEVELS
