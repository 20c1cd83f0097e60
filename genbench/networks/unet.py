"""The U-Net: Ronneberger, Fischer & Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI
2015, https://arxiv.org/abs/1505.04597, figure 1. Unlike in the paper, convolutions are padded, so that outputs are as
large as inputs, and batch normalization is used."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from genbench.core.batch import DataSpec
from genbench.core.errors import UserError


class UNet(nn.Module):
    """[B, inputs, H, W] -> [B, outputs, H, W], where H and W are multiples of `stride`.

    Args:
        inputs, outputs: Channels of the input and the output
        width: Channels at full resolution; doubled at each downsampling, up to 8 times
        depth: Number of downsampling layers
        skips: Use skip connections from encoder to decoder at each resolution; without them it is an autoencoder
    """

    def __init__(self, inputs: int, outputs: int, width: int = 32, depth: int = 4, skips: bool = True) -> None:
        super().__init__()
        widths = [width * min(2**k, 8) for k in range(depth + 1)]
        self.stride, self.skips = 2**depth, skips
        self.first = _double(inputs, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), _double(narrow, wide)) for narrow, wide in pairwise(widths)
        )
        inwards = list(pairwise(widths))[::-1]  # starting at the smallest resolution
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, stride=2) for narrow, wide in inwards)
        self.merge = nn.ModuleList(_double(2 * narrow if skips else narrow, narrow) for narrow, _ in inwards)
        self.last = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        seen = [h]
        for down in self.down:
            h = down(h)
            seen.append(h)
        for up, merge, skip in zip(self.up, self.merge, seen[-2::-1], strict=True):
            h = up(h)
            h = merge(torch.cat([skip, h], 1) if self.skips else h)
        return self.last(h)


def _double(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers)


def refuse_stride(size: int, stride: int, name: str, instead: str = ", or a smaller `--model.depth`") -> None:
    """Raise UserError if `size` is not a multiple of `stride`."""
    if size % stride:
        raise UserError(
            f"{name} needs images whose sides are multiples of {stride}, but the data has {size} pixels per side. Set "
            f"`--data.size`{instead}."
        )


def refuse_single(spec: DataSpec, name: str) -> None:
    """Raise UserError if the data has no pairs of images."""
    if spec.target != "image":
        raise UserError(
            f"{name} needs pairs of images, but this data has none. Choose a task, such as `--data.task colorize`, or "
            "paired data, such as `--data PairedFolder --data.path FOLDER`."
        )
