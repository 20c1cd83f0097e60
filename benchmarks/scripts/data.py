"""Images per second of genbench's MNIST loader, compared with torchvision's data set in a `DataLoader`.

    python benchmarks/scripts/data.py --data-root DATA

All loaders return shuffled batches of 64 images, float32 [64, 1, 32, 32] in [-1, 1], with labels. They run in turns, so
that other load on the machine affects all of them equally. The medians are printed and written to
benchmarks/results/data.json.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torchvision
from machine import RESULTS, report
from torch.utils.data import DataLoader
from torchvision import transforms

from genbench.data import MNIST

BATCH = 64


def ours(root: str) -> Callable[[], Iterator]:
    data = MNIST(root=root, batch_size=BATCH, download=False)
    data.source("train")
    return lambda: ((batch.image, batch.label) for batch in data.train_dataloader())


def torchvisions(root: str, workers: int) -> Callable[[], Iterator]:
    transform = transforms.Compose([transforms.ToTensor(), transforms.Pad(2), transforms.Normalize(0.5, 0.5)])
    data = torchvision.datasets.MNIST(root, transform=transform)
    # workers stay alive between rounds, since their start must not be measured
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return lambda: iter(loader)


def images_per_second(start: Callable[[], Iterator], images: int) -> float:
    batches = start()
    for image, _ in itertools.islice(batches, 5):  # wait until the workers have started
        assert image.shape == (BATCH, 1, 32, 32)
        assert image.dtype == torch.float32
    begin = time.perf_counter()
    for _ in itertools.islice(batches, images // BATCH):
        pass
    return images // BATCH * BATCH / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-root", default=os.environ.get("GENBENCH_DATA", "data"), help="folder that contains MNIST/raw"
    )
    parser.add_argument("--rounds", type=int, default=7, help="number of runs per loader")
    parser.add_argument("--out", type=Path, default=RESULTS / "data.json")
    args = parser.parse_args()

    name = "torchvision + DataLoader"
    loaders = {
        "genbench": (ours(args.data_root), 400_000),
        f"{name}, num_workers=0": (torchvisions(args.data_root, 0), 20_000),
        f"{name}, num_workers=2": (torchvisions(args.data_root, 2), 20_000),
    }
    runs: dict[str, list[float]] = {loader: [] for loader in loaders}
    for _ in range(args.rounds):
        for loader, (start, images) in loaders.items():
            runs[loader].append(images_per_second(start, images))

    medians = {loader: statistics.median(speeds) for loader, speeds in runs.items()}
    rows = [
        {
            "loader": loader,
            "images per second": round(speed),
            "genbench is faster by": round(medians["genbench"] / speed, 1),
            "runs": [round(speed) for speed in runs[loader]],
        }
        for loader, speed in medians.items()
    ]
    report("MNIST training images per second, batches of 64 at 32×32, medians of interleaved runs", rows, args.out)


if __name__ == "__main__":
    main()
