"""What a suite keeps: its plan, its budgets in images, who works on what, and how far each run has come.

<folder>/suite.yaml             experiments and seeds
<folder>/configs/<name>.yaml    an experiment's config, with everything that was set
<folder>/budgets/<name>.json    its budget in images, where that was measured
<folder>/claims/                attempts at runs, see `claims`
<folder>/logs/<run>.log         what a run printed
<folder>/<run>/                 an ordinary run folder, with its records
"""

from __future__ import annotations

import csv
import json
import os
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

OWN = ("configs", "budgets", "claims", "logs", "jobs", "wandb")  # folders beside those of the runs


@dataclass(frozen=True)
class State:
    """How far a run has come.

    state    done, running, failed, stopped (to be gone on with), queued, or waiting
    images   seen so far
    budget   in images, where it is known
    speed    images per second of training, where it has trained
    seconds  that the last attempt took
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
        self.path = path
        self._plan: tuple[int, dict[str, Any]] = (0, {})  # as it was read, and from which file

    # ---- the plan -----------------------------------------------------------------------------------------------

    def plan(self) -> dict[str, Any]:
        """What the folder's suite is.

        Raises:
            UserError: it is no suite's folder.
        """
        path = self.path / "suite.yaml"
        try:
            written = path.stat().st_mtime_ns
            if self._plan[0] == written:
                return self._plan[1]
            found = _yaml(path)
        except FileNotFoundError as error:
            raise UserError(f"{self.path} is no suite's folder: there is no {path}.") from error
        except (OSError, ValueError, UserError) as error:
            raise UserError(f"{path} is damaged ({' '.join(str(error).split())}): put back what it was.") from error
        if not isinstance(found, dict) or not {"suite", "experiments", "order"} <= found.keys():
            raise UserError(f"{path} is no plan of a suite that has begun.")
        self._plan = (written, found)
        return found

    def begin(self, suite: Suite, resolved: dict[str, dict[str, Any]], facts: dict[str, dict[str, Any]]) -> None:
        """Write the plan, or add to the one that is there what the suite has gained since.

        Args:
            resolved: config of each experiment, with everything that was set
            facts: what else is kept of each experiment

        Raises:
            UserError: the folder belongs to another suite, or to this one as it was before a change.
        """
        before: dict[str, Any] = {}
        if (self.path / "suite.yaml").exists():
            before = self.plan()
            if before["suite"] != suite.name:
                raise UserError(
                    f"{self.path} belongs to the suite '{before['suite']}', and this is '{suite.name}'. Give another "
                    "`--folder`."
                )
        elif self.path.is_dir() and any(p.name not in OWN and p.name[0] != "." for p in self.path.iterdir()):
            raise UserError(f"{self.path} holds something else than a suite. Give another `--folder`.")
        changed = []
        for experiment in suite.experiments:
            old = before.get("experiments", {}).get(experiment.name)
            if old is None:
                continue
            if (budget := Budget(**old["budget"])) != experiment.budget:
                changed.append(f"{experiment.name}: budget ({budget} before, {experiment.budget} now)")
            changed += [
                f"{experiment.name}: {key} ({was} before, {now} now)"
                for key, was, now in _differences(self.config(experiment.name), resolved[experiment.name])
            ]
        if changed:
            raise UserError(
                f"{self.path} was begun with other settings, and its runs would not be comparable:\n- "
                + "\n- ".join(changed) + "\nGive another `--folder`, or put the settings back."
            )  # fmt: skip
        for name, config in resolved.items():
            path = self._config_path(name)
            if name not in before.get("experiments", {}) or not path.exists():  # one that was killed had an older file
                with replacing(path) as file:
                    file.write(yaml.safe_dump(config, sort_keys=False).encode())
        experiments = dict(before.get("experiments", {}))
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
            with replacing(self.path / "suite.yaml") as file:
                file.write(yaml.safe_dump(plan, sort_keys=False).encode())

    def config(self, experiment: str) -> dict[str, Any]:
        """The experiment's config, with everything that was set."""
        return _yaml(self._config_path(experiment))

    def _config_path(self, experiment: str) -> Path:
        return self.path / "configs" / f"{experiment}.yaml"

    def runs(self) -> dict[str, tuple[str, int]]:
        """Every run's experiment and seed, in the order in which they are begun."""
        plan = self.plan()
        known = {
            f"{name}-seed{seed}": (name, seed)
            for name, experiment in plan["experiments"].items()
            for seed in experiment["seeds"]
        }
        first = [run for run in plan["order"] if run in known]
        return {run: known[run] for run in [*first, *(run for run in known if run not in first)]}

    # ---- budgets ------------------------------------------------------------------------------------------------

    def images(self, experiment: str) -> int | None:
        """The experiment's budget in images; None where it is in minutes and no speed was measured yet."""
        given = self.plan()["experiments"][experiment]["budget"]["images"]
        if given:
            return given
        with suppress(OSError, ValueError):
            return json.loads(ordinary(self._budget_path(experiment)).read_text())["images"]
        return None

    def keep_images(self, experiment: str, found: dict[str, Any]) -> int:
        """Keep a budget that was measured, unless another run of the experiment was faster; what is kept."""
        path = self._budget_path(experiment)
        path.parent.mkdir(exist_ok=True)
        with suppress(FileExistsError):
            create(path, (json.dumps(found, indent=1) + "\n").encode())
        return json.loads(path.read_text())["images"]

    def _budget_path(self, experiment: str) -> Path:
        return self.path / "budgets" / f"{experiment}.json"

    # ---- how far it is ------------------------------------------------------------------------------------------

    @property
    def claims(self) -> Path:
        return self.path / "claims"

    def log(self, run: str) -> Path:
        return self.path / "logs" / f"{run}.log"

    def states(self, only: Iterable[str] | None = None) -> list[State]:
        """How far each run has come; `only` of these."""
        budgets = {name: self.images(name) for name in self.plan()["experiments"]}
        wanted = None if only is None else set(only)
        return [
            self._state(run, experiment, budgets[experiment])
            for run, (experiment, _) in self.runs().items()
            if wanted is None or run in wanted
        ]

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


