"""Sampling from a PixelCNN, number by number.

`draw` keeps what each layer has computed and adds one pixel to it (Ramachandran et al. 2017, "Fast Generation for
Convolutional Autoregressive Models", https://arxiv.org/abs/1704.06001); `draw_naively` passes the whole image through
the network for each number, and is what the other is tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from genbench.networks.pixelcnn import GatedLayer, GatedPixelCNN, gate


def choose(logits: Tensor, u: Tensor) -> Tensor:
    """The value at which the probabilities add up to u in [0, 1): logits [B, values], u [B] -> int64 [B]."""
    cumulated = logits.double().softmax(1).cumsum(1)
    return (u.double()[:, None] >= cumulated).sum(1).clamp(max=logits.shape[1] - 1)


@torch.no_grad()
def draw_naively(net: GatedPixelCNN, u: Tensor, label: Tensor | None = None) -> Tensor:
    """Uniform numbers u [B, C, H, W] -> values int64 [B, C, H, W], by a full pass for each of the C·H·W."""
    x = torch.zeros(u.shape, dtype=torch.int64, device=u.device)
    channels, height, width = u.shape[1:]
    for i in range(height):
        for j in range(width):
            for c in range(channels):
                x[:, c, i, j] = choose(net(x, label)[:, :, c, i, j], u[:, c, i, j])
    return x


@torch.no_grad()
def draw(
    net: GatedPixelCNN,
    u: Tensor,
    label: Tensor | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Tensor:
    """The same values, each layer's features being computed once for each number.

    progress  wraps the rows, to show a bar
    """
    x = torch.zeros(u.shape, dtype=torch.int64, device=u.device)
    channels, height, width = u.shape[1:]
    layers = [_Stacks(layer, len(u), width, label) for layer in net.layers]
    for i in progress(range(height)):
        for j in range(width):
            for c in range(channels):
                h, skips = net.enter(x[:, :, i : i + 1, j : j + 1]), 0.0  # [B, inputs, 1, 1]
                for layer in layers:
                    h, skip = layer.pixel(h, j)
                    skips = skips + skip
                x[:, c, i, j] = choose(net.leave(skips)[:, :, c, 0, 0], u[:, c, i, j])
            # of a pixel's last number the features see nothing: what is left to note is the pixel itself
            layers[0].note(net.enter(x[:, :, i : i + 1, j : j + 1]), j)
        v = net.enter(x[:, :, i : i + 1])  # [B, inputs, 1, W]
        for layer in layers:
            v = layer.row(v)
    return x


class _Stacks:
    """What a layer has to remember of the rows above, and of its own row so far."""

    def __init__(self, layer: GatedLayer, batch: int, width: int, label: Tensor | None) -> None:
        weight, k = layer.vertical.weight, layer.reach
        outputs, inputs = weight.shape[:2]
        self.layer, self.weight = layer, layer.horizontal.masked
        self.to_v, self.to_h = layer.biases(label)
        self.rows = weight.new_zeros(batch, inputs, k + 1, width + 2 * k)  # the last ones, with padding
        self.line = weight.new_zeros(batch, inputs, 1, width + k)
        self.above = layer.across(weight.new_zeros(batch, outputs, 1, width))

    def note(self, h: Tensor, j: int) -> None:
        self.line[..., self.layer.reach + j] = h[..., 0]

    def pixel(self, h: Tensor, j: int) -> tuple[Tensor, Tensor]:
        """The horizontal stack at column j, [B, inputs, 1, 1] -> [B, width, 1, 1], and the skip."""
        self.note(h, j)
        seen = self.line[..., j : j + self.layer.reach + 1]
        h2 = conv2d(seen, self.weight, self.layer.horizontal.bias) + self.above[..., j : j + 1]
        return self.layer.turn(h2 + self.to_h, h)

    def row(self, v: Tensor) -> Tensor:
        """The vertical stack at the row that is now whole, [B, inputs, 1, W] -> [B, width, 1, W]."""
        k = self.layer.reach
        self.rows = torch.cat([self.rows[:, :, 1:], pad(v, (k, k))], 2)
        below = self.layer.vertical(self.rows)
        self.above = self.layer.across(below)
        self.line.zero_()
        return v if self.layer.out is None else gate(below + self.to_v)
