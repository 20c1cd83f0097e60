"""The gated PixelCNN: van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", NeurIPS 2016,
https://arxiv.org/abs/1606.05328, figure 2."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, one_hot, pad, relu

from genbench.core.errors import UserError
from genbench.core.passes import count_passes


class GatedPixelCNN(nn.Module):
    """Values [B, C, H, W] -> logits of each value, given the previous values.

    The order is row by row, from left to right within a row, and channel by channel within a pixel.

    Args:
        values: Number of possible values of each channel of a pixel
        channels: Channels of a pixel
        width: Features of each stack; a multiple of `channels`
        layers: Number of gated layers
        kernel: Side of each layer's receptive field; odd
        classes: Number of classes that all layers are conditioned on, or 0
        ordinal: Whether values are ordered levels, such as brightness. If False, the input is one-hot encoded
    """

    def __init__(
        self, values: int, channels: int, width: int, layers: int, kernel: int = 5, classes: int = 0,
        ordinal: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if width % channels:
            raise UserError(f"model.width is {width}; it must be a multiple of the data's {channels} channels.")
        if kernel % 2 == 0:
            raise UserError(f"model.kernel is {kernel}; it must be odd.")
        self.values, self.channels, self.classes, self.ordinal = values, channels, classes, ordinal
        inputs = channels if ordinal else channels * values
        widths = [inputs, *[width] * layers]
        self.layers = nn.ModuleList(
            GatedLayer(widths[k], width, kernel, channels, classes, first=k == 0, last=k == layers - 1)
            for k in range(layers)
        )
        self.hidden = MaskedConv2d(width, width, 1, channels)
        self.output = MaskedConv2d(width, values * channels, 1, channels)

    def enter(self, x: Tensor) -> Tensor:
        """int64 [B, C, H, W] -> input of the first layer [B, inputs, H, W], in the order of the channels."""
        if self.ordinal:
            return x.to(self.output.weight.dtype) * (2 / (self.values - 1)) - 1
        return one_hot(x, self.values).movedim(-1, 2).flatten(1, 2).to(self.output.weight.dtype)

    def leave(self, skips: Tensor) -> Tensor:
        """Sum of the layers' skip outputs [B, width, H, W] -> logits [B, values, C, H, W]."""
        logits = self.output(relu(self.hidden(relu(skips))))
        return logits.unflatten(1, (self.channels, self.values)).movedim(2, 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """int64 [B, C, H, W], labels [B] -> logits [B, values, C, H, W]."""
        v = h = self.enter(x)
        skips: list[Tensor] = []
        for layer in self.layers:
            v, h, skip = layer(v, h, label)
            skips.append(skip)
        return self.leave(sum(skips[1:], skips[0]))

    def cache(self, batch: int, width: int, label: Tensor | None = None) -> Cache:
        """A cache for sampling a batch of images with `width` columns pixel by pixel, with labels [B]."""
        return Cache(self, batch, width, label)


class GatedLayer(nn.Module):
    """One layer of the vertical and the horizontal stack.

    The vertical stack at row i sees the rows up to i. Its output is an input of the horizontal stack at row i + 1,
    which also sees the pixels to the left. Only the skip output of the last layer is used.
    """

    def __init__(
        self, inputs: int, width: int, kernel: int, channels: int, classes: int, first: bool, last: bool
    ) -> None:
        super().__init__()
        self.reach, self.first = kernel // 2, first
        self.vertical = nn.Conv2d(inputs, 2 * width, (self.reach + 1, kernel))
        self.across = nn.Conv2d(2 * width, 2 * width, 1)
        self.horizontal = MaskedConv2d(inputs, 2 * width, (1, self.reach + 1), channels, itself=not first, halves=2)
        self.skip = MaskedConv2d(width, width, 1, channels)
        self.out = None if last else MaskedConv2d(width, width, 1, channels)
        self.label = nn.Embedding(classes, 4 * width) if classes else None

    def biases(self, label: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """Labels [B] -> biases of both stacks, [B, 2 width, 1, 1] each (equation 4)."""
        if self.label is None:
            return 0.0, 0.0
        return self.label(label)[:, :, None, None].chunk(2, 1)

    def forward(self, v: Tensor, h: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Both stacks [B, inputs, H, W] -> both stacks and the skip output, [B, width, H, W] each."""
        to_v, to_h = self.biases(label)
        k = self.reach
        below = self.vertical(pad(v, (k, k, k, 0)))  # [B, 2 width, H, W]; each row sees the rows up to itself
        above = pad(below, (0, 0, 1, 0))[:, :, :-1]  # shifted down by one row
        h2 = self.horizontal(pad(h, (k, 0, 0, 0))) + self.across(above)
        gated = gate(h2 + to_h)
        if self.out is not None:
            v, h = gate(below + to_v), self.out(gated) if self.first else self.out(gated) + h
        return v, h, self.skip(gated)


def gate(x: Tensor) -> Tensor:
    """tanh of the first half times sigmoid of the second half (equation 2): [B, 2 width, ...] -> [B, width, ...]."""
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


class MaskedConv2d(nn.Conv2d):
    """A convolution whose last column, the current pixel, is masked by channel.

    The features of a channel see only the previous channels of the current pixel, and with `itself` also their own
    channel (van den Oord et al. 2016, "Pixel Recurrent Neural Networks", section 3.4: masks A and B).

    Each channel owns an equal block of the features. With `halves` = 2, for the two inputs of a gate, it owns a block
    of each half.
    """

    mask: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], channels: int, itself: bool = True,
        halves: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(inputs, outputs, kernel)
        of_input = torch.arange(inputs) * channels // inputs
        block = outputs // halves
        of_output = (torch.arange(block) * channels // block).repeat(halves)
        seen = of_input <= of_output[:, None] if itself else of_input < of_output[:, None]
        mask = torch.ones_like(self.weight)
        mask[..., -1] = seen[..., None].to(mask)
        self.register_buffer("mask", mask, persistent=False)

    @property
    def masked(self) -> Tensor:
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.masked, self.bias)


class Cache:
    """Keeps the activations while images are sampled pixel by pixel, so that each is computed only once."""

    def __init__(self, net: GatedPixelCNN, batch: int, width: int, label: Tensor | None) -> None:
        self.net = net
        self.layers = [_Stacks(layer, batch, width, label) for layer in net.layers]  # type: ignore[arg-type]
        self.hidden, self.output = _Pointwise(net.hidden), _Pointwise(net.output)

    def logits(self, pixel: Tensor, j: int) -> Tensor:
        """Logits [B, C, values] of the pixel at column j, given its channels sampled so far, int64 [B, C, 1, 1]."""
        count_passes(self.net, len(pixel))  # as `forward` would be called for each value
        h = self.net.enter(pixel).flatten(1)  # [B, inputs]
        skips: list[Tensor] = []
        for layer in self.layers:
            h, skip = layer.pixel(h, j)
            skips.append(skip)
        logits = self.output(relu(self.hidden(relu(sum(skips[1:], skips[0])))))
        return logits.view(len(pixel), self.net.channels, self.net.values)

    def note(self, pixel: Tensor, j: int) -> None:
        """Store the complete pixel at column j. Only the input of the first layer depends on its last channel."""
        self.layers[0].note(self.net.enter(pixel).flatten(1), j)

    def row(self, row: Tensor) -> None:
        """Store the complete row, int64 [B, C, 1, W]."""
        v = self.net.enter(row)
        for layer in self.layers:
            v = layer.row(v)


class _Pointwise:
    """A masked 1×1 convolution of single pixels, computed as a matrix product, which is faster: [B, inputs] -> [B,
    outputs]."""

    def __init__(self, conv: MaskedConv2d) -> None:
        self.weight, self.bias = conv.masked.flatten(1), conv.bias

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class _Stacks:
    """Cached inputs of one layer: the rows above, and the current row up to the current pixel."""

    def __init__(self, layer: GatedLayer, batch: int, width: int, label: Tensor | None) -> None:
        weight, k = layer.vertical.weight, layer.reach
        outputs, inputs = weight.shape[:2]
        self.layer, self.weight = layer, layer.horizontal.masked.flatten(1)
        self.skip, self.out = _Pointwise(layer.skip), None if layer.out is None else _Pointwise(layer.out)
        self.to_v, to_h = layer.biases(label)
        self.start = to_h + layer.horizontal.bias[:, None, None]  # type: ignore[index]  # it has a bias
        self.rows = weight.new_zeros(batch, inputs, k + 1, width + 2 * k)  # the last k + 1 rows, padded
        self.line = weight.new_zeros(batch, inputs, width + k)
        self._begin_row(weight.new_zeros(batch, outputs, 1, width))

    def _begin_row(self, above: Tensor) -> None:
        """Start a new row: store the input from the vertical stack for each of its pixels, [W, B, 2 width]."""
        self.given = (self.layer.across(above) + self.start)[:, :, 0].permute(2, 0, 1).contiguous()
        self.line.zero_()

    def note(self, h: Tensor, j: int) -> None:
        self.line[:, :, self.layer.reach + j] = h

    def pixel(self, h: Tensor, j: int) -> tuple[Tensor, Tensor]:
        """The horizontal stack at column j: [B, inputs] -> [B, width], and the skip output."""
        self.note(h, j)
        seen = self.line[:, :, j : j + self.layer.reach + 1].flatten(1)
        gated = gate(torch.addmm(self.given[j], seen, self.weight.T))
        if self.out is not None:
            h = self.out(gated) if self.layer.first else self.out(gated) + h
        return h, self.skip(gated)

    def row(self, v: Tensor) -> Tensor:
        """The vertical stack at the row that was just completed: [B, inputs, 1, W] -> [B, width, 1, W]."""
        k = self.layer.reach
        self.rows = torch.cat([self.rows[:, :, 1:], pad(v, (k, k))], 2)
        below = self.layer.vertical(self.rows)
        self._begin_row(below)
        return v if self.layer.out is None else gate(below + self.to_v)
