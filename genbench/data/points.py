"""Points of the plane, drawn from Gaussians that are known: where mode collapse can be seen, and counted.

The rings and grids of Metz et al. 2017, "Unrolled generative adversarial networks", Srivastava et al. 2017, "VEEGAN",
section 5.1, and Lin et al. 2018, "PacGAN", section 4.1, brought into the range of images. Both papers that count call a
sample good within 3 standard deviations of the nearest mode, and a mode found that has a good sample.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from genbench.core.arguments import Count, Seed
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.noise import mix
from genbench.data.loader import MemorySource
from genbench.data.module import DataModule, Stage


class Gaussians(DataModule):
    """Base of equal mixtures of round Gaussians; drawn here, no download.

    A subclass says where the `modes` are [K, D], each a tuple of numbers, and their `std`.

    Args:
        train_images: Points of the training split
        val_images: Points of the validation split
        test_images: Points of the test split
        target: What a conditional model is told: none, or label (the number of the Gaussian)
        seed: Other points for another number
        root: Not used: nothing is read
        batch_size: Points of one training batch, over all devices together
        eval_batch_size: Points of one block when evaluating
    """

    abstract = True
    modes: tuple[tuple[float, ...], ...]
    std: float
    extractor = "points"

    def __init__(
        self,
        train_images: Count = 100_000,
        val_images: Count = 10_000,
        test_images: Count = 10_000,
        target: Literal["none", "label"] = "none",
        seed: Seed = 0,
        root: str | None = None,
        batch_size: Count = 256,
        eval_batch_size: Count = 1024,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size)
        self.train_images, self.val_images, self.test_images = train_images, val_images, test_images
        self.target, self.seed = target, seed
        if target not in ("none", "label"):
            raise UserError(f"data.target is {target}; {self.name} has none or label.")
        self.classes = tuple(str(k) for k in range(len(self.modes)))

    @property
    def spec(self) -> DataSpec:
        return DataSpec((len(self.modes[0]),), self.target, self.classes if self.target == "label" else ())

    def source(self, stage: Stage) -> MemorySource:
        """Points float32 [N, D], and the numbers of their Gaussians as labels."""
        if stage not in self._sources:
            draw = torch.Generator().manual_seed(mix("points", self.name, self.seed, stage))
            modes = torch.tensor(self.modes)
            label = torch.randint(len(modes), (getattr(self, f"{stage}_images"),), generator=draw)
            noise = torch.randn(len(label), modes.shape[1], generator=draw)
            self._sources[stage] = MemorySource(Batch(modes[label] + self.std * noise, label))
        return self._sources[stage]


class Ring(Gaussians):
    """Eight Gaussians on a circle of radius 1, of standard deviation 0.02.

    Beside their circle they are twice as wide as those of Metz et al. (radius 2, 0.02) and PacGAN (radius 1, 0.01).
    """

    modes = tuple((math.cos(math.pi * k / 4), math.sin(math.pi * k / 4)) for k in range(8))
    std = 0.02
    extractor = "ring"


class Grid(Gaussians):
    """25 Gaussians on a square grid from -1 to 1, of standard deviation 0.0125.

    The grid of VEEGAN and PacGAN, which has steps of 2 and 0.05, by the factor 1/4.
    """

    modes = tuple((x / 2, y / 2) for y in range(-2, 3) for x in range(-2, 3))
    std = 0.0125
    extractor = "grid"
