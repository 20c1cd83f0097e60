"""The order of training images: it can be resumed at any image, and is the same on any number of processes.

The training set is read as one endless stream. Epoch e is a permutation seeded with (seed, e), and image p of the run
is element p mod N of epoch p div N. A batch is the next B images of the stream and may span two epochs; rank r reads
the r-th block of the batch. So the position of a loader is one number: how many images the run has seen (the model's
`images_seen`). A loader is built for that position and does not count images itself. A run resumed at image p sees the
same images as an uninterrupted run.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genbench.core.batch import Batch, from_stored
from genbench.core.errors import UserError
from genbench.core.noise import Draws, mix
from genbench.data import tasks
from genbench.data.tasks import Task


class Source(Protocol):
    """One split: `batch(indices)` contains uint8 images [B, C, H, W] and uint8 masks, or float32 points [B, D].

    A source that is `in_memory` also has `nbytes` and `to(device)`.
    """

    @property
    def in_memory(self) -> bool: ...
    @property
    def device(self) -> torch.device: ...
    def __len__(self) -> int: ...
    def batch(self, indices: Tensor) -> Batch: ...
    def target(self, name: str, indices: Tensor) -> Tensor | None:
        """The `label`, `caption`, `mask`, `factors` or `source` of the images; None if the split has no such target."""


@dataclass(eq=False)
class MemorySource:
    """A whole split as tensors, images uint8 [N, C, H, W] or points [N, D], on the training device if it fits there."""

    everything: Batch
    in_memory = True

    @property
    def nbytes(self) -> int:
        return self.everything.image.nbytes + (0 if self.everything.source is None else self.everything.source.nbytes)

    def __len__(self) -> int:
        return len(self.everything)

    @property
    def device(self) -> torch.device:
        return self.everything.image.device

    def to(self, device: torch.device) -> MemorySource:
        return MemorySource(self.everything.to(device))

    def target(self, name: str, indices: Tensor) -> Tensor | None:
        values = getattr(self.everything, name)
        return None if values is None else values[indices.to(self.device)]

    def batch(self, indices: Tensor) -> Batch:
        rows = indices.to(self.device)
        return Batch(
            **{name: _take(tensor, rows) for name, tensor in vars(self.everything).items() if tensor is not None}
        )


@dataclass(eq=False)
class Unpaired:
    """Images of two unpaired domains: `image` from the first, `source` from the second.

    Indices are [B, 2], with one row per domain; or [B], rows of the first domain. Then image i of the first domain gets
    image i mod M of the second domain, which has M images.
    """

    image: Source
    source: Source

    def __len__(self) -> int:
        return len(self.image)

    @property
    def in_memory(self) -> bool:
        return self.image.in_memory and self.source.in_memory

    @property
    def device(self) -> torch.device:
        return self.image.device

    @property
    def nbytes(self) -> int:
        return self.image.nbytes + self.source.nbytes

    def to(self, device: torch.device) -> Unpaired:
        return Unpaired(self.image.to(device), self.source.to(device))

    def target(self, name: str, indices: Tensor) -> Tensor | None:
        return None if name == "source" else self.image.target(name, indices)

    def batch(self, indices: Tensor) -> Batch:
        rows, others = indices.unbind(1) if indices.ndim == 2 else (indices, indices % len(self.source))
        return replace(self.image.batch(rows), source=self.source.batch(others).image)


def _take(tensor: Tensor, rows: Tensor) -> Tensor:
    if tensor.device.type == "cpu":
        # On a CPU, this file uses NumPy, which runs on one thread. torch splits even a batch of MNIST over all of its
        # threads, which wait for one another while other processes use the cores (20,000 instead of 500,000 images/s).
        return torch.from_numpy(tensor.numpy().take(rows.numpy(), axis=0))
    return tensor.index_select(0, rows)


def image_order(
    length: int, batch_size: int, *, seed: int, position: int = 0, device: torch.device | str = "cpu"
) -> Iterator[Tensor]:
    """Yield global batches of image indices, int64 [batch_size], endlessly, starting at image `position` of the run."""

    def permutation(number: int) -> Tensor:
        # permuted on the CPU, so that the order is the same on every device; moved to the device once per epoch
        generator = torch.Generator().manual_seed(mix("order", seed, number))
        return torch.randperm(length, generator=generator).to(device)

    number, offset = divmod(position, length)
    rest = permutation(number)[offset:]
    while True:
        while len(rest) < batch_size:
            number += 1
            rest = torch.cat([rest, permutation(number)])
        yield rest[:batch_size]
        rest = rest[batch_size:]


def _hashes(kind: str, seed: int, first: int, count: int, device: torch.device | str) -> Tensor:
    """Random bits of images `first`, `first + 1`, ... of the run, int64 [count].

    The bits are a hash of the image's position in the run (SplitMix64's finalizer), so they do not depend on batches,
    workers, processes or the device.
    """

    def shift(x: Tensor, bits: int) -> Tensor:  # a shift of int64 copies the sign bit: clear the copies
        return (x >> bits) & ((1 << (64 - bits)) - 1)

    x = torch.arange(first, first + count, device=device) + (mix(kind, seed) >> 1)
    x = (x ^ shift(x, 30)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    x = (x ^ shift(x, 27)) * (0x94D049BB133111EB - (1 << 64))
    return x ^ shift(x, 31)


def mirrored(seed: int, first: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Whether images `first`, `first + 1`, ... of the run are mirrored, each with probability 1/2: bool [count]."""
    return _hashes("flip", seed, first, count, device) & 1 == 1


