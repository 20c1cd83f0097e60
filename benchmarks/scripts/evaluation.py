"""Time for FID, KID and IS with the Inception network on a CPU: genbench compared with torchmetrics' three metrics.

The network has seeded random weights, so nothing is downloaded. Both sides read the same weights file and use the same
images. genbench is timed with an empty cache, and again with the reference in the cache.

    python benchmarks/scripts/evaluation.py [--images 1000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from machine import RESULTS, report
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from genbench.evaluation import extractors
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.images import TensorImages
from genbench.evaluation.protocol import Protocol
from tests.helpers.random_inception import write_weights


def pictures(n: int, seed: int) -> Tensor:
    """Smooth colored noise, uint8 [n, 3, 32, 32]."""
    coarse = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)


def theirs(real: Tensor, fake: Tensor, weights: Path, size: int) -> dict[str, float]:
    """As in the documentation of torchmetrics: three metric objects, each updated with batches and then computed."""

    def network(feature: str) -> NoTrainInceptionV3:
        return NoTrainInceptionV3("inception-v3-compat", [feature], str(weights))

    fid = FrechetInceptionDistance(network("2048"))
    kid = KernelInceptionDistance(network("2048"), subset_size=size)
    score = InceptionScore(network("logits_unbiased"))
    for metric in (fid, kid):
        for batch in real.split(64):
            metric.update(batch, real=True)
        for batch in fake.split(64):
            metric.update(batch, real=False)
    for batch in fake.split(64):
        score.update(batch)
    return {"fid": float(fid.compute()), "kid": float(kid.compute()[0]), "is": float(score.compute()[0])}


def ours(real: Tensor, fake: Tensor, weights: Path, size: int) -> dict[str, float]:
    protocol = Protocol("benchmark", generated=len(fake), metrics=("fid", "kid", "is"), kid_subset_size=size)
    extractor = extractors.build("inception", weights)
    record = evaluate(TensorImages("fake", fake), TensorImages("real", real), protocol, extractor=extractor)
    return {name.partition("-")[0]: entry["value"] for name, entry in record.metrics.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS / "evaluation.json")
    arguments = parser.parse_args()
    real, fake = pictures(arguments.images, 0), pictures(arguments.images, 1)
    size = min(1000, arguments.images)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GENBENCH_CACHE"] = folder
        weights = write_weights(Path(folder) / "inception.pth")
        for name, side in (
            ("genbench, first evaluation", ours),
            ("genbench, reference cached", ours),
            ("torchmetrics, three objects", theirs),
        ):
            before = time.perf_counter()
            values = side(real, fake, weights, size)
            seconds = round(time.perf_counter() - before, 2)
            rows.append({"side": name, "seconds": seconds} | {k: float(f"{v:.7g}") for k, v in values.items()})
            print(rows[-1], flush=True)
    for row in rows:
        row["times"] = round(rows[-1]["seconds"] / row["seconds"], 2)
    report(f"FID + KID + IS of {arguments.images:,} images on a CPU", rows, arguments.out)


if __name__ == "__main__":
    main()
