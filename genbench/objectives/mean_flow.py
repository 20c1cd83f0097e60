"""MeanFlow: Geng et al., "Mean Flows for One-step Generative Modeling", NeurIPS 2025, https://arxiv.org/abs/2505.13447.

As in `genbench.objectives.flow_matching`, t = 0 is an image and t = 1 is noise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from genbench.core.batch import per_image
from genbench.core.precision import to_float32
from genbench.objectives.flow_matching import paths

Net = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # network(z [B, ...], times [B, 2], condition) -> [B, ...]

# factor of the times in the network's embedding; with 1000, du/dt is large and mostly noise
SCALE = 10.0


def network_times(r: Tensor, t: Tensor) -> Tensor:
    """The two times of the network for steps from t to r, [B] each -> [B, 2]: t and t - r (best row of table 1c)."""
    return torch.stack([t, t - r], 1)


def draw_intervals(
    count: int, share: float, log_mean: float, log_std: float, draw: Callable[..., Tensor]
) -> tuple[Tensor, Tensor]:
    """Random times r <= t in (0, 1), [count] each (section 4.3).

    Two numbers are logistic functions of normal numbers; t is the larger. r is the smaller for a random `share` of the
    images, and t for the others.
    """
    one, two = (torch.sigmoid(draw(torch.randn, count) * log_std + log_mean) for _ in range(2))
    apart = draw(torch.rand, count) < share
    t = torch.maximum(one, two)
    return torch.where(apart, torch.minimum(one, two), t), t


def derivative(net: Net, z: Tensor, r: Tensor, t: Tensor, v: Tensor, condition: Tensor | None = None) -> Tensor:
    """The total derivative du/dt = ∂u/∂z·v + ∂u/∂t of the average velocity at points z [B, ...], without gradient
    (equation 8).

    It is computed forward, with attention as plain matrix products, since PyTorch's fused attention has no forward
    derivative; and through the uncompiled forward. Under mixed precision it is computed in float32.
    """
    forward = getattr(net, "forward", net)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), torch.autocast(z.device.type, enabled=False):
        along = torch.func.jvp(
            lambda z, t: forward(z, network_times(r, t), condition), (z, t), (v, torch.ones_like(t))
        )  # fmt: skip
    return along[1]


def squared_error(net: Net, x: Tensor, noise: Tensor, r: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
    """The squared error of the average velocity from t to r [B]: images and noise [B, ...] -> [B] (equation 9).

    It is a mean over values, where the paper has the sum. Where r = t, it is that of flow matching. The derivative in
    the target is computed only for the other images.
    """
    z, v = paths(x, noise, t)
    r, t = (time.to(torch.promote_types(x.dtype, torch.float32)) for time in (r, t))
    target, apart = v, (r < t).nonzero()[:, 0]
    if len(apart):
        chosen = None if condition is None else condition[apart]
        slope = to_float32(derivative(net, z[apart], r[apart], t[apart], v[apart], chosen))
        interval = per_image((t - r)[apart], x)
        target = v.index_add(0, apart, -interval * slope)  # equation 10
    return (to_float32(net(z, network_times(r, t), condition)) - target).square().flatten(1).mean(1)


def weighted(error: Tensor, power: float = 1.0, constant: float = 1e-3) -> Tensor:
    """Errors divided by (error + constant)^power, which has no gradient (equation 22)."""
    return error / (error.detach() + constant) ** power
