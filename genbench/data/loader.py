"""One order of images for every loader, resumable at any image and the same on any number of processes.

The training set is read as one endless stream: pass e of it is a permutation keyed on (seed, e), and image p of the
run is element p mod N of pass p div N. A batch is the next B images of the stream, passes joined without a gap; of
each batch rank r takes the r-th block. So a loader needs one number of the run, the images that it has seen, and a run
that goes on at p sees what the uninterrupted run would have seen. The model counts them (`images_seen`); a loader is
built where the count stands, and keeps no count of its own.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
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
    """One split: `batch(indices)` has uint8 images [B, C, H, W] and uint8 masks, or float32 points [B, D].

    One that is `in_memory` knows its `nbytes` and can be brought `to` a device.
    """

    in_memory: bool
    device: torch.device

    def __len__(self) -> int: ...
    def batch(self, indices: Tensor) -> Batch: ...
    def target(self, name: str, indices: Tensor) -> Tensor | None:
        """`label`, `caption`, `mask`, `factors` or `source` of these pictures, if they have such."""


class MemorySource:
    """The whole split as one tensor, uint8 [N, C, H, W] or points [N, D], on the device that trains if it fits."""

    def __init__(self, everything: Batch) -> None:
        self.everything = everything

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


class Unpaired:
    """Images of two domains, in no relation: `image` is of the one and `source` of the other.

    Rows are [B, 2], a row of each domain; or [B] of the first, and then the other's are taken in turn.
    """

    def __init__(self, image: Source, source: Source) -> None:
        self.image, self.source = image, source

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
        # Here and below NumPy, on one thread: torch shares out even a batch of MNIST to all of its own, and where other
        # processes keep the cores busy these wait for one another (20,000 images a second instead of 500,000).
        return torch.from_numpy(tensor.numpy().take(rows.numpy(), axis=0))
    return tensor.index_select(0, rows)


class Order:
    """Indices of the images from `position` on, as whole global batches: an endless iterator of int64 [B]."""

    def __init__(
        self, length: int, batch_size: int, *, seed: int, position: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.length, self.batch_size, self.seed, self.position = length, batch_size, seed, position
        self.device = device

    def _pass(self, number: int) -> Tensor:
        # drawn on the CPU, so that the order is the same wherever the images lie; moved once a pass, not once a batch
        generator = torch.Generator().manual_seed(mix("order", self.seed, number))
        return torch.randperm(self.length, generator=generator).to(self.device)

    def __iter__(self) -> Iterator[Tensor]:
        number, offset = divmod(self.position, self.length)
        rest = self._pass(number)[offset:]
        while True:
            while len(rest) < self.batch_size:
                number += 1
                rest = torch.cat([rest, self._pass(number)])
            yield rest[: self.batch_size]
            rest = rest[self.batch_size :]


def _hashes(kind: str, seed: int, first: int, count: int, device: torch.device | str) -> Tensor:
    """int64 [count]: random bits of images `first`, `first + 1`, ... of the run.

    A hash of the image's place in the run (SplitMix64's finalizer), so that it depends neither on the batch that the
    image is in nor on workers, processes or the device.
    """

    def shift(x: Tensor, bits: int) -> Tensor:  # int64 shifts copy the sign down: mask it away
        return (x >> bits) & ((1 << (64 - bits)) - 1)

    x = torch.arange(first, first + count, device=device) + (mix(kind, seed) >> 1)
    x = (x ^ shift(x, 30)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    x = (x ^ shift(x, 27)) * (0x94D049BB133111EB - (1 << 64))
    return x ^ shift(x, 31)


def mirrored(seed: int, first: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """bool [count]: whether images `first`, `first + 1`, ... of the run are mirrored, each with probability 1/2."""
    return _hashes("flip", seed, first, count, device) & 1 == 1


def corners(random_crop: int, seed: int, first: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """int64 [2, count]: the top and the left, each from 0 to `random_crop`, of what is cut out of each image."""
    bits = _hashes("jitter", seed, first, count, device)
    return torch.stack([bits & 0x7FFFFFFF, (bits >> 31) & 0x7FFFFFFF]) % (random_crop + 1)


def cut(image: Tensor, corner: Tensor, random_crop: int) -> Tensor:
    """[B, C, H, W] -> [B, C, H - random_crop, W - random_crop], of each image what begins at its `corner` [2, B]."""
    down, right = (
        start[:, None] + torch.arange(side - random_crop, device=image.device)
        for start, side in zip(corner, image.shape[2:], strict=True)
    )
    rows, channels = (torch.arange(n, device=image.device) for n in image.shape[:2])
    return image[rows[:, None, None, None], channels[:, None, None], down[:, None, :, None], right[:, None, None, :]]


def finish(batch: Batch) -> Batch:
    """A source's batch as models want it: floats, of images in [-1, 1], and int64 masks."""
    batch.image = _floats(batch.image)
    batch.source = None if batch.source is None else _floats(batch.source)
    batch.mask = None if batch.mask is None else batch.mask.long()
    return batch


def _floats(image: Tensor) -> Tensor:
    if image.device.type != "cpu" or image.dtype != torch.uint8:
        return from_stored(image)
    array = np.divide(image.numpy(), np.float32(127.5), dtype=np.float32)  # `from_uint8`, to the bit
    array -= 1
    return torch.from_numpy(array)


def _mirror(image: Tensor, flip: Tensor) -> Tensor:
    """Mirror those of the images [B, ..., W] where `hflip` [B] is true."""
    if image.device.type == "cpu":
        array, rows = image.numpy(), flip.numpy()
        array[rows] = array[rows][..., ::-1]
        return image
    return torch.where(flip.view(-1, *[1] * (image.ndim - 1)), image.flip(-1), image)


