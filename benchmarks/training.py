"""Training steps of genbench, all defaults on, against a bare PyTorch loop; interleaved in one run.

Both sides have the same networks, optimizer, data loader and memory format. Ours adds what a user gets: averaged
weights, loss terms read and logged, a progress bar. Also measured: the share of a step spent waiting for data.

    python benchmarks/training.py --data-root DATA [--runs 7] [--steps 100]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning import Callback, Trainer
from machine import report
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from genbench.callbacks import EMA, Acceleration, Budget, Checkpoint, Monitor, Pictures, Quality, StopSafely
from genbench.cli.runs import quiet
from genbench.data import MNIST
from genbench.loggers import Curves
from genbench.models import DCGAN, VAE

WARM_UP = 5


class Clock(Callback):
    """Seconds from the first step after the warm-up to the last one."""

    def __init__(self, steps: int) -> None:
        self.last, self.count = WARM_UP + steps, 0

    def on_train_batch_end(self, *_) -> None:
        self.count += 1
        if self.count == WARM_UP:
            self.start = time.perf_counter()
        elif self.count == self.last:
            self.seconds = time.perf_counter() - self.start


def ours(build: Callable, data: MNIST, steps: int) -> float:
    """Seconds per step."""
    clock = Clock(steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            logger=[Curves(folder)],
            callbacks=[
                Acceleration(),
                EMA(),
                Monitor(),
                Pictures(n=1),
                Quality(),
                clock,
                Budget(64 * (WARM_UP + steps)),
                Checkpoint(),
                StopSafely(),
            ],
            max_epochs=-1,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            inference_mode=False,
        )
        trainer.fit(build(data.spec), datamodule=data)
    return clock.seconds / steps


def bare_gan(module: DCGAN) -> Callable[[torch.Tensor], None]:
    g, d = module.generator, module.discriminator
    g_opt, d_opt = (torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999)) for net in (g, d))

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
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)

    def step(x: torch.Tensor) -> None:
        mu, logvar = module.encoder(x).chunk(2, 1)
        logits = module.decoder(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu))
        nll = binary_cross_entropy_with_logits(logits, (x + 1) / 2, reduction="none").flatten(1).sum(1)
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
        optimizer.zero_grad()
        (nll + kl).mean().backward()
        optimizer.step()

    return step


def bare(build: Callable, data: MNIST, steps: int) -> tuple[float, float]:
    """Seconds per step, and those of them that went to waiting for data."""
    module = build(data.spec).to(memory_format=torch.channels_last)
    step = (bare_gan if isinstance(module, DCGAN) else bare_vae)(module)
    data.trainer = None
    batches, waiting = iter(data.train_dataloader()), 0.0
    for k in range(WARM_UP + steps):
        if k == WARM_UP:
            start, waiting = time.perf_counter(), 0.0
        before = time.perf_counter()
        real = next(batches).image
        waiting += time.perf_counter() - before
        step(real.contiguous(memory_format=torch.channels_last))
    return (time.perf_counter() - start) / steps, waiting / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", default=os.environ.get("GENBENCH_DATA", "data"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training.json")
    arguments = parser.parse_args()
    quiet()
    data = MNIST(root=arguments.data_root, batch_size=64)
    cases = {
        "DCGAN, width 32": (lambda spec: DCGAN(spec, width=32), 1, 1.05),
        "VAE, convolutional": (lambda spec: VAE(spec), 2, 1.05),
        "VAE, fully connected": (lambda spec: VAE(spec, network="mlp"), 20, 1.15),
    }
    rows = []
    for name, (build, more, bound) in cases.items():
        steps = arguments.steps * more  # short steps want more of them
        ratios, times, waits = [], [], []
        for run in range(arguments.runs):
            order = [lambda: ours(build, data, steps), lambda: bare(build, data, steps)]  # noqa: B023
            results = [f() for f in (order if run % 2 else order[::-1])]
            a, (b, wait) = results if run % 2 else results[::-1]
            ratios.append(a / b)
            times.append((a * 1e3, b * 1e3))
            waits.append(wait / b)
        rows.append(
            {
                "step": name,
                "genbench ms": round(statistics.median(a for a, _ in times), 2),
                "bare loop ms": round(statistics.median(b for _, b in times), 2),
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(r, 3) for r in sorted(ratios)],
                "bound": bound,
                "waiting for data": f"{statistics.median(waits):.2%}",
            }
        )
        print(rows[-1], flush=True)
    report("Training step, batch 64, 32×32, CPU", rows, arguments.out)


if __name__ == "__main__":
    main()
