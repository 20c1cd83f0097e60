"""Adversarial objectives and penalties: functions from logits to loss terms.

The discriminator's loss is `real(logits of real images)` + `fake(logits of generated images)`. The generator's loss is
`generator(logits of generated images)`. Logits are the outputs of the discriminator's last layer, without a sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from genbench.core.precision import to_float32


class NonSaturating:
    """The losses of Goodfellow et al. 2014, where the generator maximizes log D(G(z)) (section 3).

    With logits l = logit D, -log D = softplus(-l) and -log(1 - D) = softplus(l).
    """

    smooths = True  # whether labels can be smoothed
    bounded = True  # whether the discriminator's loss is bounded below without a penalty

    def real(self, logits: Tensor, target: float = 1.0) -> Tensor:
        """[B] -> scalar: -target log D - (1 - target) log(1 - D); log 2 at D = 1/2."""
        logits = to_float32(logits)
        return softplus(-logits).mean() if target == 1 else (softplus(-logits) + (1 - target) * logits).mean()

    def fake(self, logits: Tensor) -> Tensor:
        """[B] -> scalar: -log(1 - D); log 2 at D = 1/2."""
        return softplus(to_float32(logits)).mean()

    def generator(self, logits: Tensor) -> Tensor:
        """[B] -> scalar: -log D."""
        return softplus(-to_float32(logits)).mean()

    def probability(self, logits: Tensor) -> Tensor | None:
        """D(x) [B], the probability of being real, or None if the objective defines no probability."""
        return to_float32(logits).sigmoid()


class Minimax(NonSaturating):
    """Equation 1 of Goodfellow et al. 2014: the generator minimizes log(1 - D(G(z))).

    Its gradient vanishes if the discriminator is certain. It is included to demonstrate this.
    """

    def generator(self, logits: Tensor) -> Tensor:
        """[B] -> scalar: log(1 - D)."""
        return -softplus(to_float32(logits)).mean()


class LeastSquares:
    """Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 9, with targets 1 and 0, no
    sigmoid."""

    smooths = True
    bounded = True

    def real(self, logits: Tensor, target: float = 1.0) -> Tensor:
        return (to_float32(logits) - target).square().mean() / 2

    def fake(self, logits: Tensor) -> Tensor:
        return to_float32(logits).square().mean() / 2

    def generator(self, logits: Tensor) -> Tensor:
        return (to_float32(logits) - 1).square().mean() / 2

    def probability(self, logits: Tensor) -> Tensor | None:
        """The output, clamped to [0, 1]. At the optimum it is p(real | x)."""
        return to_float32(logits).clamp(0, 1)


class Hinge:
    """The hinge loss of Lim & Ye 2017, "Geometric GAN", as in Miyato et al. 2018, equations 16 and 17."""

    smooths = False
    bounded = True

    def real(self, logits: Tensor, target: float = 1.0) -> Tensor:
        return relu(1 - to_float32(logits)).mean()

    def fake(self, logits: Tensor) -> Tensor:
        return relu(1 + to_float32(logits)).mean()

    def generator(self, logits: Tensor) -> Tensor:
        return -to_float32(logits).mean()

    def probability(self, logits: Tensor) -> Tensor | None:
        """The sigmoid, for comparison with other objectives; the hinge loss does not calibrate it."""
        return to_float32(logits).sigmoid()


class Wasserstein:
    """Arjovsky et al. 2017, "Wasserstein GAN", equation 2. It is bounded only with a Lipschitz constraint."""

    smooths = False
    bounded = False

    def real(self, logits: Tensor, target: float = 1.0) -> Tensor:
        return -to_float32(logits).mean()

    def fake(self, logits: Tensor) -> Tensor:
        return to_float32(logits).mean()

    def generator(self, logits: Tensor) -> Tensor:
        return -to_float32(logits).mean()

    def probability(self, logits: Tensor) -> Tensor | None:
        return None


Objective = NonSaturating | LeastSquares | Hinge | Wasserstein
OBJECTIVES: dict[str, type[Objective]] = {  # by name in configs
    "minimax": Minimax,
    "non_saturating": NonSaturating,
    "least_squares": LeastSquares,
    "hinge": Hinge,
    "wasserstein": Wasserstein,
}


def _slope(discriminator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """∇D(x) [B, ...], differentiable.

    It is computed in float32 without autocast, and through the uncompiled forward, since compiled functions have no
    second derivative.
    """
    forward = getattr(discriminator, "forward", discriminator)
    with torch.autocast(x.device.type, enabled=False):
        x = to_float32(x.detach()).requires_grad_(True)
        (gradient,) = torch.autograd.grad(forward(x).sum(), x, create_graph=True)
    return gradient


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """½ E‖∇D(x)‖² on real images [B, ...] (Mescheder et al. 2018, equation 9); D's loss adds gamma times this."""
    return _slope(discriminator, real).square().flatten(1).sum(1).mean() / 2


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, epsilon: Tensor) -> Tensor:
    """E(‖∇D(x̂)‖ - 1)² at x̂ = epsilon · real + (1 - epsilon) · fake (Gulrajani et al. 2017, equation 3) -> scalar.

    Args:
        real, fake: [B, ...]
        epsilon: [B], uniform in [0, 1]
    """
    epsilon = epsilon.view(-1, *[1] * (real.ndim - 1))
    between = epsilon * to_float32(real.detach()) + (1 - epsilon) * to_float32(fake.detach())
    return (_slope(discriminator, between).flatten(1).norm(dim=1) - 1).square().mean()


def alikeness(a: Tensor, b: Tensor) -> Tensor:
    """-log of the mean absolute difference of two images with the same condition, [B, ...] and [B, ...] -> scalar.

    It follows Mao et al. 2019, "Mode Seeking Generative Adversarial Networks for Diverse Image Synthesis", equation 2,
    without the distance of the noise vectors, which is nearly constant in many dimensions. The logarithm gives
    collapsed and diverse pairs the same relative gradient.
    """
    distance = (to_float32(a) - to_float32(b)).abs().flatten(1).mean(1)
    return -(distance + 1e-4).log().mean()
