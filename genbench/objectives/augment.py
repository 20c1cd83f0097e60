"""Differentiable augmentations of a discriminator's inputs: Zhao et al. 2020, "Differentiable Augmentation for
Data-Efficient GAN Training", https://arxiv.org/abs/2006.10738, with the strengths of its appendix. `affine` was added
for classes that do not change under small rotations.

All augmentations map [B, C, H, W] to the same shape and are differentiable. `draw(torch.rand, B, *shape)` is the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from genbench.core.errors import UserError

Draw = Callable[..., Tensor]


def color(x: Tensor, draw: Draw) -> Tensor:
    """Add up to ±0.5 to the brightness, multiply the saturation by 0 to 2 and the contrast by 0.5 to 1.5, all
    uniform."""
    brightness, saturation, contrast = draw(torch.rand, len(x), 3).to(x.dtype).view(-1, 3, 1, 1, 1).unbind(1)
    x = x + (brightness - 0.5)
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * (2 * saturation)
    middle = x.mean((1, 2, 3), keepdim=True)
    return middle + (x - middle) * (contrast + 0.5)


def translation(x: Tensor, draw: Draw, ratio: float = 0.125) -> Tensor:
    """Shift by up to an eighth of each side, with zero padding."""
    height, width = x.shape[-2:]
    down, right = int(height * ratio + 0.5), int(width * ratio + 0.5)
    u, v = draw(torch.rand, len(x), 2).unbind(1)
    top, left = (u * (2 * down + 1)).long(), (v * (2 * right + 1)).long()  # corner of the window in the padded image
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = left[:, None] + torch.arange(width, device=x.device)
    padded = pad(x, (right, right, down, down))
    index = torch.arange(len(x), device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(x: Tensor, draw: Draw, ratio: float = 0.5) -> Tensor:
    """Set a square of half the image's side to zero. Its center is uniformly distributed over the image."""
    height, width = x.shape[-2:]
    u, v = draw(torch.rand, len(x), 2).to(x.device).unbind(1)
    mask = _outside(u, height, ratio)[:, None, :, None] | _outside(v, width, ratio)[:, None, None, :]
    return x * mask.to(x.dtype)


def _outside(center: Tensor, side: int, ratio: float) -> Tensor:
    """Relative centers [B] in [0, 1) -> bool [B, side]: True for rows outside of the band around the center."""
    place = torch.arange(side, device=center.device)
    band = int(side * ratio + 0.5)
    first = (center * (side + 1 - band % 2)).long()[:, None] - band // 2
    return (place < first) | (place >= first + band)


def affine(x: Tensor, draw: Draw) -> Tensor:
    """Rotate by up to 22.5°, scale by e^±0.15, shear by up to 0.15 and shift by up to a fourteenth of the side, with
    bilinear interpolation and a repeated border."""
    angle, scale, shear, right, down = (2 * draw(torch.rand, len(x), 5).to(x.dtype) - 1).unbind(1)
    angle, scale, shear = math.pi / 8 * angle, (0.15 * scale).exp(), 0.15 * shear
    cos, sin = scale * angle.cos(), scale * angle.sin()
    # source coordinates of each pixel of the result; the image spans -1 to 1
    rows = ((cos, shear * cos - sin, right / 7), (sin, shear * sin + cos, down / 7))
    grid = affine_grid(torch.stack([torch.stack(row, 1) for row in rows], 1), list(x.shape), align_corners=False)
    return grid_sample(x, grid, padding_mode="border", align_corners=False)


AUGMENTATIONS = {"color": color, "translation": translation, "cutout": cutout, "affine": affine}


def augmentations(names: Sequence[str], argument: str) -> list[Callable[[Tensor, Draw], Tensor]]:
    """The augmentation functions with these names. The UserError for an unknown name contains `argument`."""
    if isinstance(names, str) or set(names) - set(AUGMENTATIONS):
        raise UserError(f"{argument} is {names}; it must be a list of any of {', '.join(AUGMENTATIONS)}.")
    return [AUGMENTATIONS[name] for name in names]


def augmented(x: Tensor, changes: Sequence[Callable[[Tensor, Draw], Tensor]], draw: Draw) -> Tensor:
    """Apply augmentations to images [B, C, H, W] in turn. Raises UserError for points [B, D]."""
    if changes and x.ndim != 4:
        raise UserError(
            "Augmentations (`adversarial.augment`, `model.transforms`) need images, but the data has points. Remove "
            "the augmentations."
        )
    for change in changes:
        x = change(x, draw)
    return x
