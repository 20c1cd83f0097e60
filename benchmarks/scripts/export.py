"""Time of the DCGAN's generator in onnxruntime and as a torch.export program, compared with eager PyTorch.

python benchmarks/scripts/export.py [--batch 64] [--threads 2] [--rounds 30]

The weights are untrained, which does not change the time. The runtimes take turns, so that other programs slow down all
of them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from machine import RESULTS, report

from genbench.analysis import export
from genbench.cli import configs
from genbench.testing.recipe import Recipe


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS / "export.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    model = Recipe(configs.folder() / "dcgan.yaml").model().eval().requires_grad_(False)
    part = export.part_of(model)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = arguments.threads
    session = onnxruntime.InferenceSession(export.contents(part, "onnx"), settings, providers=["CPUExecutionProvider"])
    program = torch.export.load(io.BytesIO(export.contents(part, "torch"))).module()

    z = model.sample_latents(torch.arange(arguments.batch))
    array = z.numpy()
    runs: dict[str, Callable[[], object]] = {
        "PyTorch, eager": lambda: model.decode(z),
        "PyTorch, torch.export program": lambda: program(z),
        "onnxruntime": lambda: session.run(None, {"z": array}),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for run in runs.values():
            for _ in range(3):  # the first passes allocate memory
                run()
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                times[name].append(seconds(run))
    median = {name: statistics.median(each) for name, each in times.items()}
    rows = [
        {
            "runtime": name,
            "ms per batch": round(1000 * median[name], 2),
            "fastest": round(1000 * min(times[name]), 2),
            "images per second": round(arguments.batch / median[name]),
            "of eager": round(median["PyTorch, eager"] / median[name], 2),
        }
        for name in runs
    ]
    title = f"Generator of configs/dcgan.yaml, batches of {arguments.batch}, {arguments.threads} threads, medians"
    more = {"onnxruntime": importlib.metadata.version("onnxruntime"), "rounds": arguments.rounds}
    report(title, rows, arguments.out, **more)


if __name__ == "__main__":
    main()
