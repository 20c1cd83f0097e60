"""Terms of the evidence lower bound, in nats per image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from genbench.core.precision import full


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, diag exp logvar) ‖ N(0, 1)), [B, D] -> [B] (Kingma & Welling 2014, appendix B)."""
    mu, logvar = full(mu), full(logvar)
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1)


def reparameterize(mu: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """z = mu + sigma * eps (Kingma & Welling 2014, section 2.4); all [B, D]."""
    return mu + torch.exp(0.5 * logvar) * eps


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x) of pixels x in [-1, 1], read as probabilities (x + 1) / 2 of being white; [B, ...] -> [B] nats."""
    target = (full(x) + 1) / 2
    return binary_cross_entropy_with_logits(full(logits), target, reduction="none").flatten(1).sum(1)


def gaussian_nll(mean: Tensor, x: Tensor, sigma: float) -> Tensor:
    """-log N(x; mean, sigma²) of pixels in [-1, 1], a density; [B, ...] -> [B] nats."""
    error = (full(mean) - full(x)).square() / (2 * sigma**2)
    return (error + math.log(sigma) + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)
