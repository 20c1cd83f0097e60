"""Time and memory of diffusion models, compared with denoising-diffusion-pytorch, diffusers and a bare PyTorch loop.

    python benchmarks/scripts/diffusion.py --data-root DATA [--peers FOLDER] [--repeats 5] [--parts NAME ...]

Parts: training (a step of `UNetDenoiser` against denoising-diffusion-pytorch's `Unet`), memory (of such a step),
trainer (a step of genbench against a bare loop with the same network), sampling (DDIM with 50 steps against diffusers'
pipeline), guidance (one network call for both passes against two), power_ema (a training step with power-function
averages against one without).

The sides take turns in one process, and each ratio is the median over `--repeats` pairs. Memory is measured in a new
process for each side and repeat.

Networks that are compared have equal numbers of parameters and FLOPs, of attention alone too, within 5%: the script
stops if they do not. `Unet` has linear attention at the higher resolutions, which cannot be turned off by an argument.
It is removed, since `UNetDenoiser` has none there. Both sides use fused attention.

diffusers is installed with `pip install -e ".[dev]"`. denoising-diffusion-pytorch is not. This command installs it and
the packages that it imports into a folder, for `--peers`:

    pip install --no-deps --target FOLDER denoising-diffusion-pytorch==2.3.4 einops ema-pytorch accelerate pytorch-fid
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning import Callback, Trainer
from machine import RESULTS, SILENT, report
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import mse_loss
from torch.utils.flop_counter import FlopCounterMode
from training import run

from genbench.callbacks import EMA, Acceleration, MaxImages, PowerEMA
from genbench.cli import configs
from genbench.cli.quiet import quiet
from genbench.core import snapshots, yaml_file
from genbench.core.batch import DataSpec
from genbench.data import MNIST
from genbench.models import DDPM
from genbench.networks.unet_denoiser import UNetDenoiser
from genbench.samplers.guidance import guided

BATCH, SIZE = 64, 32
MIB = 2**20
STEPS = 8  # of training per turn: one update of the averages, every 500 images
CLOSE = 0.05  # largest relative difference of networks that are compared
Row = dict[str, Any]


# ---- networks of equal size ------------------------------------------------------------------------------------------


class Nothing(nn.Module):
    """In place of a layer of attention whose output is added to its input."""

    def forward(self, x: Tensor) -> Nothing:
        return self

    def __add__(self, x: Tensor) -> Tensor:
        return x


def our_unet() -> nn.Module:
    return UNetDenoiser(3, 3, SIZE, width=32, multipliers=(1, 2, 3), blocks=1, attention=(8,), heads=4)


def their_unet(fused: bool = True) -> nn.Module:
    from denoising_diffusion_pytorch import Unet

    net = Unet(32, dim_mults=(1, 2, 3), attn_heads=4, attn_dim_head=34, flash_attn=fused)
    for level in (*net.downs[:-1], *net.ups[1:]):
        level[2] = Nothing()
    return net


def our_ddpm(**settings: Any) -> DDPM:
    """The model of configs/ddpm.yaml. The weights are untrained, which does not change the time."""
    config = yaml_file.read(configs.folder() / "ddpm.yaml")["model"]["init_args"]
    config = {name: config[name] for name in ("network", "noise_schedule", "prediction")}
    spec = DataSpec((1, SIZE, SIZE), classes=[str(k) for k in range(10)], target="label")
    return DDPM(spec, **config, **settings).eval()


def their_pipeline() -> Any:
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

    net = UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=16,
        resnet_time_scale_shift="scale_shift",
    )
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    pipeline = DDIMPipeline(net.eval(), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def count(net: nn.Module, channels: int) -> dict[str, float]:
    """Parameters, and FLOPs of a forward pass of one image."""
    # The counter knows no fused attention on a CPU, and would count 0 for it (torch 2.14).
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        net(torch.randn(1, channels, SIZE, SIZE), torch.zeros(1))
    attention = 0
    for name, layer in net.named_modules():
        if type(layer).__name__ == "Attention":
            attention += sum(counter.get_flop_counts()[f"{type(net).__name__}.{name}"].values())
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "MFLOPs": counter.get_total_flops() / 1e6,
        "MFLOPs of attention": attention / 1e6,
    }


def compare(ours: nn.Module, theirs: nn.Module, channels: int) -> dict[str, list[float]]:
    """Parameters and FLOPs of both. Stops the script if they differ by more than 5%."""
    first, second = count(ours, channels), count(theirs, channels)
    for name, value in first.items():
        if not value or abs(second[name] / value - 1) > CLOSE:
            raise SystemExit(f"The networks are not of equal size: {first} and {second}.")
    return {name: [round(first[name], 2), round(second[name], 2)] for name in first}


# ---- measuring -------------------------------------------------------------------------------------------------------


def row(what: str, other: str, ours: list[float], theirs: list[float], unit: str, target: float | None) -> Row:
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    found = {
        "what": what,
        "genbench": round(median(ours), 1),
        "compared with": other,
        "other": round(median(theirs), 1),
        "unit": unit,
        "ratio": round(median(ratios), 3),
        "at most": "" if target is None else target,
        "ratios": [round(r, 3) for r in ratios],
    }
    print(found, flush=True)
    return found


def alternate(ours: Callable[[], object], *others: Callable[[], object], repeats: int, warm: int = 1) -> list[Any]:
    """Milliseconds of each call, one list per side."""
    times: list[list[float]] = [[] for _ in (ours, *others)]
    for k in range(warm + repeats):
        for side, call in enumerate((ours, *others)):
            start = time.perf_counter()
            call()
            if k >= warm:
                times[side].append(1e3 * (time.perf_counter() - start))
    return times


def training_step(net: nn.Module, scale: float) -> Callable[[], None]:
    """One step of noise prediction on given noisy images. `scale` converts time steps 0, ..., 999 to the network's."""
    draw = torch.Generator().manual_seed(0)
    noisy, noise = (torch.randn(BATCH, 3, SIZE, SIZE, generator=draw) for _ in range(2))
    time = scale * torch.randint(1000, (BATCH,), generator=draw)
    optimizer = torch.optim.Adam(net.train().parameters(), 2e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        mse_loss(net(noisy, time), noise).backward()
        optimizer.step()

    return step


# ---- parts -----------------------------------------------------------------------------------------------------------


def training(arguments: argparse.Namespace) -> Iterator[Row]:
    ours, theirs = our_unet(), their_unet()
    sizes = compare(ours, their_unet(fused=False), 3)
    packed = their_unet().to(memory_format=torch.channels_last)
    found = alternate(
        training_step(ours, 1e-3), training_step(theirs, 1), training_step(packed, 1), repeats=arguments.repeats
    )
    name = "denoising-diffusion-pytorch"
    yield row("training step", name, found[0], found[1], "ms", 0.8) | {"sizes": sizes}
    yield row("training step", f"{name}, channels_last", found[0], found[2], "ms", None)


def step_memory(side: str) -> None:
    """Print the memory that training steps add to that of the network, and the peak of the process, in bytes."""
    step = training_step(our_unet(), 1e-3) if side == "genbench" else training_step(their_unet(), 1)
    before = _status("VmRSS")
    for _ in range(3):
        step()
    # VmHWM and not ru_maxrss, which a new process takes over from the one that started it
    print(json.dumps([_status("VmHWM") - before, _status("VmHWM")]))


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def memory(arguments: argparse.Namespace) -> Iterator[Row]:
    found: dict[str, list[list[float]]] = {"genbench": [], "other": []}
    for _ in range(arguments.repeats):
        for side, values in found.items():
            line = [sys.executable, __file__, "--step-memory", side, "--threads", str(arguments.threads)]
            line += ["--peers", str(arguments.peers)] if arguments.peers else []
            done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout
            values.append([value / MIB for value in json.loads(done.splitlines()[-1])])
    for k, what, target in ((0, "memory peak of a training step", 0.9), (1, "of the whole process", None)):
        ours, theirs = ([value[k] for value in found[side]] for side in found)
        yield row(what, "denoising-diffusion-pytorch", ours, theirs, "MiB", target)


def trainer(arguments: argparse.Namespace) -> Iterator[Row]:
    data = MNIST(root=arguments.data_root, batch_size=BATCH)
    turns = run(lambda spec: our_ddpm().train(), data, arguments.repeats, STEPS)
    ours, theirs = ([1e3 * value / STEPS for value in side] for side in (turns.ours, turns.theirs))
    yield row("training step of genbench", "bare loop", ours, theirs, "ms", 1.05)


def sampling(arguments: argparse.Namespace) -> Iterator[Row]:
    model, pipeline, seeds = our_ddpm(), their_pipeline(), torch.arange(BATCH)
    sizes = compare(model.network, pipeline.unet, 1)
    found = alternate(
        lambda: model.sample(seeds, sampler="ddim", steps=50),
        lambda: pipeline(batch_size=BATCH, num_inference_steps=50, output_type="np"),
        repeats=arguments.repeats,
        warm=0,  # the first of 50 steps warms up
    )
    yield row("sampling 64 images", "diffusers", *found, "ms", 0.8) | {"sizes": sizes}


def guidance(arguments: argparse.Namespace) -> Iterator[Row]:
    net, x, at = our_ddpm(conditional=True).network, torch.randn(BATCH, 1, SIZE, SIZE), torch.full((BATCH,), 0.5)
    label, null = torch.arange(BATCH) % 10, torch.full((BATCH,), 10)
    one = guided(net, label, weight=2.0, null=null)

    def two() -> Tensor:
        strong, weak = net(x, at, label), net(x, at, null)
        return weak + 2.0 * (strong - weak)

    with torch.no_grad():
        torch.testing.assert_close(one(x, at), two())
        found = alternate(lambda: one(x, at), two, repeats=2 * arguments.repeats)
    yield row("guidance, one network call", "two calls", *found, "ms", 1.0)


class Switch(Callback):
    """Turns the averages on and off after each `STEPS` steps, and times both."""

    def __init__(self, averages: PowerEMA) -> None:
        self.averages, self.count = averages, 0
        self.times: dict[bool, list[float]] = {True: [], False: []}

    def on_train_batch_end(self, *_: Any) -> None:
        self.count += 1
        if self.count % STEPS:
            return
        if self.count > 2 * STEPS:  # the first blocks warm up
            self.times[self.averages.enabled].append(1e3 * (time.perf_counter() - self.mark) / STEPS)
        self.averages.enabled = not self.averages.enabled
        self.mark = time.perf_counter()


def power_ema(arguments: argparse.Namespace) -> Iterator[Row]:
    averages = PowerEMA(enabled=True, snapshot_every=10**9)
    switch, data = Switch(averages), MNIST(root=arguments.data_root, batch_size=BATCH)
    model = our_ddpm().train()
    with tempfile.TemporaryDirectory() as folder:
        end = MaxImages(BATCH * STEPS * 2 * (arguments.repeats + 1))
        Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            logger=False,
            callbacks=[Acceleration(), EMA(), averages, end, switch],
            limit_val_batches=0,
            **SILENT,
        ).fit(model, datamodule=data)
        start = time.perf_counter()
        snapshots.write(Path(folder), 1, averages.lengths, averages.averages)
        snapshot = 1e3 * (time.perf_counter() - start)
    found = row("training step with power_ema", "without", switch.times[True], switch.times[False], "ms", None)
    yield found | {"snapshot ms": [round(snapshot, 1)]}


PARTS = {each.__name__: each for each in (training, memory, trainer, sampling, guidance, power_ema)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", default=os.environ.get("GENBENCH_DATA", "data"))
    parser.add_argument("--peers", type=Path, help="folder with denoising-diffusion-pytorch, see the first lines")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of each part")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS / "diffusion.json")
    parser.add_argument("--step-memory", choices=("genbench", "other"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(str(arguments.peers))
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.step_memory:
        step_memory(arguments.step_memory)
        return
    quiet()
    rows = [found for part in arguments.parts for found in PARTS[part](arguments)]
    names = ("diffusers", "denoising-diffusion-pytorch")
    found = importlib.metadata.distributions(path=sys.path)
    versions = {each.metadata["Name"]: each.version for each in found if each.metadata["Name"] in names}
    report("Diffusion models, batch 64, 32×32, CPU", rows, arguments.out, compared=versions, repeats=arguments.repeats)


if __name__ == "__main__":
    main()
