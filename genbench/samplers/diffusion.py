"""Samplers of diffusion models, from noise to images along given noise levels.

`denoise(x, time)` predicts the clean images from noisy images [n, ...] at a time of the levels. All coefficients are
computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genbench.core.arguments import Steps, refuse
from genbench.core.errors import UserError
from genbench.core.progress import steps
from genbench.samplers.levels import Levels

Denoise = Callable[[Tensor, float], Tensor]
Noise = Callable[[], Tensor]  # a new draw at each call, in the shape of the images


@torch.no_grad()
def ancestral(
    denoise: Callable[[Tensor, float], tuple[Tensor, Tensor | float]], x: Tensor, levels: Levels, noise: Noise
) -> Tensor:
    """DDPM: draw each step from the posterior q(x_s | x_t, x_0), Ho et al. 2020, algorithm 2.

    Args:
        denoise: Returns the clean images and the variance of the step, as a position between the logarithms of the
            posterior variance for known images (0, "fixed small") and of the variance of q(x_t | x_s) (1, "fixed
            large"), a number or [n, ...] (Nichol & Dhariwal 2021, equation 15)
        x: Images at the first level [n, ...]
        noise: Draws the noise of each step but the last
    """
    for k in steps(range(len(levels))):
        clean, position = denoise(x, float(levels.time[k]))
        mean_x, mean_clean, small, large = posterior(*_pair(levels, k))
        mean = mean_x * x + mean_clean * clean  # equation 7
        if small == 0:  # the last step
            return mean
        variance = torch.as_tensor(large / small, dtype=x.dtype, device=x.device) ** position * small
        x = mean + variance.sqrt() * noise()
    return x


def posterior(alpha: float, sigma: float, alpha_next: float, sigma_next: float) -> tuple[float, float, float, float]:
    """q(x_s | x_t, x_0) between two levels: the factors of x_t and x_0 in its mean (Ho et al. 2020, equation 7), its
    variance, and the variance of q(x_t | x_s)."""
    ratio = alpha / alpha_next
    large = sigma**2 - (ratio * sigma_next) ** 2
    small = large * sigma_next**2 / sigma**2
    return ratio * sigma_next**2 / sigma**2, alpha_next * large / sigma**2, small, large


@torch.no_grad()
def ddim(denoise: Denoise, x: Tensor, levels: Levels, eta: float = 0.0, noise: Noise | None = None) -> Tensor:
    """DDIM: Song et al. 2021, https://arxiv.org/abs/2010.02502, equation 12. With alpha = 1 and eta = 0 it is Euler's
    method for the probability-flow ODE of Karras et al. 2022.

    Args:
        eta: 0 for a deterministic sampler; 1 for the noise of DDPM with "fixed small" variance
        noise: Draws the noise of each step; needed if eta is not 0
    """
    for k in steps(range(len(levels))):
        alpha, sigma, alpha_next, sigma_next = _pair(levels, k)
        clean = denoise(x, float(levels.time[k]))
        std = eta * posterior(alpha, sigma, alpha_next, sigma_next)[2] ** 0.5
        direction = max(0.0, sigma_next**2 - std**2) ** 0.5  # rounding can make it negative
        x = alpha_next * clean + direction / sigma * (x - alpha * clean)
        if std:
            assert noise is not None, "eta is not 0"
            x = x + std * noise()
    return x


@torch.no_grad()
def dpm_solver_pp(denoise: Denoise, x: Tensor, levels: Levels) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2: a second-order multistep method
    in λ = log(alpha / sigma). The first step, and a last step to sigma = 0, are of first order."""
    before: Tensor | None = None
    h_before = 0.0
    for k in steps(range(len(levels))):
        alpha, sigma, alpha_next, sigma_next = _pair(levels, k)
        clean = denoise(x, float(levels.time[k]))
        if sigma_next == 0:
            return alpha_next * clean
        h = _log(alpha_next / sigma_next) - _log(alpha / sigma)
        d = clean
        if before is not None:
            r = h_before / h
            d = clean + (clean - before) / (2 * r)
        x = sigma_next / sigma * x - alpha_next * math.expm1(-h) * d
        before, h_before = clean, h
    return x


@torch.no_grad()
def heun(
    denoise: Denoise, x: Tensor, levels: Levels, churn: float = 0.0, churn_from: float = 0.0,
    churn_to: float = float("inf"), inflation: float = 1.0, noise: Noise | None = None,
) -> Tensor:  # fmt: skip
    """EDM's second-order sampler, Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 2; for levels with
    alpha = 1 and time = sigma.

    Args:
        churn: S_churn of the paper: the amount of noise added before the steps, over all steps; 0 is deterministic
        churn_from, churn_to: Noise is added at sigmas in this range (S_tmin, S_tmax)
        inflation: Standard deviation of the added noise (S_noise)
        noise: Draws the added noise; needed if churn is not 0
    """
    for k in steps(range(len(levels))):
        sigma, sigma_next = float(levels.sigma[k]), float(levels.sigma[k + 1])
        gamma = min(churn / len(levels), 2**0.5 - 1) if churn_from <= sigma <= churn_to else 0.0
        higher = sigma * (1 + gamma)
        if gamma:
            assert noise is not None, "churn is not 0"
            x = x + (higher**2 - sigma**2) ** 0.5 * inflation * noise()
        slope = (x - denoise(x, higher)) / higher
        guess = x + (sigma_next - higher) * slope
        if sigma_next:
            slope = (slope + (guess - denoise(guess, sigma_next)) / sigma_next) / 2
            guess = x + (sigma_next - higher) * slope
        x = guess
    return x


def karras_sigmas(steps: int, lowest: float = 0.002, highest: float = 80.0, rho: float = 7.0) -> Levels:
    """The noise levels of Karras et al. 2022, equation 5, followed by 0.

    Raises:
        UserError: `steps` is not a positive number, or `lowest` is not below `highest`.
    """
    refuse("steps", steps, Steps)
    if not lowest < highest:
        raise UserError(f"sigma_min is {lowest:g}; it must be below sigma_max, {highest:g}.")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1, dtype=torch.float64)
    sigma = (highest ** (1 / rho) + ramp * (lowest ** (1 / rho) - highest ** (1 / rho))) ** rho
    sigma = torch.cat([sigma, sigma.new_zeros(1)])
    return Levels(sigma, torch.ones_like(sigma), sigma)


def _pair(levels: Levels, k: int) -> tuple[float, float, float, float]:
    """alpha and sigma of level k and of the next."""
    return (
        float(levels.alpha[k]), float(levels.sigma[k]), float(levels.alpha[k + 1]), float(levels.sigma[k + 1]),
    )  # fmt: skip


def _log(x: float) -> float:
    return math.log(x) if x else -math.inf  # alpha is 0 at a first level without signal
