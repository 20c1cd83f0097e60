"""The codebook of a VQ-VAE: van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017,
https://arxiv.org/abs/1711.00937."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot

from genbench.core import ranks
from genbench.core.precision import to_float32


class Quantizer(nn.Module):
    """A codebook of K vectors with D dimensions. Each input vector is replaced by the nearest vector of the codebook.

    Args:
        num_embeddings: Number of vectors, K
        embedding_dim: Dimensions of a vector, D
        codebook: How the vectors are learned: by the gradient of the codebook loss (gradient; equation 3), or as moving
            averages of the encoder outputs assigned to them (ema; appendix A.1)
        decay: Decay of the moving averages per batch
    """

    vectors: Tensor
    count: Tensor
    sum: Tensor
    usage: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        codebook: Literal["ema", "gradient"] = "ema",
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.decay, self.averages = num_embeddings, decay, codebook == "ema"
        vectors = torch.randn(num_embeddings, embedding_dim)
        if self.averages:
            self.register_buffer("vectors", vectors)
            self.register_buffer("count", torch.ones(num_embeddings))  # N of equation 6
            self.register_buffer("sum", vectors.clone())  # m of equation 7
        else:
            self.vectors = nn.Parameter(vectors)
        # moving average of how often each vector is used, as a fraction of all uses; for both kinds of codebook
        self.register_buffer("usage", torch.full((num_embeddings,), 1 / num_embeddings))

    def nearest(self, z: Tensor) -> Tensor:
        """[B, D, H, W] -> indices of the nearest vectors, int64 [B, H, W] (equation 1)."""
        flat = to_float32(z).movedim(1, -1)
        with torch.autocast(z.device.type, enabled=False):
            # |z - e|² without the term |z|², which is the same for all e
            return (to_float32(self.vectors).square().sum(1) - 2 * flat @ to_float32(self.vectors).T).argmin(-1)

    def look_up(self, code: Tensor) -> Tensor:
        """int64 [B, H, W] -> [B, D, H, W]."""
        return self.vectors[code].movedim(-1, 1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """[B, D, H, W] -> quantized vectors [B, D, H, W], codes int64 [B, H, W], and loss terms.

        The quantized vectors have a straight-through gradient. The loss terms are the commitment and codebook terms of
        equation 3, unweighted.
        """
        code = self.nearest(z)
        quantized = self.look_up(code)
        terms = {"commitment": mse_loss(to_float32(z), to_float32(quantized.detach()))}
        if not self.averages:
            terms["codebook"] = mse_loss(to_float32(quantized), to_float32(z.detach()))
        return z + (quantized - z).detach(), code, terms

    @torch.no_grad()
    def learn(self, z: Tensor, code: Tensor) -> None:
        """Update the moving averages with z [B, D, H, W] and its codes [B, H, W], over all processes."""
        flat = to_float32(z).movedim(1, -1).flatten(0, -2)  # [N, D]
        chosen = one_hot(code.flatten(), self.num_embeddings).to(flat.dtype)  # [N, K]
        count = ranks.total(chosen.sum(0))
        self.usage.lerp_(count / count.sum(), 1 - self.decay)
        if self.averages:
            with torch.autocast(z.device.type, enabled=False):
                total = ranks.total(chosen.T @ flat)
            self.count.lerp_(count, 1 - self.decay)  # equation 6
            self.sum.lerp_(total, 1 - self.decay)  # equation 7
            # equation 8; a vector that was not used for a long time does not move
            known = self.count[:, None] > 1e-5
            self.vectors.copy_(torch.where(known, self.sum / self.count[:, None], self.vectors))

    @torch.no_grad()
    def restart_dead_codes(self, z: Tensor, which: Tensor, least: float) -> Tensor:
        """Replace dead vectors, which are rarely used, by random outputs of the encoder.

        Args:
            z: Outputs of the encoder [B, D, H, W]; only those of the first process are used
            which: Uniform noise [K] in [0, 1) that selects the output that replaces each vector
            least: A vector is dead if its fraction of uses is below `least` times uniform use, 1 / K

        Returns:
            Number of replaced vectors.
        """
        dead = self.usage < least / self.num_embeddings
        flat = to_float32(z).movedim(1, -1).flatten(0, -2)
        fresh = flat[(which * len(flat)).long()]
        fresh = ranks.total(fresh if ranks.rank() == 0 else torch.zeros_like(fresh))
        self.vectors[dead] = fresh[dead].to(self.vectors.dtype)
        if self.averages:
            self.count[dead], self.sum[dead] = 1.0, fresh[dead]
        return dead.sum()

    @property
    def codebook_usage(self) -> Tensor:
        """Fraction of the vectors that are used at least a tenth as often as under uniform use."""
        return (self.usage >= 0.1 / self.num_embeddings).float().mean()

    @property
    def perplexity(self) -> Tensor:
        """exp of the entropy of the usage: K if all vectors are used equally often, 1 if only one is used."""
        return torch.exp(-torch.special.xlogy(self.usage, self.usage).sum())