def _of_each(draw: Draws, images: int, kind: Callable[..., Tensor], *shape: int) -> Tensor:
    return draw(kind, images, *shape)


class TrainLoader:
    """Endless batches of the training split.

    batch_size  images of one global batch, over all processes
    seed        of the order and of the flips
    position    images of the run that were seen before; each iteration begins there
    flip        mirror half of the images; what belongs to an image moves with it
    random_crop      cut each image out of one that is so many pixels larger, anywhere
    binarize    draw each pixel black or white, anew each time that the image is shown
    task        what a model is shown of each image, its noise drawn as often
    known       indices [M] of the images that have a label, where not all have: each batch then carries as many of
                these, in an order of their own that is as long, and goes over them again and again
    workers     processes that decode ahead, for a source that is not in memory
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        seed: int,
        position: int = 0,
        hflip: bool = False,
        random_crop: int = 0,
        binarize: bool = False,
        task: Task = "none",
        known: Tensor | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.source, self.batch_size, self.seed, self.position = source, batch_size, seed, position
        self.hflip, self.random_crop, self.binarize, self.task, self.known = hflip, random_crop, binarize, task, known
        self.rank, self.world = rank, world
        self.workers, self.pin_memory = workers, pin_memory

    def __iter__(self) -> Iterator[Batch]:
        device = getattr(self.source, "device", "cpu")
        share = self.batch_size // self.world
        first = self.rank * share  # of this process's block in each batch

        def block(length: int, seed: int) -> Iterator[Tensor]:
            order = Order(length, self.batch_size, seed=seed, position=self.position, device=device)
            return (indices[first : first + share] for indices in order)

        draw = Draws(self.rank, self.world, device)
        seeds, mine = [self.seed], block(len(self.source), self.seed)
        if self.known is not None:  # read in one go with the others, so that they too are decoded ahead
            seeds.append(mix("known", self.seed))
            known, again = self.known.to(device), block(len(self.known), seeds[1])
            mine = (torch.cat([rows, known[more]]) for rows, more in zip(mine, again, strict=False))
        other = self.seed  # by which a source moves: with its image, or where it is of another domain by itself
        if isinstance(self.source, Unpaired):
            other = mix("other", self.seed)
            mine = (torch.stack(both, 1) for both in zip(mine, block(len(self.source.source), other), strict=False))
        for number, batch in enumerate(_read(self.source, mine, self.workers, self.pin_memory)):
            place = self.position + number * self.batch_size + first
            batch.image = self._mirrored(self._cut(batch.image, seeds, place), seeds, place)
            if batch.source is not None:
                batch.source = self._mirrored(self._cut(batch.source, [other], place), [other], place)
            if batch.mask is not None:  # of data that refuses random_crop
                batch.mask = self._mirrored(batch.mask, seeds, place)
            batch = finish(batch)
            if self.binarize:
                draw.seed("binarize", self.seed, place - first)
                white = draw(torch.rand, *batch.image.shape) * 2 - 1 < batch.image
                batch.image = white.to(batch.image.dtype) * 2 - 1
            if self.task != "none":
                draw.seed("task", self.seed, place - first)
                noise = partial(_of_each, draw, len(batch))
                batch.source = tasks.make(self.task, batch.image, noise)
            if self.known is not None:
                more = batch[share:]
                batch = replace(batch[:share], known_image=more.image, known_label=more.label)
            yield batch

    def _cut(self, image: Tensor, seeds: list[int], place: int) -> Tensor:
        """[B, C, H, W], as many by each seed from that place of the run on, to the size without `random_crop`."""
        if not self.random_crop:
            return image
        each = len(image) // len(seeds)
        corner = torch.cat([corners(self.random_crop, seed, place, each, image.device) for seed in seeds], 1)
        return cut(image, corner, self.random_crop)

    def _mirrored(self, image: Tensor, seeds: list[int], place: int) -> Tensor:
        """[B, ..., W], half of them mirrored, likewise."""
        if not self.hflip:
            return image
        each = len(image) // len(seeds)
        return _mirror(image, torch.cat([mirrored(seed, place, each, image.device) for seed in seeds]))


class EvalLoader:
    """One pass in the set's own order, in blocks of `batch_size`; rank r takes blocks r, r + world, ...

    Where there would be fewer blocks than processes they are smaller: each process has one at least.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.source, self.workers, self.pin_memory = source, workers, pin_memory
        size = max(1, min(batch_size, len(source) // world))
        self.blocks = list(torch.arange(len(source)).split(size))[rank::world]

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[Batch]:
        return map(finish, _read(self.source, self.blocks, self.workers, self.pin_memory))


class _Rows(Dataset):
    """A source seen by a `DataLoader` whose sampler hands out whole batches of indices."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, indices: list[int]) -> Batch | UserError:
        try:
            return self.source.batch(torch.tensor(indices))
        except UserError as error:  # a value, since the DataLoader wraps what is raised into a worker's traceback
            return error


def _same(batch: Batch | UserError) -> Batch | UserError:
    return batch


def _leave_signals_alone(worker: int) -> None:
    """Signals that end training reach the whole group, and it still takes a batch or two while it ends in order."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _read(source: Source, batches: Iterable[Tensor], workers: int, pin_memory: bool) -> Iterator[Batch]:
    if not workers:
        yield from map(source.batch, batches)
        return
    # one "sample" of the DataLoader is a whole batch, so that the order stays ours and workers only decode
    for batch in DataLoader(
        _Rows(source),
        sampler=(indices.tolist() for indices in batches),
        batch_size=None,
        collate_fn=_same,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_alone,
        generator=torch.Generator(),  # or it would draw from the global one, and a resumed run would not repeat
    ):
        if isinstance(batch, UserError):
            raise batch
        yield batch
