"""The folder of a suite: its plan, its budgets in images, the attempts at its runs, and their progress.

<folder>/suite.yaml             experiments and seeds
<folder>/configs/<name>.yaml    complete config of an experiment
<folder>/budgets/<name>.json    budget of an experiment in images, if it was measured
<folder>/claims/                attempts at runs, see `claims`
<folder>/logs/<run>.log         output of a run
<folder>/<run>/                 an ordinary run folder, with its records
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from genbench.core import history, yaml_file
from genbench.core.errors import UserError
from genbench.core.files import create, ordinary, replacing
from genbench.core.history import COLUMN
from genbench.suites import claims
from genbench.suites.definition import Budget, Experiment, Suite

OWN = ("configs", "budgets", "claims", "logs", "jobs", "wandb")  # folders next to the run folders


@dataclass(frozen=True)
class State:
    """The progress of a run.

    state    done, running, failed, stopped (can be resumed), queued, or waiting
    images   seen so far
    budget   in images; None if not known yet
    speed    images per second of training; None before training
    seconds  duration of the last attempt
    reason   why it failed
    """

    run: str
    experiment: str
    state: str
    images: int
    budget: int | None
    speed: float | None
    seconds: float | None
    reason: str | None
    attempts: int


class Folder:
    """A suite's folder, which several processes and machines may share."""

    def __init__(self, path: Path) -> None:
        self.path, self.claims = path, path / "claims"
        self._plan: tuple[int, dict[str, Any]] = (0, {})  # modification time of the file, and its contents

    # ---- the plan -----------------------------------------------------------------------------------------------

    def plan(self) -> dict[str, Any]:
        """Return the contents of suite.yaml.

        Raises:
            UserError: the file does not exist or is damaged.
        """
        path = self.path / "suite.yaml"
        try:
            written = path.stat().st_mtime_ns
            if self._plan[0] == written:
                return self._plan[1]
            found = _yaml(path)
        except FileNotFoundError as error:
            raise UserError(f"{self.path} is not the folder of a suite: there is no {path}.") from error
        except (OSError, ValueError, UserError) as error:
            raise UserError(f"{path} is damaged ({' '.join(str(error).split())}): restore it.") from error
        if not isinstance(found, dict) or not {"suite", "experiments", "order"} <= found.keys():
            raise UserError(f"{path} is not a complete plan of a suite: a key is missing. Restore the file.")
        self._plan = (written, found)
        return found

    def begin(self, suite: Suite, resolved: dict[str, dict[str, Any]], facts: dict[str, dict[str, Any]]) -> None:
        """Write the plan, or add new experiments and seeds to the existing one.

        Args:
            resolved: Complete config of each experiment
            facts: Other facts about each experiment for the plan

        Raises:
            UserError: the folder belongs to a different suite, or an experiment in it has different settings.
        """
        before: dict[str, Any] = {}
        if (self.path / "suite.yaml").exists():
            before = self.plan()
            if before["suite"] != suite.name:
                raise UserError(
                    f"{self.path} belongs to the suite '{before['suite']}', but this is '{suite.name}'. Use a "
                    "different `--folder`."
                )
        elif self.path.is_dir() and any(p.name not in OWN and p.name[0] != "." for p in self.path.iterdir()):
            raise UserError(f"{self.path} contains files that do not belong to a suite. Use a different `--folder`.")
        experiments: dict[str, Any] = dict(before.get("experiments", {}))
        changed = []
        for name, budget in ((e.name, e.budget) for e in suite.experiments if e.name in experiments):
            if (old := Budget(**experiments[name]["budget"])) != budget:
                changed.append(f"{name}: budget ({old} before, {budget} now)")
            for key, was, now in _differences(self.config(name), resolved[name]):
                changed.append(f"{name}: {key} ({was} before, {now} now)")
        if changed:
            raise UserError(
                f"{self.path} was begun with different settings, so its runs would not be comparable:\n- "
                + "\n- ".join(changed) + "\nUse a different `--folder`, or restore the settings."
            )  # fmt: skip
        for name, config in resolved.items():
            path = self._config_path(name)
            if name not in experiments or not path.exists():  # a killed process may have left an old file
                _write_yaml(path, config)
        for experiment in suite.experiments:
            seeds = experiments.get(experiment.name, {}).get("seeds", [])
            experiments[experiment.name] = facts[experiment.name] | {
                "flags": list(experiment.flags),
                "grid": experiment.grid,
                "tried": experiment.tried,
                "budget": asdict(experiment.budget),
                "seeds": seeds + [seed for seed in suite.seeds if seed not in seeds],
            }
        plan: dict[str, Any] = {"suite": suite.name, "by": suite.by, "wandb": suite.wandb, "experiments": experiments}
        plan["order"] = [run for run, *_ in suite.runs()]
        if plan != before:
            _write_yaml(self.path / "suite.yaml", plan)

    def config(self, experiment: str) -> dict[str, Any]:
        """Return the complete config of an experiment."""
        return _yaml(self._config_path(experiment))

    def _config_path(self, experiment: str) -> Path:
        return self.path / "configs" / f"{experiment}.yaml"

    def runs(self) -> dict[str, tuple[str, int]]:
        """Return experiment and seed of every run, in the order in which they are started."""
        plan = self.plan()
        known = {
            f"{name}-seed{seed}": (name, seed)
            for name, experiment in plan["experiments"].items()
            for seed in experiment["seeds"]
        }
        return {run: known[run] for run in dict.fromkeys([*plan["order"], *known]) if run in known}

    # ---- budgets ------------------------------------------------------------------------------------------------

    def images(self, experiment: str) -> int | None:
        """Return the experiment's budget in images; None if it is in minutes and the speed was not measured yet."""
        if given := self.plan()["experiments"][experiment]["budget"]["images"]:
            return given
        with suppress(OSError, ValueError):
            return json.loads(ordinary(self._budget_path(experiment)).read_text())["images"]
        return None

    def keep_images(self, experiment: str, found: dict[str, Any]) -> int:
        """Store a measured budget, unless another run of the experiment has done so. Return the stored number."""
        path = self._budget_path(experiment)
        path.parent.mkdir(exist_ok=True)
        with suppress(FileExistsError):
            create(path, (json.dumps(found, indent=1) + "\n").encode())
        return json.loads(path.read_text())["images"]

    def _budget_path(self, experiment: str) -> Path:
        return self.path / "budgets" / f"{experiment}.json"

    def minutes(self) -> dict[str, float | None]:
        """Return wall-clock minutes of each experiment's training; None if its budget is in images."""
        return {
            name: wall_minutes(each["budget"]["minutes"], each) for name, each in self.plan()["experiments"].items()
        }

    # ---- progress -----------------------------------------------------------------------------------------------

    def log(self, run: str) -> Path:
        return self.path / "logs" / f"{run}.log"

    def states(self, only: Iterable[str] | None = None) -> list[State]:
        """Return the state of every run, or of the runs in `only`."""
        budgets = {name: self.images(name) for name in self.plan()["experiments"]}
        runs = self.runs()
        wanted = runs.keys() if only is None else set(only)
        return [self._state(run, name, budgets[name]) for run, (name, _) in runs.items() if run in wanted]

    def _state(self, run: str, experiment: str, budget: int | None) -> State:
        attempt = claims.latest(self.claims, run)
        images, speed = progress(self.path / run)
        if attempt is None:
            state = "waiting"
        elif attempt.outcome is not None:
            state = attempt.outcome
        else:
            state = "running" if attempt.alive else "stopped"
        return State(
            run, experiment, state, images, budget, speed, attempt.seconds if attempt else None,
            attempt.reason if attempt else None, attempt.number if attempt else 0,
        )  # fmt: skip


