"""Time of genbench's training steps with its defaults, compared with a bare PyTorch loop.

The sides alternate in blocks of steps. Both sides have the same networks, optimizer, data loader and memory format.
genbench also averages the weights, reads and logs the loss terms, and shows a progress bar. The fraction of time spent
waiting for data is also measured.

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
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, softplus

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
from genbench.models import DCGAN, DDPM, VAE

BLOCK = 10  # steps per turn of each side, so that other load on the machine affects both equally


class TakeTurns(Callback):
    """Runs a block of steps of a bare loop after each block of genbench's steps, and times both, in seconds."""

    def __init__(self, bare: Iterator[float], steps: int) -> None:
        self.bare, self.steps = bare, steps
        self.count, self.waiting = 0, 0.0
        self.ours: list[float] = []  # of each block
        self.theirs: list[float] = []

    def on_train_batch_end(self, *_) -> None:
        self.count += 1
        if self.count % self.steps:
            return
        now = time.perf_counter()
        waiting = sum(next(self.bare) for _ in range(self.steps))
        if self.count > self.steps:  # the first block warms up
            self.ours.append(now - self.mark)
            self.theirs.append(time.perf_counter() - now)
            self.waiting += waiting
        self.mark = time.perf_counter()


def run(build: Callable, data: MNIST, blocks: int, steps: int = BLOCK) -> TakeTurns:
    """One training of genbench with its defaults, alternating with a bare loop after each `steps` steps."""
    turns = TakeTurns(bare(build, data), steps)
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
                MaxImages(64 * steps * (blocks + 1)),
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


def bare_ddpm(module: DDPM) -> Callable[[torch.Tensor], None]:
    """v prediction with the schedule of the model."""
    alpha, sigma = module.diffusion.alpha.float(), module.diffusion.sigma.float()
    optimizer = torch.optim.Adam(module.parameters(), 1e-3, fused=True)

    def step(x: torch.Tensor) -> None:
        t = torch.randint(len(alpha), (len(x),))
        a, s, noise = alpha[t].view(-1, 1, 1, 1), sigma[t].view(-1, 1, 1, 1), torch.randn_like(x)
        v = module.network(a * x + s * noise, t / len(alpha))
        optimizer.zero_grad()
        mse_loss(v, a * noise - s * x).backward()
        optimizer.step()

    return step


BARE: dict[type, Callable] = {DCGAN: bare_gan, VAE: bare_vae, DDPM: bare_ddpm}


def bare(build: Callable, data: MNIST) -> Iterator[float]:
    """Takes one training step per iteration. Yields the seconds spent waiting for data."""
    module = build(data.spec).to(memory_format=torch.channels_last)
    step = BARE[type(module)](module)
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
    parser.add_argument("--blocks", type=int, default=10, help=f"number of blocks of {BLOCK} steps")
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
        # short steps need more blocks
        runs = [run(build, data, arguments.blocks * more) for _ in range(arguments.runs)]
        steps = BLOCK * arguments.blocks * more
        ratios = sorted(r.ours / sum(r.theirs) for r in runs)
        rows.append(
            {
                "step": name,
                "genbench ms": round(statistics.median(sum(r.ours) for r in runs) / steps * 1e3, 2),
                "bare loop ms": round(statistics.median(sum(r.theirs) for r in runs) / steps * 1e3, 2),
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(r, 3) for r in ratios],
                "bound": bound,
                "waiting for data": f"{statistics.median(r.waiting / sum(r.theirs) for r in runs):.2%}",
            }
        )
        print(rows[-1], flush=True)
    report("Training step, batch 64, 32×32, CPU", rows, arguments.out)


if __name__ == "__main__":
    main()
