"""Plain convolutional nets between a vector and an image, by doubling and halving from 4×4."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import nn

from genbench.core.errors import UserError

Norm = Literal["batch", "layer", "none"]


def stages(size: int, smallest: int = 16, largest: int = 256) -> int:
    """How many doublings lead from 4×4 to `size`.

    Raises:
        UserError: `size` is not a power of two in the range.
    """
    if size & (size - 1) or not smallest <= size <= largest:
        sizes = ", ".join(str(2**k) for k in range(smallest.bit_length() - 1, largest.bit_length()))
        raise UserError(f"These networks make images of {sizes} pixels a side; the data has {size}. Set `--data.size`.")
    return size.bit_length() - 3


def widths(size: int, width: int) -> list[int]:
    """Channels from the image inwards: `width` next to the image, doubled at each halving, at most 8 times."""
    return [width * min(2**k, 8) for k in range(stages(size))]


def up_net(latent_dim: int, channels: int, size: int, width: int, output: nn.Module | None = None) -> nn.Sequential:
    """z [B, latent_dim] -> [B, channels, size, size] by transposed convolutions (Radford et al. 2016, figure 1)."""
    inner = widths(size, width)[::-1]  # from 4x4 outwards
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

    No normalization next to the image. A critic under a gradient penalty has none between the images of a batch, so
    `layer` or `none` (Gulrajani et al. 2017, section 4).
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
    """[B, channels, size, size] -> [B, outputs]: `down_body`, and a convolution over the 4×4 that is left."""
    body = down_body(channels, size, width, norm)
    return nn.Sequential(*body, nn.Conv2d(widths(size, width)[-1], outputs, 4), nn.Flatten())


def _norm(norm: Norm, channels: int) -> list[nn.Module]:
    if norm == "none":
        return []
    return [nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)]


def dcgan_init(net: nn.Module) -> None:
    """Weights from N(0, 0.02²) (Radford et al. 2016, section 4); batch norm's scales around 1 with the same spread."""
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, (nn.BatchNorm2d, nn.InstanceNorm2d)) and layer.affine:
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
