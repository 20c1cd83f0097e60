"""What an evaluation saw, for people to look at: a few of the images that pass by anyway."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from genbench.core import ranks
from genbench.core.files import replacing
from genbench.core.image_grid import GAP, POINTS, arranged, scatter
from genbench.metrics.neighbors import squared_distances

COLUMNS = {"samples": 8, "neighbors": 6, "reconstructions": 8, "translations": 6, "translations_a": 6, "masks": 6}


class Gallery:
    """Fills while `evaluate` runs that it was given to, in every process; the model does nothing for it twice.

    samples          of the protocol's first seeds: under one protocol the same noise for all models
    neighbors       the first samples, each followed by the training images nearest to it in the extractor's features
    reconstructions  reference images, each followed by its reconstruction
    translations     what a model was shown, what it made of it in domain B, and the true image; where none is known,
                     what it made of that again. Likewise translations_a, in domain A
    masks            an image, the classes that a model found in it, and the true ones

    Points become plots: many more samples, before real points; reconstructions before what they are of.

    Args:
        samples: How many are kept
        searched: How many of these are shown beside their neighbors
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


def sheet(images: Tensor, columns: int) -> tuple[Image.Image, int]:
    """uint8 [N, C, H, W] -> images on dark gray, row by row, and how many rows they are."""
    columns = min(columns, len(images))
    return arranged(images, columns), math.ceil(len(images) / columns)


def nearest(x: Tensor, y: Tensor, k: int, block: int = 1024) -> Tensor:
    """Rows of y [M, D] nearest to each of x [N, D], the nearest first -> [N, k]."""
    distances = torch.cat([squared_distances(x, part) for part in y.split(block)], 1)
    return distances.topk(min(k, len(y)), largest=False).indices
