"""Adversarial games and penalties: logits in, named loss terms out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from genbench.core.precision import full


class NonSaturating:
    """The game of Goodfellow et al. 2014 with the generator's objective of their section 3, max log D(G(z)).

    On logits l = logit D: -log D = softplus(-l) and -log(1 - D) = softplus(l).
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """[B], [B] -> scalars; at D = 1/2 each is log 2."""
        return {"real": softplus(-full(real_logits)).mean(), "fake": softplus(full(fake_logits)).mean()}

    def generator(self, fake_logits: Tensor) -> dict[str, Tensor]:
        """[B] -> scalar; at D = 1/2 it is log 2."""
        return {"adversarial": softplus(-full(fake_logits)).mean()}


def r1_penalty(discriminator: nn.Module, real: Tensor) -> Tensor:
    """½ E‖∇D(x)‖² on real images [B, ...] (Mescheder et al. 2018, equation 9); times gamma it joins D's loss.

    In float32 with autocast off, and through the uncompiled forward: a compiled one has no second derivative.
    """
    with torch.autocast(real.device.type, enabled=False):
        real = real.detach().to(next(discriminator.parameters()).dtype).requires_grad_(True)
        (gradient,) = torch.autograd.grad(discriminator.forward(real).sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean() / 2
