"""Kernel distance between two sets of features. With features of the FID Inception it is the KID.

Bińkowski et al. 2018, "Demystifying MMD GANs", section 4: the unbiased squared maximum mean discrepancy with the kernel
(x·y / D + 1)³, averaged over subsets of both sets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.metrics.score import FeatureScore, require, require_finite

BLOCK = 1024  # rows of a kernel matrix that are in memory at once


def kernel_distance(
    fake: Tensor, real: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and standard deviation of the distance over the subsets, in float64; features [N, D] and [M, D].

    The subsets are the same as in torch-fidelity with this seed (fake is drawn before real), so the distance depends on
    the order of the features.

    Example:
        Between zeros and ones in one dimension it is 1³ + 2³ - 2 · 1³.

        >>> kernel_distance(torch.zeros(4, 1), torch.ones(4, 1), subsets=2, subset_size=3)
        (7.0, 0.0)
    """
    for features, whose in ((fake, "generated"), (real, "real")):
        require(
            len(features), subset_size, whose, f"A kernel distance with subsets of {subset_size} (`--kid-subset-size`)"
        )
        require_finite(features, whose)
    rng = np.random.RandomState(seed)
    drawn = [[rng.choice(len(x), subset_size, replace=False) for x in (fake, real)] for _ in range(subsets)]
    of_fake, of_real = torch.from_numpy(np.array(drawn)).to(fake.device).unbind(1)  # [subsets, subset_size] each

    pairs = subset_size * (subset_size - 1)
    distances = (
        (_sums(fake, of_fake, fake, of_fake) - _diagonal(fake)[of_fake].sum(1)) / pairs
        + (_sums(real, of_real, real, of_real) - _diagonal(real)[of_real].sum(1)) / pairs
        - 2 * _sums(fake, of_fake, real, of_real) / subset_size**2
    )
    return distances.mean().item(), distances.std(correction=0).item()


def _sums(x: Tensor, of_x: Tensor, y: Tensor, of_y: Tensor) -> Tensor:
    """Sum of k(x_i, y_j) over the pairs of each subset -> [subsets], by the method with fewer multiplications.

    x, y        features [N, D] and [M, D]
    of_x, of_y  row numbers of the subsets [subsets, size]
    """
    (subsets, size), dims = of_x.shape, x.shape[1]
    whole = len(x) * len(y) * (dims + subsets)
    return (_sums_of_whole if whole < subsets * size**2 * dims else _sums_of_each)(x, of_x, y, of_y)


def _sums_of_each(x: Tensor, of_x: Tensor, y: Tensor, of_y: Tensor) -> Tensor:
    """One kernel matrix per subset."""
    drawn = ((x[rows], y[columns]) for rows, columns in zip(of_x, of_y, strict=True))
    zero = torch.zeros((), dtype=torch.float64, device=x.device)
    return torch.stack(
        [sum((_kernel(block, columns).sum() for block in rows.split(BLOCK)), zero) for rows, columns in drawn]
    )


def _sums_of_whole(x: Tensor, of_x: Tensor, y: Tensor, of_y: Tensor) -> Tensor:
    """One kernel matrix K for all subsets. The sum over a subset is aᵀ K b, with a and b the indicators of its rows."""
    in_x, in_y = (
        torch.zeros(len(rows), len(z), dtype=torch.float64, device=x.device).scatter_(1, rows, 1)
        for z, rows in ((x, of_x), (y, of_y))
    )
    y = y.double()
    blocks = zip(in_x.split(BLOCK, dim=1), x.split(BLOCK), strict=True)
    return sum(((chosen @ _kernel(rows, y)) * in_y).sum(1) for chosen, rows in blocks)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x.double() @ y.double().T / x.shape[1] + 1) ** 3


def _diagonal(x: Tensor) -> Tensor:
    return torch.cat([(rows.double().square().mean(1) + 1) ** 3 for rows in x.split(BLOCK)])


class KernelDistance(FeatureScore, scores=["kid"]):
    """Computes the mean and the standard deviation."""

    def __init__(self, subsets: int = 100, subset_size: int = 1000, seed: int = 2020, **kwargs: Any) -> None:
        super().__init__("real", "fake", **kwargs)
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    def update(self, features: Tensor, real: bool) -> None:
        """features [B, D]"""
        self.keep("real" if real else "fake", features)

    def compute(self) -> tuple[float, float]:
        return kernel_distance(self.kept("fake"), self.kept("real"), self.subsets, self.subset_size, self.seed)
