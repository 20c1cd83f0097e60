"""Evaluates the models of the suite `modern` with several samplers and numbers of steps, and plots quality against
sampling cost.

    python -m genbench suite run modern               # trains the models, in runs/modern
    python benchmarks/scripts/modern.py [--runs runs/modern]

Each evaluation is a record in the folder of its run, and a row of `genbench leaderboard runs/modern`. Evaluations that
have a record are not repeated. They have 2,000 samples, except those with 250 network evaluations per image, which have
500 and only the first seed.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
from machine import RESULTS, report

from genbench.cli import evaluate
from genbench.leaderboard.record import collect

# for ImageNet 64×64 (Karras et al. 2022, table 5)
CHURN = {"churn": 40.0, "churn_from": 0.05, "churn_to": 50.0, "inflation": 1.003}
SAMPLES, FEW_SAMPLES = 2000, 500
DDPM, DPM = {"sampler": "ddpm"}, {"sampler": "dpm++"}
# name of a config: options of each evaluation. Steps of Heun's method have two network evaluations, except the last
EVALUATIONS = {
    "ddpm": [{"steps": n} | more for n in (5, 10, 25, 50, 250) for more in ({}, DDPM, DPM)],
    "edm": [{"steps": n} | more for n in (3, 5, 13, 25, 125) for more in ({}, CHURN)],
    "flow_matching": [{"steps": n} for n in (5, 10, 25, 50, 250)],
    "latent_diffusion": [{"steps": n} for n in (3, 5, 13, 25, 125)],
    "mean_flow": [{"steps": n} for n in (1, 2, 5)],
    "consistency": [{"steps": n} for n in (1, 2, 5)],
    "real_nvp": [{"temperature": t} for t in (1.0, 0.8)],
}


def flags(options: dict[str, float | str]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def evaluate_all(runs: Path) -> None:
    for config, evaluations in EVALUATIONS.items():
        for folder in sorted(runs.glob(f"{config}-MNIST-seed*")):
            for options in evaluations:
                slow = options.get("steps", 0) >= 125
                if slow and not folder.name.endswith("seed0"):
                    continue
                protocol = [f"--generated={FEW_SAMPLES if slow else SAMPLES}", "--metrics", "fid"]
                if not _is_done(folder, options, protocol[0]):
                    ckpt = folder / "checkpoints" / "last.ckpt"
                    evaluate.main("evaluate", [f"--ckpt={ckpt}", *flags(options), *protocol])


def _is_done(folder: Path, options: dict[str, float | str], samples: str) -> bool:
    count = int(samples.partition("=")[2])
    return any(
        record.run["checkpoint"] == "last"
        and record.protocol["generated"] == count
        and record.protocol["metrics"] == ["fid"]
        and options.items() <= (record.run.get("sampling") or {}).items()
        for record in collect([folder / "records"])[0]
    )


def rows(runs: Path) -> list[dict]:
    """One row for each model and kind of sampling: means over seeds."""
    found = defaultdict(list)
    for record in collect([runs])[0]:
        score = record.metrics.get("fid-mnistnet", {}).get("value")
        if record.run.get("checkpoint") != "last" or score is None:
            continue
        config = record.run["name"].partition("-MNIST")[0]
        sampling = ", ".join(f"{k} {v}" for k, v in (record.run.get("sampling") or {}).items())
        found[config, sampling, record.protocol["generated"]].append(record)
    return [
        {
            "model": config,
            "sampling": sampling,
            "samples": count,
            "seeds": len(records),
            "evaluations": records[0].cost.get("network_evaluations_per_image"),
            "ms per image": round(1000 * mean(r.cost["sampling_seconds_per_image"] for r in records), 3),
            "fid-mnistnet": round(mean(r.metrics["fid-mnistnet"]["value"] for r in records), 3),
        }
        for (config, sampling, count), records in sorted(found.items())
    ]


def columns(points: dict[float, float]) -> tuple[list[float], list[float]]:
    return sorted(points), [points[cost] for cost in sorted(points)]


def plot(table: list[dict], path: Path) -> None:
    """Lines join scores of 2,000 samples. FIDs of 500 samples are higher by their bias, and are hollow points."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axis, column in zip(axes, ("evaluations", "ms per image"), strict=True):
        for model in dict.fromkeys(row["model"] for row in table):
            # the best kind of sampling for each cost
            best: dict[bool, dict[float, float]] = {True: {}, False: {}}
            for row in table:
                if row["model"] == model and row[column]:
                    cost = row[column] if column == "evaluations" else round(row[column], 2)
                    found = best[row["samples"] == SAMPLES]
                    found[cost] = min(found.get(cost, row["fid-mnistnet"]), row["fid-mnistnet"])
            line, *_ = axis.plot(*columns(best[True]), "o-", markersize=4, label=model)
            axis.plot(*columns(best[False]), "o", markersize=4, fillstyle="none", color=line.get_color())
        axis.set(xscale="log", yscale="log", xlabel=column.replace("evaluations", "network evaluations per image"))
    axes[0].set_ylabel(f"fid-mnistnet (hollow points: {FEW_SAMPLES} samples)")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/modern"))
    parser.add_argument("--out", type=Path, default=RESULTS / "modern.json")
    arguments = parser.parse_args()
    evaluate_all(arguments.runs)
    table = rows(arguments.runs)
    report("Quality and sampling cost of the models of the suite `modern`", table, arguments.out)
    plot(table, RESULTS.parent / "pictures" / "modern.png")
