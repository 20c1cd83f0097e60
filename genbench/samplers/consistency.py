"""The sampler of consistency models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genbench.core.progress import steps
from genbench.samplers.diffusion import Denoise


def sigmas(count: int, highest: float, lowest: float) -> Tensor:
    """Noise levels at equal ratios from the highest to the lowest, or only the highest: float64 [count]."""
    return torch.logspace(0, 1, count, base=lowest / highest, dtype=torch.float64) * highest


@torch.no_grad()
def multistep(
    denoise: Denoise, x: Tensor, levels: Tensor, noise: Callable[[], Tensor], sigma_min: float = 0.002
) -> Tensor:
    """Multistep consistency sampling: denoise, add noise up to the next level, and repeat (Song et al. 2023, algorithm
    1).

    Args:
        x: Images at the first level [n, ...]
        levels: Descending noise levels; one evaluation each
        noise: Draws the noise of each level but the first
        sigma_min: The lowest noise level of training, ε
    """
    for k in steps(range(len(levels))):
        sigma = float(levels[k])
        if k:
            x = x + max(0.0, sigma**2 - sigma_min**2) ** 0.5 * noise()
        x = denoise(x, sigma)
    return x
