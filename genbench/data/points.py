"""Points in the plane from mixtures of Gaussians, which show mode collapse.

The rings and grids of Metz et al. 2017, "Unrolled generative adversarial networks", Srivastava et al. 2017, "VEEGAN",
section 5.1, and Lin et al. 2018, "PacGAN", section 4.1, scaled to the range of images. The latter two count a sample as
good within 3 standard deviations of the nearest mode, and a mode as found if it has a good sample.
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
    """Base of equally weighted mixtures of isotropic Gaussians. Drawn, no download.

    A subclass has the means `modes` [K, D] and their common `std`.

    Args:
        train_images: Points of the training split
        val_images: Points of the validation split
        test_images: Points of the test split
        target: What a conditional model gets: none, or label (the index of the Gaussian)
        seed: Seed of the points
        root: Not used, as no file is read
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
        """Points float32 [N, D], labeled with the index of their Gaussian."""
        if stage not in self._sources:
            draw = torch.Generator().manual_seed(mix("points", self.name, self.seed, stage))
            modes = torch.tensor(self.modes)
            label = torch.randint(len(modes), (getattr(self, f"{stage}_images"),), generator=draw)
            noise = torch.randn(len(label), modes.shape[1], generator=draw)
            self._sources[stage] = MemorySource(Batch(modes[label] + self.std * noise, label))
        return self._sources[stage]


class Ring(Gaussians):
    """Eight Gaussians on a circle of radius 1, with standard deviation 0.02.

    Relative to the circle they are twice as wide as those of Metz et al. (radius 2, 0.02) and PacGAN (radius 1, 0.01).
    """

    modes = tuple((math.cos(math.pi * k / 4), math.sin(math.pi * k / 4)) for k in range(8))
    std = 0.02
    extractor = "ring"


class Grid(Gaussians):
    """25 Gaussians on a square grid from -1 to 1, with standard deviation 0.0125.

    The grid of VEEGAN and PacGAN, with steps of 2 and standard deviation 0.05, scaled by 1/4.
    """

    modes = tuple((x / 2, y / 2) for y in range(-2, 3) for x in range(-2, 3))
    std = 0.0125
    extractor = "grid"
