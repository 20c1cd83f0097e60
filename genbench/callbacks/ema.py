"""Exponential moving average of the weights that sampling and the other capabilities use."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback
from torch import Tensor

from genbench.core.arguments import Checked, Share
from genbench.core.module import GenerativeModule
from genbench.core.strategy import PlayersDDP
from genbench.core.units import Images


class EMA(Callback, metaclass=Checked):
    """Averages the weights of the networks in `module.ema` and copies their buffers. Validation, samples and
    `genbench.load` use the averages. Every checkpoint contains both raw and EMA weights.

    Args:
        halflife: Half-life of a weight in the average, in images
        rampup: The half-life is at most this fraction of the images seen, so that the initial weights do not dominate
            the average in short runs; 0.05 as in Karras et al. 2020 (StyleGAN2-ADA)
        every_images: Images between two updates of the average. The decay is computed from this number, so it changes
            the cost but not the half-life
        enabled: Whether to average
    """

    def __init__(
        self, halflife: Images = Images(10_000), rampup: Share = 0.05, every_images: Images = Images(500),
        enabled: bool = True,
    ) -> None:  # fmt: skip
        self.halflife, self.rampup, self.every_images = Images(halflife), rampup, Images(every_images)
        self.enabled = enabled
        self.average: dict[str, Tensor] = {}
        self._updated_at = 0
        self._restored: dict[str, Any] | None = None
        self._swapped = False

    def on_fit_start(self, trainer, module: GenerativeModule) -> None:
        if not self.enabled:
            return
        self.average = {name: t.detach().clone() for name, t in self._raw(module).items()}
        self._updated_at = module.images_seen
        if self._restored is not None:
            for name, value in self._restored["state_dict"].items():
                self.average[name].copy_(value)
            self._updated_at = self._restored["updated_at"]

    def _raw(self, module: GenerativeModule) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": value
            for name in module.ema
            for key, value in getattr(module, name).state_dict(keep_vars=True).items()
        }

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        # update after each batch at first, else a run shorter than the interval would be evaluated with its initial
        # weights
        if self.enabled and (module.due(self.every_images) or module.images_seen < self.every_images):
            self.update(module)

    @torch.no_grad()
    def update(self, module: GenerativeModule) -> None:
        """average <- decay * average + (1 - decay) * weights, decay = ½^(images since the last update / half-life)."""
        halflife = min(self.halflife, self.rampup * module.images_seen) if self.rampup else self.halflife
        weight = 1 - 0.5 ** ((module.images_seen - self._updated_at) / halflife)
        self._updated_at = module.images_seen
        moving, raw = [], []
        for name, value in self._raw(module).items():
            if isinstance(value, torch.nn.Parameter):
                moving.append(self.average[name])
                raw.append(value.detach())
            else:
                self.average[name].copy_(value)
        torch._foreach_lerp_(moving, raw, weight)

    @contextmanager
    def in_place(self, module: GenerativeModule):
        """Context in which the module uses the EMA weights."""
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    @torch.no_grad()
    def _swap(self, module: GenerativeModule) -> None:
        if not self.average:
            return
        for name, value in self._raw(module).items():
            kept = value.detach().clone()
            value.copy_(self.average[name])
            self.average[name].copy_(kept)
        self._swapped = not self._swapped

    def on_validation_start(self, trainer, module: GenerativeModule) -> None:
        if trainer.state.fn != "fit":  # outside of fit, the module was loaded with the right weights
            return
        if isinstance(trainer.strategy, PlayersDDP):  # each process has its own batch norm statistics
            trainer.strategy.broadcast_state(leave=module.per_process)  # validation does not use them
            for value in self.average.values():
                dist.broadcast(value, src=0)
        self._swap(module)

    def on_validation_end(self, trainer, module: GenerativeModule) -> None:
        if self._swapped:
            self._swap(module)

    def on_exception(self, trainer, module: GenerativeModule, exception: BaseException) -> None:
        self.on_validation_end(trainer, module)  # restore the raw weights if validation failed

    def on_save_checkpoint(self, trainer, module: GenerativeModule, checkpoint: dict[str, Any]) -> None:
        if self.average:
            checkpoint["ema"] = {"state_dict": self.average, "updated_at": self._updated_at}

    def on_load_checkpoint(self, trainer, module: GenerativeModule, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint.get("ema")
