"""Distributions whose optimal denoiser, and probability-flow ODE, have closed forms. Noisy images are alpha·x +
sigma·noise."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from scipy.optimize import brentq
from torch import Tensor

from genbench.samplers.levels import Levels


class Gaussian:
    """A Gaussian in two dimensions that is neither centered nor isotropic."""

    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
    covariance = torch.tensor([[1.0, 0.5], [0.5, 0.7]], dtype=torch.float64)

    def clean(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x0 | x], [n, 2] -> [n, 2]."""
        m, c = self.mean.to(x.dtype), self.covariance.to(x.dtype)
        noisy = alpha**2 * c + sigma**2 * torch.eye(2, dtype=x.dtype)
        return m + (x - alpha * m) @ torch.linalg.solve(noisy, alpha * c)

    def flow(self, x: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
        """The solution of the probability-flow ODE from one level (alpha, sigma) to another. In the direction of each
        eigenvector of the covariance it is a change of scale."""
        e, v = torch.linalg.eigh(self.covariance)
        (a, s), (a_end, s_end) = start, end
        scale = ((a_end**2 * e + s_end**2) / (a**2 * e + s**2)).sqrt()
        return a_end * self.mean + ((x - a * self.mean) @ v * scale) @ v.T


class Mixture:
    """A mixture of two Gaussians on the line. There the ODE keeps the value of the distribution function."""

    weight = torch.tensor([0.3, 0.7], dtype=torch.float64)
    mean = torch.tensor([-1.2, 0.8], dtype=torch.float64)
    std = torch.tensor([0.3, 0.5], dtype=torch.float64)

    def _noisy(self, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        return alpha * self.mean, alpha**2 * self.std**2 + sigma**2

    def clean(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x0 | x], [n, 1] -> [n, 1]."""
        mean, variance = self._noisy(alpha, sigma)
        weight = (self.weight.log() - 0.5 * variance.log() - 0.5 * (x - mean) ** 2 / variance).softmax(1)
        each = self.mean + alpha * self.std**2 / variance * (x - mean)
        return (weight * each).sum(1, keepdim=True)

    def cdf(self, x: Tensor, alpha: float = 1.0, sigma: float = 0.0) -> Tensor:
        """Distribution function at a noise level, [n, 1] -> [n, 1]."""
        mean, variance = self._noisy(alpha, sigma)
        return (self.weight * torch.special.ndtr((x - mean) / variance.sqrt())).sum(1, keepdim=True)

    def quantiles(self, u: Tensor, alpha: float, sigma: float) -> Tensor:
        """The inverse of `cdf`."""

        def root(p: float) -> float:
            return brentq(
                lambda x: self.cdf(torch.tensor([[x]]).double(), alpha, sigma).item() - p, -999, 999, xtol=1e-13
            )

        return torch.tensor([[root(p)] for p in u.flatten().tolist()], dtype=torch.float64)


class Unit:
    """In place of the noise of K draws: row 0 starts at 0 and gets no noise, and each other row gets one number 1,
    either at the start or in one draw. With a linear denoiser the rows of the result are the constant and the columns
    of the linear map from all noise to the result."""

    def __init__(self, draws: int, dims: int = 2) -> None:
        self.dims, self.drawn = dims, 0
        self.table = torch.cat([torch.zeros(1, (draws + 1) * dims), torch.eye((draws + 1) * dims)]).double()
        self.start = self()

    def __call__(self) -> Tensor:
        self.drawn += 1
        return self.table[:, (self.drawn - 1) * self.dims : self.drawn * self.dims]

    @staticmethod
    def moments(result: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the result, for independent standard normal noise."""
        linear = result[1:] - result[0]
        return result[0], linear.T @ linear


def cut(levels: Levels) -> Levels:
    """The levels without the last, 0, to which methods of second order take a step of first order."""
    return Levels(levels.time[:-1], levels.alpha[:-1], levels.sigma[:-1])


def orders(errors: list[float]) -> list[float]:
    """Order of convergence between each two errors, for twice the number of steps each."""
    return [math.log2(a / b) for a, b in pairwise(errors)]
