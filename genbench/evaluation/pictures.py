"""What an evaluation saw, for people to look at: a few of the images that pass by anyway."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from genbench.core import ranks
from genbench.core.files import replacing
from genbench.metrics.neighbours import squared_distances

GAP = 2  # pixels between two images
POINTS = 2000  # in a plot: a mode that is never hit shows
COLUMNS = {"samples": 8, "neighbours": 6, "reconstructions": 8, "translations": 6, "translations_a": 6, "masks": 6}
# of a mask's classes in turn, the first of which is mostly the background
MASK_COLOURS = (
    (0, 0, 0),
    (230, 75, 60),
    (60, 150, 230),
    (90, 200, 100),
    (245, 195, 50),
    (165, 95, 215),
    (240, 240, 240),
)


class Pictures:
    """Fills while `evaluate` runs that it was given to, in every process; the model does nothing for it twice.

    samples          of the protocol's first seeds: under one protocol the same noise for all models
    neighbours       the first samples, each followed by the training images nearest to it in the extractor's features
    reconstructions  reference images, each followed by its reconstruction
    translations     what a model was shown, what it made of it in domain B, and the true image; where none is known,
                     what it made of that again. Likewise translations_a, in domain A
    masks            an image, the classes that a model found in it, and the true ones

    Points become plots: many more samples, before real points; reconstructions before what they are of.

    Args:
        samples: How many are kept
        searched: How many of these are shown beside their neighbours
        reconstructions: How many images are kept with theirs
    """

    def __init__(self, samples: int = 64, searched: int = 8, reconstructions: int = 32) -> None:
        self.samples, self.searched, self.reconstructions = samples, searched, reconstructions
        self._kept: dict[str, dict[int, Tensor]] = {}
        self.real: Tensor | None = None  # points [N, D] to stand behind samples

    def shown(self, shape: Sequence[int]) -> int:
        """How many samples of that shape are kept."""
        return POINTS if self.samples and len(shape) == 1 else self.samples

    def keep(self, name: str, rows: Tensor, images: Tensor, wanted: Tensor) -> None:
        """Of images [B, ..., C, H, W] or points [B, ..., D] the wanted rows, each once: padding repeats a row."""
        here = torch.isin(rows, wanted)
        self._kept.setdefault(name, {}).update(zip(rows[here].tolist(), images[here].cpu(), strict=True))

    def gather(self, name: str) -> None:
        """What any process has kept, in all of them, by row."""
        parts = ranks.gather(list(self._kept.get(name, {}).items()))
        self._kept[name] = dict(sorted(dict(parts).items()))

    @property
    def found(self) -> dict[str, Tensor]:
        """uint8 [n, C, H, W] by name, row by row of a sheet, or points [n, D]."""
        kept = {name: torch.stack(list(images.values())) for name, images in self._kept.items() if images}
        return {name: x.reshape(-1, *x.shape[-1 if x.is_floating_point() else -3 :]) for name, x in kept.items()}

    def rows(self, name: str) -> list[int]:
        """Which of their set they are."""
        return list(self._kept.get(name, {}))

    def write(self, folder: Path) -> None:
        """`<folder>/<name>.png`, each a sheet at the images' own size that says how to cut it into rows."""
        for name, images in self.found.items():
            about = PngInfo()
            if images.ndim == 2:
                pairs = name == "reconstructions"
                picture = scatter(images[1::2], images[::2]) if pairs else scatter(images, self.real)
            else:
                picture, rows = sheet(images, COLUMNS[name])
                about.add_text("rows", str(rows))
                about.add_text("gap", str(GAP))
            with replacing(folder / f"{name}.png") as file:
                picture.save(file, "PNG", pnginfo=about)


def beside(columns: Sequence[Tensor]) -> Tensor:
    """Images or points of the same rows as one tensor [B, columns, ...], grey ones as colours beside colours."""
    if columns[0].ndim == 4:
        channels = max(x.shape[1] for x in columns)
        columns = [x.expand(-1, channels, -1, -1) for x in columns]
    return torch.stack([x.cpu() for x in columns], 1)


def painted(mask: Tensor) -> Tensor:
    """Classes [B, H, W] -> uint8 [B, 3, H, W], a colour for each."""
    colours = torch.tensor(MASK_COLOURS, dtype=torch.uint8, device=mask.device)
    return colours[mask.long() % len(colours)].permute(0, 3, 1, 2)


def sheet(images: Tensor, columns: int) -> tuple[Image.Image, int]:
    """uint8 [n, C, H, W] -> images on dark grey, row by row, and how many rows they are."""
    n, channels, height, width = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    paper = torch.full((channels, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP), 40, dtype=torch.uint8)
    for k, image in enumerate(images):
        top, left = GAP + k // columns * (height + GAP), GAP + k % columns * (width + GAP)
        paper[:, top : top + height, left : left + width] = image
    array = paper.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if channels == 1 else array), rows


def scatter(points: Tensor, real: Tensor | None = None, side: int = 480) -> Image.Image:
    """The first two coordinates of points [N, D], before those of real ones [M, D], on a square of `side` pixels.

    Always of -1.5 to 1.5, so that plots can be compared; how many points lie outside is written below.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
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
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3].copy())


def nearest(x: Tensor, y: Tensor, k: int, block: int = 1024) -> Tensor:
    """Rows of y [M, D] nearest to each of x [N, D], the nearest first -> [N, k]."""
    distances = torch.cat([squared_distances(x, part) for part in y.split(block)], 1)
    return distances.topk(min(k, len(y)), largest=False).indices
