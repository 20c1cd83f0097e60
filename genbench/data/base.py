"""The DataModule of all image data sets: arguments, splits, value ranges, memory.

A data set provides its splits (`Split`); everything else happens here, so an argument means the same for all data sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from genbench.core.arguments import Bounds, Count, Number, Seed, Side, Whole
from genbench.core.batch import DataSpec
from genbench.core.conditions import class_number
from genbench.core.errors import UserError
from genbench.data import ranges, tasks
from genbench.data.image_files import Fit, How
from genbench.data.loader import Source, Unpaired
from genbench.data.module import MEMORY_FRACTION, DataModule, Stage, free_memory
from genbench.data.ranges import DTYPE, Range
from genbench.data.streams import CHUNK, Joined, Split, StreamSource, in_threads
from genbench.data.tasks import Task

# arguments that change training, but not the images that samples are compared with
TRAINING_ONLY = (
    "hflip", "random_crop", "batch_size", "eval_batch_size", "subset", "per_class", "labeled", "memory", "workers",
    "download",
)  # fmt: skip
PIXELS = ("size", "channels", "resize_mode", "enlarge")


class ImageData(DataModule):
    """Base class of all image data sets.

    Args:
        root: Folder of the data sets. Default: the environment variable GENBENCH_DATA, else ./data
        size: Side of the square images, in pixels. Default: the data set's own
        channels: 1 for gray, 3 for RGB. Default: the data set's own
        resize_mode: How images are resized to `size`. crop scales the shorter side and crops the center; pad centers
            the whole image on black, scaled down if it is too large; stretch ignores the aspect ratio; none does not
            scale. Default: the data set's own
        range: The stored values that become black and white; values outside are clipped. dtype: the whole range of the
            stored type. data: minimum and maximum of the training split. LOW,HIGH: these values. Default: dtype.
            Exceptions, with a warning: data is used for images of more than 8 bits that use less than half of the
            type's range, images with only the values 0 and 1, and floating-point images
        window: The range as CENTER,WIDTH, as in radiology
        enlarge: Scale up images that are smaller than `size`; otherwise such images are an error. Default: no, but yes
            for Digits, which are 8×8
        hflip: Mirror half of the training images. Default: only for data sets whose images keep their meaning
        random_crop: Scale training images to this many pixels more than `size`, and crop them to `size` at a random
            position each time they are shown
        binarize: Make each pixel white with its gray level as the probability, else black (Salakhutdinov & Murray
            2008). static draws each image once; dynamic draws a training image again each time it is shown (Burda et
            al. 2016), and validates and tests on the static images
        task: Train a model to restore each image from a degraded version: gray, edges, noisy, blurred, smaller, or with
            a hole. Noise and holes are drawn again each time a training image is shown, but only once for validation
            and test images
        batch_size: Number of images in a training batch, over all devices together
        eval_batch_size: Number of images in an evaluation batch
        val_size: Images held out of the training set for validation, if the data set has no such split. Default: 5000,
            or a tenth of the training set if that is less
        subset: Train on only this many images, or on a percentage such as 10%, with the classes balanced
        per_class: Train on only this many images of each class
        only_classes: Use only the images of these classes, by name or number: one, or a list. Labels and classes stay
            the same, so `[3, 5]` of MNIST has the labels 3 and 5 of 10 classes. Training, validation and test images
            are restricted, and so are the images that samples are compared with. `anomaly` scores the images of all
            classes
        labeled: Use the labels of only this many training images, the same number of each class, and train on the
            others without labels. A batch then contains `batch_size` labeled images in addition
        split_seed: Selects the images of the validation split, the subset and the labeled images. It is not the seed of
            the run, so runs with different seeds train on the same images
        memory: Decode the whole data set into memory (auto: if it needs less than a quarter of the free memory)
        workers: Processes that decode images in advance, for data that is not in memory. Default: the number of cores
            minus one, up to 8
        download: Download the data set if it is missing
    """

    abstract = True

    # set by each data set
    own_splits: tuple[Stage, ...] = ("train", "test")  # other splits are held out of the training set
    native_size: int = 32
    native_channels: int = 3
    native_resize_mode: How = "crop"
    native_hflip: bool = False
    native_enlarge: bool = False
    native_range: str | None = None  # `dtype` if all images are known to have 8 bits
    published_pixels: bool = True  # all papers use the same size and channels
    test_size: int | None = None
    only_classes: list[int | str] | None = None

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
        only_classes: list[Whole | str] | Whole | str | None = None,
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
            raise UserError("data.range and data.window both set the range of values. Remove one of the two.")
        self._given = (ranges.windowed(window),) * 2 if window is not None else self.read_range(range)
        self._ranges: tuple[Range, Range] | None = None
        tasks.check(task, self.channels, self.size)
        self.val_size, self.subset, self.per_class, self.split_seed = val_size, subset, per_class, split_seed
        if only_classes is not None:
            self.only_classes = [*only_classes] if isinstance(only_classes, (list, tuple)) else [only_classes]
            if not self.only_classes:
                raise UserError("data.only_classes is an empty list. Add a class, or remove `--data.only_classes`.")
        self.labeled, self.memory, self.workers, self.download = labeled, memory, workers, download

        if isinstance(subset, str) and not (re.fullmatch(r"\d+(\.\d+)?%", subset) and 0 < float(subset[:-1]) <= 100):
            raise UserError(f"data.subset is '{subset}'; expected a number of images or a percentage such as 10%.")
        if random_crop > self.size:
            raise UserError(
                f"data.random_crop is {random_crop}, but must be at most {self.size}, the side of the images in "
                "pixels: training would see only a corner of each image."
            )
        if random_crop and self.resize_mode == "none":
            raise UserError(
                "data.random_crop scales training images up, but data.resize_mode is `none`. Remove one of the two."
            )
        # no padding by default above the native size: an image of 28 pixels in the center of 256 would be useless
        if resize_mode is None and self.resize_mode == "pad" and self.size > self.native_size and not self.enlarge:
            raise UserError(
                f"{self.name} has images of {self.native_size}×{self.native_size}, but data.size is {self.size}. Use "
                "`--data.enlarge true` to scale them up, or `--data.resize_mode pad` to center them on black."
            )

    # ---- what a data set provides -------------------------------------------------------------------------------

    def split(self, stage: Stage) -> Split:
        """One of `own_splits`, read again at each call. Raises UserError if its files are missing."""
        raise NotImplementedError

    @property
    def kinds(self) -> tuple[str, str]:
        """Names for messages: of the images, and of their sources or the images of the other domain."""
        return self.name, self.name

    def read_range(self, value: str | list[float] | None) -> tuple[Range | str | None, Range | str | None]:
        """Parse a range setting: the range of the images, and the range of their sources or the other domain."""
        return (ranges.stated(value),) * 2

    def written_range(self, found: tuple[Range, Range]) -> str:
        """Two ranges as text that `read_range` can parse."""
        return str(found[0])

    @property
    def spec(self) -> DataSpec:
        target = "label" if self.classes else "none"
        shape = (self.channels, self.size, self.size)
        return self.as_task(DataSpec(shape, target, tuple(self.classes), binary=self.binarize != "none"))

    def as_task(self, spec: DataSpec) -> DataSpec:
        """The spec with the source image that `task` adds; unchanged if the task is `none`."""
        if self.task == "none":
            return spec
        source = (tasks.channels_of(self.task, self.channels), *spec.shape[1:])
        return replace(spec, target="image", classes=(), vocabulary=(), caption_length=0, source=source)

    def refuse_tasks(self) -> None:
        """Raise UserError for arguments that do not apply to pairs of images or to two domains."""
        for name in ("task", "binarize", "labeled", "per_class", "only_classes"):
            value = getattr(self, name)
            if value not in ("none", None):
                instead = f"Use `--data.{name} none`" if name in ("task", "binarize") else f"Remove `--data.{name}`"
                raise UserError(f"data.{name} is {value}, but does not apply to pairs or to two domains. {instead}.")

    def compared(self) -> dict[str, Any]:
        published = self.published_pixels and self.binarize == self.task == "none"
        dropped = TRAINING_ONLY + (PIXELS if published else ())
        kept = {name: value for name, value in self._arguments.items() if name not in dropped}
        if self.binarize == "dynamic":
            kept["binarize"] = "static"
        self.ranges()  # finds the range now, so that all comparisons use the same
        return self._in_force(kept) | {"root": str(self.root), "download": self.download}

    @property
    def arguments(self) -> dict[str, Any]:
        return self._in_force(super().arguments)

    def _in_force(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments, with the names of the classes in use, and the range in use if it is known."""
        if (kept := self._kept_classes()) is not None:
            arguments["only_classes"] = [self.classes[number] for number in kept]
        if self._ranges is not None and (self.native_range is None or self._given != (None, None)):
            arguments.pop("window", None)
            arguments["range"] = self.written_range(self._ranges)
        return arguments

    def ranges(self, train: Split | None = None) -> tuple[Range, Range]:
        """The stored values that become black and white: a range for the images, and one for their sources or the other
        domain.

        They are determined once for all splits: the given range, or a range found from the training split, independent
        of `subset` and `only_classes`. For ordinary 8-bit data one image is read. If the extreme values are needed, all
        images are read, before they are decoded. `train` is the training split, if it is already loaded.
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
        """Whether range number `which` of `ranges` was found from the values of the training images."""
        return self.ranges()[which].low is not None and not isinstance(self._given[which], Range)

    def whole(self, name: str) -> tuple[Split, Range]:
        """All images of all own splits as one split, and their range: for images that are not trained on."""
        splits = [self.split(stage) for stage in self.own_splits]
        length = sum(split.length for split in splits)
        names = [split.name(row) for split in splits for row in range(split.length)] if len(splits) > 1 else None
        labels = [split.label for split in splits if split.label is not None]
        label = torch.cat(labels) if len(labels) == len(splits) else None
        split = splits[0] if names is None else Split(length, Joined(splits), names, label=label)
        return split, self._find_range(split, torch.arange(length), self._given[0], name)

    def _find_range(self, split: Split, rows: Tensor, given: Range | str | None, name: str) -> Range:
        if isinstance(given, Range):
            return given

        def each() -> Iterator[ranges.Seen]:
            yield from split.look(rows[:1].numpy())
            for some in in_threads(lambda chunk: split.look(chunk.numpy()), rows[1:].split(CHUNK), "Finding the range"):
                yield from some

        found, note = ranges.find(each(), given, name)
        if note is not None:
            rank_zero_warn(note)
        return found

    # ---- splits and memory --------------------------------------------------------------------------------------

    def source(self, stage: Stage) -> Source:
        """The split at the size `size`, decoded into memory if it fits there; created once."""
        if stage not in self._sources:
            streams = self.streams(stage)
            del self._streams[stage]
            own = streams[0].split
            fits = self._fits(sum(len(stream) for stream in streams), own)
            found = [s.decoded(stage) if fits or self.memory == "yes" else s for s in streams]
            self._sources[stage] = found[0] if len(found) == 1 else Unpaired(*found)
        return self._sources[stage]

    def _fits(self, images: int, split: Split) -> bool:
        """Whether so many images of a split may be decoded into memory."""
        need = images * self.channels * (self.size + self.random_crop) ** 2 * (1 if split.source is None else 2)
        return self.memory == "auto" and need < MEMORY_FRACTION * free_memory() / self._processes

    def selection(self, source: Source, rows: Tensor, title: str) -> tuple[Source, Tensor]:
        """These rows in memory if they fit there although the whole split does not, so that they are decoded once."""
        if isinstance(source, StreamSource) and self._fits(len(rows), source.split):
            return source.selected(rows, title), torch.arange(len(rows))
        return source, rows

    def streams(self, stage: Stage) -> list[StreamSource]:
        """The images of a stage, not decoded yet. For two domains there are two streams, the target domain first.

        The streams are kept until `source` uses them, so that checks before training do not read a split twice.
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
        by_loader = self.binarize == "dynamic" and training
        binarize = None if by_loader or self.binarize == "none" else stage if stage in self.own_splits else "train"
        task = "none" if training else self.task  # the loader applies it to training images, after augmentation
        random_crop = self.random_crop if training else 0
        fit = Fit(self.size + random_crop, self.channels, self.resize_mode, self.enlarge, random_crop, own)
        return StreamSource(split, rows, fit, binarize, task, replace(fit, range=other))

    def names(self, stage: Stage) -> list[str] | None:
        """The names of the images of a stage, in the order of `source`; None if they have none."""
        split, rows = self._rows(stage, self.split(stage if stage in self.own_splits else "train"))
        return None if split.names is None else [split.name(row) for row in rows.tolist()]

    def _rows(self, stage: Stage, split: Split) -> tuple[Split, Tensor]:
        """The split and its rows for a stage. A stage without its own split gets rows held out of the training set."""
        if stage != "train" and stage in self.own_splits:
            return split, self._of_kept_classes(stage, split, torch.arange(split.length))
        rows = self._of_kept_classes(stage, split, self._parts(split)[stage])
        if stage != "train":
            return split, rows.sort().values
        rows = self._limit(split, rows)
        if self.labeled is not None:
            split = replace(split, label=self._known_labels(split, rows))
        return split, rows.sort().values

    def _kept_classes(self) -> list[int] | None:
        """The numbers of `only_classes`, in order; None for all classes."""
        if self.only_classes is None:
            return None
        if not self.classes:
            raise UserError(f"data.only_classes needs classes, but {self.name} has none. Remove `--data.only_classes`.")
        return sorted({class_number(given, self.classes, "data.only_classes") for given in self.only_classes})

    def _of_kept_classes(self, stage: Stage, split: Split, rows: Tensor) -> Tensor:
        """The `rows` with a class of `only_classes`."""
        kept = self._kept_classes()
        if kept is None:
            return rows
        if split.label is None:
            raise UserError(
                f"data.only_classes needs the class of every image, but the images of {self.name} for `{stage}` have "
                "none. Remove `--data.only_classes`."
            )
        rows = rows[torch.isin(split.label[rows], torch.tensor(kept))]
        if not len(rows):
            names = ", ".join(self.classes[number] for number in kept)
            larger = "" if stage in self.own_splits else f" Use other classes, or a larger data.{stage}_size."
            raise UserError(f"No image of {self.name} for `{stage}` is of data.only_classes: {names}.{larger}")
        return rows

    def _training(self, split: Split) -> Tensor:
        """Rows of the training set that are not held out, in order, independent of `subset` and `only_classes`."""
        return self._parts(split)["train"].sort().values

    def _parts(self, split: Split) -> dict[str, Tensor]:
        """Shuffled rows of the training set by stage: rows to train on, and rows held out for each missing split."""
        draw = torch.Generator().manual_seed(self.split_seed)
        held_out = [name for name in ("test", "val") if name not in self.own_splits]
        group = split.group
        if group is not None and len(group.unique()) <= len(held_out):  # too few groups to keep them whole
            group = None
        if group is None:
            rest = torch.randperm(split.length, generator=draw)
        else:
            rest = torch.randperm(int(group.max()) + 1, generator=draw)[group].argsort(stable=True)
        parts = {}
        # test first, so that its images do not depend on the size of the validation split
        for name in held_out:
            size = getattr(self, f"{name}_size")
            size = min(5000, max(1, split.length // 10)) if size is None else size
            if group is not None:  # extended so that the last group is complete
                last = (group[rest] == group[rest[min(size, len(rest)) - 1]]).nonzero() if size else torch.tensor([-1])
                size = max(size, int(last.max()) + 1)
            if size >= len(rest):
                raise UserError(
                    f"data.{name}_size is {size}, but {self.name} has only {len(rest)} images to take them from: none "
                    "would be left to train on."
                )
            parts[name], rest = rest[:size], rest[size:]
        if group is not None:  # shuffled, since `subset` takes the first rows and would take whole groups
            rest = rest[torch.randperm(len(rest), generator=draw)]
        return {**parts, "train": rest}

    def _limit(self, split: Split, rows: Tensor) -> Tensor:
        """The first of the shuffled `rows`, limited by `per_class` and `subset`, with the classes balanced."""
        if self.per_class is not None and split.label is None:
            raise UserError(f"data.per_class needs labels, but {self.name} has none. Use `--data.subset`.")
        if split.label is not None:
            if self.per_class is not None:
                rows = self._of_each_class(split, rows, self.per_class, f"data.per_class is {self.per_class}")
            # the first image of each class, then the second of each, ...
            rows = rows[split.number_within_class(rows).argsort(stable=True)]
        subset = self.subset
        if isinstance(subset, str):
            subset = max(1, round(len(rows) * float(subset[:-1]) / 100))
        if subset is not None and subset > len(rows):
            raise UserError(f"data.subset is {subset}, but there are only {len(rows)} training images.")
        return rows[:subset]

    def _known_labels(self, split: Split, rows: Tensor) -> Tensor:
        """The labels [N] of the split, with -1 for all but `labeled` images: the first of each class in `rows`."""
        if split.label is None:
            raise UserError(f"data.labeled needs classes, but {self.name} has none. Remove `--data.labeled`.")
        count = len(self._kept_classes() or self.classes)
        each, rest = divmod(self.labeled, count)
        if rest:
            raise UserError(
                f"data.labeled is {self.labeled}, which is not divisible by the {count} classes of {self.name}. Choose "
                f"a multiple of {count}."
            )
        known = self._of_each_class(split, rows, each, f"data.labeled is {self.labeled}, {each} of each class")
        labels = torch.full_like(split.label, -1)
        labels[known] = split.label[known]
        return labels

    def _of_each_class(self, split: Split, rows: Tensor, count: int, given: str) -> Tensor:
        """The first `count` of each class among `rows`; `given` is the setting, for the error."""
        kept = self._kept_classes() or [*range(len(self.classes))]
        counts = split.label[rows].bincount(minlength=len(self.classes))[kept]
        if count > counts.min():
            raise UserError(
                f"{given}, but class `{self.classes[kept[counts.argmin()]]}` has only {counts.min()} training images."
            )
        return rows[split.number_within_class(rows) < count]

    def _training_options(self, source: Source) -> dict[str, Any]:
        known = None
        if self.labeled is not None:
            known = (source.target("label", torch.arange(len(source))) >= 0).nonzero()[:, 0]
        binarize = self.binarize == "dynamic"
        return {"random_crop": self.random_crop, "binarize": binarize, "task": self.task, "known": known}
