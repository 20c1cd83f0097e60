"""Peak memory of an evaluation with only the FID. It must not grow with the number of samples.

python benchmarks/scripts/fid_memory.py [--counts 1000 10000 50000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from machine import RESULTS, report

from genbench.core.machine import peak_memory
from genbench.evaluation import extractors
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.images import TensorImages
from genbench.evaluation.protocol import Protocol

CPU = torch.device("cpu")


class Noise:
    """Random images that are generated on access."""

    name, shape, label = "noise", (1, 32, 32), None

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def images(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.randint(0, 256, (len(rows), *self.shape), dtype=torch.uint8)


def peak(count: int) -> dict[str, float]:
    """Peak memory in MiB before an evaluation, and its growth. Each call needs its own process."""
    reference = TensorImages("reference", Noise(100).images(torch.arange(100)))
    extractor = extractors.build("mnistnet")
    protocol = Protocol("benchmark", generated=count, metrics=("fid",))
    evaluate(Noise(128), reference, protocol, extractor=extractor)  # loads libraries and allocates buffers
    before = peak_memory(CPU) / 2**20
    evaluate(Noise(count), reference, protocol, extractor=extractor)
    return {"samples": count, "peak before, MiB": before, "growth, MiB": peak_memory(CPU) / 2**20 - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 50_000])
    parser.add_argument("--one", type=int, help="measure this count, in this process")
    parser.add_argument("--out", type=Path, default=RESULTS / "fid_memory.json")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(peak(arguments.one)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.counts:
            done = subprocess.run(
                [sys.executable, __file__, "--one", str(count)],
                env=os.environ | {"GENBENCH_CACHE": folder}, capture_output=True, text=True, check=True,
            )  # fmt: skip
            found = json.loads(done.stdout.splitlines()[-1])
            rows.append({name: round(value, 1) for name, value in found.items()})
    report("Peak memory of a FID", rows, arguments.out)


if __name__ == "__main__":
    main()
