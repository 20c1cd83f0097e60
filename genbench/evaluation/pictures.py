"""What an evaluation saw, for people to look at: a few of the images that pass by anyway."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from genbench.core import ranks
from genbench.core.files import replacing
from genbench.metrics.neighbours import squared_distances

GAP = 2  # pixels between two images
COLUMNS = {"samples": 8, "neighbours": 6, "reconstructions": 8}


class Pictures:
    """Fills while `evaluate` runs that it was given to, in every process; the model does nothing for it twice.

    samples          of the protocol's first seeds: under one protocol the same noise for all models
    neighbours       the first samples, each followed by the training images nearest to it in the extractor's features
    reconstructions  reference images, each followed by its reconstruction

    Args:
        samples: How many are kept
        searched: How many of these are shown beside their neighbours
        reconstructions: How many images are kept with theirs
    """

    def __init__(self, samples: int = 64, searched: int = 8, reconstructions: int = 32) -> None:
        self.samples, self.searched, self.reconstructions = samples, searched, reconstructions
        self._kept: dict[str, dict[int, Tensor]] = {}

    def keep(self, name: str, rows: Tensor, images: Tensor, wanted: Tensor) -> None:
        """Of images [B, ..., C, H, W] those whose rows are wanted, each once: padding repeats a row."""
        here = torch.isin(rows, wanted)
        self._kept.setdefault(name, {}).update(zip(rows[here].tolist(), images[here].cpu(), strict=True))

    def gather(self, name: str) -> None:
        """What any process has kept, in all of them, by row."""
        parts = ranks.gather(list(self._kept.get(name, {}).items()))
        self._kept[name] = dict(sorted(dict(parts).items()))

    @property
    def found(self) -> dict[str, Tensor]:
        """uint8 [n, C, H, W] by name, row by row of a sheet."""
        kept = {name: torch.stack(list(images.values())) for name, images in self._kept.items() if images}
        return {name: images.reshape(-1, *images.shape[-3:]) for name, images in kept.items()}

    def rows(self, name: str) -> list[int]:
        """Which of their set they are."""
        return list(self._kept.get(name, {}))

    def write(self, folder: Path) -> None:
        """`<folder>/<name>.png`, each a sheet at the images' own size that says how to cut it into rows."""
        for name, images in self.found.items():
            picture, rows = sheet(images, COLUMNS[name])
            about = PngInfo()
            about.add_text("rows", str(rows))
            about.add_text("gap", str(GAP))
            with replacing(folder / f"{name}.png") as file:
                picture.save(file, "PNG", pnginfo=about)


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


def nearest(x: Tensor, y: Tensor, k: int, block: int = 1024) -> Tensor:
    """Rows of y [M, D] nearest to each of x [N, D], the nearest first -> [N, k]."""
    distances = torch.cat([squared_distances(x, part) for part in y.split(block)], 1)
    return distances.topk(min(k, len(y)), largest=False).indices
