"""Time of the last step of the FID, from two means and covariances to a number: genbench, torchmetrics and SciPy.

python benchmarks/scripts/frechet.py [--dims 2048] [--runs 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from machine import RESULTS, report
from torch import Tensor
from torchmetrics.image.fid import _compute_fid

from genbench.metrics.frechet import feature_moments, frechet_distance


def square_root(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> float:
    root = scipy.linalg.sqrtm((sigma1 @ sigma2).numpy()).real
    return ((mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace()).item() - 2 * np.trace(root)


def features(n: int, dims: int, shift: float, generator: torch.Generator) -> Tensor:
    """Features [n, dims] like those of an Inception: correlated, with standard deviations over two powers of ten."""
    own, common = (torch.randn(n, d, generator=generator, dtype=torch.float64) for d in (dims, 16))
    mix = torch.randn(16, dims, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return shift + own * torch.logspace(0, -2, dims, dtype=torch.float64) + 0.1 * common @ mix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dims", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "frechet.json")
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    real, fake = (feature_moments(features(3 * arguments.dims, arguments.dims, s, generator)) for s in (0, 0.02))
    sides = {
        "genbench": frechet_distance,
        "torchmetrics, eigvals": _compute_fid,
        "SciPy, sqrtm": square_root,
    }
    seconds = {name: [] for name in sides}
    values = {}
    for _ in range(arguments.runs):
        for name, distance in sides.items():
            before = time.perf_counter()
            values[name] = float(distance(*real, *fake))
            seconds[name].append(time.perf_counter() - before)
    ours = values["genbench"]
    rows = [
        {
            "route": name,
            "seconds": round(statistics.median(seconds[name]), 3),
            "times ours": round(
                statistics.median(a / b for a, b in zip(seconds[name], seconds["genbench"], strict=True)), 2
            ),
            "bound": {"torchmetrics, eigvals": "at least 1.8", "SciPy, sqrtm": "at least 6"}.get(name, ""),
            "value": values[name],
            "relative difference": f"{abs(values[name] - ours) / ours:.1e}",
            "runs": [round(s, 3) for s in seconds[name]],
        }
        for name in sides
    ]
    report(f"Fréchet distance of {arguments.dims} dimensions, last step", rows, arguments.out)


if __name__ == "__main__":
    main()
