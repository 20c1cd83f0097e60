"""Suite files: models × data sets × seeds × a grid in YAML, and the runs that follow from them.

models: [dcgan, vae]                  # configs, by name or file; or {config, name, data, set, grid, budget}
data: [MNIST]                         # data sets, by name or {class_path, init_args}; default: as in the config
seeds: [0, 1, 2]
budget: {minutes: 5}                  # per run, on one device; converted to images once. Or {images: 1M}
protocol: fid10k-test                 # protocol for the best and the last checkpoint; default: as in the config
by: fid                               # score that ranks the final leaderboard; default: the first of a track
parts: [trainer/bf16]                 # configs merged into the config of every run
set: {validation.every_images: 100k}     # any key of a config, for all runs
grid: {model.optimizer.lr: [1e-4, 2e-4]}   # any keys of a config, each with the values to try
keep_every: 500k                      # checkpoints kept in addition to the last and the best
wandb: {project: genbench}            # logs a group of runs and a table of records
launch: {at_once: 2, threads: 1}      # see `Launch`
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from genbench.core import yaml_file
from genbench.core.errors import UserError, did_you_mean
from genbench.core.units import Images


@dataclass(frozen=True)
class Launch:
    """where     local, or slurm
    at_once      devices in use at the same time. Default: all GPUs; without GPUs, the number of cores divided by
                 `threads`; on Slurm, no limit
    threads      CPU threads per device. Default: the cores divided by `at_once`; on Slurm, the cores of the job
    devices      devices per node of a run
    nodes        number of machines of a run, on Slurm
    minutes      time limit of a Slurm job; just before it, the job saves and is requeued. Default: the partition's
    memory       GB of memory per node of a Slurm job. Default: the partition's
    partition, account, qos, gres
                 as in sbatch. Without gres, each device is a GPU if the partition has GPUs and the config's
                 `trainer.accelerator` is not cpu
    sbatch       other options of sbatch: {constraint: a100}
    setup        shell commands run before a job on Slurm, such as `module load cuda`
    """

    where: str = "local"
    at_once: int | None = None
    threads: int | None = None
    devices: int = 1
    nodes: int = 1
    minutes: int | None = None
    memory: float | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    sbatch: dict[str, Any] = field(default_factory=dict)
    setup: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Budget:
    """Real images that a run trains on, or minutes on one device, which a measured speed converts to images."""

    images: int | None = None
    minutes: float | None = None

    def __str__(self) -> str:
        return f"{self.images:,} images" if self.images else f"{self.minutes:g} minutes on one device"


@dataclass(frozen=True)
class Experiment:
    """A row of the leaderboard: one complete config, trained with several seeds.

    name    such as `dcgan-MNIST-lr=0.0001`
    flags   of `fit`, without seed, budget, name and folder
    grid    its point of the grid: key -> value
    budget  of each run
    tried   number of configs of this model and data set in the suite
    """

    name: str
    flags: tuple[str, ...]
    grid: dict[str, Any]
    budget: Budget
    tried: int = 1

    def run(self, seed: int) -> str:
        return f"{self.name}-seed{seed}"

    def command(self, seed: int, images: int | None) -> str:
        """Return the shell command that repeats this training."""
        budget = [] if images is None else [f"--max_images={images}"]
        return shlex.join(["python", "-m", "genbench", "fit", *self.flags, f"--seed_everything={seed}", *budget])


@dataclass(frozen=True)
class Suite:
    name: str
    experiments: tuple[Experiment, ...]
    seeds: tuple[int, ...]
    by: str | None
    wandb: dict[str, Any] | None
    launch: Launch

    def runs(self) -> Iterator[tuple[str, Experiment, int]]:
        """Yield name, experiment and seed of every run: all experiments with the first seed, then with the next."""
        for seed in self.seeds:
            for experiment in self.experiments:
                yield experiment.run(seed), experiment, seed


KEYS = (
    "models", "data", "seeds", "budget", "protocol", "by", "parts", "set", "grid", "keep_every", "wandb", "launch"
)  # fmt: skip
WANDB = ("project", "entity", "group", "tags")
ENTRY = ("config", "name", "data", "set", "grid", "budget")


def load(path: Path, find: Callable[[str], Path | None], **launching: Any) -> Suite:
    """Read a suite from a YAML file.

    Args:
        find: Maps the name of a config to its file, or to None
        launching: Settings that replace those of `launch`

    Raises:
        UserError: lists every error found in the suite file. The parser of `fit` checks later whether the settings
            fit the models and data.
    """
    text = yaml_file.read(path)
    if "models" not in text:
        raise UserError(f"{path} is not a suite: it needs `models` and `budget`. Allowed keys: {', '.join(KEYS)}.")
    faults: list[str] = []
    for key in text:
        if key not in KEYS:
            faults.append(f"unknown key '{key}'. Choose from: {', '.join(KEYS)}.{did_you_mean(str(key), KEYS)}")
    seeds = text.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and 0 <= s < 2**32 for s in seeds):
        faults.append(f"seeds is {seeds}; expected a list of whole numbers, such as [0, 1, 2].")
        seeds = [0]
    elif len(set(seeds)) < len(seeds):
        faults.append(f"seeds is {seeds}; list each seed once.")
    launch = text.get("launch") or {}
    given = {key: value for key, value in launching.items() if value is not None}
    launch = _launch(launch | given if isinstance(launch, dict) else launch, faults)
    wandb = text.get("wandb")
    if wandb is not None and not isinstance(wandb, dict):
        faults.append(f"wandb is {wandb}; expected settings, such as {{project: genbench}}.")
        wandb = None
    elif unknown := set(wandb or {}) - set(WANDB):
        faults.append(f"unknown key '{min(unknown)}' in wandb. Choose from: {', '.join(WANDB)}.")
    experiments = _counted(_experiments(text, path, find, faults))
    names = [experiment.name for experiment in experiments]
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.append(f"two experiments are named '{name}': give them different names with {{config: ..., name: ...}}.")
    if faults:
        raise UserError(error_message(path, faults))
    return Suite(path.stem, tuple(experiments), tuple(seeds), text.get("by"), wandb, launch)


def error_message(path: Path, faults: list[str]) -> str:
    """Join all errors of a suite to one message."""
    if len(faults) == 1:
        return f"{path}: {faults[0]}"
    return f"{path}: {len(faults)} errors.\n" + "\n".join(f"- {fault}" for fault in faults)


def _budget(given: Any, faults: list[str]) -> Budget:
    with suppress(TypeError, ValueError):
        if isinstance(given, dict) and list(given) == ["images"]:
            return Budget(images=int(Images(given["images"])))
        if isinstance(given, dict) and list(given) == ["minutes"] and float(given["minutes"]) > 0:
            return Budget(minutes=float(given["minutes"]))
    faults.append(f"budget is {given}; expected {{images: 1M}}, or {{minutes: 5}} on one device, per run.")
    return Budget(images=1)


def _launch(given: Any, faults: list[str]) -> Launch:
    known = {f.name: f for f in fields(Launch)}
    if not isinstance(given, dict):
        faults.append(f"launch is {given}; expected settings: {', '.join(known)}.")
        return Launch()
    for key, value in given.items():
        if key not in known:
            faults.append(
                f"unknown key '{key}' in launch. Choose from: {', '.join(known)}. Other sbatch options: launch.sbatch."
            )
            continue
        whole = known[key].type.startswith("int")
        if (whole or key == "memory") and value is not None:
            kinds = int if whole else (int, float)
            if not isinstance(value, kinds) or isinstance(value, bool) or value <= 0:
                faults.append(f"launch.{key} is {value}; expected a {'whole ' if whole else ''}number above 0.")
        if key in ("sbatch", "setup") and not isinstance(value, dict if key == "sbatch" else list):
            faults.append(f"launch.{key} is {value}; expected a {'mapping' if key == 'sbatch' else 'list'}.")
    launch = Launch(**{key: value for key, value in given.items() if key in known})
    if launch.where not in ("local", "slurm"):
        faults.append(f"launch.where is '{launch.where}'; expected local or slurm.")
    elif launch.where == "local" and launch.nodes not in (1, None):
        faults.append("launch.nodes is only for Slurm: on this machine a run uses one node.")
    return launch


def _experiments(
    text: dict[str, Any], path: Path, find: Callable[[str], Path | None], faults: list[str]
) -> Iterator[Experiment]:
    common = [
        *(f"--config={part}" for part in _configs(text.get("parts") or [], "parts", path, find, faults)),
        *_flags(text.get("set") or {}, "set", faults),
        *([f"--protocol={text['protocol']}"] if text.get("protocol") else []),
        *([f"--checkpoint.keep_every={text['keep_every']}"] if text.get("keep_every") else []),
    ]
    if isinstance(text.get("wandb"), dict):
        logger = {"project": "genbench", "group": path.stem} | text["wandb"]
        common += ["--trainer.logger=genbench.loggers.Wandb", *(f"--trainer.logger.{k}={v}" for k, v in logger.items())]
    models = text["models"] if isinstance(text["models"], list) else [text["models"]]
    if not models:
        faults.append("models is empty; expected names of configs, such as [dcgan, vae].")
    all_have_budgets = all(isinstance(entry, dict) and "budget" in entry for entry in models)
    common_budget = Budget() if all_have_budgets and "budget" not in text else _budget(text.get("budget"), faults)
    data = text.get("data")
    for entry in models:
        entry = {"config": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or not isinstance(entry.get("config"), str) or set(entry) - set(ENTRY):
            faults.append(f"models contains {entry}; expected a config name or a mapping with {', '.join(ENTRY)}.")
            continue
        found = list(_configs([entry["config"]], "models", path, find, faults))
        own = _flags(entry.get("set") or {}, "models.set", faults)
        budget = _budget(entry["budget"], faults) if "budget" in entry else common_budget
        grid = _grid(text.get("grid"), faults) | _grid(entry.get("grid"), faults)
        points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        name = str(entry.get("name") or Path(entry["config"]).stem)
        own_data = entry.get("data", data)  # null means the data set of the config
        for one in own_data if isinstance(own_data, list) else [own_data]:
            named, flags = _data(one, faults)
            for point in points:
                at = [f"{key.rpartition('.')[2]}={_short(value)}" for key, value in point.items()]
                label = "-".join(filter(None, [name, named or _own_data(find(found[0]) if found else None), *at]))
                yield Experiment(
                    name=re.sub(r"[^A-Za-z0-9._=+-]+", "-", label).strip("-."),
                    flags=(
                        *(f"--config={config}" for config in found), *flags, *common, *own,
                        *_flags(point, "grid", faults),
                    ),
                    grid=point,
                    budget=budget,
                )  # fmt: skip


def _counted(experiments: Iterator[Experiment]) -> list[Experiment]:
    """Set `tried`: how many experiments, from a grid or from several entries, have the same config and data set."""
    found = list(experiments)
    same = [tuple(f for f in e.flags if f.startswith(("--config=", "--data="))) for e in found]
    return [replace(e, tried=same.count(key)) for e, key in zip(found, same, strict=True)]


def _configs(names: Any, what: str, path: Path, find: Callable[[str], Path | None], faults: list[str]) -> Iterator[str]:
    for name in map(str, names if isinstance(names, list) else [names]):
        beside = path.parent / name  # a path may be relative to the suite's folder or to the current folder
        if beside.is_file():
            yield str(beside)
        elif find(name) is not None:
            yield name
        else:
            faults.append(f"{what} contains the config '{name}', but there is no such file or shipped config.")


def _own_data(config: Path | None) -> str:
    """Return the name of the data set in a config."""
    if config is None:
        return ""
    try:
        return yaml_file.read(config)["data"]["class_path"].rpartition(".")[2]
    except (LookupError, TypeError, AttributeError, UserError):
        return ""  # the parser reports the error later


def _data(entry: Any, faults: list[str]) -> tuple[str, list[str]]:
    """Return a name for the data set, and its flags."""
    if entry is None:
        return "", []
    entry = {"class_path": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or not isinstance(entry.get("class_path"), str):
        faults.append(
            f"data contains {entry}; expected the name of a data set, or {{class_path: ..., init_args: {{...}}}}."
        )
        return "", []
    path, arguments = entry["class_path"], entry.get("init_args") or {}
    name = "-".join([path.rpartition(".")[2], *(f"{key}={_short(value)}" for key, value in arguments.items())])
    flags = _flags({f"data.{key}": value for key, value in arguments.items()}, "data", faults)
    return entry.get("name") or name, [f"--data={path}", *flags]


def _grid(given: Any, faults: list[str]) -> dict[str, list[Any]]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(v, list) and v for v in given.values()):
        faults.append(f"grid is {given}; expected keys of a config, each with a list of values.")
        return {}
    return {str(key): values for key, values in given.items()}


def _flags(given: Any, what: str, faults: list[str]) -> list[str]:
    """Convert dotted keys of a config to flags of `fit`."""
    if not isinstance(given, dict):
        faults.append(f"{what} is {given}; expected keys of a config with values: {{model.width: 32}}.")
        return []
    reserved = {"seed_everything": "seeds", "max_images": "budget", "name": "models", "runs": "--folder", "ckpt": None}
    for key in given:
        if key in reserved:
            by = f" with `{reserved[key]}`" if reserved[key] else ""
            faults.append(f"{what} contains '{key}', which the suite itself sets{by}.")
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given.items()]


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text.rpartition(".")[2] if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", text) else text
