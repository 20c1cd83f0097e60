"""Images of any size through a network that wants sides of a certain multiple, whole or tile by tile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from genbench.core.errors import UserError

Make = Callable[[Tensor], Tensor]  # [B, C, H, W] -> [B, C', H, W]

SMALLEST = 16  # pixels: networks mirror their edges, which takes a few
SHARE = 8  # of a tile's side its neighbors have one in so many too


def in_tiles(make: Make, x: Tensor, stride: int = 1, tile: int = 1024) -> Tensor:
    """[B, C, H, W] of any size -> [B, C', H, W], by tiles of about `tile` pixels a side where it is larger.

    Sides are filled up to a multiple of `stride` by mirroring, and cut back. Tiles overlap by an eighth, over which one
    fades into the next. Where the memory does not hold a tile, smaller ones are tried. What a network takes from the
    whole image, as the means of its normalization or noise, it takes from each tile: tiles are not quite the whole.

    Raises:
        UserError: the memory holds not even a small one.
    """
    while True:
        try:
            return _in_tiles(make, x, stride, tile)
        except RuntimeError as error:  # a CPU's is a plain one
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            tile = min(tile, max(x.shape[2:])) // 2
            if tile < max(stride, 4 * SMALLEST):
                raise UserError(
                    f"The memory does not hold {2 * tile}×{2 * tile} pixels on their way through this model. Use "
                    "another `--device`."
                ) from error


def _in_tiles(make: Make, x: Tensor, stride: int, tile: int) -> Tensor:
    height, width = x.shape[2:]
    if max(height, width) <= tile:
        return _filled(make, x, stride)
    side = max(tile // stride, 1) * stride
    overlap = max(side // SHARE, 1)
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
    """Where tiles begin: at multiples of the stride, as the same pixels moved by less are another input to a network;
    of one stride alone a tile could not overlap with the next."""
    if length <= side:
        return [0]
    grid = stride if side > stride else 1
    step = max((side - overlap) // grid, 1) * grid
    count, last = -(-(length - side) // step) + 1, -(-(length - side) // grid)
    return [round(k * last / (count - 1)) * grid for k in range(count)]


def _fade(length: int, overlap: int) -> Tensor:
    """[length]: 1, falling to almost nothing over the overlap at both ends."""
    place = torch.arange(length, dtype=torch.float32) + 0.5
    return (torch.minimum(place, length - place) / overlap).clamp(max=1)