def _yaml(path: Path) -> Any:
    return yaml_file.parse(Path(ordinary(path)).read_text(), str(path))


def _write_yaml(path: Path, contents: dict[str, Any]) -> None:
    with replacing(path) as file:
        file.write(yaml.safe_dump(contents, sort_keys=False).encode())


def progress(run: Path) -> tuple[int, float | None]:
    """Return the last images seen and images per second in a run's `metrics.csv`."""
    path = ordinary(run / "metrics.csv")
    try:
        return _progress(path, path.stat().st_mtime_ns)
    except (OSError, history.Unreadable):
        return 0, None


@functools.lru_cache(4096)  # states are read twice a second, and most runs have ended
def _progress(path: Path, modified: int) -> tuple[int, float | None]:
    images = 0
    for row in reversed(history.read(path).rows):
        images = images or int(row[COLUMN])
        with suppress(ValueError):
            return images, float(row.get("images_per_second", ""))
    return images, None


def seconds_left(states: Iterable[State], minutes: dict[str, float | None], at_once: int) -> float | None:
    """Estimate the seconds until all runs are done; None if the speed of a run is not known.

    minutes  each experiment's wall-clock minutes, used until its budget in images is known
    """
    states = list(states)
    speeds: dict[str, list[float]] = {}
    around = []  # seconds of a run outside training: start, validation, images, evaluation
    for state in states:
        if state.speed:
            speeds.setdefault(state.experiment, []).append(state.speed)
        if state.state == "done" and state.seconds and state.speed and state.attempts == 1:
            around.append(state.seconds - state.images / state.speed)
    left = []
    for state in states:
        if state.state in ("done", "failed"):
            continue
        seconds = max(0.0, sum(around) / len(around)) if around else 0.0
        known = speeds.get(state.experiment)
        if state.budget is not None and known:
            seconds += max(0, state.budget - state.images) * len(known) / sum(known)
        elif given := minutes.get(state.experiment):
            seconds += 60 * given
        else:
            return None
        left.append(seconds)
    return side_by_side(left, at_once)


