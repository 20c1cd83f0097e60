"""The DataModule that every image data set shares: splits, sizes, colors, memory, order.

A data set says what it is (`Split`s of pictures) and how it is fetched; everything else happens here, so the same
argument means the same for all of them. One class, of which a fifth is the text of its arguments: more than 400 lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from tqdm import tqdm

from genbench.core.arguments import Bounds, Count, Number, Seed, Side, Whole
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.data import ranges, tasks
from genbench.data.image_files import Fit, How
from genbench.data.loader import MemorySource, Source, Unpaired
from genbench.data.module import MEMORY_SHARE, DataModule, Stage
from genbench.data.ranges import DTYPE, Range
from genbench.data.streams import CHUNK, Joined, Split, StreamSource
from genbench.data.tasks import Task

# arguments that change how a model is trained and not what its samples are compared with
TRAINING_ONLY = (
    "hflip", "random_crop", "batch_size", "eval_batch_size", "subset", "per_class", "labeled", "memory", "workers",
    "download",
)  # fmt: skip
PIXELS = ("size", "channels", "resize_mode", "enlarge")


class ImageData(DataModule):
    """Base of all image data sets.

    Args:
        root: Folder of the data sets. Default: the environment variable GENBENCH_DATA, else ./data
        size: Side of the square images, in pixels. Default: the data set's own
        channels: 1 for gray, 3 for RGB. Default: the data set's own
        resize_mode: How a picture is brought to the size. crop scales its shorter side and cuts the center out; pad
            puts the whole of it in the middle of black, scaled down if it is too large; stretch ignores proportions;
            none scales nothing. Default: the data set's own
        range: Which of the stored values become black and white; what lies outside is clipped. dtype: the whole range
            of the type that a picture is stored in. data: minimum and maximum of the training split. LOW,HIGH: these.
            Default: dtype; but data, which is said, for pictures of more than 8 bits that fill less than half of the
            type's range, for pictures of 0 and 1 alone, and for floating-point ones
        window: The range as CENTER,WIDTH, as radiologists state it
        enlarge: Scale up pictures that are smaller than the size, which are refused otherwise. Default: no (Digits,
            which are 8×8: yes)
        hflip: Mirror half of the training images. Default: where that changes no meaning
        random_crop: Make training images so many pixels larger and cut the size out of them, anywhere, anew each time
            that they are shown
        binarize: Make each pixel white with its gray level as the probability, else black (Salakhutdinov & Murray
            2008): static draws every picture once for ever, dynamic draws a training picture anew each time that it
            is shown (Burda et al. 2016), and validates and tests on the static ones
        task: Teach a model to make each image from what is left of it: from gray, from its edges, from a noisy, a
            blurred or a smaller one, or from one with a hole. Noise and holes are drawn anew each time that a training
            image is shown, and once for ever for validation and test
        batch_size: Images of one training batch, over all devices together
        eval_batch_size: Images of one block when evaluating
        val_size: Images cut off the training set for validation, where the data set has no such split. Default: 5000,
            or a tenth of the training set where that is less
        subset: Train on so many images only, or on such a share as 10%, drawn evenly over the classes
        per_class: Train on so many images of each class only
        labeled: Tell the label of so many training images only, the same number of each class, and train on the
            others without. A batch then has as many of the labeled ones beside its own images
        split_seed: Decides which images the validation split, the subset and the labeled ones are; not the run's
            seed, so that runs with different seeds train on the same images
        memory: Decode the whole set to memory (auto: if it takes under a quarter of what is free)
        workers: Processes that decode ahead, for data that is not in memory. Default: a core
            each but one, up to 8
        download: Fetch the data set if it is not there
    """

    abstract = True

    # what a data set says of itself
    own_splits: tuple[Stage, ...] = ("train", "test")  # the others are cut off the training set
    native_size: int = 32
    native_channels: int = 3
    native_resize_mode: How = "crop"
    native_hflip: bool = False
    native_enlarge: bool = False
    native_range: str | None = None  # `dtype` where the pictures are known to be 8-bit ones
    published_pixels: bool = True  # there is one size and color in which everyone compares it
    test_size: int | None = None

    def __init__(
        self,
        root: str | None = None,
        size: Side | None = None,
        channels: Literal[1, 3] | None = None,
        resize_mode: Literal["crop", "pad", "stretch", "none"] | None = None,
        range: str | list[Number] | None = None,
        window: str | list[Number] | None = None,
        enlarge: bool | None = None,
        hflip: bool | None = None,
        random_crop: Whole = 0,
        binarize: Literal["none", "static", "dynamic"] = "none",
        task: Task = "none",
        batch_size: Count = 64,
        eval_batch_size: Count = 256,
        val_size: Count | None = None,
        subset: Count | str | None = None,
        per_class: Count | None = None,
        labeled: Count | None = None,
        split_seed: Seed = 0,
        memory: Literal["auto", "yes", "no"] = "auto",
        workers: Annotated[int, Bounds(at_least=0, at_most=1024)] | None = None,
        download: bool = True,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size)
        self._streams: dict[str, list[StreamSource]] = {}
        self.size = self.native_size if size is None else size
        self.channels = channels or self.native_channels
        self.resize_mode = resize_mode or self.native_resize_mode
        self.enlarge = self.native_enlarge if enlarge is None else enlarge
        self.hflip = self.native_hflip if hflip is None else hflip
        self.random_crop, self.binarize, self.task = random_crop, binarize, task
        if range is not None and window is not None:
            raise UserError("data.range and data.window are both given, and mean the same. Leave one of them out.")
        self._given = (ranges.windowed(window),) * 2 if window is not None else self.read_range(range)
        self._ranges: tuple[Range, Range] | None = None
        tasks.check(task, self.channels, self.size)
        self.val_size, self.subset, self.per_class, self.split_seed = val_size, subset, per_class, split_seed
        self.labeled = labeled
        self.memory, self.download = memory, download
        self.workers = workers

        if isinstance(subset, str) and not (re.fullmatch(r"\d+(\.\d+)?%", subset) and 0 < float(subset[:-1]) <= 100):
            raise UserError(f"data.subset is '{subset}'; a number of images or a share such as 10% was expected.")
        if random_crop > self.size:
            raise UserError(
                f"data.random_crop is {random_crop}, and the images are {self.size} pixels a side: training would show "
                f"no more than a corner of each. It must be at most {self.size}."
            )
        if random_crop and self.resize_mode == "none":
            raise UserError(
                "data.random_crop scales training images up, and data.resize_mode is `none`, which scales nothing."
            )
        # padding is the data set's own choice only up to its own size: 28 pixels in the middle of 256 help nobody
        if resize_mode is None and self.resize_mode == "pad" and self.size > self.native_size and not self.enlarge:
            raise UserError(
                f"{self.name} has images of {self.native_size}×{self.native_size}, and data.size is {self.size}. Say "
                "`--data.enlarge true` to scale them up, or `--data.resize_mode pad` to put them in the middle of "
                "black."
            )

    # ---- what a data set provides -------------------------------------------------------------------------------

    def split(self, stage: Stage) -> Split:
        """One of the data set's own splits. Read anew at each call; raises UserError if it is not there."""
        raise NotImplementedError

    @property
    def kinds(self) -> tuple[str, str]:
        """What the images are called, and what they are made from or the other domain."""
        return self.name, self.name

    def read_range(self, value: str | list[float] | None) -> tuple[Range | str | None, Range | str | None]:
        """The stated range of the images, and of what they are made from or of the other domain."""
        return (ranges.stated(value),) * 2

    def written_range(self, found: tuple[Range, Range]) -> str:
        """What `read_range` reads as these two."""
        return str(found[0])

    @property
    def spec(self) -> DataSpec:
        target = "label" if self.classes else "none"
        shape = (self.channels, self.size, self.size)
        return self.as_task(DataSpec(shape, target, tuple(self.classes), binary=self.binarize != "none"))

    def as_task(self, spec: DataSpec) -> DataSpec:
        """The spec of the same images, where they are to be made from others."""
        if self.task == "none":
            return spec
        source = (tasks.channels_of(self.task, self.channels), *spec.shape[1:])
        return replace(spec, target="image", classes=(), vocabulary=(), caption_length=0, source=source)

    def refuse_made(self) -> None:
        """Raise UserError where this data has pairs or domains, and is asked for what is done with single images."""
        for name in ("task", "binarize", "labeled", "per_class"):
            value = getattr(self, name)
            if value not in ("none", None):
                instead = f"Say `--data.{name} none`" if name in ("task", "binarize") else "Leave it out"
                raise UserError(
                    f"data.{name} is {value}, and here are two kinds of images already, one to be made from the other. "
                    f"{instead}."
                )

    def compared(self) -> dict[str, Any]:
        published = self.published_pixels and self.binarize == self.task == "none"  # these are compared at one size
        dropped = TRAINING_ONLY + (PIXELS if published else ())
        kept = {name: value for name, value in self._arguments.items() if name not in dropped}
        if self.binarize == "dynamic":
            kept["binarize"] = "static"
        if self.native_range is None or self._given != (None, None):
            kept.pop("window", None)
            kept["range"] = self.written_range(self.ranges())  # the same for all who compare with this data
        return kept | {"root": str(self.root), "download": self.download}

    @property
    def arguments(self) -> dict[str, Any]:
        kept = super().arguments
        if self._ranges is not None and (self.native_range is None or self._given != (None, None)):
            kept.pop("window", None)
            kept["range"] = self.written_range(self._ranges)
        return kept

    def ranges(self, train: Split | None = None) -> tuple[Range, Range]:
        """Which values become black and white: of the images, and of what they are made from or the other domain.

        Found once, for all splits: from what is stated, else from the training split without regard to `subset`. One
        picture decides it for ordinary 8-bit data; all are read, before they are decoded for good, where extreme values
        are wanted.

        Args:
            train: The training split, where it is at hand
        """
        if self._ranges is None:
            given = [DTYPE if one is None and self.native_range == "dtype" else one for one in self._given]
            if not all(isinstance(one, Range) for one in given):
                train = train or self.split("train")
                rows = self._training(train)
                image = self._find_range(train, rows, given[0], self.kinds[0])
                if train.source is not None:
                    other = self._find_range(train.source, rows, given[1], self.kinds[1])
                elif train.other is not None:
                    other = self._find_range(train.other, self._training(train.other), given[1], self.kinds[1])
                else:
                    other = image
                given = [image, other]
            self._ranges = (given[0], given[1])
        return self._ranges

    def range_was_found(self, which: int) -> bool:
        """Whether the one of `ranges` comes from the values of the training images, and nobody stated it."""
        return self.ranges()[which].low is not None and not isinstance(self._given[which], Range)

    def whole(self, name: str) -> tuple[Split, Range]:
        """All pictures of all own splits as one split, and the range found from all: for what is only compared."""
        splits = [self.split(stage) for stage in self.own_splits]
        length = sum(split.length for split in splits)
        names = [split.name(row) for split in splits for row in range(split.length)] if len(splits) > 1 else None
        split = splits[0] if names is None else Split(length, Joined(splits), names)
        return split, self._find_range(split, torch.arange(length), self._given[0], name)

    def _find_range(self, split: Split, rows: Tensor, given: Range | str | None, name: str) -> Range:
        if isinstance(given, Range):
            return given

        def each() -> Iterator[ranges.Seen]:
            yield from split.look(rows[:1].numpy())
            chunks = rows[1:].split(CHUNK)
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                done = pool.map(lambda chunk: split.look(chunk.numpy()), chunks)
                try:
                    for some in tqdm(done, "Looking for the range", len(chunks), delay=2, leave=False, disable=None):
                        yield from some
                finally:
                    pool.shutdown(cancel_futures=True)

        found, note = ranges.find(each(), given, name)
        if note is not None:
            rank_zero_warn(note)
        return found

    # ---- splits and memory --------------------------------------------------------------------------------------

    def source(self, stage: Stage) -> Source:
        """The split at the wanted size, decoded to memory where it fits; made once."""
        if stage not in self._sources:
            streams = self.streams(stage)
            del self._streams[stage]
            own = streams[0].split
            need = sum(len(stream) for stream in streams) * self.channels * (self.size + self.random_crop) ** 2
            need *= 1 if own.source is None else 2
            fits = self.memory == "auto" and need < MEMORY_SHARE * free_memory() / self._processes
            found = [self._decode(s, stage) if fits or self.memory == "yes" else s for s in streams]
            self._sources[stage] = found[0] if len(found) == 1 else Unpaired(*found)
        return self._sources[stage]

    def streams(self, stage: Stage) -> list[StreamSource]:
        """The pictures of a stage, not decoded yet; where there are two domains, those of both, B first.

        They are kept until `source` takes them: what is looked at before training is not read twice.
        """
        if stage not in self._streams:
            own = self.split(stage if stage in self.own_splits else "train")
            found = self.ranges(own if stage == "train" or stage not in self.own_splits else None)
            self._streams[stage] = [
                self._stream(stage, split, one, found[1])
                for split, one in zip((own, own.other), found, strict=True)
                if split is not None
            ]
        return self._streams[stage]

    def _stream(self, stage: Stage, split: Split, own: Range, other: Range) -> StreamSource:
        split, rows = self._rows(stage, split)
        if not len(rows):
            raise UserError(f"{self.name} has no images for `{stage}`.")
        training = stage == "train"
        anew = self.binarize == "dynamic" and training
        once = None if anew or self.binarize == "none" else stage if stage in self.own_splits else "train"
        task = "none" if training else self.task  # of training images the loader makes it, once moved
        random_crop = self.random_crop if training else 0
        fit = Fit(self.size + random_crop, self.channels, self.resize_mode, self.enlarge, random_crop, own)
        return StreamSource(split, rows, fit, once, task, replace(fit, range=other))

    def _rows(self, stage: Stage, split: Split) -> tuple[Split, Tensor]:
        """A split, and which of its pictures the stage has: some of the training set's where it has no own split."""
        if stage != "train" and stage in self.own_splits:
            return split, torch.arange(split.length)
        parts = self._parts(split)
        if stage != "train":
            return split, parts[stage].sort().values
        rows = self._limit(split, parts["train"])
        if self.labeled is not None:
            split = replace(split, label=self._told(split, rows))
        return split, rows.sort().values

    def _training(self, split: Split) -> Tensor:
        """The pictures of the training set that are not held out, in order, without regard to `subset`."""
        return self._parts(split)["train"].sort().values

    def _parts(self, split: Split) -> dict[str, Tensor]:
        """The training set's pictures, shuffled: those to train on, and those that are cut off for other stages."""
        draw = torch.Generator().manual_seed(self.split_seed)
        cut = [name for name in ("test", "val") if name not in self.own_splits]
        group = split.group
        if group is not None and len(group.unique()) <= len(cut):  # a single film
            group = None
        if group is None:
            rest = torch.randperm(split.length, generator=draw)
        else:  # group by group
            rest = torch.randperm(int(group.max()) + 1, generator=draw)[group].argsort(stable=True)
        parts = {}
        # the test images first, so that a larger validation split does not change them
        for name in cut:
            size = getattr(self, f"{name}_size")
            size = min(5000, max(1, split.length // 10)) if size is None else size
            if group is not None:  # whole groups
                last = (group[rest] == group[rest[min(size, len(rest)) - 1]]).nonzero() if size else torch.tensor([-1])
                size = max(size, int(last.max()) + 1)
            if size >= len(rest):
                raise UserError(
                    f"data.{name}_size is {size} and {self.name} has {len(rest)} images to take them from: "
                    "none would be left to train on."
                )
            parts[name], rest = rest[:size], rest[size:]
        if group is not None:  # of the first of these are a subset
            rest = rest[torch.randperm(len(rest), generator=draw)]
        return {**parts, "train": rest}

    def _limit(self, split: Split, rows: Tensor) -> Tensor:
        """The first of `rows`, which are shuffled, as `per_class` and `subset` ask: the same number of each class."""
        if self.per_class is not None and split.label is None:
            raise UserError(f"data.per_class needs labels, and {self.name} has none. Use data.subset.")
        if split.label is not None:
            if self.per_class is not None:
                rows = self._of_each_class(split, rows, self.per_class, f"data.per_class is {self.per_class}")
            among_class = _number_within(split.label[rows])
            rows = rows[among_class.argsort(stable=True)]  # first one of each class, then a second of each, ...
        subset = self.subset
        if isinstance(subset, str):
            subset = max(1, round(len(rows) * float(subset[:-1]) / 100))
        if subset is not None and subset > len(rows):
            raise UserError(f"data.subset is {subset}, and there are only {len(rows)} training images.")
        return rows[:subset]

    def _told(self, split: Split, rows: Tensor) -> Tensor:
        """The split's labels [N], but -1 for all except the first of `rows`, which are shuffled, of each class."""
        if split.label is None:
            raise UserError(f"data.labeled needs classes, and {self.name} has none. Leave it out.")
        each, rest = divmod(self.labeled, len(self.classes))
        if rest:
            raise UserError(
                f"data.labeled is {self.labeled}, which does not divide by the {len(self.classes)} classes of "
                f"{self.name}. Choose a multiple of {len(self.classes)}."
            )
        said = f"data.labeled is {self.labeled}, {each} of each class"
        told = torch.full_like(split.label, -1)
        known = self._of_each_class(split, rows, each, said)
        told[known] = split.label[known]
        return told

    def _of_each_class(self, split: Split, rows: Tensor, count: int, said: str) -> Tensor:
        """The first `count` of each class among `rows`; `said` is how so many were asked for."""
        labels = split.label[rows]
        counts = labels.bincount(minlength=len(self.classes))
        if count > counts.min():
            raise UserError(
                f"{said}, and of class `{self.classes[counts.argmin()]}` there are only {counts.min()} training images."
            )
        return rows[_number_within(labels) < count]

    def _decode(self, stream: StreamSource, stage: Stage) -> MemorySource:
        size = stream.fit.size
        image = torch.empty(len(stream), self.channels, size, size, dtype=torch.uint8)

        def fill(chunk: Tensor) -> tuple[Tensor | None, Tensor | None]:
            part, mask, source = stream.pictures(chunk)
            image[chunk[0] : chunk[-1] + 1] = part  # in place: joining the parts would take the memory twice
            return mask, source

        chunks = torch.arange(len(stream)).split(CHUNK)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            done = pool.map(fill, chunks)
            try:  # a bar only where it takes long, and only in front of a person
                others = list(tqdm(done, f"Decoding {stage}", len(chunks), delay=2, leave=False, disable=None))
            except BaseException:  # a broken image ends it now, not when all others are decoded
                pool.shutdown(cancel_futures=True)
                raise
        mask, source = (None if found[0] is None else torch.cat(found) for found in zip(*others, strict=True))
        return MemorySource(Batch(image, mask=mask, source=source, **stream.split.targets(stream.rows)))

    # ---- loaders ------------------------------------------------------------------------------------------------

    def _presented(self, source: Source) -> dict[str, Any]:
        known = None
        if self.labeled is not None:
            known = (source.target("label", torch.arange(len(source))) >= 0).nonzero()[:, 0]
        return {
            "random_crop": self.random_crop,
            "binarize": self.binarize == "dynamic",
            "task": self.task,
            "known": known,
        }

    def _reading(self, source: Source, device: torch.device) -> dict[str, Any]:
        if source.in_memory:
            return {}
        spare = (os.cpu_count() or 1) // self._processes - 1
        workers = min(8, max(1, spare)) if self.workers is None else self.workers
        return {"workers": workers, "pin_memory": device.type == "cuda"}


def _number_within(labels: Tensor) -> Tensor:
    """How many of the same label stand before each: [3, 5, 3, 3] -> [0, 0, 1, 2]."""
    order, counts = labels.argsort(stable=True), labels.bincount()
    first = counts.cumsum(0) - counts
    number = torch.empty_like(order)
    number[order] = torch.arange(len(labels)) - first[labels[order]]
    return number


def free_memory() -> int:
    """Bytes of memory that the machine has free, or its container in all; 8 GiB where the system does not say."""
    bounds = []
    meminfo, container = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if meminfo.exists():
        bounds += [int(line.split()[1]) << 10 for line in meminfo.read_text().splitlines() if "MemAvailable" in line]
    if container.exists() and (most := container.read_text().strip()).isdecimal():
        bounds.append(int(most))
    return min(bounds, default=8 << 30)
