"""Training steps of genbench, all defaults on, against a bare PyTorch loop; interleaved step by step.

Both sides have the same networks, optimizer, data loader and memory format. Ours adds what a user gets: averaged
weights, loss terms read and logged, a progress bar. Also measured: the share of a step spent waiting for data.

    python benchmarks/scripts/training.py --data-root DATA [--runs 7] [--blocks 10]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning import Callback, Trainer
from machine import RESULTS, SILENT, report
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from genbench.callbacks import (
    EMA,
    Acceleration,
    Checkpoint,
    Codebook,
    GANMonitor,
    MaxImages,
    Monitor,
    SampleLogger,
    StopSafely,
    ValidationMetrics,
)
from genbench.cli.quiet import quiet
from genbench.data import MNIST
from genbench.data.loader import TrainLoader
from genbench.loggers import Curves
from genbench.models import DCGAN, VAE

BLOCK = 10  # steps of one side before the other has its turn: what else the machine does falls on both alike


class TakeTurns(Callback):
    """Lets a bare loop take as many steps after each block of ours, and times both."""

    def __init__(self, bare: Iterator[float], blocks: int) -> None:
        self.bare, self.blocks = bare, blocks
        self.count, self.ours, self.theirs, self.waiting = 0, 0.0, 0.0, 0.0

    def on_train_batch_end(self, *_) -> None:
        self.count += 1
        if self.count % BLOCK:
            return
        now = time.perf_counter()
        waiting = sum(next(self.bare) for _ in range(BLOCK))
        if self.count > BLOCK:  # the first block warms up
            self.ours += now - self.mark
            self.theirs += time.perf_counter() - now
            self.waiting += waiting
        self.mark = time.perf_counter()


def run(build: Callable, data: MNIST, blocks: int) -> TakeTurns:
    """One training of ours, all defaults on, with a bare loop between its steps."""
    turns = TakeTurns(bare(build, data), blocks)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            logger=[Curves(folder)],
            callbacks=[
                Acceleration(),
                EMA(),
                Monitor(),
                GANMonitor(),
                Codebook(),
                SampleLogger(n=1),
                ValidationMetrics(),
                Checkpoint(),
                MaxImages(64 * BLOCK * (blocks + 1)),
                StopSafely(),
                turns,
            ],
            limit_val_batches=0,
            **SILENT,
        )
        trainer.fit(build(data.spec), datamodule=data)
    return turns


def bare_gan(module: DCGAN) -> Callable[[torch.Tensor], None]:
    g, d = module.generator, module.discriminator
    g_opt, d_opt = (torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999), fused=True) for net in (g, d))

    def step(real: torch.Tensor) -> None:
        fake = g(torch.randn(len(real), module.latent_dim))
        d_opt.zero_grad()
        (softplus(-d(real)).mean() + softplus(d(fake.detach())).mean()).backward()
        d_opt.step()
        g_opt.zero_grad()
        softplus(-d(fake)).mean().backward()
        g_opt.step()

    return step


def bare_vae(module: VAE) -> Callable[[torch.Tensor], None]:
    optimizer = torch.optim.Adam(module.parameters(), 1e-3, fused=True)

    def step(x: torch.Tensor) -> None:
        mu, logvar = module.encoder(x).chunk(2, 1)
        logits = module.decoder(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu))
        nll = binary_cross_entropy_with_logits(logits, (x + 1) / 2, reduction="none").flatten(1).sum(1)
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
        optimizer.zero_grad()
        (nll + kl).mean().backward()
        optimizer.step()

    return step


def bare(build: Callable, data: MNIST) -> Iterator[float]:
    """Takes a step each time; gives the seconds of it that went to waiting for data."""
    module = build(data.spec).to(memory_format=torch.channels_last)
    step = (bare_gan if isinstance(module, DCGAN) else bare_vae)(module)
    batches = iter(TrainLoader(data.source("train"), data.batch_size, seed=1))
    while True:
        before = time.perf_counter()
        real = next(batches).image
        waited = time.perf_counter() - before
        step(real.contiguous(memory_format=torch.channels_last))
        yield waited


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", default=os.environ.get("GENBENCH_DATA", "data"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--blocks", type=int, default=10, help=f"of {BLOCK} steps each")
    parser.add_argument("--out", type=Path, default=RESULTS / "training.json")
    arguments = parser.parse_args()
    quiet()
    data = MNIST(root=arguments.data_root, batch_size=64)
    cases = {
        "DCGAN, width 32": (lambda spec: DCGAN(spec, width=32), 1, 1.05),
        "VAE, convolutional": (VAE, 1, 1.05),
        "VAE, fully connected": (lambda spec: VAE(spec, network="mlp"), 4, 1.15),
    }
    rows = []
    for name, (build, more, bound) in cases.items():
        runs = [run(build, data, arguments.blocks * more) for _ in range(arguments.runs)]  # short steps want more
        steps = BLOCK * arguments.blocks * more
        ratios = sorted(r.ours / r.theirs for r in runs)
        rows.append(
            {
                "step": name,
                "genbench ms": round(statistics.median(r.ours for r in runs) / steps * 1e3, 2),
                "bare loop ms": round(statistics.median(r.theirs for r in runs) / steps * 1e3, 2),
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(r, 3) for r in ratios],
                "bound": bound,
                "waiting for data": f"{statistics.median(r.waiting / r.theirs for r in runs):.2%}",
            }
        )
        print(rows[-1], flush=True)
    report("Training step, batch 64, 32×32, CPU", rows, arguments.out)


if __name__ == "__main__":
    main()
