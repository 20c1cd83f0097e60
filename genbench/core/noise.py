"""Reproducible noise.

Training noise is a function of the seed and the images seen. Each process draws the noise of the global batch and keeps
its own rows, so noise differs between processes, and is the same in a resumed run or with a different number of
processes. Sampling noise is a function of each sample's own seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def mix(*parts: int | str) -> int:
    """Hash ints and strings to a seed of 63 bits (SplitMix64, Steele et al. 2014), the same on every machine."""
    state = 0
    for part in parts:
        for word in part.encode() if isinstance(part, str) else (part,):
            state = (state + word + 0x9E3779B97F4A7C15) & _MASK
            state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
            state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
            state ^= state >> 31
    return state >> 1


class Draws:
    """Draws rows of noise for one step: `draws(torch.randn, 64, 100)` is [64, 100].

    It draws all rows of the global batch (world × B) and returns the block of B rows of this process.
    """

    def __init__(self, rank: int = 0, world: int = 1, device: torch.device | str = "cpu") -> None:
        self.rank, self.world, self.device = rank, world, torch.device(device)
        self._generator = torch.Generator(self.device)

    def seed(self, *key: int | str) -> None:
        self._generator.manual_seed(mix(*key))

    def __call__(self, draw: Callable[..., Tensor], rows: int, *shape: int, **kwargs) -> Tensor:
        whole = draw(rows * self.world, *shape, generator=self._generator, device=self.device, **kwargs)
        return whole[self.rank * rows : (self.rank + 1) * rows]


def per_seed(draw: Callable[..., Tensor], seeds: Tensor, shape: Sequence[int]) -> Tensor:
    """Draw `[n, *shape]` on the CPU, row i from a generator seeded only with `seeds[i]`; return it on `seeds.device`.

    The result does not depend on the batch, the order or the device. `draw` is `torch.randn` or `torch.rand`.
    """
    generator = torch.Generator()
    rows = [draw(*shape, generator=generator.manual_seed(mix("sample", int(seed)))) for seed in seeds.tolist()]
    return torch.stack(rows).to(seeds.device) if rows else torch.empty(0, *shape, device=seeds.device)


class SeedNoise:
    """Successive draws of standard normal noise for samples, `[n, *shape]` each; row i follows from `seeds[i]` alone.

    The first draw is that of `per_seed`.
    """

    def __init__(self, seeds: Tensor, shape: Sequence[int], dtype: torch.dtype | str = torch.float32) -> None:
        self.shape, self.dtype, self.device = tuple(shape), dtype, seeds.device
        self._generators = [torch.Generator().manual_seed(mix("sample", int(seed))) for seed in seeds.tolist()]

    def __call__(self) -> Tensor:
        rows = [torch.randn(self.shape, generator=generator) for generator in self._generators]
        return torch.stack(rows).to(self.device).to(self.dtype)
