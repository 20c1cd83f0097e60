"""Records as an evaluation writes them, for the tests and for benchmarks/scripts/leaderboard.py."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from genbench.leaderboard.record import Record

METRICS = {  # name -> (better, low, high, track)
    "fid": ("lower", 0, None, "generation"),
    "kid": ("lower", None, None, "generation"),
    "is": ("higher", 1, None, "generation"),
    "precision": ("higher", 0, 1, "generation"),
    "recall": ("higher", 0, 1, "generation"),
    "density": ("higher", 0, None, "generation"),
    "coverage": ("higher", 0, 1, "generation"),
    "nearest_train": (None, 0, None, "generation"),
    "mse": ("lower", 0, 4, "reconstruction"),
    "psnr": ("higher", 0, None, "reconstruction"),
    "nats": ("higher", None, None, "likelihood"),
    "bits_per_dim": ("lower", None, None, "likelihood"),
}


def entry(name: str, value: float | None, **more: Any) -> dict[str, Any]:
    """One score, as a record holds it."""
    better, low, high, track = METRICS[name.partition("-")[0]]
    scale = {"better": better, "low": low, "high": high, "n": 10000, "track": track}
    return {"value": value, "std": None, **scale, "note": None, **more}


def protocol(name: str = "fid10k-test", **more: Any) -> dict[str, Any]:
    """A protocol, with a key that its fields decide."""
    fields = {"name": name, "split": "test", "images": 10000, "extractor": {"name": "mnistnet", "hash": "e0" * 8}}
    fields |= {"reference": {"hash": "ab" * 16, "images": 10000}, "seed": 0} | more
    return fields | {"key": hashlib.sha256(repr(fields).encode()).hexdigest()[:16]}


def record(
    model: str = "DCGAN",
    kind: str = "model",
    *,
    metrics: dict[str, dict[str, Any]] | None = None,
    data: str = "MNIST",
    run: dict[str, Any] | None = None,
    protocol: dict[str, Any] = protocol(),
    created: str = "2026-11-23T12:00:00+00:00",
    parameters: int = 1_234_567,
    speed: float = 277.25,
    evaluations: float | None = 1.0,
    seconds: float | None = 0.0011,
) -> Record:
    """A complete record; arguments replace what is in it, `run` by field."""
    run = {
        "name": f"{model.lower()}-mnist",
        "config": {"model": {"class_path": f"genbench.models.{model}", "init_args": {"width": 64}}},
        "config_hash": hashlib.sha256(model.encode()).hexdigest()[:16],
        "seed": 0,
        "images_seen": 1_000_000,
        "updates": {"generator": 15625, "discriminator": 15625},
        "checkpoint": "last",
        "weights": "ema",
        "sampling": {},
    } | (run or {})
    run.setdefault("checkpoint_hash", hashlib.sha256(repr(run).encode()).hexdigest()[:16])
    trained = kind == "model"
    more = {"class": f"genbench.models.{model}", "arguments": {"width": 64}, "parameters": parameters}
    return Record(
        kind=kind,
        model={"name": model} | (more | {"players": {"generator": 1000, "discriminator": 900}} if trained else {}),
        data={"name": data, "arguments": {"size": 32}},
        run=run if trained else None,
        training={"device": "cpu", "images_per_second": speed, "device_hours": 1.0} if trained else None,
        protocol=protocol,
        metrics=metrics if metrics is not None else {"fid-mnistnet": entry("fid-mnistnet", 3.25)},
        cost={
            "network_evaluations_per_image": evaluations if trained else None,
            "sampling_seconds_per_image": seconds if trained else None,
            "evaluation_seconds": 12.0,
        },
        environment={"device": "cpu", "world_size": 1, "python": "3.11.7", "git": None},
        created=created,
    )


def many(models: int = 10, seeds: int = 3, protocols: int = 2) -> list[Record]:
    """Best and last of every seed of every model under every protocol, and a baseline: some lack abilities."""
    draw = random.Random(0)
    names = ["DCGAN", "WGAN-GP", "VAE", "beta-VAE", "VQVAE", "PixelCNN", "DDPM", "RealNVP", "StyleGAN2", "Diffusion"]
    four = [protocol(), protocol("fid1k-val", split="val", images=1000), protocol(seed=1), protocol("fid50k-train")]
    found = []
    for of_records in (four[k % 4] | {"key": four[k % 4]["key"][:12] + f"{k // 4:04d}"} for k in range(protocols)):
        baseline = {f"{n}-mnistnet": entry(n, v) for n, v in (("fid", 0.41), ("kid", -1e-6), ("precision", 0.752))}
        found.append(record("real", "baseline", metrics=baseline, protocol=of_records))
        for k in range(models):
            name = names[k % len(names)] + (f" v{k // len(names)}" if k >= len(names) else "")
            level = draw.lognormvariate(2, 0.8)
            for seed in range(seeds):
                for checkpoint in ("best", "last"):
                    value = level * draw.uniform(0.9, 1.1)
                    scores = {"fid": value, "kid": value / 3000, "is": 9.8 - value / 10, "precision": 0.8 - value / 200}
                    scores |= {"recall": 0.7 - value / 200, "density": 1 - value / 100, "coverage": 0.9 - value / 99}
                    scores |= {"nearest_train": 4 + draw.random()} if k % 3 else {}
                    metrics = {f"{n}-mnistnet": entry(n, v) for n, v in scores.items()}
                    if k % 10 in (2, 3, 4):
                        metrics |= {"mse": entry("mse", value / 500), "psnr": entry("psnr", 25 - value / 9)}
                    if k % 10 in (2, 3, 5, 7):
                        bound = "lower bound" if k % 10 < 4 else "exact"
                        metrics |= {"nats": entry("nats", -90 - value, bound=bound)}
                        metrics |= {"bits_per_dim": entry("bits_per_dim", 0.1 + value / 900, bound=bound)}
                    if of_records["images"] == 1000 and k % 4 == 1:
                        blank = entry("fid", None, note="needs 2,048 images, got 1,000")
                        metrics["fid-mnistnet"] = blank
                    run = {"name": f"{name.lower().replace(' ', '-')}-{seed}", "seed": seed, "checkpoint": checkpoint}
                    run |= {"updates": {"generator": 15625, "critic": 78125}} if k % 10 == 1 else {}
                    run |= {"updates": {"model": 15625}} if k % 10 in (2, 3, 4, 5, 6, 7, 9) else {}
                    size = {"parameters": int(1e6 * draw.lognormvariate(0, 1)), "speed": draw.uniform(50, 2000)}
                    found.append(record(name, run=run, metrics=metrics, protocol=of_records, **size))
    return found
