"""Measures how fast a config trains on this machine."""

from __future__ import annotations

import json
import time
from typing import Any

from lightning import Callback

from genbench.core import machine
from genbench.core.arguments import Checked, Weight
from genbench.core.errors import Interrupted
from genbench.core.files import replacing
from genbench.core.module import GenerativeModule


class Stopwatch(Callback, metaclass=Checked):
    """Measures the speed of training, writes it to a JSON file, and ends the run with `Interrupted(0)`.

    Args:
        out: The JSON file: images per second over all devices, and the device
        seconds: Duration of the measurement
        warmup: Seconds to train before the measurement, since the first steps compile, allocate and fill caches; at
            least 5 steps
    """

    def __init__(self, out: str, seconds: Weight = 10.0, warmup: Weight = 4.0) -> None:
        self.out, self.seconds, self.warmup = out, seconds, warmup
        self.found: dict[str, Any] = {}
        self._steps, self._began = 0, 0.0
        self._from: tuple[float, int] | None = None  # time and images at the start of the measurement

    def on_train_start(self, trainer, module: GenerativeModule) -> None:
        self._began = time.monotonic()

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        self._steps += 1
        now = time.monotonic()
        if self._from is None:
            over = self._steps >= 5 and now - self._began >= self.warmup
        else:
            over = now - self._from[0] >= self.seconds
        if trainer.world_size > 1 and self._steps % 10:
            return  # synchronizing at each step would slow down the measured training
        if not trainer.strategy.broadcast(over):  # the clock of the first process decides for all processes
            return
        if self._from is None:
            self._from = (now, module.images_seen)
            return
        self.found = {
            "images_per_second": (module.images_seen - self._from[1]) / (now - self._from[0]),
            "device": machine.device_name(trainer.strategy.root_device),
            "world_size": trainer.world_size,
        }
        if trainer.is_global_zero:
            with replacing(self.out) as file:
                file.write(json.dumps(self.found).encode())
        raise Interrupted(0)