def _mirror(image: Tensor, flip: Tensor) -> Tensor:
    """Mirror the images [B, ..., W] for which `flip` [B] is true; on a CPU in place."""
    if image.device.type == "cpu":
        array, rows = image.numpy(), flip.numpy()
        array[rows] = array[rows][..., ::-1]
        return image
    return torch.where(flip.view(-1, *[1] * (image.ndim - 1)), image.flip(-1), image)


def _corners(random_crop: int, seed: int, first: int, count: int, device: torch.device | str) -> Tensor:
    """The top and left coordinate of each image's crop, from 0 to `random_crop`: int64 [2, count]."""
    bits = _hashes("jitter", seed, first, count, device)
    return torch.stack([bits & 0x7FFFFFFF, (bits >> 31) & 0x7FFFFFFF]) % (random_crop + 1)


def _crop(image: Tensor, corner: Tensor, random_crop: int) -> Tensor:
    """[B, C, H, W] -> [B, C, H - random_crop, W - random_crop], with the top left of each crop at `corner` [2, B]."""
    down, right = (
        start[:, None] + torch.arange(side - random_crop, device=image.device)
        for start, side in zip(corner, image.shape[2:], strict=True)
    )
    rows, channels = (torch.arange(n, device=image.device) for n in image.shape[:2])
    return image[rows[:, None, None, None], channels[:, None, None], down[:, None, :, None], right[:, None, None, :]]


def finish(batch: Batch) -> Batch:
    """Convert the images of a source's batch to float32 in [-1, 1] and its masks to int64."""
    batch.image = _floats(batch.image)
    batch.source = None if batch.source is None else _floats(batch.source)
    batch.mask = None if batch.mask is None else batch.mask.long()
    return batch


def _floats(image: Tensor) -> Tensor:
    if image.device.type != "cpu" or image.dtype != torch.uint8:
        return from_stored(image)
    array = np.divide(image.numpy(), np.float32(127.5), dtype=np.float32)  # bit for bit the same as `from_uint8`
    array -= 1
    return torch.from_numpy(array)


