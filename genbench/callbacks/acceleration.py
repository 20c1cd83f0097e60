"""How the hardware is used: memory format, compilation, TF32. None of it changes what is computed, but for rounding."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from lightning import Callback
from lightning.pytorch.profilers import PassThroughProfiler

from genbench.core.module import GenerativeModule
from genbench.core.precision import allow_tf32


class Unprofiled(PassThroughProfiler):
    """Lightning's default makes a context manager for each hook of each callback, 70 in a step; this one has one."""

    nothing: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:
        return self.nothing


class Acceleration(Callback):
    """Settings of speed.

    Args:
        channels_last: Keep images and convolutions as NHWC; on two CPU cores a DCGAN step took 0.9 of the time
        compile: Compile the networks in place, with this backend; none by default
        tf32: Multiply float32 matrices and convolutions in TF32 on GPUs that have it. Default: yes
    """

    def __init__(
        self,
        channels_last: bool = True,
        compile: Literal["inductor", "aot_eager", "cudagraphs"] | None = None,
        tf32: bool = True,
    ) -> None:
        self.channels_last, self.compile, self.tf32 = channels_last, compile, tf32

    def setup(self, trainer, module: GenerativeModule, stage: str) -> None:
        if type(trainer.profiler) is PassThroughProfiler:  # none was asked for
            trainer.profiler = Unprofiled()
        cuda = trainer.strategy.root_device.type == "cuda"
        if cuda:
            allow_tf32(self.tf32)
            torch.backends.cudnn.benchmark = True  # shapes do not change while training
        networks = [getattr(module, name) for names in module.players.values() for name in names]
        for network in networks:
            if self.channels_last:
                network.to(memory_format=torch.channels_last)
            if self.compile and stage == "fit":
                network.compile(backend=self.compile)  # in place: the names in the state dict stay

    def on_train_batch_start(self, trainer, module: GenerativeModule, batch: Any, batch_idx: int) -> None:
        if self.channels_last and batch.image.ndim == 4:
            batch.image = batch.image.contiguous(memory_format=torch.channels_last)
            if getattr(batch, "known_image", None) is not None:
                batch.known_image = batch.known_image.contiguous(memory_format=torch.channels_last)
