"""The DataModule below all data sets, of images and of points: what training and evaluation ask of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning import LightningDataModule

from genbench.core.arguments import Count, Remembers
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.data.loader import EvalLoader, Source, TrainLoader

Stage = Literal["train", "val", "test"]

# of what there is free, the share that a data set may take
MEMORY_SHARE = 0.25


def data_root(root: str | None) -> Path:
    """Where data sets lie: the argument, else `$GENBENCH_DATA`, else `./data`."""
    return Path(root or os.environ.get("GENBENCH_DATA") or "data").expanduser()


class DataModule(LightningDataModule, metaclass=Remembers):
    """Splits of one data set, read in an order that is the same on any number of processes and may be resumed.

    Args:
        root: Folder of the data sets. Default: the environment variable GENBENCH_DATA, else ./data
        batch_size: Images of one training batch, over all devices together
        eval_batch_size: Images of one block when evaluating
    """

    abstract = True
    classes: tuple[str, ...] = ()
    extractor: str = "inception"  # the network whose features scores are computed from, unless told otherwise
    hflip: bool = False
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
        """What a model must know of this data before it is built; known before the data is at hand."""
        raise NotImplementedError

    def source(self, stage: Stage) -> Source:
        """One of the splits; made once and kept in `_sources`. Raises UserError if it is not there."""
        raise NotImplementedError

    def compared(self) -> dict[str, Any]:
        """The arguments of `reference`: those that decide what samples are compared with."""
        return {name: value for name, value in self._arguments.items() if name not in ("batch_size", "eval_batch_size")}

    def contents(self) -> str | None:
        """A hash of what lies in the folder or file that is read, wherever that is; None where the class says it all.

        A run goes on with the same images in the same order, or not at all.
        """
        return None

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def arguments(self) -> dict[str, Any]:
        """What it was built with, but for where it lies: plain types."""
        return {name: value for name, value in self._arguments.items() if name != "root" and value is not None}

    def reference(self) -> Self:
        """The data as it is compared with: in its published size and color where it has such, in full.

        A model may have been trained at another size or on a part: its samples are judged by the same images as all.
        """
        if self._reference is None:
            self._reference = type(self)(**self.compared())
        return self._reference

    # ---- loaders ------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> TrainLoader:
        """Endless, from the image that the run has come to."""
        rank, world, device = self._place()
        self.check_share(world)
        module = self.trainer.lightning_module if self.trainer else None
        return TrainLoader(
            source := self._source_on(device, "train"),
            self.batch_size,
            seed=getattr(module, "seed", 0),
            position=int(getattr(module, "images_seen", 0)),
            hflip=self.hflip,
            rank=rank,
            world=world,
            **self._presented(source),
            **self._reading(source, device),
        )

    def _presented(self, source: Source) -> dict[str, Any]:
        """How training images are shown, besides mirrored: other arguments of `TrainLoader`."""
        return {}

    def check_share(self, world: int) -> None:
        """Raise UserError where a batch does not divide by so many devices."""
        if self.batch_size % world:
            raise UserError(
                f"data.batch_size is {self.batch_size}, the images of a batch over all devices together, and does not "
                f"divide by {world} devices. Choose a multiple of {world}."
            )

    def val_dataloader(self) -> EvalLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> EvalLoader:
        return self._eval_loader("test")

    def _eval_loader(self, stage: Stage) -> EvalLoader:
        rank, world, device = self._place()
        source = self._source_on(device, stage)
        return EvalLoader(source, self.eval_batch_size, rank=rank, world=world, **self._reading(source, device))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch if batch.image.device == device else batch.to(device, non_blocking=True)

    def _place(self) -> tuple[int, int, torch.device]:
        if self.trainer is None:
            return 0, 1, torch.device("cpu")
        return self.trainer.global_rank, self.trainer.world_size, self.trainer.strategy.root_device

    @property
    def _processes(self) -> int:
        """Processes on this machine, each of which decodes for itself."""
        return self.trainer.num_devices if self.trainer else 1

    def _source_on(self, device: torch.device, stage: Stage) -> Source:
        """The split, moved to the device for good if it is in memory and fits there too."""
        source = self.source(stage)
        if source.in_memory and source.device != device:
            room = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
            if source.nbytes < MEMORY_SHARE * room:
                source = self._sources[stage] = source.to(device)
        return source

    def _reading(self, source: Source, device: torch.device) -> dict[str, Any]:
        """How a loader reads a source that is not in memory: its `workers` and `pin_memory`."""
        return {}
