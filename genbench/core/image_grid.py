"""Draws images and points as one image: grids, plots of points, masks in color."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genbench.core.batch import to_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAP = 2  # pixels between two images
POINTS = 2000  # points in a plot: enough to see a missing mode
# colors of the classes of a mask, repeated if there are more classes; the first class is usually the background
MASK_COLORS = (
    (0, 0, 0),
    (230, 75, 60),
    (60, 150, 230),
    (90, 200, 100),
    (245, 195, 50),
    (165, 95, 215),
    (240, 240, 240),
)


def arranged(images: Tensor, columns: int, gap: int = GAP) -> Image.Image:
    """uint8 [N, C, H, W] -> one grid, row by row on dark gray."""
    n, channels, height, width = images.shape
    rows = math.ceil(n / columns)
    paper = torch.full((channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 40, dtype=torch.uint8)
    for k, image in enumerate(images):
        top, left = gap + k // columns * (height + gap), gap + k % columns * (width + gap)
        paper[:, top : top + height, left : left + width] = image
    array = paper.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if channels == 1 else array)


def grid(images: Tensor, columns: int | None = None, gap: int = GAP) -> Image.Image:
    """[N, C, H, W] in [-1, 1] -> one grid, row by row on dark gray. By default the grid is square."""
    return arranged(to_uint8(images).cpu(), columns or math.ceil(math.sqrt(len(images))), gap)


def picture(samples: Tensor, real: Tensor | None = None, columns: int | None = None) -> Image.Image:
    """A grid of images [N, C, H, W], or a plot of points [N, D] in front of real points."""
    return scatter(samples.detach(), real) if samples.ndim == 2 else grid(samples, columns)


def enlarged(picture: Image.Image, side: int = 700) -> Image.Image:
    """A small image, enlarged by an integer factor to about `side` pixels."""
    factor = max(1, round(side / max(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def titled(picture: Image.Image, columns: Sequence[str] = (), rows: Sequence[str] = ()) -> Image.Image:
    """A grid with a title above each of its columns and to the left of each of its rows, black on white.

    Fewer titles than columns are centered above equal parts of the width. Titles are smaller if there is little space.
    """
    from PIL import ImageDraw, ImageFont

    def wide(text: str, size: int) -> int:
        return math.ceil(ImageFont.load_default(size).getlength(text))

    each_wide, each_high = picture.width // max(1, len(columns)), picture.height // max(1, len(rows))
    size = next((s for s in range(16, 8, -1) if s <= each_high and all(wide(t, s) <= each_wide for t in columns)), 8)
    top = 2 * size if columns else 0
    left = max(wide(text, size) for text in rows) + size if rows else 0
    sheet = Image.new("RGB", (left + picture.width, top + picture.height), "white")
    sheet.paste(picture, (left, top))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    for k, text in enumerate(columns):
        draw.text((left + (k + 0.5) * picture.width / len(columns), top / 2), text, "black", font, anchor="mm")
    for k, text in enumerate(rows):
        draw.text((left / 2, top + (k + 0.5) * picture.height / len(rows)), text, "black", font, anchor="mm")
    return sheet


def beside(columns: Sequence[Tensor]) -> Tensor:
    """Stack images or points into one tensor [B, columns, ...]. Gray images become RGB if others are RGB."""
    if columns[0].ndim == 4:
        channels = max(x.shape[1] for x in columns)
        columns = [x.expand(-1, channels, -1, -1) for x in columns]
    return torch.stack([x.cpu() for x in columns], 1)


def painted(mask: Tensor) -> Tensor:
    """Classes [B, H, W] -> uint8 [B, 3, H, W], one color per class."""
    colors = torch.tensor(MASK_COLORS, dtype=torch.uint8, device=mask.device)
    return colors[mask.long() % len(colors)].permute(0, 3, 1, 2)


def scatter(points: Tensor, real: Tensor | None = None, side: int = 480) -> Image.Image:
    """Plot the first two coordinates of points [N, D] in front of real points [M, D], on `side` × `side` pixels.

    The axes are always -1.5 to 1.5, so that plots can be compared. The plot shows the number of points outside.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side / 100, side / 100), dpi=100)
    axes = figure.add_axes((0.08, 0.07, 0.9, 0.9), aspect="equal", xlim=(-1.5, 1.5), ylim=(-1.5, 1.5))
    axes.tick_params(labelsize=7)
    axes.grid(color="0.93", linewidth=0.5)
    axes.set_axisbelow(True)
    styles: tuple[dict[str, Any], ...] = ({"c": "0.75", "s": 6}, {"c": "tab:blue", "s": 3, "alpha": 0.5})
    for which, style in zip((real, points), styles, strict=True):
        if which is not None:
            x, y = (which[:, k].float().cpu() if k < which.shape[1] else torch.zeros(len(which)) for k in (0, 1))
            axes.scatter(x, y, linewidths=0, **style)
    if outside := int((points[:, :2].abs() > 1.5).any(1).sum()):
        axes.text(-1.45, -1.45, f"{outside:,} of {len(points):,} outside", fontsize=8, color="tab:red")
    return rendered(figure)


def rendered(figure: Figure) -> Image.Image:
    """A figure of matplotlib as an RGB image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a name in, for example, Japanese
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3].copy())
