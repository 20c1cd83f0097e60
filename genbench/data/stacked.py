"""Stacked MNIST: 1,000 equally frequent classes, to count the modes that a generator covers."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np
import torch

from genbench.core.arguments import MOST, Bounds, Count, Seed
from genbench.core.errors import UserError
from genbench.core.noise import mix
from genbench.data.base import Stage
from genbench.data.streams import Split
from genbench.data.vision import MNIST


def _stack(images: np.ndarray, parts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Stack three gray images as RGB, uint8 [B, H, W, 3].

    Row m of `parts` [M, 3] has the indices of the three `images` [N, H, W]; `rows` [B] selects rows of `parts`.
    """
    return images[parts[rows]].transpose(0, 2, 3, 1)


class StackedMNIST(MNIST):
    """Three random digits of MNIST as the red, green and blue channel of an image: class 407 shows a 4, a 0 and a 7.

    Metz et al. 2017, "Unrolled generative adversarial networks", section 3.3.1, and Srivastava et al. 2017, "VEEGAN",
    section 5.2, count how many of the 1,000 classes occur in 25,600 and 26,000 samples, respectively. Training images
    are made of MNIST's training digits, test images of its test digits; only the files of MNIST are needed.

    Args:
        train_images: Number of training images, including those held out for validation
        test_images: Number of test images
        seed: Seed that selects the digits of each image
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
            raise UserError(
                "data.channels is 1, but StackedMNIST needs 3, one per digit. Remove `--data.channels`, or use MNIST."
            )

    def split(self, stage: Stage) -> Split:
        images, digits = self.arrays(self._open(stage))
        rng = np.random.default_rng(mix("stacked", self.seed, stage))
        parts = rng.integers(len(images), size=(getattr(self, f"{stage}_images"), 3))
        label = np.asarray(digits)[parts] @ [100, 10, 1]
        return Split(len(parts), partial(_stack, images, parts), label=torch.from_numpy(label))
