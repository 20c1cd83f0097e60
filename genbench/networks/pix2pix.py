"""The networks of pix2pix: Isola, Zhu, Zhou & Efros, "Image-to-Image Translation with Conditional Adversarial
Networks", CVPR 2017, https://arxiv.org/abs/1611.07004, section 6.1."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genbench.core.errors import UserError

Norm = Literal["batch", "instance", "layer"]
Draw = Callable[..., Tensor]  # shape -> uniform noise [B, *shape], or [1, *shape] for all images


class UNetGenerator(nn.Module):
    """[B, inputs, H, W] -> [B, outputs, H, W] in [-1, 1], where H and W are multiples of `stride` (section 6.1.1).

    Its only noise is dropout, which is applied in training and in translation (section 3.2).

    Args:
        inputs, outputs: Channels of the input and the output
        width: Channels after the first downsampling; doubled at each downsampling, up to 8 times
        depth: Number of downsampling layers; 8 in the paper
        norm: Normalization over each channel of the batch (batch), each channel of an image (instance), or all channels
            of an image (layer)
        dropout: Fraction of activations that are dropped in the first three decoder layers
    """

    def __init__(
        self, inputs: int, outputs: int, width: int = 64, depth: int = 8, norm: Norm = "batch", dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.stride, self.dropout = 2**depth, dropout
        widths = [width * min(2**k, 8) for k in range(depth)]
        self.down = nn.ModuleList([nn.Conv2d(inputs, width, 4, stride=2, padding=1)])
        for k, (narrow, wide) in enumerate(pairwise(widths), start=2):
            innermost = k == depth  # not normalized, since it may be 1×1
            layers = [nn.LeakyReLU(0.2), nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=innermost)]
            self.down.append(nn.Sequential(*layers, *([] if innermost else [normalized(norm, wide)])))
        self.up = nn.ModuleList()
        for k, (narrow, wide) in enumerate(list(pairwise(widths))[::-1]):
            wide *= 1 if k == 0 else 2  # decoder and skip features are concatenated
            up = nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False)
            self.up.append(nn.Sequential(nn.ReLU(), up, normalized(norm, narrow)))
        self.last = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * width, outputs, 4, stride=2, padding=1), nn.Tanh())

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        seen = []
        for down in self.down:
            x = down(x)
            seen.append(x)
        for k, (up, skip) in enumerate(zip(self.up, seen[-2::-1], strict=True)):
            x = up(x)
            if k < 3 and self.dropout:
                x = x * (draw(*x.shape[1:]) >= self.dropout).to(x.dtype) / (1 - self.dropout)
            x = torch.cat([skip, x], 1)
        return self.last(x)


class PatchGAN(nn.Sequential):
    """[B, channels, H, W] -> logits [B, 1, h, w], one for each patch of the image (section 6.1.2).

    Args:
        channels: Channels of the input: source and target together
        width: Channels of the first layer; doubled at each layer, up to 8 times
        layers: Downsampling layers: 3 give patches of 70×70 pixels, 2 of 34×34, 1 of 16×16, and 0 single pixels
        norm: Normalization over each channel of the batch (batch), each channel of an image (instance), or all channels
            of an image (layer)
    """

    def __init__(self, channels: int, width: int = 64, layers: int = 3, norm: Norm = "batch") -> None:
        widths = [width * min(2**k, 8) for k in range(layers + 1)]
        if not layers:
            widths.append(2 * width)
        kernel: dict[str, Any] = {"kernel_size": 4, "padding": 1} if layers else {"kernel_size": 1}
        parts: list[nn.Module] = [
            nn.Conv2d(channels, width, stride=2 if layers else 1, **kernel),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for k, (narrow, wide) in enumerate(pairwise(widths), start=1):
            convolution = nn.Conv2d(narrow, wide, stride=2 if k < layers else 1, bias=False, **kernel)
            parts += [convolution, normalized(norm, wide), nn.LeakyReLU(0.2, inplace=True)]
        super().__init__(*parts, nn.Conv2d(widths[-1], 1, **kernel))


def refuse_small(size: int, layers: int) -> None:
    """Raise UserError if images of this size are too small for a `PatchGAN` with this many layers."""
    if layers and size < 3 * 2**layers:
        raise UserError(
            f"A discriminator with {layers} patch layers needs images of at least {3 * 2**layers} pixels per side, but "
            f"the data has {size}. Use a larger `--data.size` or a smaller `--model.patch_layers`."
        )


def normalized(norm: Norm, channels: int) -> nn.Module:
    """A normalization layer with a scale and a shift for each channel."""
    if norm == "layer":
        return nn.GroupNorm(1, channels)
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.InstanceNorm2d(channels, affine=True)
