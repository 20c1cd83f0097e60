"""Example images of an evaluation, for people to look at. They are collected from images that the scores need
anyway."""

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
    """Collects example images while `evaluate` runs, in every process. The model generates no extra images for it.

    samples          samples of the protocol's first seeds, so all models use the same noise under the same protocol
    neighbors        the first samples, each followed by its nearest training images in the extractor's feature space
    reconstructions  reference images, each followed by its reconstruction
    translations     an image of domain A, its translation to domain B, and the true image, or without pairs the
                     translation back to A. translations_a are the same for translations from B to A
    masks            an image, the predicted mask and the true mask

    Points are plotted: many samples in front of real points, and reconstructions in front of their originals.

    Args:
        samples: Number of samples to store
        searched: Number of samples that are shown next to their nearest training images
        reconstructions: Number of images that are stored with their reconstruction, translation or mask
    """

    def __init__(self, samples: int = 64, searched: int = 8, reconstructions: int = 32) -> None:
        self.samples, self.searched, self.reconstructions = samples, searched, reconstructions
        self._kept: dict[str, dict[int, Tensor]] = {}
        self.real: Tensor | None = None  # points [N, D] that are plotted behind the samples

    def shown(self, shape: Sequence[int]) -> int:
        """Number of samples of this shape that are stored."""
        return POINTS if self.samples and len(shape) == 1 else self.samples

    def keep(self, name: str, rows: Tensor, images: Tensor, wanted: Tensor) -> None:
        """Store the `wanted` rows of images [B, ..., C, H, W] or points [B, ..., D]. Rows repeated by padding are
        stored once."""
        here = torch.isin(rows, wanted)
        self._kept.setdefault(name, {}).update(zip(rows[here].tolist(), images[here].cpu(), strict=True))

    def gather(self, name: str) -> None:
        """Collect the stored images of all processes in every process, sorted by row."""
        parts = ranks.gather(list(self._kept.get(name, {}).items()))
        self._kept[name] = dict(sorted(dict(parts).items()))

    @property
    def found(self) -> dict[str, Tensor]:
        """Name -> images uint8 [n, C, H, W] in the order of the sheet, or points [n, D]."""
        kept = {name: torch.stack(list(images.values())) for name, images in self._kept.items() if images}
        return {name: x.reshape(-1, *x.shape[-1 if x.is_floating_point() else -3 :]) for name, x in kept.items()}

    def rows(self, name: str) -> list[int]:
        """The row numbers of the stored images."""
        return list(self._kept.get(name, {}))

    def write(self, folder: Path) -> None:
        """Write `<folder>/<name>.png`: sheets at the original size of the images, with their layout in the PNG
        metadata."""
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
    """uint8 [N, C, H, W] -> a sheet of the images on dark gray, row by row, and its number of rows."""
    columns = min(columns, len(images))
    return arranged(images, columns), math.ceil(len(images) / columns)


def nearest(x: Tensor, y: Tensor, k: int, block: int = 1024) -> Tensor:
    """For each row of x [N, D], the k nearest rows of y [M, D], nearest first -> [N, k]."""
    distances = torch.cat([squared_distances(x, part) for part in y.split(block)], 1)
    return distances.topk(min(k, len(y)), largest=False).indices
