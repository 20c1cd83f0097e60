"""Cheap scores on the validation split during training: they choose the best checkpoint."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback
from torch import Tensor

from genbench.core.capabilities import Reconstructs, Samples
from genbench.core.module import GenerativeModule
from genbench.core.noise import mix
from genbench.core.units import Images
from genbench.metrics.sliced_wasserstein import project, sliced_wasserstein


class Quality(Callback):
    """Validates every so many images and logs the means over the split, with averaged weights:

    val/<name>  what the model's `validation_step` returns for each image
    val/mse     squared error of reconstructions, for models that reconstruct
    val/swd     sliced Wasserstein distance between samples and images, for models that sample

    Args:
        every_images: How often; also at the end
        samples: Number of samples, and of images that they are compared with
    """

    def __init__(self, every_images: Images = Images(100_000), samples: int = 1000) -> None:
        self.every_images, self.samples = Images(every_images), samples
        self._sums: dict[str, float] = {}
        self._count = 0
        self._projected: list[Tensor] = []
        self.scores: dict[str, float] = {}

    def on_train_batch_start(self, trainer, module: GenerativeModule, batch: Any, batch_idx: int) -> None:
        # Lightning validates when batch_idx + 1 divides by this: now, or not at all
        after = module.images_seen + len(batch) * trainer.world_size
        now = after // self.every_images != module.images_seen // self.every_images
        trainer.val_check_batch = 1 if now else float("inf")

    def on_validation_start(self, trainer, module: GenerativeModule) -> None:
        self._sums, self._count, self._projected, self._images = {}, 0, [], 0

    @torch.no_grad()
    def on_validation_batch_end(self, trainer, module: GenerativeModule, outputs: Any, batch: Any, *_: Any) -> None:
        scores = dict(outputs or {})
        if isinstance(module, Reconstructs):
            error = (module.reconstruct(batch.image).float() - batch.image).square()
            scores["mse"] = error.flatten(1).mean(1)
        for name, values in scores.items():
            self._sums[name] = self._sums.get(name, 0.0) + values.double().sum().item()
        self._count += len(batch)
        if isinstance(module, Samples) and self._images < self.samples:
            self._projected.append(project(batch.image).cpu())
            self._images += len(batch) * trainer.world_size

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer, module: GenerativeModule) -> None:
        split = "test" if trainer.state.fn == "test" else "val"
        # as objects: a process that had no block does not know the names
        parts = gather([(self._sums, self._count)])
        count = sum(n for _, n in parts)
        names = sorted({name for sums, _ in parts for name in sums})
        self.scores = {f"{split}/{name}": sum(sums.get(name, 0.0) for sums, _ in parts) / count for name in names}
        if isinstance(module, Samples):
            real = torch.cat(gather(self._projected))[: self.samples]
            seeds = torch.arange(self.samples, device=module.device) + mix("quality") % 2**32
            mine = seeds[trainer.global_rank :: trainer.world_size]
            fake = [project(module.sample(part)).cpu() for part in mine.split(250)]
            self.scores[f"{split}/swd"] = sliced_wasserstein(torch.cat(gather(fake)), real).item()
        if trainer.state.fn != "fit":
            module.log_dict(self.scores, rank_zero_only=False)
        elif trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(self.scores, step=module.images_seen)

    on_test_start, on_test_batch_end = on_validation_start, on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end


def gather(parts: list[Any]) -> list[Any]:
    """The parts of all processes, in the order of their ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return parts
    everything: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everything, parts)
    return [part for rank in everything for part in rank]
