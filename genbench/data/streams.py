"""Splits of a data set, and the sources that decode their images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from genbench.core.batch import Batch, from_uint8, to_uint8
from genbench.core.noise import mix, per_seed
from genbench.data import ranges, tasks
from genbench.data.image_files import Fit, StoredImages
from genbench.data.loader import MemorySource
from genbench.data.tasks import Task

CHUNK = 128  # images that one thread decodes at a time


def in_threads(function: Callable[[Tensor], Any], chunks: Sequence[Tensor], title: str) -> Iterator[Any]:
    """Yield function(chunk) for each chunk, in order. A terminal shows a progress bar after 2 seconds."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(function, chunks)
        try:
            yield from tqdm(found, title, len(chunks), delay=2, leave=False, disable=None)
        finally:  # after an error, or if the caller stops early, the remaining chunks are not computed
            pool.shutdown(cancel_futures=True)


@dataclass
class Split:
    """The images of one split as they are stored, and their targets.

    length    number of images, N
    pictures  pictures(rows: int64 [B]) -> an array [B, H, W] or [B, H, W, C] of any integer or floating-point type; or
              PIL images (L or RGB) or arrays [H, W] or [H, W, C] one by one. C is 1 or 3, or 2 or 4 with opacity as the
              last channel. With masks: a pair of these images and masks uint8 [B, H, W] at the final size. The range of
              the data set maps the stored values to black and white
    names     names of the images for errors: a sequence of objects that `str` converts to names, or a function of the
              row
    label     int64 [N], class labels
    caption   int64 [N, L], tokens
    factors   float32 [N, F], known factors that the images were drawn from
    source    for pairs: the input images of the translation, row by row
    other     for two domains: the unpaired images of the other domain
    group     int64 [N], group of each image. Images of a group, such as the frames of a film, are held out together
    """

    length: int
    pictures: Callable[[np.ndarray], StoredImages | tuple[StoredImages, np.ndarray]]
    names: Sequence[object] | Callable[[int], str] | None = None
    label: Tensor | None = None
    caption: Tensor | None = None
    factors: Tensor | None = None
    source: Split | None = None
    other: Split | None = None
    group: Tensor | None = None

    def targets(self, rows: Tensor) -> dict[str, Tensor]:
        found = {"label": self.label, "caption": self.caption, "factors": self.factors}
        return {name: values[rows] for name, values in found.items() if values is not None}

    def number_within_class(self, rows: Tensor) -> Tensor:
        """How many earlier rows have the label of each row, int64 [B]: labels 3, 5, 3, 3 give 0, 0, 1, 2."""
        labels = self.label[rows]
        order, counts = labels.argsort(stable=True), labels.bincount()
        first = counts.cumsum(0) - counts
        number = torch.empty_like(order)
        number[order] = torch.arange(len(labels)) - first[labels[order]]
        return number

    def name(self, row: int) -> str:
        if self.names is None:
            return f"Image {row}"
        return self.names(row) if callable(self.names) else str(self.names[row])

    def look(self, rows: np.ndarray) -> list[ranges.Seen]:
        """Types and extreme values of some images, as they are stored."""
        pictures, _ = _with_masks(self.pictures(rows))
        return list(ranges.look(pictures, lambda k: self.name(int(rows[k]))))


class Joined:
    """rows -> images, one by one, of several concatenated splits."""

    def __init__(self, splits: list[Split]) -> None:
        self.splits, self.ends = splits, np.cumsum([split.length for split in splits])

    def __call__(self, rows: np.ndarray) -> Iterator[Image.Image | np.ndarray]:
        for row in rows:
            which = int(np.searchsorted(self.ends, row, "right"))
            split = self.splits[which]
            yield next(iter(split.pictures(np.array([row - self.ends[which] + split.length]))))


@dataclass(eq=False)
class StreamSource:
    """Some rows of a split, decoded when they are read: for data that does not fit in memory.

    binarize  name of a split. If set, each pixel is drawn as black or white, seeded with this name and the row
    task      task that makes the source from each image
    source_fit
              `Fit` of the split's sources. Default: `fit`
    """

    split: Split
    rows: Tensor
    fit: Fit
    binarize: str | None = None
    task: Task = "none"
    source_fit: Fit | None = None
    in_memory = False
    device = torch.device("cpu")
    _selected: tuple[Tensor, MemorySource] | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def target(self, name: str, indices: Tensor) -> Tensor | None:
        if name == "source" and self.task == "none" and self.split.source is None:
            return None
        if name in ("mask", "source"):  # read together with the images
            which = 1 if name == "mask" else 2
            found = [self.pictures(part)[which] for part in indices.split(CHUNK)]
            return None if found[0] is None else torch.cat(found)
        return self.split.targets(self.rows[indices]).get(name)

    def batch(self, indices: Tensor) -> Batch:
        image, mask, source = self.pictures(indices)
        return Batch(image, mask=mask, source=source, **self.split.targets(self.rows[indices]))

    def pictures(self, indices: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """uint8 images [B, C, H, W], masks [B, H, W] and sources [B, C2, H, W]; None without masks or sources."""
        rows = self.rows[indices]
        numbers = rows.numpy()
        image, mask = _fitted(self.split, numbers, self.fit)
        if self.binarize:
            image = np.stack(
                [_binary(picture, self.binarize, int(row)) for picture, row in zip(image, numbers, strict=True)]
            )
        image, source = torch.from_numpy(image), None
        if self.split.source is not None:
            source = torch.from_numpy(_fitted(self.split.source, numbers, self.source_fit or self.fit)[0])
        if self.task != "none":
            source = to_uint8(
                tasks.make(self.task, from_uint8(image), lambda draw, *shape: per_seed(draw, rows, shape))
            )
        return image, None if mask is None else torch.from_numpy(mask), source

    def selected(self, indices: Tensor, title: str) -> MemorySource:
        """These images decoded into memory. The last selection is kept, so that it is decoded once for all uses."""
        if self._selected is None or not torch.equal(self._selected[0], indices):
            self._selected = indices, replace(self, rows=self.rows[indices]).decoded(title)
        return self._selected[1]

    def decoded(self, title: str) -> MemorySource:
        """Decode all images into memory."""
        size = self.fit.size
        image = torch.empty(len(self), self.fit.channels, size, size, dtype=torch.uint8)

        def fill(chunk: Tensor) -> tuple[Tensor | None, Tensor | None]:
            part, mask, source = self.pictures(chunk)
            image[chunk[0] : chunk[-1] + 1] = part  # in place: concatenation would take twice the memory
            return mask, source

        others = in_threads(fill, torch.arange(len(self)).split(CHUNK), f"Decoding {title}")
        mask, source = (None if found[0] is None else torch.cat(found) for found in zip(*others, strict=True))
        return MemorySource(Batch(image, mask=mask, source=source, **self.split.targets(self.rows)))


def _fitted(split: Split, rows: np.ndarray, fit: Fit) -> tuple[np.ndarray, np.ndarray | None]:
    pictures, mask = _with_masks(split.pictures(rows))
    return fit(pictures, lambda k: split.name(int(rows[k]))), mask


def _with_masks(found: StoredImages | tuple[StoredImages, np.ndarray]) -> tuple[StoredImages, np.ndarray | None]:
    return found if isinstance(found, tuple) else (found, None)


def _binary(image: np.ndarray, split: str, row: int) -> np.ndarray:
    """Draw each uint8 pixel as 0 or 255: 255 with probability level / 255. The seed is the split and the row."""
    white = np.random.default_rng(mix("binarize", split, row)).random(image.shape, dtype=np.float32) * 255 < image
    return white * np.uint8(255)
