"""Models with one capability each and known scores, and helpers for records."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from genbench.core.batch import DataSpec, from_uint8, to_uint8
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.data import Digits, Shapes
from genbench.evaluation.protocol import Protocol

SMALL = Protocol("small", real=100, generated=70, block=16, kid_subsets=5, kid_subset_size=32, is_splits=2,
                 neighbors_images=64, train=150)  # fmt: skip


class Untrained(GenerativeModule):
    def __init__(self, spec: DataSpec | None = None, **training: Any) -> None:
        super().__init__(spec, **training)
        self.net = nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None: ...


class Giver(Untrained):
    """Sample i is image i of a given tensor [N, C, H, W] in [-1, 1]."""

    def give(self, images: Tensor) -> Giver:
        self.images = images
        return self

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        return self.images[seeds % 2**32 % len(self.images)].to(self.dtype)


class Obedient(Untrained):
    """Samples are test images of the requested class, or of the next class."""

    conditional = True

    def __init__(self, spec: DataSpec | None = None, amiss: int = 0, **training: Any) -> None:
        super().__init__(spec, **training)
        self.amiss, self.known = amiss, Digits().source("test").everything
        self.conditions: list[Tensor] = []

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        self.conditions.append(condition)
        found = []
        for seed, label in zip(seeds.tolist(), ((condition + self.amiss) % 10).tolist(), strict=True):
            among = (self.known.label == label).nonzero()[:, 0]
            found.append(self.known.image[among[seed % len(among)]])
        return from_uint8(torch.stack(found))


class Independent(Untrained):
    """Level v of a pixel has a probability proportional to v + 1."""

    likelihood, pixels = "exact", "8-bit"
    table = torch.log((torch.arange(256) + 1) / (256 * 257 / 2))

    def log_likelihood(self, x: Tensor) -> Tensor:
        return self.table[to_uint8(x).long()].flatten(1).sum(1)


class Uniform(Untrained):
    likelihood, pixels = "lower bound", "8-bit"

    def log_likelihood(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), -math.prod(x.shape[1:]) * math.log(256))


class Density(Uniform):
    pixels = "density"


class Namer(Untrained):
    """Knows the labels of a split's images by heart, but calls every so many of them the class after it."""

    def learn(self, data: Any, wrong: int = 0) -> Namer:
        everything = data.source("test").everything
        label = everything.label.clone()
        if wrong:
            label[::wrong] += 1
        label = label % len(self.spec.classes)
        self.known = {image.numpy().tobytes(): name for image, name in zip(everything.image, label, strict=True)}
        return self

    def classify(self, x: Tensor) -> Tensor:
        named = torch.stack([self.known[image.numpy().tobytes()] for image in to_uint8(x)])
        return one_hot(named, len(self.spec.classes)).float()


class Painter(Untrained):
    """Samples are test images with the requested caption, or with the next caption."""

    conditional = True

    def learn(self, data: Any, amiss: int = 0) -> Painter:
        self.known, self.amiss = data.source("test").everything, amiss
        return self

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        rows = [int((self.known.caption == caption).all(1).nonzero()[0, 0]) for caption in condition]
        rows = (torch.tensor(rows) + self.amiss) % len(self.known.image)
        return from_uint8(self.known.image[rows])


class Segmenter(Untrained):
    """Knows the masks by heart, but calls every so many of the test images empty."""

    def learn(self, data: Shapes, wrong: int = 0) -> Segmenter:
        everything = data.source("test").everything
        masks = everything.mask.long().clone()
        if wrong:
            masks[::wrong] = 0
        self.known = {image.numpy().tobytes(): mask for image, mask in zip(everything.image, masks, strict=True)}
        return self

    def segment(self, x: Tensor) -> Tensor:
        masks = torch.stack([self.known[image.numpy().tobytes()] for image in to_uint8(x)])
        return one_hot(masks, 6).permute(0, 3, 1, 2).float()


class Coder(Untrained):
    """Reconstructs images exactly; its code is a 4×4 grid of integers below 512."""

    latent_shape, latent_dtype, latent_values = (4, 4), "int64", 512

    def encode(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 4, 4, dtype=torch.int64)

    def reconstruct(self, x: Tensor) -> Tensor:
        return x


class Diffusion(GenerativeModule):
    """An untrained diffusion model: each step moves the images by a part of what a linear network predicts.

    With guidance, the network gets conditional and unconditional images as one batch of twice the size.
    """

    def __init__(self, spec: DataSpec | None = None, **training: Any) -> None:
        super().__init__(spec, **training)
        self.net = LinearDenoiser(math.prod(self.spec.shape))

    def training_step(self, batch: Any, batch_idx: int) -> None: ...

    def sample(
        self, seeds: Tensor, *, condition: Tensor | None = None, steps: int = 4, guidance: float = 1.0
    ) -> Tensor:
        """
        steps     number of denoising steps
        guidance  weight of the conditional prediction
        """
        x = per_seed(torch.randn, seeds, self.spec.shape)
        for k in range(steps):
            time = torch.full((len(x),), 1 - k / steps)
            if guidance == 1:
                found = self.net(x, time)
            else:
                both = self.net(torch.cat([x, x]), torch.cat([time, time]))
                found = torch.lerp(*both.chunk(2), guidance)
            x = x + (found - x) / steps
        return x.clamp(-1, 1)


class LinearDenoiser(nn.Module):
    """[B, ...] and times [B] -> [B, ...]."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.linear = nn.Linear(numbers, numbers)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.linear(x.flatten(1)).view_as(x) * time.view(-1, *[1] * (x.ndim - 1))


def values(record: Any) -> dict[str, float | None]:
    return {name: entry["value"] for name, entry in record.metrics.items()}


def assert_same(a: Any, b: Any, where: str = "record") -> None:
    """Check that both are equal, numbers up to 1e-6 (relative or absolute)."""
    if isinstance(a, dict):
        assert isinstance(b, dict) and a.keys() == b.keys(), where
        for name in a:
            assert_same(a[name], b[name], f"{where}.{name}")
    elif isinstance(a, float) and isinstance(b, float):
        assert abs(a - b) <= 1e-6 * max(1, abs(a)), f"{where}: {a} and {b}"
    else:
        assert a == b, f"{where}: {a} and {b}"


def untimed(record: Any) -> dict[str, Any]:
    """A record as plain values, but for when, how fast and by how many it was made."""
    return {k: v for k, v in record.to_dict().items() if k not in ("cost", "created", "environment")}
