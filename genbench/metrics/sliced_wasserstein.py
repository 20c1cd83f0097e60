"""Sliced Wasserstein distance between two sets of images: a cheap quality score of samples that needs no network.

It can compare the checkpoints of one training run. It is not meant for comparing models.
"""

from __future__ import annotations

import torch
from torch import Tensor


def project(images: Tensor, directions: int = 512, seed: int = 0) -> Tensor:
    """[N, ...] -> [N, directions]: images projected onto fixed random unit vectors."""
    flat = images.flatten(1).float()
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(flat.shape[1], directions, generator=generator)
    return flat @ (basis / basis.norm(dim=0)).to(flat.device)


def sliced_wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Mean over the directions of the 1-Wasserstein distance between two projected sets, [N, P] and [M, P] -> scalar.

    In one dimension, optimal transport maps each quantile to the equal quantile (Rabin et al. 2011). Sets of different
    sizes are compared at the quantiles of the larger set.

    Example:
        >>> a = torch.tensor([[0.0], [1.0]])
        >>> sliced_wasserstein(a, a + 3).item()
        3.0
    """
    n = max(len(a), len(b))
    a, b = (_quantiles(x, n) for x in (a, b))
    return (a - b).abs().mean()


def _quantiles(x: Tensor, n: int) -> Tensor:
    x = x.sort(dim=0).values
    rows = ((torch.arange(n, device=x.device) + 0.5) / n * len(x)).long()
    return x[rows]
