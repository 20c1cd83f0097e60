"""What a setting that is given with `fit --ckpt` does: one table, and the comparison of a run's settings with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from genbench.callbacks.run_record import environment
from genbench.cli.console import console
from genbench.core import checkpoint_io
from genbench.core.capabilities import Reconstructs, Samples, Segments, Translates
from genbench.core.class_paths import same_class
from genbench.core.errors import UserError
from genbench.core.history import Unreadable
from genbench.core.module import GenerativeModule
from genbench.data.module import DataModule
from genbench.loggers import Curves

# applied   takes effect from here on and changes how the model is trained: the run has a new segment
# outside   takes effect and changes nothing of the training
# location  where a run lies and what it is called: may differ without a word
# refused   cannot change within a run
Effect = Literal["applied", "outside", "location", "refused"]


@dataclass(frozen=True)
class Rule:
    """settings are patterns of names as flags have them, without `--`; the first rule that matches decides."""

    settings: tuple[str, ...]
    effect: Effect
    why: str


TABLE = (
    Rule(("seed_everything",), "refused", "initial weights, order of the images and noise follow from it"),
    Rule(
        ("model.optimizer*.class_path", "model.optimizer*.amsgrad", "model.optimizer*.centered"),
        "refused",
        "the checkpoint holds the state of the optimizer that it was made with",
    ),
    Rule(("model.adversarial.spectral_norm",), "refused", "it changes the networks"),
    Rule(
        ("model.optimizer*", "model.schedule*", "model.accumulate", "model.clip_norm", "model.clip_value"),
        "applied",
        "learning rates, betas, weight decay, schedules, accumulation and clipping",
    ),
    Rule(("model.adversarial*",), "applied", "objective, penalties, augmentation and steps; the networks stay"),
    Rule(("model", "model.*"), "refused", "it may change the networks"),
    Rule(
        ("data.batch_size", "data.hflip", "data.random_crop"),
        "applied",
        "batches and augmentation of the training images",
    ),
    Rule(("data.path",), "outside", "where the same images lie; other images are refused"),
    Rule(
        ("data.root", "data.memory", "data.workers", "data.download", "data.eval_batch_size"),
        "outside",
        "how the same images are read",
    ),
    Rule(
        ("data", "data.*"),
        "refused",
        "the data set, the shape and range of its images, its classes and which of its images are held out",
    ),
    Rule(("max_images",), "applied", "the budget; schedules in shares of it move"),
    Rule(("ema.*", "acceleration.*"), "applied", "averaged weights from here on; rounding"),
    Rule(("trainer.logger*",), "outside", "where curves go"),
    Rule(("trainer.default_root_dir", "name", "runs", "ckpt", "config"), "location", "where the run lies"),
    Rule(("trainer.*",), "applied", "devices, precision and the like"),
    Rule(
        ("title", "protocol", "monitor.*", "gan_monitor.*", "codebook.*", "samples.*", "validation.*", "checkpoint.*"),
        "outside",
        "intervals, pictures, validation, checkpoints and names",
    ),
    Rule(("*",), "applied", "settings of one's own callbacks"),
)


@dataclass(frozen=True)
class Change:
    """A setting, named as its flag without `--`, with its value in the run so far and the one given now."""

    setting: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.setting} {_shown(self.old)} -> {_shown(self.new)}"


def rule(setting: str, changeable: tuple[str, ...] = ()) -> Rule:
    """The rule of a setting; `changeable` are the model's own arguments that change no network."""
    if setting.startswith("model.") and setting.split(".")[1] in changeable:
        return Rule((setting,), "applied", "it changes no network")
    return next(rule for rule in TABLE if any(fnmatchcase(setting, pattern) for pattern in rule.settings))


def missing(old: Any, new: Any, name: str = "") -> set[str]:
    """Settings of `new` that `old` does not know, being of an older version or of a script of one's own.

    These are arguments of a class. What is below one, such as `model.optimizer.eps`, is in a config only where it was
    given: if `old` lacks it, it has been added.
    """
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return set()
    if "init_args" in old or "init_args" in new:
        old, new = (each.get("init_args") or {} for each in (old, new))
    found: set[str] = set()
    for key, value in new.items():
        setting = f"{name}.{key}" if name else key
        if key not in old:
            found.add(setting)
        elif not name:
            found |= missing(old[key], value, setting)
    return found


