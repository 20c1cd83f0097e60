"""Points in the plane, drawn from mixtures of Gaussians, to measure mode collapse.

The rings and grids of Metz et al. 2017, "Unrolled generative adversarial networks", Srivastava et al. 2017, "VEEGAN",
section 5.1, and Lin et al. 2018, "PacGAN", section 4.1, scaled to the range of images. VEEGAN and PacGAN call a sample
good if it is within 3 standard deviations of the nearest mode, and a mode found if at least one good sample is near it.
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
    """Base class of equally weighted mixtures of isotropic Gaussians. Points are generated; nothing is downloaded.

    A subclass defines the means `modes` [K, D] and their common standard deviation `std`.

    Args:
        train_images: Number of training points
        val_images: Number of validation points
        test_images: Number of test points
        target: Condition of a conditional model: none, or label (the index of the Gaussian)
        seed: Seed of the points
        root: Not used, since no file is read
        batch_size: Number of points in a training batch, over all devices together
        eval_batch_size: Number of points in an evaluation batch
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
            raise UserError(f"data.target is {target}; {self.name} supports only none and label.")
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

    Relative to the radius, the standard deviation is twice that of Metz et al. (0.02 at radius 2) and PacGAN (0.01 at
    radius 1).
    """

    modes = tuple((math.cos(math.pi * k / 4), math.sin(math.pi * k / 4)) for k in range(8))
    std = 0.02
    extractor = "ring"


class Grid(Gaussians):
    """25 Gaussians on a square grid from -1 to 1, with standard deviation 0.0125.

    This is the grid of VEEGAN and PacGAN (step 2, standard deviation 0.05), scaled by 1/4.
    """

    modes = tuple((x / 2, y / 2) for y in range(-2, 3) for x in range(-2, 3))
    std = 0.0125
    extractor = "grid"
