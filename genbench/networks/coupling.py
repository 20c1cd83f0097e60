"""Layers of normalizing flows with affine couplings: Dinh et al., "Density estimation using Real NVP", ICLR 2017,
https://arxiv.org/abs/1605.08803, and Kingma & Dhariwal, "Glow", NeurIPS 2018, https://arxiv.org/abs/1807.03039.

Each layer is a bijection: `forward` returns its output and log |det of the Jacobian|, [B] or one number for all images,
and `inverse` undoes it. Images are [B, C, H, W], points and latents [B, D]. Everything outside of the networks in the
couplings is computed in float32, also under mixed precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, logsigmoid, relu

from genbench.core import ranks
from genbench.core.precision import to_float32


class Chain(nn.Module):
    """Layers one after the other."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = to_float32(x)
        log_det = x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, more = layer(x)
            log_det = log_det + more
        return x, log_det

    def inverse(self, z: Tensor) -> Tensor:
        z = to_float32(z)
        for layer in reversed(self.layers):
            z = layer.inverse(z)  # type: ignore[operator]  # a method
        return z


class ToLogits(nn.Module):
    """Dequantized pixels, up to half a level outside of [-1, 1] -> logit(alpha + (1 - 2 alpha) y), with y in [0, 1].

    Section 4.1 of Dinh et al. has 1 - alpha in place of 1 - 2 alpha, which is infinite at y = 1.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # y and 1 - y, computed so that neither loses digits near 0
        log_p, log_q = (
            torch.log(self.alpha + (1 - 2 * self.alpha) * ((1 + sign * x) * 127.5 + 0.5) / 256) for sign in (1, -1)
        )
        return log_p - log_q, (math.log((1 - 2 * self.alpha) * 127.5 / 256) - log_p - log_q).flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        return ((torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha) * 256 - 128) / 127.5


class Squeeze(nn.Module):
    """[B, C, H, W] -> [B, 4C, H/2, W/2]: the four pixels of each 2×2 block become groups of C channels.

    order  the blocks' pixels, numbered row by row, in the order of the groups. With (0, 3, 1, 2), the two halves of the
           channels are the two colors of a checkerboard
    """

    def __init__(self, order: Sequence[int] = (0, 1, 2, 3)) -> None:
        super().__init__()
        self.regroup = Regroup(order)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        b, c, h, w = x.shape
        x = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
        return self.regroup(x.reshape(b, 4 * c, h // 2, w // 2))

    def inverse(self, z: Tensor) -> Tensor:
        z = self.regroup.inverse(z)
        b, c, h, w = z.shape
        z = z.reshape(b, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2)
        return z.reshape(b, c // 4, 2 * h, 2 * w)


class Regroup(nn.Module):
    """Reorder four groups of channels: group k of the output is group `order[k]` of the input."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = list(order)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _reordered(x, self.order), x.new_zeros(())

    def inverse(self, z: Tensor) -> Tensor:
        return _reordered(z, [self.order.index(k) for k in range(4)])


def _reordered(x: Tensor, order: Sequence[int]) -> Tensor:
    groups = x.chunk(4, 1)
    return torch.cat([groups[k] for k in order], 1)