def changes(
    old: dict[str, Any],
    new: dict[str, Any],
    unknown: set[str],
    changeable: tuple[str, ...],
    path: Path,
    found_range: str | None = None,
) -> list[Change]:
    """What differs between the config of a checkpoint and the one given now, without locations.

    Args:
        old, new: The configs
        unknown: Settings that are not compared
        changeable: Arguments of the model that change no network
        path: The checkpoint
        found_range: The range of stored values that the run found or was given; to state the same changes nothing

    Raises:
        UserError: something differs that cannot change within a run; names all such settings with both values.
    """
    found = [
        change
        for change in _differences(old, new)
        if rule(change.setting, changeable).effect != "location"
        and not {change.setting, change.setting.partition(".")[0]} & unknown
        and not (change.setting == "data.range" and _range_text(change.new) == found_range)
    ]
    refused = [
        change
        for change in found
        if rule(change.setting, changeable).effect == "refused"
        # a class that was left out before, or is now, may be the same: `refuse_other_optimizers` knows
        and not (change.setting.endswith(".class_path") and None in (change.old, change.new))
    ]
    if refused:
        listed = "\n".join(f"  {change}: {rule(change.setting, changeable).why}" for change in refused)
        plural = "these settings" if len(refused) > 1 else "this setting"
        raise UserError(
            f"{path} cannot go on with {plural} changed:\n{listed}\nLeave it out to go on with the run as it was, or "
            "begin a new run without `--ckpt`."
        )
    return found


def in_force(found: list[Change], checkpoint: dict[str, Any]) -> list[Change]:
    """The changes with the values that optimizers had, also where no config had named them; without those that are
    none."""
    descriptions = checkpoint["genbench"].get("optimizers") or {}
    groups = [state["param_groups"][0] for state in checkpoint.get("optimizer_states") or []]
    had = {player: group | descriptions[player] for player, group in zip(descriptions, groups, strict=False)}
    named = []
    for change in found:
        kind, *player, argument = change.setting.split(".")[1:] if change.setting.count(".") > 1 else ("", "")
        if kind in ("optimizer", "optimizers") and change.old is None:
            values = [had[name].get(argument) for name in (player or had) if name in had]
            values = [list(value) if isinstance(value, tuple) else value for value in values]
            if values and all(value == values[0] for value in values):
                change = Change(change.setting, values[0], change.new)
        same = change.setting.endswith(".class_path") and change.old and same_class(change.old, change.new)
        if change.old != change.new and not same:
            named.append(change)
    return named


def refuse_other_optimizers(trained: dict[str, dict[str, Any]], model: GenerativeModule, path: Path) -> None:
    """Raise UserError where a player's optimizer is of another class than in the checkpoint.

    Args:
        trained: Player -> class path and arguments, as the checkpoint has them
    """
    for player, description in trained.items():
        before = str(description.get("class_path"))
        now = str(model.optimizer_settings.get(player, description).get("class_path"))
        if before.rpartition(".")[2] != now.rpartition(".")[2]:
            raise UserError(
                f"{path} cannot go on with another optimizer: '{player}' was {before} and is now {now}, "
                "and the checkpoint holds the state of the former. Leave it out, or begin a new run without `--ckpt`."
            )


def refuse_other_contents(trained: dict[str, Any], data: Any, found: list[Change], path: Path) -> None:
    """Raise UserError where other images lie in the folder or file than the run was trained on, or have another range.

    Args:
        trained: What the checkpoint has of its data
        data: The DataModule at hand
        found: The settings that have changed
        path: The checkpoint
    """
    before, now = trained.get("contents"), data.contents() if isinstance(data, DataModule) else None
    moved = next((change for change in found if change.setting == "data.path"), None)
    if before is not None and now is not None and _other_contents(before, now):
        place = f"data.path {moved.old} -> {moved.new}" if moved else f"{data.name}"
        raise UserError(
            f"{path} cannot go on with {place}: the images there are not those that it was trained on (by their names, "
            "number, labels and the bytes of some). Bring the former back, or begin a new run without `--ckpt`."
        )
    values = [(trained.get("arguments") or {}).get("range"), now is not None and data.arguments.get("range")]
    if all(values) and values[0] != values[1]:
        raise UserError(
            f"{path} was trained with the range {values[0]} of stored values, and the training images now have "
            f"{values[1]}: their pixels have changed. Bring the former back, or begin a new run without `--ckpt`."
        )
    if moved and before is None:
        raise UserError(
            f"{path} cannot go on with data.path {moved.old} -> {moved.new}: it does not say which images it was "
            "trained on. Give the former path, or begin a new run without `--ckpt`."
        )


