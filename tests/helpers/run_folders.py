"""Folders of runs as training and evaluation leave them, for the tests and for benchmarks/scripts/report.py."""

from __future__ import annotations

import csv
import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genbench.leaderboard.record import Record, write
from tests.helpers.records import many

REAL = Path(__file__).parents[2] / "benchmarks" / "records"
SHEETS = {"samples": (8, 8), "neighbors": (6, 8), "reconstructions": (8, 8)}  # columns and rows


def leave(
    record: Record, runs: Path, *, curve: int = 0, kinds: tuple[str, ...] = (), size: int = 32, channels: int = 3
) -> Path:
    """Write a record with the curve of its run and the pictures beside it; returns the record's path."""
    folder = runs / (record.run["name"] if record.run else "elsewhere")
    path = write(record, folder / "records")
    draw = np.random.default_rng(len(path.name) + sum(path.name.encode()))
    if curve:
        with open(folder / "metrics.csv", "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(_curve(curve, draw))
    for kind in kinds:
        path.with_suffix("").mkdir(exist_ok=True)
        columns, rows = SHEETS[kind]
        about = PngInfo()
        about.add_text("rows", str(rows))
        about.add_text("gap", "2")
        _sheet(columns, rows, size, channels, draw).save(path.with_suffix("") / f"{kind}.png", pnginfo=about)
    return path


def _curve(rows: int, draw: np.random.Generator) -> list[list[str]]:
    """A header and rows, as a training logs them: terms often, scores now and then."""
    terms = ["discriminator/real", "discriminator/fake", "generator/adversarial", "discriminator/penalty"]
    scores = [
        "val/fid-mnistnet",
        "val/kid-mnistnet",
        "val/is-mnistnet",
        "val/precision-mnistnet",
        "val/recall-mnistnet",
    ]
    found = [["images_seen", *terms, "generator/lr", "images_per_second", *scores]]
    for k in range(1, rows + 1):
        values = [f"{v:.6g}" for v in draw.lognormal(0, 0.3, len(terms))]
        judged = [f"{v:.6g}" for v in (1 + 50 / k) * draw.lognormal(0, 0.1, len(scores))] if k % 10 == 0 else [""] * 5
        found.append([str(k * 2000), *values, "0.0002", f"{draw.uniform(400, 600):.2f}", *judged])
    return found


def _sheet(columns: int, rows: int, size: int, channels: int, draw: np.random.Generator) -> Image.Image:
    """Smooth random pictures, as hard to compress as photographs of that size."""
    side = size + 2
    noise = draw.normal(0, 1, (rows, columns, channels, size, size))
    waves = np.fft.rfft2(noise) / (
        1 + np.hypot(*np.meshgrid(np.fft.rfftfreq(size) * size, np.fft.fftfreq(size) * size))
    )
    images = np.fft.irfft2(waves, (size, size))
    images = np.clip(127 + 60 * images / images.std(), 0, 255).astype(np.uint8)
    paper = np.full((rows * side + 2, columns * side + 2, channels), 40, np.uint8)
    for i in range(rows):
        for j in range(columns):
            paper[2 + i * side : side * (i + 1), 2 + j * side : side * (j + 1)] = images[i, j].transpose(1, 2, 0)
    return Image.fromarray(paper if channels == 3 else paper[:, :, 0])


def fill(runs: Path, models: int, seeds: int, *, rows: int = 300, channels: int = 3) -> int:
    """Best and last of every seed of every model with configs, costs, curves and pictures; returns how many runs."""
    real = json.loads(next(REAL.glob("VAE-MNIST-fid10k-test-best-*.json")).read_text())
    draw, names = random.Random(0), set()
    for record in many(models, seeds, protocols=1):
        if record.run:
            run = record.run | {"config": real["run"]["config"] | {"name": record.run["name"]}}
            run["command"] = f"python -m genbench fit --config vae --name {run['name']} --seed_everything {run['seed']}"
            training = real["training"] | {"device_hours": math.exp(draw.gauss(0, 1))}
            record = replace(record, run=run, training=training, cost=real["cost"], environment=real["environment"])
            record.model["arguments"] = real["model"]["arguments"]
        new = record.run is not None and record.run["name"] not in names
        names |= {record.run["name"]} if record.run else set()
        kinds = tuple(SHEETS) if "mse" in record.metrics else ("samples", "neighbors")
        leave(record, runs, curve=rows if new else 0, kinds=kinds if record.run else ("samples",), channels=channels)
    return len(names)
