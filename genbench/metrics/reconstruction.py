"""Similarity of a reconstruction and its image: pixel errors, SSIM and LPIPS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from genbench.core.errors import UserError
from genbench.metrics.score import PerImage

HALF_LEVEL = 1 / 255  # half an intensity level of uint8, for pixels in [-1, 1]
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # of SSIM (Wang et al. 2004, section III)


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of pixels in [-1, 1]; [B, C, H, W] -> [B] float64.

    Example:
        >>> mse(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
        tensor([1.], dtype=torch.float64)
    """
    _check(x, y)
    return (x.double() - y.double()).square().flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pixels in [-1, 1]; [B, C, H, W] -> [B] float64.

    Errors below half a level of uint8, which rounding would remove, count as half a level. So equal images give 54.2
    dB; infinity would make the mean over images infinite.

    Example:
        10 log10(2² / 1), since pixels in [-1, 1] differ by at most 2.

        >>> round(psnr(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item(), 4)
        6.0206
    """
    return _decibels(mse(x, y))


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of pixels in [-1, 1]; [B, C, H, W] -> [B] float64.

    The mean over channels and over all Gaussian windows that lie entirely inside the image. Intensities are measured
    from black (0), as in uint8; computed directly on [-1, 1], the score would differ.

    Example:
        >>> x = torch.linspace(-1, 1, 121).reshape(1, 1, 11, 11)
        >>> round(ssim(x, x).item(), 6)
        1.0
    """
    _check(x, y)
    height, width = x.shape[-2:]
    if min(height, width) < WINDOW:
        raise UserError(
            f"SSIM needs images of at least {WINDOW}×{WINDOW} pixels, the size of its window; got {height}×{width}."
        )
    x, y = (x.double() + 1) / 2, (y.double() + 1) / 2
    mean_x, mean_y, square_x, square_y, both = (_windows(z) for z in (x, y, x * x, y * y, x * y))
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    variances = square_x - mean_x**2 + square_y - mean_y**2
    structure = (2 * (both - mean_x * mean_y) + K2**2) / (variances + K2**2)
    return (luminance * structure).flatten(1).mean(1)


def _windows(x: Tensor) -> Tensor:
    """Weighted mean of each window, [B, C, H, W] -> [B, C, H - 10, W - 10]."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()
    means = conv2d(conv2d(x.flatten(0, 1)[:, None], weights.reshape(1, 1, -1, 1)), weights.reshape(1, 1, 1, -1))
    return means.reshape(*x.shape[:2], *means.shape[-2:])


def _decibels(error: Tensor) -> Tensor:
    return 10 * torch.log10(4 / error.clamp(min=HALF_LEVEL**2))


def _check(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise UserError(f"Images and reconstructions must have the same shape; got {[*x.shape]} and {[*y.shape]}.")


class MeanSquaredError(PerImage, scores=["mse"]):
    """Mean squared error of images or of points [B, D]."""

    of_each = staticmethod(mse)


class PSNR(PerImage, scores=["psnr"]):
    of_each = staticmethod(psnr)


class SSIM(PerImage, scores=["ssim"]):
    of_each = staticmethod(ssim)


class CycleConsistency(PerImage, scores=["cycle_l1"]):
    """Mean absolute difference between images and their translations to the other domain and back."""

    def of_each(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().flatten(1).mean(1)


class LPIPS(PerImage, scores=["lpips"]):
    """Learned perceptual distance (Zhang et al. 2018); `network` maps two batches [B, 3, H, W] to one value per
    pair."""

    def __init__(self, network: Callable[[Tensor, Tensor], Tensor], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = network

    def of_each(self, x: Tensor, y: Tensor) -> Tensor:
        return self.network(x, y).flatten()