def _other_contents(before: str, now: str) -> bool:
    """Whether two results of `DataModule.contents` differ in a part that both have: older ones have names alone."""
    return any(a != b for a, b in zip(before.split("."), now.split("."), strict=False))


def segments(before: list[dict[str, Any]] | None, found: list[Change], images_seen: int) -> list[dict[str, Any]]:
    """The history of a run that goes on: each segment has `from` and `to` in images seen, and what `changed` at its
    beginning, a setting's name with its old and its new value. Only what changes the training begins a new one."""
    history = [dict(segment) for segment in before or [{"from": 0, "to": None, "changed": {}}]]
    trained = {change.setting: [change.old, change.new] for change in found}
    if trained:
        history[-1]["to"] = images_seen
        history.append({"from": images_seen, "to": None, "changed": trained})
    return history


def changes_training(change: Change, changeable: tuple[str, ...], *, schedule: bool) -> bool:
    """Whether a change begins a new segment: a larger budget alone does so only where a schedule follows it."""
    if change.setting == "max_images":
        return schedule
    return rule(change.setting, changeable).effect == "applied"


def _differences(old: Any, new: Any, name: str = "") -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        if "init_args" in old or "init_args" in new:
            classes = [each.get("class_path", "") for each in (old, new)]
            if classes[0].rpartition(".")[2] != classes[1].rpartition(".")[2]:
                yield Change(name, *classes)
                return
            old, new = (each.get("init_args") or {} for each in (old, new))
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif isinstance(old, dict) and new is None and "class_path" not in old:
        yield from _differences(old, {}, name)
    elif isinstance(new, dict) and old is None and ("class_path" not in new or name.startswith("model.optimizer")):
        yield from _differences({}, new, name)
    elif old != new and not (name.endswith("class_path") and same_class(old, new)):
        yield Change(name, old, new)


def _range_text(value: Any) -> str:
    """A range as checkpoints have it: `0,4095`, also where it was given as a list or with spaces."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value).replace(" ", "")


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        return value["class_path"].rpartition(".")[2]
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def refuse_other_model(trained: str, configured: str, ckpt: Path) -> None:
    if trained.rpartition(".")[2] != configured.rpartition(".")[2]:
        raise UserError(
            f"{ckpt} is a checkpoint of {trained}, and the config is of {configured}. Leave `--config` out to "
            "use the run's own, or name the checkpoint of another run."
        )


def note_other_environment(state: dict[str, Any]) -> None:
    for what, now in environment().items():
        before = state.get("environment", {}).get(what, now)
        if before != now:
            console.print(
                f"note: the checkpoint was made with {what} {before}, this is {now}: the run goes on, but not bit "
                "for bit as it would have."
            )


def note_newer(checkpoint: dict[str, Any], ckpt: Path, folder: Path) -> None:
    """Say so where a run goes on from a checkpoint that is not its last."""
    last = folder / "checkpoints" / "last.ckpt"
    if last.is_file() and not last.samefile(ckpt):
        newest, seen = (checkpoint_io.read(last)["genbench"]["images_seen"], checkpoint["genbench"]["images_seen"])
        if newest > seen:
            console.print(
                f"note: {last} has seen {newest:,} images. This run goes on from {seen:,}, and what came after is "
                "replaced. `--name OTHER` leaves it as it is and begins a new run."
            )


def lacks_last_pictures(folder: Path, model: GenerativeModule, seen: int, film: str) -> bool:
    """Whether a run that has reached its budget was killed before its last pictures and curves were made."""
    curves, metrics = folder / "curves.png", folder / "metrics.csv"
    if metrics.is_file() and not (curves.is_file() and curves.stat().st_mtime >= metrics.stat().st_mtime):
        with suppress(Unreadable):  # of which there will be none; training says so
            if Curves(folder).series():
                return True
    kinds = {Samples: "samples", Reconstructs: "reconstructions", Translates: "translations", Segments: "masks"}
    for capability, name in kinds.items():
        if isinstance(model, capability):
            grids = sorted((folder / name).glob("*.png"))
            if not grids or grids[-1].stem != f"{seen:010d}":
                return True
            if film != "none" and len(grids) > 1 and not (folder / f"{name}.{film}").is_file():
                return True
    return False
