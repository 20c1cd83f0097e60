"""Power-function averages of weights, and the reconstruction of an average of any length (Karras et al. 2024,
"Analyzing and Improving the Training Dynamics of Diffusion Models", sections 3.1, 3.2 and appendix C).

After t images, the average of the exponent γ weights the state after τ images with

    p(τ) = (γ + 1) τ^γ / t^(γ + 1),    0 <= τ <= t.

Its length σ_rel is the standard deviation of p as a fraction of t, so it is relative to the length of the training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST = 0.28  # longest σ_rel; 1 / √12 = 0.289 is the plain mean of all weights, γ = 0


def exponent(sigma_rel: float) -> float:
    """The exponent γ of an average of the length σ_rel, in (0, 0.28].

    It is the positive root of γ³ + 7 γ² + (16 - σ_rel⁻²) γ + 12 - σ_rel⁻² (algorithm 2).

    Example:
        >>> round(exponent(0.05), 2), round(exponent(0.10), 2)
        (16.97, 6.94)
    """
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def decay(gamma: float, before: int, now: int) -> float:
    """The factor of the average in an update after `now` images, if the last update was after `before` images.

    With one image per update, it is the paper's (1 - 1/t)^(γ + 1). The states between the two updates count as the
    state after `now` images, so that the average has exactly the weights p for any interval of updates.
    """
    return (before / now) ** (gamma + 1)


def product(gamma_a: float, t_a: float, gamma_b: float, t_b: float) -> float:
    """The inner product ∫ p_a(τ) p_b(τ) dτ of two averages, of exponents γ after t images (algorithm 3)."""
    power = gamma_b if t_a < t_b else -gamma_a
    ratio = (t_a / t_b) ** power
    return (gamma_a + 1) * (gamma_b + 1) * ratio / ((gamma_a + gamma_b + 1) * max(t_a, t_b))


def coefficients(kept: Sequence[tuple[float, int]], sigma_rel: float, t: int) -> np.ndarray:
    """The coefficients [K] of stored averages whose sum is closest to the average of the length σ_rel after t images.

    They minimize the squared distance ∫ (Σ x_i p_i(τ) - p(τ))² dτ (appendix C, equation 131) under the condition
    Σ x_i = 1. The paper has no such condition. It keeps weights that did not change, also with few stored averages:
    without it, all weights would grow by 3% with one snapshot of 0.05 and 0.10 for 0.075, and by 0.003% with 20.

    Args:
        kept: σ_rel and images seen of each stored average; no two are equal
    """
    if (sigma_rel, t) in kept:
        return np.array([float(one == (sigma_rel, t)) for one in kept])
    profiles, target = [(exponent(sigma), at) for sigma, at in kept], (exponent(sigma_rel), t)
    scale = np.array([product(*one, *one) for one in profiles]) ** -0.5  # of profiles with norm 1
    weight = scale / scale.max()
    # the condition, with the Lagrange multiplier as the last unknown
    system = np.zeros((len(kept) + 1, len(kept) + 1))
    system[:-1, :-1] = np.array([[product(*a, *b) for b in profiles] for a in profiles]) * np.outer(scale, scale)
    system[:-1, -1] = system[-1, :-1] = weight
    right = np.append([product(*one, *target) for one in profiles] * scale, 1 / scale.max())
    return np.linalg.lstsq(system, right, rcond=None)[0][:-1] * scale
