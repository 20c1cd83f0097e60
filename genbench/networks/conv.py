"""The convolutional networks of DCGAN, which map vectors to images and images to vectors, via 4×4 feature maps."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import nn

from genbench.core.errors import UserError

Norm = Literal["batch", "layer", "none"]


SIZES = (16, 32, 64, 128, 256)


def widths(size: int, width: int) -> list[int]:
    """Channels of the layers, starting at the image: `width`, doubled at each downsampling, up to 8 · width.

    Raises:
        UserError: `size` is not among `SIZES`.
    """
    if size not in SIZES:
        sizes = ", ".join(map(str, SIZES))
        raise UserError(
            f"This network needs images of {sizes} pixels per side, but the data has {size}. Set `--data.size`."
        )
    return [width * min(2**k, 8) for k in range(SIZES.index(size) + 2)]


def up_net(latent_dim: int, channels: int, size: int, width: int, output: nn.Module | None = None) -> nn.Sequential:
    """z [B, latent_dim] -> [B, channels, size, size] by transposed convolutions (Radford et al. 2016, figure 1)."""
    inner = widths(size, width)[::-1]  # starting at 4x4
    layers: list[nn.Module] = [
        nn.Unflatten(1, (latent_dim, 1, 1)),
        nn.ConvTranspose2d(latent_dim, inner[0], 4, bias=False),  # [B, inner, 4, 4]
        nn.BatchNorm2d(inner[0]),
        nn.ReLU(inplace=True),
    ]
    for wide, narrow in pairwise(inner):
        layers += [
            nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(inplace=True),
        ]
    layers.append(nn.ConvTranspose2d(inner[-1], channels, 4, stride=2, padding=1))
    if output is not None:
        layers.append(output)
    return nn.Sequential(*layers)


def down_body(channels: int, size: int, width: int, norm: Norm = "batch") -> nn.Sequential:
    """[B, channels, size, size] -> [B, widths(size, width)[-1], 4, 4] by strided convolutions.

    The first layer has no normalization. A gradient penalty needs `layer` or `none`, which do not mix the images of a
    batch (Gulrajani et al. 2017, section 4).
    """
    inner = widths(size, width)
    layers: list[nn.Module] = [
        nn.Conv2d(channels, inner[0], 4, stride=2, padding=1),
        nn.LeakyReLU(0.2, inplace=True),  # slope of Radford et al. 2016, section 4
    ]
    for narrow, wide in pairwise(inner):
        layers += [
            nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=norm == "none"),
            *_norm(norm, wide),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    return nn.Sequential(*layers)


def down_net(channels: int, size: int, width: int, outputs: int, norm: Norm = "batch") -> nn.Sequential:
    """[B, channels, size, size] -> [B, outputs]: `down_body` and a 4×4 convolution."""
    body = down_body(channels, size, width, norm)
    return nn.Sequential(*body, nn.Conv2d(widths(size, width)[-1], outputs, 4), nn.Flatten())


def _norm(norm: Norm, channels: int) -> list[nn.Module]:
    if norm == "none":
        return []
    return [nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)]


def dcgan_init(net: nn.Module) -> None:
    """Initialize weights from N(0, 0.02²) (Radford et al. 2016, section 4), and scales of batch norm from N(1,
    0.02²)."""
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, (nn.BatchNorm2d, nn.InstanceNorm2d)) and layer.affine:
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