def side_by_side(seconds: list[float], at_once: int) -> float:
    """Estimate how long runs of these lengths take, `at_once` at a time: at least as long as the longest run."""
    return max(sum(seconds) / max(1, at_once), max(seconds, default=0.0))


def about(run: Path | None) -> dict[str, Any]:
    """Return the fields of a record that describe the suite of a run; empty if the run belongs to no suite."""
    if run is None or not (run.parent / "suite.yaml").is_file():
        return {}
    folder = Folder(run.parent)
    plan, (name, seed) = folder.plan(), folder.runs().get(run.name, (None, 0))
    if name is None:
        return {}
    found = plan["experiments"][name]
    flags = list(found["flags"])
    flags += [f"--trainer.devices={found['devices']}"] if found["devices"] > 1 else []
    flags += [f"--trainer.num_nodes={found['nodes']}"] if found["nodes"] > 1 else []
    command = Experiment(name, tuple(flags), found["grid"], found["tried"]).command(seed, folder.images(name))
    return {"suite": plan["suite"], "grid": found["grid"], "tried": found["tried"], "command": command}


def _differences(a: Any, b: Any, at: str = "") -> list[tuple[str, Any, Any]]:
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return [] if a == b else [(at, a, b)]
    return [
        difference
        for key in [*a, *(key for key in b if key not in a)]
        for difference in _differences(a.get(key), b.get(key), f"{at}.{key}" if at else key)
    ]


def is_open(state: State, retry_failed: bool) -> bool:
    """Whether a run must be started or resumed."""
    return state.state in ("waiting", "stopped") or (retry_failed and state.state == "failed")


def wall_minutes(minutes: float | None, facts: dict[str, Any]) -> float | None:
    """Convert device minutes to wall-clock minutes of a run's training; None if the budget is in images."""
    return minutes and minutes / (facts["devices"] * facts["nodes"])
