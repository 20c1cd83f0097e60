"""Compares two gloo processes, one thread each, with a single process on one core, at the same global batch of 128.

All three processes run during the whole measurement and take turns in blocks of steps, so that other load on the
machine affects both sides equally. The single process switches cores between blocks. Both sides train like `fit` with
its defaults.

    python benchmarks/scripts/devices.py --data-root DATA [--rounds 16]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

BATCH = 128
BLOCK = 8  # steps
MODELS = {"DCGAN, width 32": ("DCGAN", {"width": 32}), "VAE, convolutional": ("VAE", {})}
BOUND = 1.5


def work(rank: int, world: int, cores: list[int], port: int, root: str, words: Connection) -> None:
    """One process of a side: trains each model, one block of steps per message on `words`."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {cores[rank]})
    if world > 1:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
        os.environ |= meeting
    import torch
    from lightning import Callback, Trainer
    from machine import SILENT

    import genbench.models
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
    from genbench.core.strategy import PlayersDDP
    from genbench.data import MNIST
    from genbench.loggers import Curves

    class TakeTurns(Callback):
        def on_train_start(self, trainer, module) -> None:
            self.listen(trainer)

        def on_train_batch_end(self, trainer, module, batch, *_) -> None:
            self.steps += 1
            if self.steps == BLOCK:
                words.send((time.perf_counter() - self.start, time.process_time() - self.busy))
                self.listen(trainer)

        def listen(self, trainer) -> None:
            core = words.recv()
            if core is None:
                trainer.should_stop = True
            elif world == 1:
                os.sched_setaffinity(0, {core})
            self.steps, self.start, self.busy = 0, time.perf_counter(), time.process_time()

    quiet()
    torch.set_num_threads(1)
    data = MNIST(root=root, batch_size=BATCH)
    for name, settings in MODELS.values():
        module = getattr(genbench.models, name)(data.spec, **settings)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                accelerator="cpu",
                devices=world,
                default_root_dir=folder,
                logger=[Curves(folder)],
                callbacks=[
                    Acceleration(),
                    EMA(),
                    Monitor(show=False),
                    GANMonitor(),
                    SampleLogger(n=1),
                    ValidationMetrics(),
                    Checkpoint(),
                    MaxImages(10**9),
                    StopSafely(),
                    TakeTurns(),
                ],
                limit_val_batches=0,
                **SILENT,
                strategy=PlayersDDP(process_group_backend="gloo") if world > 1 else "auto",
            )
            trainer.fit(module, datamodule=data)


def block(side: list[Connection], core: int) -> tuple[float, float]:
    """Wall seconds and processor seconds of a block, each of the slowest process."""
    for words in side:
        words.send(core)
    seconds, busy = zip(*(words.recv() for words in side), strict=True)
    return max(seconds), max(busy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", default=os.environ.get("GENBENCH_DATA", "data"))
    parser.add_argument("--rounds", type=int, default=24, help=f"blocks of {BLOCK} steps per side and model")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "devices.json")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context, sides, processes = multiprocessing.get_context("spawn"), [], []
    for world in (1, 2):
        sides.append([])
        for rank in range(world):
            ours, theirs = context.Pipe()
            given = (rank, world, cores, port, arguments.data_root, theirs)
            processes.append(context.Process(target=work, args=given, daemon=True))
            processes[-1].start()
            theirs.close()  # otherwise a dead process would be waited for
            sides[-1].append(ours)
    try:
        rows = measure(*sides, cores, arguments.rounds)
    finally:
        for process in processes:
            process.kill()
    from machine import report  # not imported before the processes have started, since torch would start threads

    report(f"Two gloo processes against one, global batch {BATCH}, 32×32, one CPU core each", rows, arguments.out)


def measure(one: list[Connection], two: list[Connection], cores: list[int], rounds: int) -> list[dict]:
    rows = []
    for name in MODELS:
        block(one, cores[0]), block(two, 0)  # warm-up
        pairs = [(block(one, cores[k % 2]), block(two, 0)) for k in range(rounds)]
        for words in (*one, *two):
            words.send(None)
        images = BATCH * BLOCK
        ratios = sorted(a / b for (a, _), (b, _) in pairs)
        a, a_busy, b, b_busy = (statistics.median(x) for x in zip(*(a + b for a, b in pairs), strict=True))
        rows.append(
            {
                "training": name,
                "one process, images/s": round(images / a, 1),
                "two processes, images/s": round(images / b, 1),
                "ratio": round(statistics.median(ratios), 3),
                "of processor time": round(a_busy / b_busy, 3),  # the ratio without any waiting
                "ratios": [round(r, 3) for r in ratios],
                "bound": BOUND,
            }
        )
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
