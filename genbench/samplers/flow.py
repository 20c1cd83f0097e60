"""Samplers of flow models: solvers of dx/dt = v(x, t) from noise (t = 1) to images (t = 0)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genbench.core.arguments import Steps, refuse
from genbench.core.progress import steps

Velocity = Callable[[Tensor, float], Tensor]


def flow_times(steps: int, shift: float = 1.0) -> Tensor:
    """`steps` + 1 times from 1 to 0, float64. With `shift` above 1, more of them are noisy: s·t / (1 + (s - 1)·t)
    (Esser et al. 2024, "Scaling Rectified Flow Transformers", equation 23).

    Raises:
        UserError: `steps` is not a positive number.
    """
    refuse("steps", steps, Steps)
    t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return shift * t / (1 + (shift - 1) * t)


@torch.no_grad()
def euler(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Euler's method: one evaluation for each step."""
    for k in steps(range(len(times) - 1)):
        t, t_next = float(times[k]), float(times[k + 1])
        x = x + (t_next - t) * velocity(x, t)
    return x


@torch.no_grad()
def midpoint(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """The midpoint method, of second order: two evaluations for each step."""
    for k in steps(range(len(times) - 1)):
        t, t_next = float(times[k]), float(times[k + 1])
        half = (t + t_next) / 2
        x = x + (t_next - t) * velocity(x + (half - t) * velocity(x, t), half)
    return x


@torch.no_grad()
def mean_flow(velocity: Callable[[Tensor, float, float], Tensor], x: Tensor, times: Tensor) -> Tensor:
    """Steps with the average velocity u(x, r, t) between times t and r <= t (Geng et al. 2025, equation 12): one
    evaluation for each step."""
    for k in steps(range(len(times) - 1)):
        t, r = float(times[k]), float(times[k + 1])
        x = x - (t - r) * velocity(x, r, t)
    return x
