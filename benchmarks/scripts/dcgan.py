"""Compares genbench's DCGAN with a bare loop that follows PyTorch's DCGAN example: FID on MNIST, with raw weights.

The bare loop follows the DCGAN tutorial and example of PyTorch (pytorch.org/tutorials/beginner/
dcgan_faces_tutorial.html, github.com/pytorch/examples/tree/main/dcgan): binary cross entropy on a sigmoid, Adam with
learning rate 2e-4 and betas (0.5, 0.999), weights from N(0, 0.02²), batches of 64. The discriminator is trained on real
images and then on fake images, and the generator on the same fake images. Networks, images and the number of images
seen are those of configs/dcgan.yaml. The side `genbench` trains this config with `python -m genbench fit`. `evaluate`
measures it with raw weights and also with averaged weights, which the bare loop does not have.

    python benchmarks/scripts/dcgan.py [--images 1000000] [--seeds 0 1 2] [--side bare|genbench]

A file is written for each finished side and seed. Results that exist already are not computed again. An interrupted
`genbench` training continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from machine import RESULTS, ROOT, conditions, report
from torch import Tensor, nn

from genbench.cli.quiet import quiet
from genbench.core import checkpoint_io
from genbench.core.batch import from_uint8
from genbench.core.files import replacing
from genbench.data import MNIST
from genbench.evaluation import protocol as protocols
from genbench.evaluation.evaluate import evaluate
from genbench.models import DCGAN
from genbench.networks.conv import dcgan_init, down_net, up_net

CONFIG = ROOT / "configs" / "dcgan.yaml"
LATENT, WIDTH, BATCH = 100, 32, 64  # as in the config
PROTOCOL, METRICS = "fid10k-test", "fid"


# ---- the bare loop ---------------------------------------------------------------------------------------------------


def batches(images: Tensor) -> Iterator[Tensor]:
    """uint8 [N, C, H, W] -> endless batches in [-1, 1], in a new order each epoch, with a smaller last batch."""
    while True:
        for rows in torch.randperm(len(images)).split(BATCH):
            yield from_uint8(images[rows])


def train_bare(images: Tensor, most: int, seed: int) -> tuple[nn.Module, int]:
    """Train the bare loop. Returns the generator and the number of images seen."""
    torch.manual_seed(seed)
    channels, size = images.shape[1:3]
    g = up_net(LATENT, channels, size, WIDTH, output=nn.Tanh())
    d = down_net(channels, size, WIDTH, outputs=1)
    dcgan_init(g)
    dcgan_init(d)
    g_adam, d_adam = (torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (g, d))
    bce, seen = nn.BCELoss(), 0
    for real in batches(images):
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        d_adam.zero_grad()
        bce(torch.sigmoid(d(real)), ones).backward()
        fake = g(torch.randn(len(real), LATENT))
        bce(torch.sigmoid(d(fake.detach())), zeros).backward()
        d_adam.step()
        g_adam.zero_grad()
        bce(torch.sigmoid(d(fake)), ones).backward()
        g_adam.step()
        seen += len(real)
        if seen >= most:
            return g, seen


def bare(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    data = MNIST(root=arguments.data_root, batch_size=BATCH)
    images = data.source("train").everything.image
    began = time.perf_counter()
    generator, seen = train_bare(images, arguments.images, seed)
    seconds = time.perf_counter() - began
    model = DCGAN(data.spec, latent_dim=LATENT, width=WIDTH)  # `evaluate` samples from this model
    model.generator.load_state_dict(generator.state_dict())
    protocol = protocols.load(PROTOCOL).changed(metrics=(METRICS,), weights="raw")
    found = evaluate(model, data, protocol).to_dict()
    return {"images_seen": seen, "training_seconds": round(seconds, 1), "raw": score(found)}


# ---- genbench --------------------------------------------------------------------------------------------------------


def command(*words: Any) -> str:
    """Run a genbench command in a subprocess and return what it prints."""
    line = [sys.executable, "-m", "genbench", *map(str, words)]
    return subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def genbench(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    name = f"{arguments.images}-seed{seed}"
    last = arguments.work / name / "checkpoints" / "last.ckpt"
    begin = ["--config", CONFIG, "--seed_everything", seed, "--name", name, "--data.root", arguments.data_root]
    # validation and sample grids only at the end: they do not affect the weights
    begin += ["--validation.every_images", arguments.images, "--samples.every_images", arguments.images]
    if not last.is_file():
        command("fit", *begin, "--max_images", arguments.images, "--runs", arguments.work)
    elif checkpoint_io.read(last)["genbench"]["images_seen"] < arguments.images:
        command("fit", "--ckpt", last)
    measure = ["evaluate", "--ckpt", last, "--protocol", PROTOCOL, "--metrics", METRICS, "--json"]
    raw, averaged = (json.loads(command(*measure, *more)) for more in (["--raw"], []))
    return {
        "images_seen": raw["run"]["images_seen"],
        "training_seconds": round(raw["training"]["busy_seconds"], 1),
        "raw": score(raw),
        "averaged": score(averaged),
    }


# ---- both ------------------------------------------------------------------------------------------------------------


def score(record: dict[str, Any]) -> dict[str, Any]:
    """The FID of a record, with the name of its metric and the key of its protocol."""
    ((name, entry),) = record["metrics"].items()
    return {"metric": name, "value": entry["value"], "protocol": record["protocol"]["key"]}


def summary(found: list[dict[str, Any]], images: int) -> list[dict[str, Any]]:
    """A row per side and kind of weights: mean and standard deviation over seeds, and difference from the bare loop."""
    (metric,) = {f[w]["metric"] for f in found for w in ("raw", "averaged") if w in f}
    if len({f["raw"]["protocol"] for f in found}) > 1:
        raise SystemExit("The results were measured under different protocols. Remove the older files.")
    rows: list[dict[str, Any]] = []
    bare_values: list[float] = []
    for title, side, weights in (
        ("bare loop after PyTorch's example, raw weights", "bare", "raw"),
        ("genbench, raw weights", "genbench", "raw"),
        ("genbench, averaged weights", "genbench", "averaged"),
    ):
        values = [f[weights]["value"] for f in found if f["side"] == side]
        if not values:
            continue
        bare_values = values if side == "bare" else bare_values
        row = {"side": title, "images": images, "seeds": len(values), f"{metric} mean": round(mean(values), 4)}
        several = len(values) > 1
        row |= {"std": round(stdev(values), 4) if several else None, "minus bare": None, "standard error": None}
        if side != "bare" and bare_values:
            row["minus bare"] = round(mean(values) - mean(bare_values), 4)
            if several and len(bare_values) > 1:
                row["standard error"] = round(math.hypot(*(stdev(v) / len(v) ** 0.5 for v in (values, bare_values))), 4)
        rows.append(row | {"values": [round(v, 4) for v in values]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", default=os.environ.get("GENBENCH_DATA", "data"), type=Path)
    parser.add_argument("--images", type=int, default=1_000_000, help="images per training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--side", choices=("bare", "genbench"), help="default: both")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "benchmark-dcgan", help="folder of genbench's runs"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "dcgan", help="folder of results")
    arguments = parser.parse_args()
    for name in ("data_root", "work", "out"):
        setattr(arguments, name, getattr(arguments, name).resolve())
    quiet()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for genbench's processes
    for seed in arguments.seeds:
        for side, measure in (("bare", bare), ("genbench", genbench)):
            path = arguments.out / f"{side}-{arguments.images}-seed{seed}.json"
            if arguments.side in (None, side) and not path.is_file():
                found = {"side": side, "seed": seed, "images": arguments.images} | measure(arguments, seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as file:
                    file.write(json.dumps(found | conditions(), indent=2).encode() + b"\n")
                print(f"{side}, seed {seed}: {found['raw']}", flush=True)
    done = [json.loads(path.read_text()) for path in sorted(arguments.out.glob(f"*-{arguments.images}-seed*.json"))]
    done = [found for found in done if found["seed"] in arguments.seeds]
    rows = summary(done, arguments.images)
    report("DCGAN, width 32, MNIST 32×32: against PyTorch's example", rows, arguments.out.with_suffix(".json"))


if __name__ == "__main__":
    main()
