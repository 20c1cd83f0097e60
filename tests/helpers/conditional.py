"""A model that draws what it is asked for in a way that a test can read off the picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed

LABELS = DataSpec((1, 4, 4), "label", ("zero", "one", "two"))
THIRDS = DataSpec((1, 4, 4), "label", ("dark", "middle", "bright"))
CAPTIONS = DataSpec((1, 4, 4), "caption", (), ("<pad>", "a", "red", "blue", "star"), 3)


class Toned(GenerativeModule):
    """Pixels of level 10 k for class k, or 10 times the tokens' sum for a caption."""

    conditional = True

    def __init__(self, spec: DataSpec | None = None, **training: Any) -> None:
        super().__init__(spec, **training)
        self.net = nn.Linear(1, 1)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": self.net(batch.image.mean((2, 3))).square().mean()}

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        level = 10.0 * (condition if condition.ndim == 1 else condition.sum(1))
        return (level / 127.5 - 1).view(-1, 1, 1, 1).expand(-1, *self.spec.shape)


class Tones(GenerativeModule):
    """Images of one random gray level; class 0, 1 or 2 by third of the levels, with most certainty at its center."""

    def __init__(self, spec: DataSpec | None = None, **training: Any) -> None:
        super().__init__(spec, **training)
        self.net = nn.Linear(1, 1)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": self.net(batch.image.mean((2, 3))).square().mean()}

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None, most: float = 1.0) -> Tensor:
        level = per_seed(torch.rand, seeds, (1,)) * 2 * most - 1
        return level.view(-1, 1, 1, 1).expand(-1, *self.spec.shape)

    def classify(self, x: Tensor) -> Tensor:
        return -20 * (x.mean((1, 2, 3))[:, None] - torch.tensor([-2 / 3, 0.0, 2 / 3])) ** 2


def tones(sheet: Any) -> list[list[int]]:
    """Levels of the tiles of a grid of such pictures, row by row, 40 where there is none."""
    array = torch.tensor(list(sheet.tobytes())).view(sheet.height, sheet.width)
    factor = int((array == 40).all(1).int().argmin()) // 2  # the first gap is of two pixels, magnified
    return array[2 * factor :: 6 * factor, 2 * factor :: 6 * factor].tolist()
