"""Compares cached sampling from a PixelCNN with naive sampling, which runs a full forward pass for every value.

Both sides sample the same 64 images of 28×28 pixels with the same network and the same noise. Images count as equal if
no value differs by more than one level. The network is that of configs/pixelcnn.yaml with random weights, since the
cost of a step does not depend on the weights.

    python benchmarks/scripts/pixelcnn.py [--runs 1]

A run of the naive side takes a few minutes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from machine import RESULTS, report

from genbench.core.noise import per_seed
from genbench.networks.pixelcnn import GatedPixelCNN
from genbench.samplers.pixelcnn import draw, draw_naively

N, SIZE, WIDTH, LAYERS = 64, 28, 32, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "pixelcnn.json")
    arguments = parser.parse_args()
    rows = []
    torch.manual_seed(0)
    net = GatedPixelCNN(2, 1, WIDTH, LAYERS).eval()
    u = per_seed(torch.rand, torch.arange(N), (1, SIZE, SIZE))
    for _ in range(arguments.runs):
        found, seconds = {}, {}
        for side, sampler in (("cached", draw), ("naive", draw_naively)):
            before = time.perf_counter()
            found[side] = sampler(net, u)
            seconds[side] = time.perf_counter() - before
        apart = (found["cached"] - found["naive"]).abs()
        rows.append(
            {
                "cached s": round(seconds["cached"], 2),
                "naive s": round(seconds["naive"], 1),
                "times faster": round(seconds["naive"] / seconds["cached"], 1),
                "goal": 10,
                "largest difference in levels": int(apart.max()),
                "pixels that differ": int((apart > 0).sum()),
            }
        )
    report(
        f"{N} black and white images of {SIZE}×{SIZE} by a gated PixelCNN of {LAYERS} layers of {WIDTH}",
        rows,
        arguments.out,
    )


if __name__ == "__main__":
    main()