def progress(run: Path) -> tuple[int, float | None]:
    """Images seen and images per second, from the end of a run's curve."""
    try:
        with open(ordinary(run / "metrics.csv"), "rb") as file:
            names = next(csv.reader([file.readline().decode(errors="replace").replace("\0", "")]))
            if names[:1] != [COLUMN]:  # another program has saved it
                return _last(history.read(run / "metrics.csv").rows)
            end = os.path.getsize(run / "metrics.csv") - 8192
            whole = end <= file.tell()
            if not whole:
                file.seek(end)
            lines = file.read().decode(errors="replace").splitlines(keepends=True)[not whole :]
        return _last([dict(zip(names, row, strict=False)) for row in csv.reader(x for x in lines if x.endswith("\n"))])
    except (OSError, StopIteration, csv.Error, history.Unreadable):
        return 0, None


def _last(rows: list[dict[str, str]]) -> tuple[int, float | None]:
    """The last number of images, and the last speed."""
    images = 0
    for row in reversed(rows):
        if row.get(COLUMN, "").isdecimal():
            images = images or int(row[COLUMN])
            with suppress(ValueError):
                return images, float(row.get("images_per_second", ""))
    return images, None


def seconds_left(states: Iterable[State], minutes: dict[str, float | None], at_once: int) -> float | None:
    """How long the rest takes; None where nothing is known of a run's speed.

    minutes  of each experiment's budget on its devices, for those whose images are not known yet
    """
    states = list(states)
    speeds: dict[str, list[float]] = {}
    around = []  # what runs take besides training: start, validation, pictures, evaluation
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
    """How long runs of such lengths take, so many at a time: no run is shared out."""
    return max(sum(seconds) / max(1, at_once), max(seconds, default=0.0))


def about(run: Path | None) -> dict[str, Any]:
    """What a record says of the suite that a run belongs to; nothing where it belongs to none."""
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
    """Whether there is something to do at a run that nobody works on."""
    return state.state in ("waiting", "stopped") or (retry_failed and state.state == "failed")


def wall_minutes(minutes: float | None, facts: dict[str, Any]) -> float | None:
    """Wall-clock minutes of one run's training from those of a device, where the budget is a time."""
    return minutes and minutes / (facts["devices"] * facts["nodes"])
