"""Applies a network that needs sides divisible by a stride to images of any size, whole or in tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from genbench.core.errors import UserError, no_memory

Make = Callable[[Tensor], Tensor]  # [B, C, H, W] -> [B, C', H, W]

SMALLEST = 16  # smallest padded side in pixels: reflection padding needs a few pixels
OVERLAP = 8  # a tile overlaps its neighbors by 1/8 of its side


def in_tiles(make: Make, x: Tensor, stride: int = 1, tile: int = 1024) -> Tensor:
    """[B, C, H, W] of any size -> [B, C', H, W]. Images larger than `tile` × `tile` are processed in tiles.

    Sides are padded by reflection to a multiple of `stride`, and the padding is cropped afterwards. Tiles overlap by an
    eighth of their side and are blended there. If a tile does not fit in memory, smaller tiles are tried. If a network
    computes statistics of the whole image, for example to normalize, it computes them of each tile, so the result
    differs slightly.

    Raises:
        UserError: not even a small tile fits in memory.
    """
    while True:
        try:
            return _in_tiles(make, x, stride, tile)
        except RuntimeError as error:
            if not no_memory(error):
                raise
            tile = min(tile, max(x.shape[2:])) // 2
            if tile < max(stride, 4 * SMALLEST):
                raise UserError(
                    f"{2 * tile}×{2 * tile} pixels do not fit in memory with this model. Use a different `--device`."
                ) from error


def _in_tiles(make: Make, x: Tensor, stride: int, tile: int) -> Tensor:
    height, width = x.shape[2:]
    if max(height, width) <= tile:
        return _filled(make, x, stride)
    side = max(tile // stride, 1) * stride
    overlap = max(side // OVERLAP, 1)
    total: Tensor | None = None
    weight = x.new_zeros(height, width)
    for top in _starts(height, side, overlap, stride):
        for left in _starts(width, side, overlap, stride):
            part = x[:, :, top : top + side, left : left + side]
            made = _filled(make, part, stride)
            if total is None:
                total = made.new_zeros(*made.shape[:2], height, width)
            fade = torch.outer(_fade(part.shape[2], overlap), _fade(part.shape[3], overlap)).to(made)
            total[:, :, top : top + side, left : left + side] += made * fade
            weight[top : top + side, left : left + side] += fade
    assert total is not None, "an image has at least one tile"
    return total / weight


def _filled(make: Make, x: Tensor, stride: int) -> Tensor:
    height, width = x.shape[2:]
    down, right = (-(-max(side, SMALLEST) // stride) * stride - side for side in (height, width))
    if down or right:
        x = pad(x, (0, right, 0, down), mode="reflect" if down < height and right < width else "replicate")
    return make(x)[:, :, :height, :width]


def _starts(length: int, side: int, overlap: int, stride: int) -> list[int]:
    """Positions at which tiles start.

    They are multiples of the stride, since the output of a network changes if its input is shifted by less. If a tile
    is as small as the stride, they are any positions, so that tiles overlap.
    """
    if length <= side:
        return [0]
    grid = stride if side > stride else 1
    step = max((side - overlap) // grid, 1) * grid
    count, last = -(-(length - side) // step) + 1, -(-(length - side) // grid)
    return [round(k * last / (count - 1)) * grid for k in range(count)]


def _fade(length: int, overlap: int) -> Tensor:
    """Blending weights [length]: 1 in the middle, falling to almost 0 over the overlap at both ends."""
    place = torch.arange(length, dtype=torch.float32) + 0.5
    return (torch.minimum(place, length - place) / overlap).clamp(max=1)