@dataclass(eq=False)
class TrainLoader:
    """Endless batches of the training split.

    batch_size   images in a global batch, over all processes
    seed         seed of the order, the flips and the crops
    position     images that the run has already seen; each iteration starts after them
    hflip        mirror half of the images, together with their masks and paired sources
    random_crop  crop each image at random; the images of the source are larger by this many pixels
    binarize     draw each pixel as black or white, again each time the image is shown
    task         make `source` from each image, with new noise each time the image is shown
    known        indices [M] of the labeled images, if only some images have labels. Each batch then also contains as
                 many labeled images, in their own order
    workers      processes that decode images in advance, for a source that is not in memory
    """

    source: Source
    batch_size: int
    _: KW_ONLY
    seed: int
    position: int = 0
    hflip: bool = False
    random_crop: int = 0
    binarize: bool = False
    task: Task = "none"
    known: Tensor | None = None
    rank: int = 0
    world: int = 1
    workers: int = 0
    pin_memory: bool = False

    def __iter__(self) -> Iterator[Batch]:
        device = getattr(self.source, "device", "cpu")
        size = self.batch_size // self.world
        first = self.rank * size  # start of this process's block in each batch

        def block(length: int, seed: int) -> Iterator[Tensor]:
            batches = image_order(length, self.batch_size, seed=seed, position=self.position, device=device)
            return (indices[first : first + size] for indices in batches)

        draw = Draws(self.rank, self.world, device)
        seeds, indices = [self.seed], block(len(self.source), self.seed)
        if self.known is not None:  # read labeled images in the same call, so that workers decode them in advance too
            seeds.append(mix("known", self.seed))
            known, again = self.known.to(device), block(len(self.known), seeds[1])
            indices = (torch.cat([rows, known[more]]) for rows, more in zip(indices, again, strict=False))
        source_seeds = [self.seed]  # a paired source is augmented like its image, an unpaired one independently
        if isinstance(self.source, Unpaired):
            source_seeds = [mix("other", self.seed)]
            others = block(len(self.source.source), *source_seeds)
            indices = (torch.stack(both, 1) for both in zip(indices, others, strict=False))
        for number, batch in enumerate(_read(self.source, indices, self.workers, self.pin_memory)):
            place = self.position + number * self.batch_size + first
            batch.image = self._augmented(batch.image, seeds, place)
            if batch.source is not None:
                batch.source = self._augmented(batch.source, source_seeds, place)
            if batch.mask is not None:  # random_crop is an error for data with masks
                batch.mask = self._mirrored(batch.mask, seeds, place)
            batch = finish(batch)
            if self.binarize:
                draw.seed("binarize", self.seed, place - first)
                white = draw(torch.rand, *batch.image.shape) * 2 - 1 < batch.image
                batch.image = white.to(batch.image.dtype) * 2 - 1
            if self.task != "none":
                draw.seed("task", self.seed, place - first)
                rows = len(batch)
                batch.source = tasks.make(self.task, batch.image, lambda kind, *shape, n=rows: draw(kind, n, *shape))
            if self.known is not None:
                more = batch[size:]
                batch = replace(batch[:size], known_image=more.image, known_label=more.label)
            yield batch

    def _augmented(self, image: Tensor, seeds: list[int], place: int) -> Tensor:
        """Crop and mirror images [B, C, H, W] by their position in the run. Each seed is for an equal part."""
        if self.random_crop:
            each = len(image) // len(seeds)
            corner = torch.cat([_corners(self.random_crop, seed, place, each, image.device) for seed in seeds], 1)
            image = _crop(image, corner, self.random_crop)
        return self._mirrored(image, seeds, place)

    def _mirrored(self, image: Tensor, seeds: list[int], place: int) -> Tensor:
        if not self.hflip:
            return image
        each = len(image) // len(seeds)
        return _mirror(image, torch.cat([mirrored(seed, place, each, image.device) for seed in seeds]))


@dataclass(eq=False)
class EvalLoader:
    """Reads each image once, in the data set's order, in blocks of `batch_size`; rank r reads blocks r, r + world, ...

    Blocks are smaller if there would be fewer blocks than processes, so that each process reads at least one block.
    Each process reads at most `most` blocks.
    """

    source: Source
    batch_size: int
    _: KW_ONLY
    rank: int = 0
    world: int = 1
    most: int | None = None
    workers: int = 0
    pin_memory: bool = False

    def __post_init__(self) -> None:
        size = max(1, min(self.batch_size, len(self.source) // self.world))
        self.blocks = list(torch.arange(len(self.source)).split(size))[self.rank :: self.world][: self.most]

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[Batch]:
        return map(finish, _read(self.source, self.blocks, self.workers, self.pin_memory))


@dataclass(eq=False)
class _Rows(Dataset):
    """A source for a `DataLoader` that samples whole batches of indices."""

    source: Source

    def __getitem__(self, indices: list[int]) -> Batch | UserError:
        try:
            return self.source.batch(torch.tensor(indices))
        except UserError as error:  # returned, since the DataLoader would wrap a raised error in a worker's traceback
            return error


def _ignore_signals(worker: int) -> None:
    """Make a worker ignore the signals that end training.

    They reach all processes of the group, but training still reads a batch or two afterwards.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _read(source: Source, batches: Iterable[Tensor], workers: int, pin_memory: bool) -> Iterator[Batch]:
    if not workers:
        yield from map(source.batch, batches)
        return
    # one "sample" of the DataLoader is a whole batch, so that workers only decode and do not choose the order
    for batch in DataLoader(
        _Rows(source),
        sampler=(indices.tolist() for indices in batches),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # otherwise it draws from the global generator, and a resumed run would differ
    ):
        if isinstance(batch, UserError):
            raise batch
        yield batch
