"""Base class of all data sets, of images and of points.

It provides the loaders and the reference data that samples are compared with.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning import LightningDataModule
from torch import Tensor

from genbench.core import ranks
from genbench.core.arguments import Count, Remembers
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.data.loader import EvalLoader, Source, TrainLoader

Stage = Literal["train", "val", "test"]

MEMORY_FRACTION = 0.25  # a data set may use this fraction of the free memory


def data_root(root: str | None) -> Path:
    """The folder of the data sets: the argument, else `$GENBENCH_DATA`, else `./data`."""
    return Path(root or os.environ.get("GENBENCH_DATA") or "data").expanduser()


def existing(path: str, root: Path) -> Path:
    """Find `path` relative to the current folder, or else to `root`. Raises UserError if it is in neither."""
    if not path.strip():
        raise UserError("data.path is empty. Set `--data.path` to the images.")
    places = [Path(path).expanduser(), root / path]
    for place in places:
        if place.exists():
            return place
    looked = " and ".join(str(place.absolute()) for place in places)
    raise UserError(
        f"There is no file or folder `{path}`: looked at {looked}. Set `--data.path` to an existing file or folder."
    )


def free_memory() -> int:
    """Free memory of the machine in bytes, at most the container's limit; 8 GiB if the system does not report it."""
    bounds = []
    meminfo, container = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if meminfo.exists():
        bounds += [int(line.split()[1]) << 10 for line in meminfo.read_text().splitlines() if "MemAvailable" in line]
    if container.exists() and (most := container.read_text().strip()).isdecimal():
        bounds.append(int(most))
    return min(bounds, default=8 << 30)


class DataModule(LightningDataModule, metaclass=Remembers):
    """Splits of one data set, read in an order that is resumable and the same on any number of processes.

    Args:
        root: Folder of the data sets. Default: the environment variable GENBENCH_DATA, else ./data
        batch_size: Number of images in a training batch, over all devices together
        eval_batch_size: Number of images in an evaluation batch
    """

    abstract = True
    classes: tuple[str, ...] = ()
    extractor: str = "inception"  # default feature extractor of the scores
    hflip: bool = False
    workers: int | None = None
    _setting = "data"

    def __init__(self, root: str | None = None, batch_size: Count = 64, eval_batch_size: Count = 256) -> None:
        super().__init__()
        self.root = data_root(root)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self._sources: dict[str, Source] = {}
        self._reference: Self | None = None

    # ---- what a data set provides -------------------------------------------------------------------------------

    @property
    def spec(self) -> DataSpec:
        """The properties of the data that a model needs to be built. Reads no files."""
        raise NotImplementedError

    def source(self, stage: Stage) -> Source:
        """The source of a split, created once and kept in `_sources`. Raises UserError if its files are missing."""
        raise NotImplementedError

    def compared(self) -> dict[str, Any]:
        """The arguments for `reference`: only those that affect the images that samples are compared with."""
        return {name: value for name, value in self._arguments.items() if name not in ("batch_size", "eval_batch_size")}

    def contents(self) -> str | None:
        """A hash of the content of the folder or file, independent of its path; None if the class defines the data.

        A run can be resumed only with the same images in the same order.
        """
        return None

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that this object was built with, except `root`, as plain types."""
        return {name: value for name, value in self._arguments.items() if name != "root" and value is not None}

    def reference(self) -> Self:
        """The data that samples are compared with: all images, in the published size and channels if there are any.

        So a model trained at a different size or on a subset is compared with the same images as all other models.
        """
        if self._reference is None:
            self._reference = type(self)(**self.compared())
        return self._reference

    def selection(self, source: Source, rows: Tensor, title: str) -> tuple[Source, Tensor]:
        """A source that holds these rows of another source, and their indices in it. Default: the same source."""
        return source, rows

    # ---- loaders ------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> TrainLoader:
        """An endless loader that starts at the model's `images_seen`."""
        rank, world, device = self._place()
        self.check_divisible(world)
        module = self.trainer.lightning_module if self.trainer else None
        return TrainLoader(
            source := self._source_on(device, "train"),
            self.batch_size,
            seed=getattr(module, "seed", 0),
            position=int(getattr(module, "images_seen", 0)),
            hflip=self.hflip,
            rank=rank,
            world=world,
            **self._training_options(source),
            **self._reading_options(source, device),
        )

    def _training_options(self, source: Source) -> dict[str, Any]:
        """Additional arguments of `TrainLoader`."""
        return {}

    def check_divisible(self, world: int) -> None:
        """Raise UserError if the batch size is not divisible by the number of devices."""
        if self.batch_size % world:
            raise UserError(
                f"data.batch_size is {self.batch_size}, the total over all devices, but is not divisible by {world} "
                f"devices. Choose a multiple of {world}."
            )

    def val_dataloader(self) -> EvalLoader:
        """The validation images, or only the first block for a model that does not score single images.

        For such a model Lightning's loop would read all images for nothing: the evaluation after it has its own images,
        of `reference`, which stay in memory if they fit there (`selection`).
        """
        scored = self.trainer is None or getattr(self.trainer.lightning_module, "scores_images", True)
        return self._eval_loader("val", most=None if scored else 1)

    def test_dataloader(self) -> EvalLoader:
        return self._eval_loader("test")

    def _eval_loader(self, stage: Stage, most: int | None = None) -> EvalLoader:
        rank, world, device = self._place()
        source = self._source_on(device, stage)
        reading = self._reading_options(source, device)
        return EvalLoader(source, self.eval_batch_size, rank=rank, world=world, most=most, **reading)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch if batch.image.device == device else batch.to(device, non_blocking=True)

    def _place(self) -> tuple[int, int, torch.device]:
        if self.trainer is None:
            return 0, 1, torch.device("cpu")
        return self.trainer.global_rank, self.trainer.world_size, self.trainer.strategy.root_device

    @property
    def _processes(self) -> int:
        """Number of training processes on this machine. Each decodes its own copy of the data."""
        return self.trainer.num_devices if self.trainer else ranks.world()

    def _source_on(self, device: torch.device, stage: Stage) -> Source:
        """The source of a split. If it is in memory and fits on the device, it is moved there and stays there."""
        source = self.source(stage)
        if source.in_memory and source.device != device:
            room = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
            if source.nbytes < MEMORY_FRACTION * room:
                source = self._sources[stage] = source.to(device)
        return source

    def _reading_options(self, source: Source, device: torch.device) -> dict[str, Any]:
        """`workers` and `pin_memory` of a loader, for a source that is not in memory."""
        if source.in_memory:
            return {}
        spare = (os.cpu_count() or 1) // self._processes - 1
        workers = min(8, max(1, spare)) if self.workers is None else self.workers
        return {"workers": workers, "pin_memory": device.type == "cuda"}
