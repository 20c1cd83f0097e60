"""Decodes a grid over the two-dimensional latent space of an autoencoder and of a VAE, and measures its smoothness.

Both models have the same fully connected networks, images and budget, and are trained by `python -m genbench fit`. For
each model, codes are standardized by the mean and standard deviation of its codes of test images, and the grid covers
-2 to 2 in both directions. Smoothness is the change of the image (the root mean square over pixels in [-1, 1]) divided
by the length of the step, for steps of 1/50 on lines across the plane. If the image jumps, the change is large in a few
steps. `on paths` is the same measure on lines between the codes of pairs of test images. To measure how much the
decoded images resemble digits, the extractor's classifier predicts them, and its highest class probability is used.

    python benchmarks/scripts/plane.py [--images 400000] [--work runs] [--data-root DATA]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, ROOT, report
from PIL import Image, ImageDraw
from torch import Tensor

import genbench
from genbench.core.batch import from_stored, to_stored
from genbench.core.image_grid import enlarged, picture
from genbench.core.module import GenerativeModule
from genbench.data import MNIST
from genbench.evaluation import extractors

SIDES = {
    "autoencoder": ["--config", "stacked_autoencoder"],
    "VAE": ["--config", "vae", "--model.network", "mlp", "--model.hidden", "[512, 256]"],
}
REACH, FINE, TILES = 2.0, 201, 15


def trained(side: str, arguments: argparse.Namespace) -> GenerativeModule:
    name = f"plane-{side.lower()}"
    last = arguments.work / name / "checkpoints" / "last.ckpt"
    if not last.is_file():
        line = [sys.executable, "-m", "genbench", "fit", *SIDES[side], "--model.latent_dim", "2", "--name", name]
        line += ["--max_images", arguments.images, "--runs", arguments.work, "--data.root", arguments.data_root]
        subprocess.run(list(map(str, line)), cwd=ROOT, check=True)
    return genbench.load(last)


def change(images: Tensor, step: float) -> Tensor:
    """Images [..., N, C, H, W] along lines -> change per length in each of the N - 1 steps, [..., N - 1]."""
    return images.diff(dim=-4).square().mean((-3, -2, -1)).sqrt() / step


def measure(model: GenerativeModule, real: Tensor, extractor: Any) -> tuple[dict[str, float], Tensor]:
    """Smoothness of a decoder, and its decoded grid: images [TILES · TILES, C, H, W]."""
    z = torch.cat([model.encode(x) for x in real.split(500)])
    center, unit = z.mean(0), z.std(0)

    def decode(codes: Tensor) -> Tensor:  # standardized codes, [..., 2]
        flat = (center + unit * codes.reshape(-1, 2)).split(1000)
        return torch.cat([model.decode(part) for part in flat]).unflatten(0, codes.shape[:-1])

    fine, coarse = torch.linspace(-REACH, REACH, FINE), torch.linspace(-REACH, REACH, TILES)
    lines = torch.stack([torch.stack(torch.meshgrid(coarse, fine, indexing="ij"), -1)] * 2)  # [2, TILES, FINE, 2]
    lines[1] = lines[1].flip(-1)  # horizontal and vertical lines
    steps = change(decode(lines), (fine[1] - fine[0]).item()).flatten()
    ends = ((z - center) / unit)[:400].view(2, 200, 1, 2)
    fraction = torch.linspace(0, 1, 21)[:, None]
    length = (ends[1] - ends[0]).norm(dim=-1) / 20
    paths = change(decode(ends[0] + fraction * (ends[1] - ends[0])), 1) / length
    y, x = torch.meshgrid(-coarse, coarse, indexing="ij")
    tiles = decode(torch.stack([x, y], -1)).flatten(0, 1)
    sure = extractor(to_stored(tiles))[1].softmax(1).amax(1)
    return {
        "mean change": steps.mean().item(),
        "largest change": steps.max().item(),
        "1% of steps above": steps.quantile(0.99).item(),
        "unevenness": (steps.std() / steps.mean()).item(),
        "largest on paths": paths.amax(1).mean().item(),
        "surely a digit": (sure > 0.9).float().mean().item(),
    }, tiles


def beside(pictures: dict[str, Image.Image]) -> Image.Image:
    gap, top = 16, 20
    widths = [p.width for p in pictures.values()]
    whole = Image.new(
        "RGB", (sum(widths) + gap * (len(widths) - 1), max(p.height for p in pictures.values()) + top), "white"
    )
    at = 0
    for name, each in pictures.items():
        ImageDraw.Draw(whole).text((at + 2, 4), name, fill="black")
        whole.paste(each, (at, top))
        at += each.width + gap
    return whole


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=400_000)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--data-root", default=os.environ.get("GENBENCH_DATA", "data"))
    parser.add_argument("--out", type=Path, default=RESULTS / "plane.json")
    arguments = parser.parse_args()
    data = MNIST(root=arguments.data_root)
    real = from_stored(data.source("test").everything.image[:2000])
    extractor = extractors.build(data.extractor, root=data.root)
    rows, planes = [], {}
    for side in SIDES:
        model = trained(side, arguments)
        found, tiles = measure(model, real, extractor)
        rows.append({"model": side, "images seen": model.images_seen} | {k: round(v, 3) for k, v in found.items()})
        planes[side] = enlarged(picture(tiles, columns=TILES), 500)
    beside(planes).save(arguments.out.parents[1] / "pictures" / "plane.png")
    report("The plane of codes of two numbers, MNIST at 32×32", rows, arguments.out)


if __name__ == "__main__":
    main()
