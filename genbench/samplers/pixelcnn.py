"""Sampling from a PixelCNN, number by number.

`draw` keeps what each layer has computed and adds one pixel to it (Ramachandran et al. 2017, "Fast Generation for
Convolutional Autoregressive Models", https://arxiv.org/abs/1704.06001); `draw_naively` passes the whole image through
the network for each number, and is what the other is tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import linear, pad, relu

from genbench.networks.pixelcnn import GatedLayer, GatedPixelCNN, MaskedConv2d, gate


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
    hidden, output = _Pointwise(net.hidden), _Pointwise(net.output)
    for i in progress(range(height)):
        for j in range(width):
            for c in range(channels):
                h, skips = net.enter(x[:, :, i : i + 1, j : j + 1]).flatten(1), 0.0  # [B, inputs]
                for layer in layers:
                    h, skip = layer.pixel(h, j)
                    skips = skips + skip
                logits = output(relu(hidden(relu(skips)))).view(len(u), channels, net.values)
                x[:, c, i, j] = choose(logits[:, c], u[:, c, i, j])
            # of a pixel's last number the features see nothing: what is left to note is the pixel itself
            layers[0].note(net.enter(x[:, :, i : i + 1, j : j + 1]).flatten(1), j)
        v = net.enter(x[:, :, i : i + 1])  # [B, inputs, 1, W]
        for layer in layers:
            v = layer.row(v)
    return x


class _Pointwise:
    """A masked 1×1 convolution of single pixels: [B, inputs] -> [B, outputs]. As a product of matrices it takes a tenth
    of the time of a convolution of one pixel."""

    def __init__(self, conv: MaskedConv2d) -> None:
        self.weight, self.bias = conv.masked.flatten(1), conv.bias

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class _Stacks:
    """What a layer has to remember of the rows above, and of its own row so far."""

    def __init__(self, layer: GatedLayer, batch: int, width: int, label: Tensor | None) -> None:
        weight, k = layer.vertical.weight, layer.reach
        outputs, inputs = weight.shape[:2]
        self.layer, self.weight = layer, layer.horizontal.masked.flatten(1)
        self.skip, self.out = _Pointwise(layer.skip), None if layer.out is None else _Pointwise(layer.out)
        self.to_v, to_h = layer.biases(label)
        self.start = to_h + layer.horizontal.bias[:, None, None]
        self.rows = weight.new_zeros(batch, inputs, k + 1, width + 2 * k)  # the last ones, with padding
        self.line = weight.new_zeros(batch, inputs, width + k)
        self._begin_row(weight.new_zeros(batch, outputs, 1, width))

    def _begin_row(self, above: Tensor) -> None:
        """What the row above gives to each pixel of this one: [W, B, 2 width]."""
        self.given = (self.layer.across(above) + self.start)[:, :, 0].permute(2, 0, 1).contiguous()
        self.line.zero_()

    def note(self, h: Tensor, j: int) -> None:
        self.line[:, :, self.layer.reach + j] = h

    def pixel(self, h: Tensor, j: int) -> tuple[Tensor, Tensor]:
        """The horizontal stack at column j, [B, inputs] -> [B, width], and the skip."""
        self.note(h, j)
        seen = self.line[:, :, j : j + self.layer.reach + 1].flatten(1)
        gated = gate(torch.addmm(self.given[j], seen, self.weight.T))
        if self.out is not None:
            h = self.out(gated) if self.layer.first else self.out(gated) + h
        return h, self.skip(gated)

    def row(self, v: Tensor) -> Tensor:
        """The vertical stack at the row that is now whole, [B, inputs, 1, W] -> [B, width, 1, W]."""
        k = self.layer.reach
        self.rows = torch.cat([self.rows[:, :, 1:], pad(v, (k, k))], 2)
        below = self.layer.vertical(self.rows)
        self._begin_row(below)
        return v if self.layer.out is None else gate(below + self.to_v)
