"""Time and memory of precision, recall, density and coverage, in addition to the memory of the features.

python benchmarks/scripts/neighbors.py [--n 50000] [--dims 2048]
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from machine import RESULTS, report
from rich.progress import track

from genbench.core.machine import peak_memory
from genbench.metrics.neighbors import neighbor_scores


def peak_mib() -> float:
    return peak_memory(torch.device("cpu")) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=2000, help="images per set; 50000 for the published result")
    parser.add_argument("--dims", type=int, default=2048)
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=RESULTS / "neighbors.json")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    real, fake = torch.randn(2, arguments.n, arguments.dims)
    few = slice(0, 64)
    neighbor_scores(real[few], fake[few])  # so that memory used once by libraries is not measured
    before, start = peak_mib(), time.perf_counter()
    scores = neighbor_scores(
        real, fake, block=arguments.block, progress=partial(track, description="Tiles of distances")
    )
    row = {
        "images": arguments.n,
        "dims": arguments.dims,
        "block": arguments.block,
        "seconds": round(time.perf_counter() - start, 1),
        "features MiB": round(2 * real.nbytes / 2**20),
        "MiB beyond": round(peak_mib() - before),
        "bound": 2048,
        "scores": [f"{name} {value:.4f}" for name, value in scores.items()],
    }
    report("Precision, recall, density and coverage of two sets", [row], arguments.out)


if __name__ == "__main__":
    main()
