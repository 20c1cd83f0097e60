"""Terms of the evidence lower bound, in nats per image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from genbench.core import ranks
from genbench.core.errors import refuse_below
from genbench.core.precision import to_float32

if TYPE_CHECKING:
    from genbench.objectives.pixels import Pixels

AT_ONCE = 1 << 25  # decoded values per step of `log_likelihood`, which limits its memory


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, diag exp logvar) ‖ N(0, 1)) of each dimension, [B, D] -> [B, D] (Kingma & Welling 2014, appendix B)."""
    mu, logvar = to_float32(mu), to_float32(logvar)
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def reparameterize(mu: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """z = mu + sigma * eps (Kingma & Welling 2014, section 2.4); all [B, D]."""
    return mu + torch.exp(0.5 * logvar) * eps


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x) of pixels x in [-1, 1], where (x + 1) / 2 is the probability of white; [B, ...] -> [B] nats."""
    target = (to_float32(x) + 1) / 2
    return binary_cross_entropy_with_logits(to_float32(logits), target, reduction="none").flatten(1).sum(1)


def gaussian_nll(mean: Tensor, x: Tensor, sigma: float | Tensor) -> Tensor:
    """-log N(x; mean, sigma²), a density, for pixels in [-1, 1]; [B, ...] -> [B] nats."""
    log_sigma = sigma.log() if isinstance(sigma, Tensor) else math.log(sigma)
    error = (to_float32(mean) - to_float32(x)).square() / (2 * sigma**2)
    return (error + log_sigma + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def logistic_nll(mean: Tensor, log_scale: Tensor, x: Tensor, levels: int = 256) -> Tensor:
    """-log P(x) for pixels with `levels` evenly spaced values in [-1, 1]; all [B, ...] -> [B] nats.

    P is the mass of the logistic distribution in the bin around each value. The outermost bins extend to infinity
    (Salimans et al. 2017, "PixelCNN++", equation 2).
    """
    mean, log_scale, x = to_float32(mean), to_float32(log_scale), to_float32(x)
    half = 1 / (levels - 1)
    above, below = ((x - mean + side) * torch.exp(-log_scale) for side in (half, -half))
    # log(σ(above) - σ(below)), written so that the logarithm's argument does not round to zero
    within = logsigmoid(above) + logsigmoid(-below) + torch.log(-torch.expm1(below - above))
    log_p = torch.where(x < -1 + half, logsigmoid(above), torch.where(x > 1 - half, -softplus(below), within))
    return -log_p.flatten(1).sum(1)


def importance_bound(log_weights: Tensor) -> Tensor:
    """log 1/K Σ p(x, z_k) / q(z_k|x), from log ratios: [B, K] -> [B] nats.

    Its expectation is a lower bound of log p(x) that increases with K (Burda et al. 2016, "Importance Weighted
    Autoencoders", equation 8 and theorem 1).
    """
    return log_weights.logsumexp(1) - math.log(log_weights.shape[1])


def log_likelihood(
    weights: Callable[[Tensor, Tensor, Tensor], Tensor], pixel: Pixels, x: Tensor, latent_dim: int, samples: int
) -> Tensor:
    """A lower bound of log p(x), [B, ...] -> [B] nats, from `samples` codes per image.

    weights  function of x [B, ...], targets [B, K, ...] and noise [B, K, D] of z_k -> log p(x, z_k) / q(z_k|x) [B, K]
    """
    refuse_below(1, {"importance_samples": samples})
    at_once = max(1, AT_ONCE // x.numel())
    parts = []
    for k in torch.arange(samples).split(at_once):
        targets = pixel.scored(x, len(k))
        eps = torch.randn(len(x), len(k), latent_dim, dtype=x.dtype, device=x.device)
        parts.append(weights(x, targets, eps))
    return importance_bound(torch.cat(parts, 1))


def log_weights(
    mu: Tensor,
    logvar: Tensor,
    decode: Callable[[Tensor], Tensor],
    pixel: Pixels,
    targets: Tensor,
    eps: Tensor,
    kl_weight: float = 1.0,
) -> Tensor:
    """log p(x, z_k) / q(z_k|x) for K codes z_k = mu + sigma * eps_k -> [B, K] nats (Burda et al. 2016, equation 7).

    Args:
        mu, logvar: [B, D]
        decode: Codes [B * K, D] -> outputs of the decoder
        targets: Images [B, K, ...] whose likelihood is computed
        eps: [B, K, D]
        kl_weight: Weight of log p(z) / q(z|x)
    """
    z = reparameterize(mu[:, None], logvar[:, None], eps)  # [B, K, D]
    nll = pixel.nll(decode(z.flatten(0, 1)), targets.flatten(0, 1)).view(len(mu), -1)
    return kl_weight * log_prior_ratio(eps, z, logvar) - nll


def log_prior_ratio(eps: Tensor, z: Tensor, logvar: Tensor) -> Tensor:
    """log p(z) - log q(z|x) for z = mu + sigma * eps, where p is the standard normal and q is N(mu, diag exp logvar).

    eps, z: [B, K, D]; logvar: [B, D] -> [B, K]
    """
    eps, z, logvar = to_float32(eps), to_float32(z), to_float32(logvar)
    return 0.5 * (eps.square() - z.square()).sum(2) + 0.5 * logvar.sum(1, keepdim=True)


def with_free_bits(kl: Tensor, least: float) -> Tensor:
    """KL terms [B, D] -> [D]: the mean of each latent dimension over the global batch, but at least `least` nats.

    A dimension whose mean is below `least` has no gradient (Kingma et al. 2016, "Improved Variational Inference with
    Inverse Autoregressive Flow", equation 15).
    """
    mean = kl.mean(0)
    return torch.where(ranks.mean(mean.detach()) > least, mean, least)
