"""Fréchet distance between two Gaussians fitted to features. With features of the FID Inception it is the FID.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", equation 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genbench.core.errors import UserError
from genbench.metrics.score import Score, require, require_finite


@dataclass
class FeatureSums:
    """Sums from which the mean and covariance of features are computed. Sums of several sets of images can be added.

    count  number of images
    total  sum of the features, [D] float64
    outer  sum of the outer products of the features, [D, D] float64
    """

    count: int
    total: Tensor
    outer: Tensor

    @classmethod
    def of(cls, features: Tensor) -> FeatureSums:
        """The sums of features [N, D]."""
        exact = features.double()
        return cls(len(exact), exact.sum(0), exact.T @ exact)

    def __add__(self, other: FeatureSums) -> FeatureSums:
        return FeatureSums(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean [D] and unbiased covariance [D, D] in float64."""
        mu = self.total / self.count
        return mu, (self.outer - torch.outer(self.total, mu)) / (self.count - 1)


def feature_moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and unbiased covariance [D, D] of features [N, D], in float64.

    Example:
        >>> feature_moments(torch.tensor([[0.0], [2.0]]))
        (tensor([1.], dtype=torch.float64), tensor([[2.]], dtype=torch.float64))
    """
    require(len(features), 2, "real and 2 generated", "A Fréchet distance")
    features = features.double()
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], -1)


def frechet_distance(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> Tensor:
    """|mu1 - mu2|² + Tr(sigma1 + sigma2 - 2 sqrt(sigma1 sigma2)), [D] and [D, D] -> scalar float64 on the CPU.

    Example:
        Between N(0, 1) and N(3, 4) it is (0 - 3)² + (1 - 2)².

        >>> mu, sigma = torch.zeros(1), torch.eye(1)
        >>> round(frechet_distance(mu, sigma, mu + 3, 4 * sigma).item(), 6)
        10.0
    """
    mu1, sigma1, mu2, sigma2 = (x.double().cpu() for x in (mu1, sigma1, mu2, sigma2))
    if not all(x.isfinite().all() for x in (mu1, sigma1, mu2, sigma2)):
        raise UserError(
            "A Fréchet distance needs finite features, but the mean or covariance contains NaN or infinity."
        )
    distance = (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * _trace_of_root(sigma1, sigma2)
    return distance.clamp(min=0)  # for equal sets, rounding may give -1e-12


def _trace_of_root(sigma1: Tensor, sigma2: Tensor) -> Tensor:
    """Tr sqrt(sigma1 sigma2): with sigma1 = F Fᵀ, the sum of the square roots of the eigenvalues of Fᵀ sigma2 F.

    If sigma1 is well conditioned, F is its Cholesky factor, and LAPACK's generalized solver makes use of the triangular
    form. Otherwise, for example with fewer images than dimensions, F [D, r] is a pivoted Cholesky factor whose rank r
    excludes rounding errors. Eigenvalues at the level of rounding errors are also excluded: there may be hundreds, and
    the square root turns an error of 1e-16 into 1e-8.
    """
    noise = len(sigma1) * torch.finfo(torch.float64).eps
    factor, failed = torch.linalg.cholesky_ex(sigma1)
    pivots = factor.diagonal().square()
    if not failed and pivots.min() > noise * pivots.max():
        from scipy import linalg  # imported here, since training does not need SciPy

        values = torch.from_numpy(linalg.eigh(sigma2.numpy(), sigma1.numpy(), type=2, driver="gv", eigvals_only=True))
    else:
        factor = _pivoted_cholesky(sigma1, noise)
        values = torch.linalg.eigvalsh(factor.T @ sigma2 @ factor)
    return values[values > (noise * values[-1:]).clamp(min=0)].sqrt().sum()


def _pivoted_cholesky(sigma: Tensor, noise: float) -> Tensor:
    """[D, D] of rank r -> F [D, r] with F Fᵀ = sigma up to rounding; r is determined from the pivots."""
    largest = sigma.diagonal().max().item()
    if largest <= 0:
        return sigma[:, :0]
    from scipy.linalg import lapack

    triangle, order, rank, _ = lapack.dpstrf(sigma.numpy(), lower=1, tol=noise * largest)
    factor = torch.zeros(len(sigma), rank, dtype=torch.float64)
    factor[torch.from_numpy(order.astype("int64")) - 1] = torch.from_numpy(triangle).tril()[:, :rank]
    return factor


class FrechetDistance(Score, scores=["fid"]):
    """Memory is 2 D² numbers, for any number of images."""

    def __init__(self, dims: int = 2048, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("real", "fake"):
            self.add_state(f"{name}_count", torch.tensor(0), dist_reduce_fx="sum")
            self.add_state(f"{name}_total", torch.zeros(dims, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{name}_outer", torch.zeros(dims, dims, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor | FeatureSums, real: bool) -> None:
        """features [B, D], or their sums"""
        whose = "real" if real else "fake"
        if not isinstance(features, FeatureSums):
            require_finite(features, "real" if real else "generated")
            features = FeatureSums.of(features)
        for name, value in vars(self._sums(whose) + features).items():
            setattr(self, f"{whose}_{name}", torch.as_tensor(value, device=self.device))

    def compute(self) -> Tensor:
        real, fake = self._sums("real"), self._sums("fake")
        require(int(fake.count), 2, "generated", "A Fréchet distance")
        require(int(real.count), 2, "real", "A Fréchet distance")
        return frechet_distance(*fake.moments(), *real.moments())

    def _sums(self, whose: str) -> FeatureSums:
        return FeatureSums(*(getattr(self, f"{whose}_{name}") for name in ("count", "total", "outer")))