class Flatten(nn.Module):
    """[B, *shape] -> [B, D]."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), x.new_zeros(())

    def inverse(self, z: Tensor) -> Tensor:
        return z.reshape(-1, *self.shape)


class FactorOut(nn.Module):
    """[B, C, H, W] -> [B, D]: half of the channels become latents, and the other half passes through `rest` (Dinh et
    al., section 3.6).

    Args:
        shape: (C, H, W)
        rest: Bijection of the other half, [B, C/2, H, W] -> [B, D/2]
    """

    def __init__(self, shape: Sequence[int], rest: Chain) -> None:
        super().__init__()
        channels, *sides = shape
        self.shape, self.rest = (channels // 2, *sides), rest

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, out = x.chunk(2, 1)
        z, log_det = self.rest(kept)
        return torch.cat([out.flatten(1), z], 1), log_det

    def inverse(self, z: Tensor) -> Tensor:
        out, z = z.chunk(2, 1)
        kept = self.rest.inverse(z)
        return torch.cat([kept, out.reshape(-1, *self.shape)], 1)


class ActNorm(nn.Module):
    """Scale and shift of each channel, chosen so that the first training batch has zero mean and unit variance (Glow,
    section 3.1).

    Unlike batch normalization, it is a fixed function of each image, so inverse and determinant are exact in training.
    Mean and standard deviation of the first batch are buffers, which EMA copies, and the parameters start at zero:
    averages of the weights never contain a layer without statistics. `initialize` sets the buffers.
    """

    mean: Tensor
    log_std: Tensor
    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("log_std", torch.zeros(channels))
        self.register_buffer("initialized", torch.tensor(False))
        self.measures = False  # whether `forward` sets the buffers

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.measures:
            self._measure(x)
        shift, log_scale, mean = self._values(x)
        log_det = log_scale.sum() * (x.shape[2] * x.shape[3] if x.ndim == 4 else 1)
        return (x - mean) * log_scale.exp() + shift, log_det

    def inverse(self, z: Tensor) -> Tensor:
        shift, log_scale, mean = self._values(z)
        return (z - shift) * torch.exp(-log_scale) + mean

    def _values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_scale = to_float32(self.log_scale) - to_float32(self.log_std)
        values = (to_float32(self.shift), log_scale, to_float32(self.mean))
        shift, log_scale, mean = (v.view(-1, 1, 1) if x.ndim == 4 else v for v in values)
        return shift, log_scale, mean

    def _measure(self, x: Tensor) -> None:
        values = x.movedim(1, -1).flatten(0, -2)  # [N, C]
        mean = ranks.mean(values.mean(0))
        variance = ranks.mean((values - mean).square().mean(0))
        self.mean.copy_(mean)
        self.log_std.copy_(torch.log(variance.sqrt() + 1e-6))
        self.initialized.fill_(True)


@torch.no_grad()
def initialize(flow: nn.Module, x: Tensor) -> None:
    """Set the statistics of every ActNorm from a batch x over all processes, unless they are set."""
    norms = [layer for layer in flow.modules() if isinstance(layer, ActNorm)]
    if all(norm.initialized for norm in norms):
        return
    for norm in norms:
        norm.measures = True
    flow.forward(x)  # not `flow(x)`, which may be compiled
    for norm in norms:
        norm.measures = False


class InvertibleConv(nn.Module):
    """1×1 convolution with the weight W = P L (U + diag(s)), which starts as a random rotation (Glow, section 3.2,
    equation 10). The sum of log |s| is the log-determinant for one pixel."""

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels)).Q
        permutation, lower, upper = torch.linalg.lu(rotation)
        s = upper.diagonal()
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_s = nn.Parameter(s.abs().log())
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", s.sign())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper, s, permutation = self._parts()
        one = torch.eye(len(s), dtype=s.dtype, device=s.device)
        with torch.autocast(x.device.type, enabled=False):
            weight = permutation @ (one + lower) @ (upper + one * s)
            return conv2d(x, weight[:, :, None, None]), to_float32(self.log_s).sum() * (x.shape[2] * x.shape[3])

    def inverse(self, z: Tensor) -> Tensor:
        # in float32, `_unit_inverse` has errors of 1e-4 for 48 channels; Apple's GPUs have no float64
        wide = torch.float32 if z.device.type == "mps" else torch.float64
        lower, upper, s, permutation = (part.to(wide) for part in self._parts())
        with torch.autocast(z.device.type, enabled=False):
            # U + diag(s) = diag(s) (I + U / s)
            inverse = _unit_inverse(upper / s[:, None]) / s @ _unit_inverse(lower) @ permutation.T
            return conv2d(z, inverse.to(z.dtype)[:, :, None, None])

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        lower, upper = to_float32(self.lower).tril(-1), to_float32(self.upper).triu(1)
        return lower, upper, to_float32(self.sign) * to_float32(self.log_s).exp(), to_float32(self.permutation)


def _unit_inverse(triangle: Tensor) -> Tensor:
    """(I + N)^-1 for a strictly triangular N [n, n], as the product of I + (-N)^(2^k), which is finite because
    N^n = 0. Unlike `torch.linalg.inv`, matrix products can be exported to ONNX."""
    one = torch.eye(len(triangle), dtype=triangle.dtype, device=triangle.device)
    power, inverse, reached = -triangle, one - triangle, 2
    while reached < len(triangle):
        power = power @ power
        inverse, reached = inverse @ (one + power), 2 * reached
    return inverse


class AffineCoupling(nn.Module):
    """One half of the channels scales and shifts the other half: b -> b * exp(s(a)) + t(a).

    Args:
        channels: Channels or dimensions of the input; at least 2
        network: Function of the numbers of inputs and outputs that builds the network of s and t
        swap: Whether the second half scales the first half instead of the reverse
        scale: s is a learned multiple of the tanh of the network's output (Dinh et al., section 4.1), or the log of
            sigmoid(output + 2) (the code of Glow)
    """

    def __init__(
        self,
        channels: int,
        network: Callable[[int, int], nn.Module],
        swap: bool = False,
        scale: Literal["tanh", "sigmoid"] = "tanh",
    ) -> None:
        super().__init__()
        self.sizes, self.swap = (channels // 2, channels - channels // 2), swap
        given, changed = reversed(self.sizes) if swap else self.sizes
        self.network = network(given, 2 * changed)
        if scale == "tanh":
            self.most = nn.Parameter(torch.ones(changed))
        self.scale = scale

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        given, changed = self._halves(x)
        log_s, t = self._log_scale_and_shift(given)
        return self._whole(given, changed * log_s.exp() + t), log_s.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        given, changed = self._halves(z)
        log_s, t = self._log_scale_and_shift(given)
        return self._whole(given, (changed - t) * torch.exp(-log_s))

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.split(self.sizes, 1)
        return (second, first) if self.swap else (first, second)

    def _whole(self, given: Tensor, changed: Tensor) -> Tensor:
        return torch.cat([changed, given] if self.swap else [given, changed], 1)

    def _log_scale_and_shift(self, given: Tensor) -> tuple[Tensor, Tensor]:
        dtype = next(self.network.parameters()).dtype  # half precision, if all weights are
        raw, t = to_float32(self.network(given.to(dtype))).chunk(2, 1)
        if self.scale == "sigmoid":
            return logsigmoid(raw + 2), t
        most = to_float32(self.most)
        return (most.view(-1, 1, 1) if raw.ndim == 4 else most) * torch.tanh(raw), t


# ---- networks of the couplings. The last layer starts at zero, so that a coupling starts as the identity, or for the
# scale `sigmoid` as a multiplication by sigmoid(2) = 0.88


class Residual(nn.Module):
    """[B, C, H, W] -> [B, C, H, W]: x plus two 3×3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(relu(self.first(relu(x))))


def residual(inputs: int, outputs: int, width: int, blocks: int) -> nn.Sequential:
    """Residual network with 3×3 convolutions, without normalization over the batch."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, width, 3, padding=1), *(Residual(width) for _ in range(blocks))]
    return nn.Sequential(*layers, nn.ReLU(), _zero(nn.Conv2d(width, outputs, 3, padding=1)))


def three_convolutions(inputs: int, outputs: int, width: int) -> nn.Sequential:
    """3×3, 1×1 and 3×3 convolutions (Glow, appendix B)."""
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(),
        _zero(nn.Conv2d(width, outputs, 3, padding=1)),
    )  # fmt: skip


def one_convolution(inputs: int, outputs: int) -> nn.Module:
    """A 3×3 convolution that starts at zero."""
    return _zero(nn.Conv2d(inputs, outputs, 3, padding=1))


def fully_connected(inputs: int, outputs: int, width: int, blocks: int) -> nn.Sequential:
    """`blocks` + 1 hidden layers, for points."""
    layers: list[nn.Module] = []
    for n, m in pairwise([inputs, *[width] * (blocks + 1)]):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers, _zero(nn.Linear(width, outputs)))


def _zero(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
