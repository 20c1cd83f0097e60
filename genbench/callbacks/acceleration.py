"""Memory format, compilation and TF32. These settings change results only by rounding."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from lightning import Callback
from lightning.pytorch.profilers import PassThroughProfiler

from genbench.core.arguments import Checked
from genbench.core.module import GenerativeModule
from genbench.core.precision import allow_tf32


class Unprofiled(PassThroughProfiler):
    """A profiler with one shared context manager. Lightning's default creates 70 per training step, for all hooks."""

    nothing: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:
        return self.nothing


class Acceleration(Callback, metaclass=Checked):
    """Settings for speed.

    Args:
        channels_last: Store images and convolutions as NHWC; on two CPU cores a DCGAN step took 10% less time
        compile: Compile the networks in place with this backend; default: no compilation
        tf32: Compute float32 matrix multiplications and convolutions in TF32 on GPUs that support it
    """

    def __init__(
        self,
        channels_last: bool = True,
        compile: Literal["inductor", "aot_eager", "cudagraphs"] | None = None,
        tf32: bool = True,
    ) -> None:
        self.channels_last, self.compile, self.tf32 = channels_last, compile, tf32

    def setup(self, trainer, module: GenerativeModule, stage: str) -> None:
        if type(trainer.profiler) is PassThroughProfiler:  # no profiler was chosen
            trainer.profiler = Unprofiled()
        cuda = trainer.strategy.root_device.type == "cuda"
        if cuda:
            allow_tf32(self.tf32)
            # shapes are constant in training; not for deterministic runs, since the fastest algorithm may differ
            # between runs
            torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        for network in (getattr(module, name) for names in module.players.values() for name in names):
            if self.channels_last:
                network.to(memory_format=torch.channels_last)
            if self.compile and stage == "fit":
                network.compile(backend=self.compile)  # in place: the names in the state dict stay

    def on_train_batch_start(self, trainer, module: GenerativeModule, batch: Any, batch_idx: int) -> None:
        if self.channels_last and batch.image.ndim == 4:
            batch.image = batch.image.contiguous(memory_format=torch.channels_last)
            if getattr(batch, "known_image", None) is not None:
                batch.known_image = batch.known_image.contiguous(memory_format=torch.channels_last)
