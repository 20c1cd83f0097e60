"""The images of one split, read and brought to size batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genbench.core.batch import Batch, from_uint8, to_uint8
from genbench.core.noise import mix, per_seed
from genbench.data import ranges, tasks
from genbench.data.image_files import Fit, StoredImages
from genbench.data.tasks import Task

# pictures that one thread decodes at a time
CHUNK = 128


@dataclass
class Split:
    """The pictures of one split as the data set keeps them, and what is known of each.

    length    number of pictures, N
    pictures  pictures(rows: int64 [B]) -> an array [B, H, W] or [B, H, W, C] of any integer or floating-point type,
              as it is stored; or PIL images (L or RGB) or arrays [H, W] or [H, W, C] one by one. C is 1 or 3, or 2 or
              4 where the last is opacity. Where there are masks, a pair of these and of masks uint8 [B, H, W] at the
              wanted size. What becomes black and white is decided by the data set's range
    names     what each picture is called in an error, as what `str` makes of it
    label     int64 [N], if it has classes
    caption   int64 [N, L] tokens, if it has captions
    factors   float32 [N, F], if it was drawn from known factors
    source    the pictures that these are made from, row by row, if it has pairs
    other     the pictures of another domain, in no relation to these, if it has two
    group     int64 [N], pictures that are held out together, if some are: the frames of a film
    """

    length: int
    pictures: Callable[[np.ndarray], StoredImages | tuple[StoredImages, np.ndarray]]
    names: Sequence[object] | None = None
    label: Tensor | None = None
    caption: Tensor | None = None
    factors: Tensor | None = None
    source: Split | None = None
    other: Split | None = None
    group: Tensor | None = None

    def targets(self, rows: Tensor) -> dict[str, Tensor]:
        found = {"label": self.label, "caption": self.caption, "factors": self.factors}
        return {name: values[rows] for name, values in found.items() if values is not None}

    def name(self, row: int) -> str:
        return str(self.names[row]) if self.names is not None else f"Picture {row}"

    def look(self, rows: np.ndarray) -> list[ranges.Seen]:
        """Types and extreme values of some pictures, as they are stored."""
        pictures, _ = _with_masks(self.pictures(rows))
        return list(ranges.look(pictures, lambda k: self.name(int(rows[k]))))


class Joined:
    """rows -> pictures of several splits one after the other, one by one."""

    def __init__(self, splits: list[Split]) -> None:
        self.splits, self.ends = splits, np.cumsum([split.length for split in splits])

    def __call__(self, rows: np.ndarray) -> Iterator[Image.Image | np.ndarray]:
        for row in rows:
            which = int(np.searchsorted(self.ends, row, "right"))
            split = self.splits[which]
            yield next(iter(split.pictures(np.array([row - self.ends[which] + split.length]))))


class StreamSource:
    """Some rows of a split, decoded when they are asked for: for data that does not fit in memory.

    binarize  draw each pixel of a picture black or white, once for ever; the name of the split that rows are of
    task      what a model is shown of each picture
    shown     how the pictures of the split's source are fitted, if not as these
    """

    in_memory = False
    device = torch.device("cpu")

    def __init__(
        self,
        split: Split,
        rows: Tensor,
        fit: Fit,
        binarize: str | None = None,
        task: Task = "none",
        shown: Fit | None = None,
    ) -> None:
        self.split, self.rows, self.fit, self.binarize, self.task = split, rows, fit, binarize, task
        self.shown = shown or fit

    def __len__(self) -> int:
        return len(self.rows)

    def target(self, name: str, indices: Tensor) -> Tensor | None:
        if name == "source" and self.task == "none" and self.split.source is None:
            return None
        if name in ("mask", "source"):  # come with the pictures
            which = 1 if name == "mask" else 2
            found = [self.pictures(part)[which] for part in indices.split(CHUNK)]
            return None if found[0] is None else torch.cat(found)
        return self.split.targets(self.rows[indices]).get(name)

    def batch(self, indices: Tensor) -> Batch:
        image, mask, source = self.pictures(indices)
        return Batch(image, mask=mask, source=source, **self.split.targets(self.rows[indices]))

    def pictures(self, indices: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """uint8 images [B, C, H, W], their masks [B, H, W] and what they are made from, without labels."""
        rows = self.rows[indices]
        numbers = rows.numpy()
        image, mask = _fitted(self.split, numbers, self.fit)
        if self.binarize:
            image = np.stack(
                [_binary(picture, self.binarize, int(row)) for picture, row in zip(image, numbers, strict=True)]
            )
        image, source = torch.from_numpy(image), None
        if self.split.source is not None:
            source = torch.from_numpy(_fitted(self.split.source, numbers, self.shown)[0])
        if self.task != "none":
            source = to_uint8(
                tasks.make(self.task, from_uint8(image), lambda draw, *shape: per_seed(draw, rows, shape))
            )
        return image, None if mask is None else torch.from_numpy(mask), source


def _fitted(split: Split, rows: np.ndarray, fit: Fit) -> tuple[np.ndarray, np.ndarray | None]:
    pictures, mask = _with_masks(split.pictures(rows))
    return fit(pictures, lambda k: split.name(int(rows[k]))), mask


def _with_masks(found: StoredImages | tuple[StoredImages, np.ndarray]) -> tuple[StoredImages, np.ndarray | None]:
    return found if isinstance(found, tuple) else (found, None)


def _binary(image: np.ndarray, split: str, row: int) -> np.ndarray:
    """uint8 [...] -> 0 and 255, 255 as often as the level says; a function of the picture and its place in a split."""
    white = np.random.default_rng(mix("binarize", split, row)).random(image.shape, dtype=np.float32) * 255 < image
    return white * np.uint8(255)
