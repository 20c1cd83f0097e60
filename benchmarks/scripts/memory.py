"""Memory of a long run. It must not grow over 10,000 steps, and the data set must be in memory once, as uint8.

python benchmarks/scripts/memory.py --data-root DATA [--steps 10000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from lightning import Callback, Trainer
from machine import RESULTS, SILENT, report

from genbench.callbacks import (
    EMA,
    Acceleration,
    Checkpoint,
    GANMonitor,
    MaxImages,
    Monitor,
    SampleLogger,
    StopSafely,
    ValidationMetrics,
)
from genbench.cli.quiet import quiet
from genbench.data import MNIST
from genbench.loggers import Curves
from genbench.models import VAE

MIB = 2**20


def resident() -> int:
    """Resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watch(Callback):
    def __init__(self, every: int) -> None:
        self.every, self.steps, self.readings = every, 0, []

    def on_train_batch_end(self, *_) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            self.readings.append((self.steps, round(resident() / MIB, 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", default=os.environ.get("GENBENCH_DATA", "data"))
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "memory.json")
    arguments = parser.parse_args()
    quiet()
    data = MNIST(root=arguments.data_root, batch_size=64)
    before = resident()
    source = data.source("train")
    decoded = resident() - before
    watch = Watch(arguments.steps // 10)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            logger=[Curves(folder)],
            callbacks=[
                Acceleration(),
                EMA(),
                Monitor(show=False),
                GANMonitor(),
                SampleLogger(every_images=64 * watch.every),
                ValidationMetrics(every_images=64 * watch.every),
                Checkpoint(every_images=64 * watch.every),
                MaxImages(64 * arguments.steps),
                StopSafely(),
                watch,
            ],
            **SILENT,
        )
        trainer.fit(VAE(data.spec, network="mlp", hidden=[32], latent_dim=8), datamodule=data)
    (first, start), (_, end) = watch.readings[1], watch.readings[-1]
    rows = [
        {
            "uint8 images, MiB": round(source.everything.image.numel() / MIB, 1),
            "memory that decoding took, MiB": round(decoded / MIB, 1),
            f"after {first:,} steps, MiB": start,
            f"after {arguments.steps:,} steps, MiB": end,
            "growth, MiB": round(end - start, 1),
            "readings": watch.readings,
        }
    ]
    report("Memory of a run with pictures, validation and checkpoints", rows, arguments.out)


if __name__ == "__main__":
    main()
