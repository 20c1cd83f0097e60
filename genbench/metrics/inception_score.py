"""Inception score: exp of the mean KL divergence of p(class | image) from p(class).

Salimans et al. 2016, "Improved Techniques for Training GANs", section 4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.metrics.score import FeatureScore, require, require_finite


def inception_score(logits: Tensor, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    """Mean and standard deviation of the inception score over the splits, in float64; logits [N, K], range 1 to K.

    The images are shuffled in the same way as in torch-fidelity with this seed, so the score depends on their order.

    Example:
        One confidently classified image of each of K classes gives K, the largest value.

        >>> score, _ = inception_score(1000 * torch.eye(4), splits=1)
        >>> round(score, 6)
        4.0
    """
    require(len(logits), splits, "generated", f"An inception score in {splits} splits")
    require_finite(logits, "generated")
    n = len(logits)
    order = torch.from_numpy(np.random.RandomState(seed).permutation(n)).to(logits.device)
    log_p = logits[order].double().log_softmax(1)
    scores = torch.stack([_score(log_p[i * n // splits : (i + 1) * n // splits]) for i in range(splits)])
    return scores.mean().item(), scores.std(correction=0).item()


def _score(log_p: Tensor) -> Tensor:
    log_q = log_p.logsumexp(0) - math.log(len(log_p))  # finite even where the mean of p would round to zero
    return (log_p.exp() * (log_p - log_q)).sum(1).mean().exp()


class InceptionScore(FeatureScore, scores=["is"]):
    """Computes the mean and the standard deviation."""

    def __init__(self, splits: int = 10, seed: int = 2020, **kwargs: Any) -> None:
        super().__init__("logits", **kwargs)
        self.splits, self.seed = splits, seed

    def update(self, logits: Tensor) -> None:
        """logits [B, K]"""
        self.keep("logits", logits)

    def compute(self) -> tuple[float, float]:
        return inception_score(self.kept("logits"), self.splits, self.seed)
