"""Any command does what it says or is refused in a sentence.

200 random commands in every run of the tests; `GENBENCH_EXAMPLES=2000` tries more, and `GENBENCH_REAL_COMMANDS=30`
gives so many to `python -m genbench` in processes of their own.
"""

import contextlib
import dataclasses
import io
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image

import genbench
import genbench.data
import genbench.models
from genbench.callbacks import MaxImages, StopSafely
from genbench.callbacks.run_record import readable
from genbench.cli import main, resume
from genbench.cli.trainer import SETTINGS
from genbench.core.batch import to_stored
from genbench.core.units import Images
from genbench.data.loader import TrainLoader
from tests.helpers import random_commands
from tests.helpers.random_commands import RUNS, Case

EXAMPLES = int(os.environ.get("GENBENCH_EXAMPLES", 200))
REAL = int(os.environ.get("GENBENCH_REAL_COMMANDS", 0))
LEFT = ("PL_GLOBAL_SEED", "GENBENCH_RUN")  # what a command leaves for the processes that it starts

TINY_SUITE = {
    "models": [{"config": "vae", "set": {"model.width": 4}}], "data": ["Digits"], "seeds": [0],
    "budget": {"images": 64},
}  # fmt: skip


@dataclasses.dataclass
class Seen:
    """What a run was after its first batch."""

    trainer: object
    module: object
    batch: object


class Told(Exception):
    """A command did something else than it should."""


def lines_of(config, prefix=()):
    """setting -> value of a config, without `init_args`."""
    for key, value in config.items():
        path = prefix if key == "init_args" else (*prefix, key)
        if isinstance(value, dict) and value:
            yield from lines_of(value, path)
        else:
            yield path, value


