"""Flow matching on straight paths: Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023,
https://arxiv.org/abs/2210.02747; Liu et al., "Flow Straight and Fast", ICLR 2023, https://arxiv.org/abs/2209.03003.

Here t = 0 is an image and t = 1 is noise, as in Esser et al. 2024; the first two papers count in the other direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from genbench.core.batch import per_image
from genbench.core.errors import UserError
from genbench.core.precision import to_float32

Net = Callable[[Tensor, Tensor], Tensor]  # network(x [B, ...], time [B]) -> [B, ...]
Times = Literal["uniform", "logit_normal"]


def draw_times(kind: Times, count: int, draw: Callable[..., Tensor]) -> Tensor:
    """Random times [count] from 0 to 1, uniform or logistic functions of normal numbers (Esser et al. 2024, section
    3.1)."""
    return draw(torch.rand, count) if kind == "uniform" else torch.sigmoid(draw(torch.randn, count))


def noise_to_signal(t: float) -> float:
    """t / (1 - t), at most 1e6."""
    return min(1e6, t / (1 - t)) if t < 1 else 1e6


def paths(x: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Points at times [B] on the lines from images to noise [B, ...], and their velocity noise - image."""
    x, noise = to_float32(x), to_float32(noise)
    t = per_image(t, x).to(x.dtype)
    return (1 - t) * x + t * noise, noise - x


def loss(net: Net, x: Tensor, noise: Tensor, t: Tensor) -> dict[str, Tensor]:
    """The squared error of the velocity at times [B]: images and noise [B, ...] -> [B] (Lipman et al. 2023, equation
    23)."""
    point, velocity = paths(x, noise, t)
    return {"mse": (to_float32(net(point, t.float())) - velocity).square().flatten(1).mean(1)}


def pair(x: Tensor, noise: Tensor) -> Tensor:
    """Order the noise so that the sum of squared distances to the images of the batch is the least: minibatch optimal
    transport (Tong et al. 2024, "Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal
    Transport"), [B, ...] -> [B, ...]."""
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x.flatten(1).float(), noise.flatten(1).float()).square()
    _, chosen = linear_sum_assignment(cost.cpu().numpy())
    return noise[torch.from_numpy(chosen).to(noise.device)]


def log_density(net: Net, x: Tensor, tolerance: float = 1e-5, probes: int = 0) -> tuple[Tensor, Tensor]:
    """log p(x) of the model, [B, ...] -> [B] nats, and its standard error [B].

    log p(x) = log N(x(1); 0, I) + ∫ tr(∂v/∂x) dt along dx/dt = v from t = 0 to 1 (Chen et al. 2018, "Neural Ordinary
    Differential Equations", theorem 1). Both integrals are solved by the adaptive Runge-Kutta method of order 5 with
    this relative and absolute tolerance, together for the whole batch.

    Args:
        probes: Random vectors of ±1 that estimate the trace (Hutchinson; Grathwohl et al. 2019, "FFJORD"). 0 computes
            it exactly, with one derivative per value of x, and the standard error is 0. For one vector it is NaN

    Raises:
        UserError: the solver does not reach the tolerance.
    """
    from scipy.integrate import solve_ivp

    (n, *_), size, device = x.shape, x[0].numel(), x.device
    directions = torch.eye(size, device=device).view(size, 1, *x.shape[1:]).expand(size, *x.shape)
    if probes:
        directions = torch.randint(0, 2, (probes, *x.shape), device=device) * 2.0 - 1

    def slope(t: float, state: Any) -> Any:
        """The velocities and one divergence for each probe, n·size + n·max(1, probes) numbers."""
        point = torch.from_numpy(state[: n * size]).to(device).view(x.shape)
        point = to_float32(point.to(x.dtype)).requires_grad_()
        with torch.enable_grad():
            v = to_float32(net(point, torch.full((n,), t, device=device)))
            parts = [
                (torch.autograd.grad(v, point, e.to(v.dtype), retain_graph=True)[0] * e).flatten(1).sum(1)
                for e in directions
            ]
        traces = torch.stack(parts) if probes else torch.stack(parts).sum(0, keepdim=True)
        return torch.cat([v.detach().flatten(), traces.flatten()]).double().cpu().numpy()

    start = torch.cat([x.flatten().double().cpu(), torch.zeros(n * max(1, probes)).double()]).numpy()
    solution = solve_ivp(slope, (0.0, 1.0), start, method="RK45", rtol=tolerance, atol=tolerance)
    if not solution.success:
        raise UserError(f"The likelihood could not be integrated with tolerance {tolerance:g}: {solution.message}")
    end = solution.y[:, -1]
    noise, traces = torch.from_numpy(end[: n * size]).view(n, size), torch.from_numpy(end[n * size :]).view(-1, n)
    found = traces.mean(0) - 0.5 * (noise.square() + math.log(2 * math.pi)).sum(1)
    error = torch.zeros(n) if not probes else torch.full((n,), math.nan)
    if probes > 1:
        error = traces.std(0) / probes**0.5
    return found.to(device), error.to(device)
