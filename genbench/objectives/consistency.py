"""Consistency training: Song & Dhariwal, "Improved Techniques for Training Consistency Models", ICLR 2024,
https://arxiv.org/abs/2310.14189, and Song et al., "Consistency Models", ICML 2023, https://arxiv.org/abs/2303.01469."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genbench.core.batch import per_image
from genbench.core.precision import to_float32

Net = Callable[[Tensor, Tensor], Tensor]  # network(x [B, ...], time [B]) -> [B, ...]

# factor of the times in the network's embedding; a small one makes training stable (Song & Dhariwal 2024, section 3.1)
SCALE = 10.0


def intervals(images: int, total: int, first: int = 10, last: int = 1280) -> int:
    """The number of intervals between noise levels after `images` of `total` training images: `first`, doubled at equal
    distances until it is `last` (Song & Dhariwal 2024, section 3.4; they count training steps).

    Example:
        >>> [intervals(images, 800_000) for images in (0, 99_999, 100_000, 799_999, 800_000)]
        [10, 10, 20, 1280, 1280]
    """
    stage = int(total / (math.log2(last // first) + 1))  # images between two doublings
    return min(first * 2 ** (images // max(1, stage)), last) if images < total else last


class Consistency:
    """The consistency function f(x; σ) built on a network F, and its loss. Noisy images are x + σ·noise.

    Args:
        sigma_data: Standard deviation of the pixels
        sigma_min, sigma_max, rho: The noise levels (Karras et al. 2022, equation 5)
        log_mean, log_std: Mean and standard deviation of ln σ in training (P_mean, P_std)
    """

    def __init__(
        self,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        log_mean: float = -1.1,
        log_std: float = 2.0,
    ) -> None:
        self.sigma_data, self.sigma_min, self.sigma_max, self.rho = sigma_data, sigma_min, sigma_max, rho
        self.log_mean, self.log_std = log_mean, log_std

    def denoise(self, net: Net, x: Tensor, sigma: Tensor) -> Tensor:
        """Noisy images [B, ...] at σ [B] -> clean images, in float32 (Song et al. 2023, appendix C). At the lowest σ it
        is the identity."""
        s = per_image(to_float32(sigma), x)
        total, above = s.square() + self.sigma_data**2, s - self.sigma_min
        skip = self.sigma_data**2 / (above.square() + self.sigma_data**2)
        out, into = self.sigma_data * above / total.sqrt(), 1 / total.sqrt()
        x = to_float32(x)
        return skip * x + out * to_float32(net(into * x, self.time(sigma)))

    def loss(self, net: Net, x: Tensor, count: int, draw: Callable[..., Tensor]) -> Tensor:
        """The weighted distance between the outputs at two neighboring noise levels, [B, ...] -> [B] (Song & Dhariwal
        2024, equation 7 with the weight, distance and noise of table 1).

        The output at the lower level has no gradient. It is computed with the same noise, the same weights and the same
        dropout masks.

        Args:
            count: Number of intervals between noise levels, as from `intervals`
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        levels = self.levels(count)
        table, between, share = (each.to(dtype).to(x.device) for each in (levels, levels.diff(), self.shares(levels)))
        level = torch.searchsorted(share.cumsum(0), draw(torch.rand, len(x)).to(dtype)).clamp(max=count - 1)  # [B]
        low, high = table[level], table[level + 1]
        noise, x = draw(torch.randn, *x.shape).to(dtype), to_float32(x)

        def at(sigma: Tensor) -> Tensor:
            return self.denoise(net, x + per_image(sigma, x) * noise, sigma)

        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            upper = at(high)
        with torch.no_grad():
            lower = at(low)
        return pseudo_huber(upper, lower) / between[level]

    def levels(self, count: int) -> Tensor:
        """The ends of `count` intervals from the lowest to the highest σ, ascending: float64 [count + 1]."""
        ends = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        found = torch.linspace(*ends, count + 1, dtype=torch.float64) ** self.rho
        found[0], found[-1] = self.sigma_min, self.sigma_max  # exactly, not the power of a root
        return found

    def shares(self, levels: Tensor) -> Tensor:
        """The share of the training images in each interval between levels [N + 1], [N] (Song & Dhariwal 2024, equation
        10)."""
        edges = torch.erf((levels.log() - self.log_mean) / (math.sqrt(2) * self.log_std))
        return edges.diff() / (edges[-1] - edges[0])

    @staticmethod
    def time(sigma: Tensor) -> Tensor:
        """The network's time, ln(σ) / 4 as in EDM."""
        return to_float32(sigma).log() / 4


def pseudo_huber(a: Tensor, b: Tensor) -> Tensor:
    """√(‖a - b‖² + c²) - c, [B, ...] -> [B], with c = 0.00054·√d for d values (Song & Dhariwal 2024, section 3.3)."""
    c = 0.00054 * math.sqrt(a[0].numel())
    return ((a - b).square().flatten(1).sum(1) + c**2).sqrt() - c
