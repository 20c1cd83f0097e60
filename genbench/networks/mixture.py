"""A mixture of Gaussians with full covariances, trained by gradient descent."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genbench.core import ranks
from genbench.core.noise import per_seed
from genbench.core.precision import to_float32


class GaussianMixture(nn.Module):
    """Density of [B, D] vectors. Each covariance is stored as the Cholesky factor of its inverse, so that computing the
    likelihood needs no matrix decomposition.

    Args:
        components: Number of Gaussians, K
        dim: Dimensions of the vectors, D
    """

    shift: Tensor
    scale: Tensor
    begun: Tensor

    def __init__(self, components: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(components))  # logits
        self.mean = nn.Parameter(torch.randn(components, dim))
        self.below = nn.Parameter(torch.zeros(components, dim, dim))  # below the diagonal of the factor
        self.log_diagonal = nn.Parameter(torch.zeros(components, dim))
        # mean and standard deviation of the data, so that the components start inside the data
        self.register_buffer("shift", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("begun", torch.tensor(False))

    @torch.no_grad()
    def begin(self, z: Tensor) -> None:
        """At the first call, set `shift` and `scale` to the mean and standard deviation of z [B, D] over all
        processes."""
        if not self.begun:
            self.shift.copy_(ranks.mean(to_float32(z).mean(0)))
            variance = ranks.mean((to_float32(z) - self.shift).square().mean(0))
            self.scale.copy_(variance.sqrt().clamp(min=1e-6))
            self.begun.fill_(True)

    def factors(self) -> Tensor:
        """Lower triangular L [K, D, D], where L Lᵀ is the inverse covariance."""
        return self.below.tril(-1) + torch.diag_embed(self.log_diagonal.exp())

    def log_prob(self, z: Tensor) -> Tensor:
        """[B, D] -> log p(z) [B] nats."""
        with torch.autocast(z.device.type, enabled=False):
            u = (to_float32(z) - self.shift) / self.scale
            centered = u[:, None] - to_float32(self.mean)
            y = torch.einsum("kde,bkd->bke", to_float32(self.factors()), centered)  # [B, K, D]
            each = self.log_diagonal.sum(1) - 0.5 * (y.square() + math.log(2 * math.pi)).sum(2)
            return (each + self.weight.log_softmax(0)).logsumexp(1) - self.scale.log().sum()

    def draw(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> [n, D]."""
        u = per_seed(torch.rand, seeds, (1,))  # [n, 1]
        k = (u >= to_float32(self.weight).softmax(0).cumsum(0)[:-1]).sum(1)
        # different seeds, since u uses the first draws of each seed
        eps = per_seed(torch.randn, ~seeds, (self.mean.shape[1], 1))
        with torch.autocast(seeds.device.type, enabled=False):
            spread = torch.linalg.solve_triangular(to_float32(self.factors()[k]).mT, eps, upper=True)[:, :, 0]
            return self.shift + self.scale * (to_float32(self.mean[k]) + spread)
