"""Sampling from a PixelCNN with what its layers have computed kept, against a full pass for every number.

Both sides draw the same 64 images of 28×28 by the same network and the same noise, in turns; images are the same where
no number differs by more than one level. The network is that of configs/pixelcnn.yaml, with random weights: what a step
costs does not depend on them.

    python benchmarks/pixelcnn.py [--runs 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from machine import report

from genbench.core.noise import per_seed
from genbench.networks.pixelcnn import GatedPixelCNN
from genbench.samplers.pixelcnn import draw, draw_naively

CASES = {"black and white": 2, "8-bit": 256}
N, SIZE, WIDTH, LAYERS = 64, 28, 32, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pixelcnn.json")
    arguments = parser.parse_args()
    rows = []
    for name, values in CASES.items():
        torch.manual_seed(0)
        net = GatedPixelCNN(values, 1, WIDTH, LAYERS).eval()
        u = per_seed(torch.rand, torch.arange(N), (1, SIZE, SIZE))
        seconds: dict[str, list[float]] = {"cached": [], "naive": []}
        found = {}
        for _ in range(arguments.runs):
            for side, sampler in (("cached", draw), ("naive", draw_naively)):
                before = time.perf_counter()
                found[side] = sampler(net, u)
                seconds[side].append(time.perf_counter() - before)
        apart = (found["cached"] - found["naive"]).abs()
        ratios = sorted(n / c for n, c in zip(seconds["naive"], seconds["cached"], strict=True))
        rows.append(
            {
                "pixels": name,
                "cached s": round(statistics.median(seconds["cached"]), 2),
                "naive s": round(statistics.median(seconds["naive"]), 2),
                "times faster": round(statistics.median(ratios), 1),
                "ratios": [round(r, 1) for r in ratios],
                "goal": 10,
                "largest difference in levels": int(apart.max()),
                "numbers that differ": int((apart > 0).sum()),
            }
        )
    report(f"{N} images of {SIZE}×{SIZE} by a gated PixelCNN of {LAYERS} layers of {WIDTH}", rows, arguments.out)


if __name__ == "__main__":
    main()