class Tried:
    """Runs commands in this process, and looks at what they did."""

    def __init__(self, folder, monkeypatch):
        self.home, self.count = folder, 0
        self.bases = folder / "bases"
        self.seen: list[Seen] = []
        self.stop = True
        self.by_status: dict[int, int] = {}
        self.patch(monkeypatch)
        self.bases.mkdir()
        pictures = self.bases / "pictures"
        pictures.mkdir()
        for k, size in enumerate([(32, 32), (40, 33)]):
            Image.fromarray(np.full((*size[::-1], 3), 60 * k + 50, np.uint8)).save(pictures / f"é {k}.png")
        np.save(self.bases / "drawn.npy", np.random.default_rng(0).integers(0, 255, (40, 8, 8, 1), dtype=np.uint8))
        (self.bases / "tiny.yaml").write_text(yaml.safe_dump(TINY_SUITE))

    def patch(self, monkeypatch):
        """Stop training after its first batch, as Ctrl-C does, and keep what is live then; no network."""
        end = StopSafely.on_train_batch_end

        def batch_end(callback, trainer, module, outputs, batch, *more):
            self.seen.append(Seen(trainer, module, batch))
            if self.stop:
                callback._signal = signal.SIGINT
            end(callback, trainer, module, outputs, batch, *more)

        def refuse(this, address):
            raise OSError(f"no network: {address}")

        # Hypothesis would repeat parts of each example in five more, so that most commands were nearly the same
        engine = "hypothesis.internal.conjecture.engine.ConjectureRunner.generate_mutations_from"
        monkeypatch.setattr(engine, lambda *_: None, raising=False)
        monkeypatch.setattr(StopSafely, "on_train_batch_end", batch_end)
        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(sys, "argv", ["genbench"])
        monkeypatch.setenv("GENBENCH_DATA", str(self.home / "data"))

    def base(self, run):
        """A run of 32 images, trained once."""
        folder = self.bases / run
        if not folder.is_dir():
            with contextlib.chdir(self.bases):
                text = self.config(run)
                Path(f"{run}.yaml").write_text(yaml.safe_dump(text))
                self.stop = False
                status, said = self.call(["fit", "--config", f"{run}.yaml", "--runs", ".", "--name", run])
                self.stop = True
                assert status == 0, said
                if run == "vae":
                    status, said = self.call(["test", "--ckpt", run, "--generated", "32", "--metrics", "fid"])
                    assert status == 0, said
        return folder

    def config(self, run):
        text = {}
        for path, value in (random_commands.base(run) | {("max_images",): 32}).items():
            into = text
            for part in path[:-1]:
                into = into.setdefault(part, {})
            into[path[-1]] = value
        return text

    def call(self, words):
        """The exit status and all that was printed."""
        self.seen.clear()
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                status = main(list(words))
        except SystemExit as stop:
            status = stop.code or 0
        finally:
            for name in LEFT:
                os.environ.pop(name, None)
            torch.use_deterministic_algorithms(False)
        return status, said.getvalue()

    # ---- a command ----------------------------------------------------------------------------------------------

    def prepare(self, case: Case):
        """A folder with what the command needs; returns the words."""
        folder = self.home / str(self.count)
        self.count += 1
        folder.mkdir()
        for name, content in case.files.items():
            (folder / name).write_bytes(content)
        if case.resumes:
            shutil.copytree(self.base(case.run), folder / "runs" / "base")
        for word in case.words:
            if word.startswith("BASES/") and (name := word.removeprefix("BASES/")) in RUNS:
                self.base(name)
        if case.words[:1] in (["leaderboard"], ["report"]):
            self.base("vae")
        return folder, [word.replace("BASES", str(self.bases)) for word in case.words]

    def check(self, case: Case):
        """Run a command; raise Told where it does not do what it says, and is not refused in a sentence either."""
        folder, words = self.prepare(case)
        before = contents(folder)
        try:
            with contextlib.chdir(folder):
                status, said = self.call(words)
                self.last = status, said
                self.by_status[status] = self.by_status.get(status, 0) + 1
                expect("Traceback" not in said, said)
                expect(status in (0, 2, 130), f"status {status}: {said}")
                if status == 2:
                    line = next((line for line in said.splitlines() if line.startswith("error: ")), "")
                    expect(len(line) > 12, f"no sentence: {said!r}")
                    if case.words[:1] == ["fit"] and not self.seen:
                        expect(contents(folder) == before, f"refused, and the folder has changed: {said}")
                else:
                    expect(not case.wrong, f"accepted: {said}")
                if case.words[:1] == ["fit"] and case.expected:
                    self.look(case, status, said)
                elif status == 0:
                    self.look_at_output(words, said)
        finally:
            shutil.rmtree(folder)

    def check_for_real(self, case: Case):
        """The same in a process of its own, which trains to its end; the exit status and the last words alone."""
        folder, words = self.prepare(case)
        words = [word.encode("utf-8", "surrogateescape") for word in words]
        path = os.pathsep.join([str(Path(genbench.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        with subprocess.Popen(
            [sys.executable, "-m", "genbench", *words], cwd=folder, env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace",
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(timeout=300)
            except subprocess.TimeoutExpired:  # its budget was taken away
                process.send_signal(signal.SIGINT)
                said, _ = process.communicate()
        status = process.returncode
        print(status, case.words, said[-200:] if status == 2 else "")
        expect("Traceback" not in said, said)
        expect(status in ((2,) if case.wrong else (0, 2, 130)), f"status {status}: {said}")
        expect(status != 2 or any(line.startswith("error: ") for line in said.splitlines()), said)
        shutil.rmtree(folder)

    # ---- what a training must be --------------------------------------------------------------------------------

    def look(self, case: Case, status: int, said: str):
        if status == 2:
            return
        expect(self.seen, said)
        seen = self.seen[0]
        run = Path(seen.trainer.default_root_dir)
        if not case.text:
            folder = "base" if case.resumes else case.drawn[("name",)]
            runs = case.drawn.get(("runs",), "runs") if not case.resumes else "runs"
            expect(run == Path(runs) / folder, f"the run lies in {run}")
        config = yaml.safe_load((run / "config.yaml").read_text())
        checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        recorded = dict(lines_of(checkpoint["run"]["config"]))
        expect(readable(checkpoint["run"]["config"]) == config, "config.yaml and the checkpoint differ")
        expected = dict(case.expected)
        for path, text in case.text.items():
            value = recorded.get(path)
            expect(agrees(text, value), f"{path} was given as {text!r} and recorded as {value!r}")
            if path in recorded:
                expected[path] = value
        for path, value in expected.items():
            got = recorded.get(path, "missing")
            if isinstance(value, dict) or (value in ([], None) and got == "missing"):
                continue
            expect(equal(path, got, value), f"{path} is recorded as {got!r}, and {value!r} was given")
        start = checkpoint["run"]["segments"][-1]["from"] if case.resumes else 0
        start = 32 if case.resumes else start
        self.look_at_model(seen, expected, checkpoint, start)
        self.look_at_data(seen, expected, checkpoint, start)
        self.look_at_trainer(seen, expected)
        if case.resumes:
            self.look_at_changes(case, checkpoint, said)

    def look_at_model(self, seen, expected, checkpoint, start):
        module, given = seen.module, tree(expected, "model")
        cls = getattr(genbench.models, given.pop("class_path").rpartition(".")[2])
        expect(type(module) is cls, f"{type(module)} in place of {cls}")
        with torch.random.fork_rng([]):
            other = cls(spec=module.spec, **given)
        shapes = [{name: tuple(t.shape) for name, t in one.state_dict().items()} for one in (module, other)]
        expect(shapes[0] == shapes[1], f"networks {shapes}")
        expect(attributes(module) == attributes(other), f"{attributes(module)} in place of {attributes(other)}")
        if hasattr(other, "adversarial"):
            found = attributes(module.adversarial)
            expect(found == attributes(other.adversarial), f"adversarial {found}")
        for name, value in given.items():
            kept = checkpoint["hyper_parameters"].get(name)
            expect(kept is not None or value in (None, {}), f"hyperparameter {name} is missing")
            if not isinstance(value, dict):
                expect(equal((name,), kept, value), f"hyperparameter {name} is {kept}, {value} was given")
        seed = expected.get(("seed_everything",), 0)
        expect(module.seed == seed, f"seed {module.seed} in place of {seed}")
        self.look_at_optimizers(seen, given, other, expected, start)

    def look_at_optimizers(self, seen, given, other, expected, start):
        module, budget = seen.module, Images(expected.get(("max_images",), 1_000_000))
        expect(module.budget == budget, f"budget {module.budget} in place of {budget}")
        for player, optimizer in zip(module.players, seen.trainer.optimizers, strict=True):
            wanted = {"class_path": "Adam", "lr": other.optimizer_settings[player].get("lr", optimizer.defaults["lr"])}
            for change in (given.get("optimizer"), (given.get("optimizers") or {}).get(player)):
                wanted |= change or {}
            expect(type(optimizer).__name__ == wanted.pop("class_path").rpartition(".")[2], f"{optimizer}")
            expect(
                sum(p.numel() for p in optimizer.param_groups[0]["params"])
                == sum(p.numel() for p in module.parameters_of(player)),
                f"parameters of {player}",
            )
            schedule = (given.get("schedule") or {}) | ((given.get("schedules") or {}).get(player) or {})
            places = [start, start + seen.module._last_batch] if not module.updates[player] else [module.images_seen]
            for name, value in wanted.items():
                live = optimizer.param_groups[0][name]
                if name == "lr":
                    rates = [value * factor(schedule, place, budget) for place in places]
                    expect(any(math.isclose(live, rate, abs_tol=1e-12) for rate in rates), f"lr {live}, not {rates}")
                else:
                    expect(equal((name,), live, value), f"{player}'s {name} is {live}, not {value}")

    def look_at_data(self, seen, expected, checkpoint, start):
        module, live, given = seen.module, seen.trainer.datamodule, tree(expected, "data")
        cls = getattr(genbench.data, given.pop("class_path").rpartition(".")[2])
        expect(type(live) is cls, f"{type(live)} in place of {cls}")
        other = cls(**given)
        expect(attributes(live) == attributes(other), f"{attributes(live)} in place of {attributes(other)}")
        loader = seen.trainer.train_dataloader
        for name, value in {"batch_size": other.batch_size, "hflip": other.hflip, "seed": module.seed,
                            "random_crop": getattr(other, "random_crop", 0)}.items():  # fmt: skip
            expect(getattr(loader, name) == value, f"the loader's {name} is {getattr(loader, name)}, not {value}")
        names = ("seed", "hflip", "random_crop", "binarize", "task", "known")
        same = {name: getattr(loader, name) for name in names}
        again = next(iter(TrainLoader(live.source("train"), other.batch_size, position=start, **same)))
        expect(module.images_seen == start + other.batch_size, f"{module.images_seen} images seen")
        expect(tuple(seen.batch.image.shape) == (other.batch_size, *other.spec.shape), f"{seen.batch.image.shape}")
        exact = seen.batch.image.dtype == again.image.dtype
        expect(not exact or torch.equal(seen.batch.image, again.image), "other images than those at this position")
        kept = checkpoint["data"]["arguments"]
        for name, value in given.items():
            if name == "only_classes" and value is not None:
                # the classes by name, in the order of the data set
                value = sorted(map(str, value if isinstance(value, list) else [value]))
            if value is not None and name not in ("range", "window"):
                expect(equal((name,), kept[name], value), f"the checkpoint's data.{name} is {kept[name]}, not {value}")

    def look_at_trainer(self, seen, expected):
        for group, cls in SETTINGS.items():
            given = tree(expected, group)
            live = next(one for one in seen.trainer.callbacks if type(one) is cls)
            other = attributes(cls(**given))
            for name in given:
                if name in other:
                    expect(attributes(live)[name] == other[name], f"{group}.{name} is {attributes(live)[name]}")
        (budget,) = (one.max_images for one in seen.trainer.callbacks if isinstance(one, MaxImages))
        expect(budget == Images(expected.get(("max_images",), 1_000_000)), f"budget {budget}")
        if (precision := expected.get(("trainer", "precision"))) is not None:
            whole = {"32": "32-true", "16": "16-mixed", "64": "64-true", "bf16": "bf16-mixed"}
            wanted = whole.get(str(precision), str(precision))
            expect(seen.trainer.precision == wanted, f"precision {seen.trainer.precision}, not {wanted}")
        if (anomaly := expected.get(("trainer", "detect_anomaly"))) is not None:
            expect(seen.trainer._detect_anomaly == anomaly, "detect_anomaly")

    def look_at_changes(self, case: Case, checkpoint, said):
        """What is given now and was not before is said, and begins a segment where it changes the training."""
        old = dict(lines_of(yaml.safe_load((self.bases / case.run / "config.yaml").read_text())))
        changeable = getattr(genbench.models, RUNS[case.run][0]).changeable
        changed = checkpoint["run"]["segments"][-1]["changed"] if len(checkpoint["run"]["segments"]) > 1 else {}
        for path, value in case.drawn.items():
            name, before = ".".join(path), old.get(path)
            if path in case.text or isinstance(value, dict) or equal(path, before, value):
                continue
            effect = resume.rule(name, changeable).effect
            expect(effect != "refused", f"{name} was {before} and is {value}, which is not to change")
            if effect == "location":
                continue
            if path[1:2] and path[1].startswith("optimizer") and before is None and name not in changed:
                continue  # no config had named it, and it was in force: what is live is compared in any case
            shown = any(line.startswith(f"changed: {name} ") for line in said.splitlines())
            expect(shown, f"no word of {name} {before} -> {value}: {said}")
            if effect == "applied" and name != "max_images":
                expect(equal(path, changed[name][1], value), f"segment {changed} has not {name} {value}")

    # ---- what other verbs must have written ----------------------------------------------------------------------

    def look_at_output(self, words, said):
        verb = words[0] if words else "help"
        options = {words[k].removeprefix("--"): words[k + 1] for k in range(1, len(words) - 1) if words[k][:2] == "--"}
        if "--help" in words or "-h" in words or verb in ("help", "--version"):
            expect(len(said) > 10, "nothing was printed")
        elif "--print_config" in words:
            expect(isinstance(yaml.safe_load(said), dict), said)
        elif verb == "sample" and options.get("out", "").endswith(".npy") and "label" not in options:
            drawn = np.load(options["out"])
            count, first = int(options.get("n", 64)), int(options.get("seed", 0))
            model = genbench.load(options["ckpt"], raw="--raw" in words)
            if model.conditional:
                expect(len(drawn) == count, f"{len(drawn)} images in place of {count}")
                return
            wanted = to_stored(model.sample(torch.arange(first, first + count)))
            wanted = wanted if wanted.ndim == 2 else wanted.permute(0, 2, 3, 1)
            expect(drawn.shape == wanted.shape and np.allclose(drawn, wanted.numpy(), atol=1), "other images")
        elif verb in ("evaluate", "test") and "--json" in words:
            record = json.loads(said[said.index("{") :])
            for name in ("generated", "real", "seed"):
                if name in options:
                    expect(record["protocol"][name] == int(options[name]), f"{name}: {record['protocol']}")
        elif verb == "translate":
            made = {path.name: Image.open(path).size for path in Path(options["output"]).iterdir()}
            wide = 2 if "--side-by-side" in words else 1
            expect(sorted(made) == ["é 0.png", "é 1.png"], f"{made}")
            expect(made["é 1.png"][1] == 33 and made["é 1.png"][0] >= 40 * wide, f"{made}")
        elif verb == "leaderboard":
            expect("VAE" in said, said)
        elif verb == "report":
            expect(Path(options.get("out", "report.html")).stat().st_size > 10_000, said)


def expect(right, told):
    if not right:
        raise Told(str(told)[:4000])


def contents(folder):
    """Of all files but those of a lock, which a refused command may have taken."""
    return {
        str(path): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".lock" not in path.parts
    }


def tree(expected, group):
    """What was given of a group: `{optimizer: {lr: 0.1}}`."""
    found = {}
    for path, value in expected.items():
        if path[0] == group and len(path) > 1:
            into = found
            for part in path[1:-1]:
                into = into.setdefault(part, {})
            into[path[-1]] = value
    return found


def attributes(thing):
    """Its plain values, as an object built alike has them."""
    moving = ("images_seen", "budget", "_last_batch", "updates", "seed", "_micro_batch", "training", "origin")
    found = {}
    for name, value in vars(thing).items():
        kinds = (bool, int, float, str, type(None), list, tuple, Path)
        if name in moving or name.startswith(("_", "prepare_data", "allow_zero", "trainer")):
            continue
        if dataclasses.is_dataclass(value) or type(value) is Images:
            found[name] = repr(value)
        elif type(value) in kinds:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def equal(path, got, value):
    if path[-1] == "class_path":
        return isinstance(got, str) and random_commands.same(got, value)
    if isinstance(value, (list, tuple)) and isinstance(got, (list, tuple)):
        return len(got) == len(value) and all(equal(path, *pair) for pair in zip(got, value, strict=True))
    if path[-1] == "precision" or path[-1] == "devices":
        return str(got) == str(value)
    if isinstance(got, bool) != isinstance(value, bool):
        return False
    return got == value


def factor(schedule, seen, budget):
    """The share of the full rate, by the rules in docs/resume.md."""
    at = {name: value * budget if value <= 1 else value for name, value in schedule.items()
          if name in ("warmup", "decay_from") and value is not None}  # fmt: skip
    if seen < at.get("warmup", 0):
        return seen / at["warmup"]
    if "decay_from" not in at or seen <= at["decay_from"]:
        return 1.0
    done = min(1.0, (seen - at["decay_from"]) / (budget - at["decay_from"]))
    left = 1 - done if schedule.get("decay", "linear") == "linear" else (1 + math.cos(math.pi * done)) / 2
    return schedule.get("final", 0.0) + (1 - schedule.get("final", 0.0)) * left


def agrees(text, value):
    """Whether a value is what the text says; where the text is no number, it may be kept as it is or read as YAML."""
    plain = text.strip().strip("'").replace("_", "").partition(" #")[0]
    for read in (int, float, lambda t: int(t, 0), lambda t: float(t.rstrip("k")) * 1000 if t.endswith("k") else 1 / 0):
        with contextlib.suppress(ValueError, ZeroDivisionError):
            number = read(plain)
            return (
                (isinstance(value, (int, float)) and not isinstance(value, bool) and value == number)
                or value == text
                or value == [number]
                or (number != number and value is None)
            )
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError:
        read = text
    return value in (text, text.strip(), read) or isinstance(value, (list, dict)) or (read in (None, {}, []))


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Tried(tmp_path_factory.mktemp("tried"), monkeypatch)


def over(examples):
    """A fixed sequence of so many random commands. A failing one is not made smaller: that would take minutes."""
    return settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@over(EXAMPLES)
@given(case=random_commands.commands())
def run_all(tried, case):
    tried.check(case)


@over(max(1, REAL))
@given(case=random_commands.commands())
def run_for_real(tried, case):
    tried.check_for_real(case)


@pytest.mark.timeout(max(300, 4 * EXAMPLES))
def test_random_commands_do_what_they_say_or_are_refused_in_a_sentence(tried):
    run_all(tried)
    count = sum(tried.by_status.values())
    valid = count - tried.by_status.get(2, 0)
    print(f"{count} commands, {valid} of them valid")
    assert count >= EXAMPLES and valid >= count / 2


@pytest.mark.skipif(not REAL, reason="GENBENCH_REAL_COMMANDS says how many")
@pytest.mark.timeout(300 * max(1, REAL))
def test_random_commands_in_processes_of_their_own_end_without_a_traceback(tried):
    run_for_real(tried)
