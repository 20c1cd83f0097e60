"""Measures the sharpness of translations, and the segmentation score of a simple threshold as a baseline.

    python benchmarks/scripts/translation.py sharpness LABEL=CHECKPOINT ... --data '{class_path: ..., init_args: {...}}'
    python benchmarks/scripts/translation.py threshold

Sharpness is the gradient energy of the translations of test images divided by the gradient energy of the true images,
so 1 is as sharp as the true images. Gradient energy is the mean square of the differences between neighboring pixels in
[-1, 1]. It is also computed for the colors without the brightness, since the input of a colorization contains the
brightness.

The threshold is on the distance of a pixel's color from the median color of its image. It is the best of 64 thresholds
on training images. A pixel above the threshold is assigned to the true class of the image's shape, which a network must
predict.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
import yaml
from jsonargparse import ArgumentParser
from machine import RESULTS, ROOT, report
from torch import Tensor

import genbench
import genbench.data
from genbench.core.batch import from_stored
from genbench.data import DataModule, Shapes
from genbench.data.tasks import LUMA
from genbench.evaluation.images import choice
from genbench.metrics.reconstruction import psnr
from genbench.metrics.segmentation import mean_iou

CONFIG = ROOT / "configs" / "segmentation_unet.yaml"


def energy(x: Tensor) -> float:
    """Images [N, C, H, W] in [-1, 1] -> gradient energy: the mean square of the gradient."""
    return (x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean()).item()


def chroma(x: Tensor) -> Tensor:
    """RGB [N, 3, H, W] -> RGB without brightness."""
    return x - (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


@torch.no_grad()
def sharpness(arguments: argparse.Namespace) -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(DataModule, "data")
    data = parser.instantiate_classes(parser.parse_object({"data": yaml.safe_load(arguments.data)})).data
    source = data.source("test")
    # the same images as a protocol with as many images uses
    batch = source.batch(choice(len(source), arguments.images))
    shown, true = from_stored(batch.source), from_stored(batch.image)
    rows = []
    for given in arguments.checkpoints:
        label, _, path = given.partition("=")
        model = genbench.load(path)
        made = torch.cat([model.translate(x, to="B") for x in shown.split(100)])
        row = {"model": label, "images seen": model.images_seen}
        row["gradient energy"] = round(energy(made) / energy(true), 3)
        if true.shape[1] == 3:
            row["of colors alone"] = round(energy(chroma(made)) / energy(chroma(true)), 3)
        row["psnr"] = round(psnr(made, true).mean().item(), 2)
        rows.append(row)
    report(f"Sharpness on {len(true):,} test images of {data.name}", rows, arguments.out or RESULTS / "sharpness.json")


def distances(x: Tensor) -> Tensor:
    """Images [N, 3, H, W] -> distance of each pixel from the median color of its image, [N, H, W]."""
    return (x - x.flatten(2).median(2).values[..., None, None]).norm(dim=1)


def table(found: Tensor, mask: Tensor, label: Tensor, classes: int) -> Tensor:
    """Confusion matrix [K, K], where each pixel in `found`, bool [N, H, W], is assigned to the shape of its image."""
    guess = found * (1 + label)[:, None, None]
    return (mask.long() * classes + guess).flatten().bincount(minlength=classes**2).view(classes, classes)


def threshold(arguments: argparse.Namespace) -> None:
    config = yaml.safe_load(CONFIG.read_text())["data"]["init_args"]
    data = Shapes(**config)
    classes, parts = len(data.spec.classes), {}
    for stage, images in (("train", 2000), ("test", arguments.images)):
        batch = data.source(stage).batch(torch.arange(images))
        parts[stage] = (distances(from_stored(batch.image)), batch.mask, batch.label)
    levels = torch.linspace(0, 2, 65)[1:]
    found = {}
    for level in levels.tolist():
        d, mask, label = parts["train"]
        found[level] = mean_iou(table(d > level, mask, label, classes))
    best = max(found, key=found.__getitem__)
    d, mask, label = parts["test"]
    rows = [{"threshold": round(best, 3), "mean_iou": round(mean_iou(table(d > best, mask, label, classes)), 4)}]
    title = f"A threshold that is told each shape, on {arguments.images:,} test images of segmentation_unet"
    report(title, rows, arguments.out or RESULTS / "threshold.json", data=config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("sharpness", "threshold"))
    parser.add_argument("checkpoints", nargs="*", metavar="LABEL=CHECKPOINT")
    parser.add_argument("--data", help="data set for sharpness, in the format of a config")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--data-root", default=os.environ.get("GENBENCH_DATA", "data"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.environ["GENBENCH_DATA"] = str(arguments.data_root)
    {"sharpness": sharpness, "threshold": threshold}[arguments.what](arguments)


if __name__ == "__main__":
    main()
