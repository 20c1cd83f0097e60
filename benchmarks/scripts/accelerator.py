"""Training speed on a GPU: images per second of genbench and of a bare PyTorch loop with the same settings.

The fraction of the GPU's peak FLOPS is also reported. Both sides train equal networks in one process on random images
that are stored on the device. They take turns after each block of steps. FLOPs are counted by PyTorch in a step of the
bare loop: convolutions and matrix products, forward and backward.

    python benchmarks/scripts/accelerator.py [--batch 256] [--blocks 10] [--only VAE] [--only bf16]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, Trainer
from machine import RESULTS, SILENT, report
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from torch.utils.flop_counter import FlopCounterMode

from genbench.callbacks import EMA, Acceleration, Checkpoint, MaxImages, Monitor, StopSafely
from genbench.cli.quiet import quiet
from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.data.loader import MemorySource, TrainLoader
from genbench.loggers import Curves
from genbench.models import DCGAN, VAE

MODELS = {"DCGAN, width 64": DCGAN, "VAE, convolutional": VAE}
SIZES = (32, 64)

# name -> precision, TF32, channels_last, compiled
SETTINGS = {
    "fp32": ("32-true", False, False, False),
    "TF32": ("32-true", True, False, False),
    "TF32, channels_last": ("32-true", True, True, False),
    "TF32, channels_last, compiled": ("32-true", True, True, True),
    "bf16": ("bf16-mixed", True, False, False),
    "bf16, channels_last": ("bf16-mixed", True, True, False),
    "bf16, channels_last, compiled": ("bf16-mixed", True, True, True),
}

# TFLOPS of dense products in fp32, TF32 and bf16, from NVIDIA's data sheets. Newer data sheets list TF32 and bf16 "with
# sparsity", which is twice as much
PEAKS = {
    "H200": (67, 494.5, 989.5),
    "H100 PCIe": (51, 378, 756.5),
    "H100 80GB HBM3": (67, 494.5, 989.5),
    "A100": (19.5, 156, 312),
    "L40S": (91.6, 183, 362),
    "L4 ": (30.3, 60, 121),
}


def peak(device: str, precision: str, tf32: bool) -> float | None:
    """Peak FLOPS of the device; None if it is not in `PEAKS`."""
    found = next((peaks for name, peaks in PEAKS.items() if name in f"{device} "), None)
    return found and found[2 if precision == "bf16-mixed" else int(tf32)] * 1e12


class RandomImages(LightningDataModule):
    """Noise images on the device. The content of images does not affect the speed."""

    def __init__(self, spec: DataSpec, batch_size: int, device: torch.device) -> None:
        super().__init__()
        images = torch.randint(0, 256, (16 * batch_size, *spec.shape), dtype=torch.uint8)
        self.source, self.batch_size = MemorySource(Batch(images)).to(device), batch_size

    def train_dataloader(self) -> TrainLoader:
        return TrainLoader(self.source, self.batch_size, seed=0)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch  # it is on the device already


class TakeTurns(Callback):
    """Runs a block of a bare loop's steps after each block of genbench's steps, and times both; the first are
    warm-up."""

    def __init__(self, bare: Iterator[None], block: int, wait: Callable[[], None]) -> None:
        self.bare, self.block, self.wait = bare, block, wait
        self.count, self.ours, self.theirs = 0, [], []

    def on_train_batch_end(self, *_) -> None:
        self.count += 1
        if self.count % self.block:
            return
        self.wait()
        now = time.perf_counter()
        for _ in range(self.block):
            next(self.bare)
        self.wait()
        after = time.perf_counter()
        if self.count > self.block:
            self.ours.append(now - self.mark)
            self.theirs.append(after - now)
        self.mark = time.perf_counter()


def bare_step(
    module: GenerativeModule, autocast: Callable[[], AbstractContextManager]
) -> Callable[[torch.Tensor], None]:
    """A training step in plain PyTorch."""
    adam = partial(torch.optim.Adam, fused=module.device.type == "cuda")

    def gan(real: torch.Tensor) -> None:
        with autocast():
            fake = g(torch.randn(len(real), module.latent_dim, device=real.device))
            loss = softplus(-d(real).float()).mean() + softplus(d(fake.detach()).float()).mean()
        d_adam.zero_grad()
        loss.backward()
        d_adam.step()
        with autocast():
            loss = softplus(-d(fake).float()).mean()
        g_adam.zero_grad()
        loss.backward()
        g_adam.step()

    def vae(x: torch.Tensor) -> None:
        with autocast():
            mu, logvar = module.encoder(x).float().chunk(2, 1)
            logits = module.decoder(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)).float()
            nll = binary_cross_entropy_with_logits(logits, (x + 1) / 2, reduction="none").flatten(1).sum(1)
            loss = (nll + 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)).mean()
        whole.zero_grad()
        loss.backward()
        whole.step()

    if isinstance(module, DCGAN):
        g, d = module.generator, module.discriminator
        g_adam, d_adam = (adam(net.parameters(), 2e-4, betas=(0.5, 0.999)) for net in (g, d))
        return gan
    whole = adam(module.parameters(), 1e-3)
    return vae


def bare(
    module: GenerativeModule, data: RandomImages, precision: str, channels_last: bool, compiler: str | None
) -> Iterator[None]:
    """Takes one training step per iteration."""
    for name in (name for names in module.players.values() for name in names):
        network = getattr(module, name)
        if channels_last:
            network.to(memory_format=torch.channels_last)
        if compiler:
            network.compile(backend=compiler)
    autocast = partial(torch.autocast, module.device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
    step = bare_step(module, autocast)
    for batch in data.train_dataloader():
        image = batch.image
        step(image.contiguous(memory_format=torch.channels_last) if channels_last else image)
        yield


def flops(module: GenerativeModule, data: RandomImages) -> float:
    """FLOPs per image of a training step."""
    step = bare_step(module, partial(torch.autocast, module.device.type, enabled=False))
    with FlopCounterMode(display=False) as counter:
        step(next(iter(data.train_dataloader())).image)
    return counter.get_total_flops() / data.batch_size


def measure(
    build: type, size: int, setting: str, device: torch.device, arguments: argparse.Namespace
) -> dict[str, Any]:
    precision, tf32, channels_last, compiled = SETTINGS[setting]
    compiler = None if not compiled else "aot_eager" if arguments.quick else "inductor"
    spec = DataSpec((3, size, size))
    data = RandomImages(spec, arguments.batch, device)
    cost = flops(build(spec).to(device), data)
    torch.compiler.reset()
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    loop = bare(build(spec).to(device), data, precision, channels_last, compiler)
    turns = TakeTurns(loop, arguments.steps, wait)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision=precision,
            default_root_dir=folder,
            logger=[Curves(folder)],
            callbacks=[
                Acceleration(channels_last, compiler, tf32),  # TF32 is set per process, so also for the bare loop
                EMA(),
                Monitor(show=False),
                Checkpoint(),
                MaxImages(arguments.batch * arguments.steps * (arguments.blocks + 1)),
                StopSafely(),
                turns,
            ],
            limit_val_batches=0,
            **SILENT,
        )
        trainer.fit(build(spec), datamodule=data)
    images = arguments.batch * arguments.steps
    ours, theirs = (images / statistics.median(seconds) for seconds in (turns.ours, turns.theirs))
    ratios = sorted(a / b for a, b in zip(turns.ours, turns.theirs, strict=True))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    most = peak(name, precision, tf32)
    return {
        "training": f"{next(n for n, cls in MODELS.items() if cls is build)}, {size}×{size}×3",
        "setting": setting,
        "images/s": round(ours),
        "bare loop, images/s": round(theirs),
        "time, ours / bare": round(statistics.median(ratios), 3),
        "MFLOP an image": round(cost / 1e6, 1),
        "share of peak": f"{ours * cost / most:.2%}" if most else "not known",
        "ratios": [round(r, 3) for r in ratios],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20, help="steps per block")
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="only cases whose name contains all of these texts"
    )
    parser.add_argument("--quick", action="store_true", help="test the script: few steps, no results are written")
    parser.add_argument("--out", type=Path, default=RESULTS / "accelerator.json")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("No GPU is available, and results must be measured on a GPU. To test this script, use "
              "--device cpu --quick, which writes no results.", file=sys.stderr)  # fmt: skip
        return 2
    if arguments.quick:
        arguments.batch, arguments.blocks, arguments.steps = 8, 2, 2
    quiet()
    rows = []
    for (name, build), size, setting in itertools.product(MODELS.items(), SIZES, SETTINGS):
        if all(text in f"{name}, {size}, {setting}" for text in arguments.only):
            rows.append(measure(build, size, setting, device, arguments))
            print(rows[-1], flush=True)
    gpu = device.type == "cuda"
    more = {
        "device": torch.cuda.get_device_name(device) if gpu else "CPU",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "settings": {key: getattr(arguments, key) for key in ("batch", "blocks", "steps")},
    }
    out = arguments.out if gpu and not arguments.quick else None
    report(f"Training step on {more['device']}, batch {arguments.batch}", rows, out, **more)
    return 0


if __name__ == "__main__":
    sys.exit(main())
