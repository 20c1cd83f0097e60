"""Stacked MNIST: a thousand classes of equal size, of which a collapsed generator makes few."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch

from genbench.core.arguments import MOST, Bounds, Count, Seed
from genbench.core.errors import UserError
from genbench.core.noise import mix
from genbench.data.base import Stage
from genbench.data.streams import Split
from genbench.data.vision import MNIST


class _Stacks:
    """rows -> uint8 [B, H, W, 3] of images [N, H, W] and which three are in each stack; it can be sent to a worker."""

    def __init__(self, images: np.ndarray, parts: np.ndarray) -> None:
        self.images, self.parts = images, parts

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self.images[self.parts[rows]].transpose(0, 2, 3, 1)


class StackedMNIST(MNIST):
    """Three random digits of MNIST as the red, green and blue of an image: class 407 has a 4, a 0 and a 7.

    Metz et al. 2017, "Unrolled generative adversarial networks", section 3.3.1, and Srivastava et al. 2017, "VEEGAN",
    section 5.2, who count how many of the 1,000 classes are among 25,600 and 26,000 samples. Training images are of
    MNIST's training digits, test images of its test digits; no files but MNIST's are needed.

    Args:
        train_images: Stacks of the training split, which validation images are cut off too
        test_images: Stacks of the test split
        seed: Other stacks for another number
    """

    classes = tuple(f"{k:03d}" for k in range(1000))
    native_channels = 3
    extractor = "stackedmnistnet"

    def __init__(
        self,
        train_images: Annotated[int, Bounds(at_least=2, at_most=MOST)] = 60_000,
        test_images: Count = 10_000,
        seed: Seed = 0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.train_images, self.test_images, self.seed = train_images, test_images, seed
        if self.channels != 3:
            raise UserError("data.channels is 1; StackedMNIST has a digit in each of 3. Leave it out, or take MNIST.")

    def split(self, stage: Stage) -> Split:
        images, digits = self.arrays(self._open(stage))
        rng = np.random.default_rng(mix("stacked", self.seed, stage))
        parts = rng.integers(len(images), size=(getattr(self, f"{stage}_images"), 3))
        label = np.asarray(digits)[parts] @ [100, 10, 1]
        return Split(len(parts), _Stacks(images, parts), label=torch.from_numpy(label))
