"""Which settings may change when a run is resumed: the table of rules, and the comparison of old and new settings."""

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

# applied   takes effect from here on and changes the training: a new segment of the run begins
# outside   takes effect without changing the training
# location  the folder or name of the run: may differ, and is not reported
# refused   cannot change within a run
Effect = Literal["applied", "outside", "location", "refused"]


@dataclass(frozen=True)
class Rule:
    """The effect of changing settings. docs/resume.md describes each rule.

    settings  patterns of flags without `--`; the first rule that matches decides
    why       reason why a change is rejected
    """

    settings: tuple[str, ...]
    effect: Effect
    why: str = ""


TABLE = (
    Rule(("seed_everything",), "refused", "it determines the initial weights, the order of the images and the noise"),
    Rule(
        ("model.optimizer*.class_path", "model.optimizer*.amsgrad", "model.optimizer*.centered"),
        "refused",
        "the checkpoint holds the state of this optimizer",
    ),
    Rule(("model.adversarial.spectral_norm",), "refused", "it changes the networks"),
    Rule(("model.optimizer*", "model.schedule*", "model.accumulate", "model.clip_norm", "model.clip_value"), "applied"),
    Rule(("model.adversarial*",), "applied"),
    Rule(("model", "model.*"), "refused", "it may change the networks"),
    Rule(("data.batch_size", "data.hflip", "data.random_crop"), "applied"),
    Rule(("data.path",), "outside"),
    Rule(("data.root", "data.memory", "data.workers", "data.download", "data.eval_batch_size"), "outside"),
    Rule(
        ("data", "data.*"),
        "refused",
        "the data set, the shape and range of its images, its classes or its held-out images would change",
    ),
    Rule(("power_ema.enabled", "power_ema.lengths"), "refused", "the averages cover the training from its start"),
    Rule(("power_ema.*",), "outside"),
    Rule(("max_images", "ema.*", "acceleration.*"), "applied"),
    Rule(("trainer.logger*",), "outside"),
    Rule(("trainer.default_root_dir", "name", "runs", "ckpt", "config"), "location"),
    Rule(("trainer.*",), "applied"),
    Rule(("title", "protocol", "monitor.*", "gan_monitor.*", "codebook.*", "samples.*"), "outside"),
    Rule(("validation.*", "checkpoint.*"), "outside"),
    Rule(("*",), "applied"),
)


@dataclass(frozen=True)
class Change:
    """A changed setting, named by its flag without `--`, with its old and new values."""

    setting: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.setting} {_shown(self.old)} -> {_shown(self.new)}"


def rule(setting: str, changeable: tuple[str, ...] = ()) -> Rule:
    """Return the rule of a setting. `changeable` lists model arguments that do not change the networks."""
    if setting.startswith("model.") and setting.split(".")[1] in changeable:
        return Rule((setting,), "applied")
    return next(rule for rule in TABLE if any(fnmatchcase(setting, pattern) for pattern in rule.settings))


def missing(old: Any, new: Any, name: str = "") -> set[str]:
    """Return settings of `new` that `old` lacks because it is from an older version or from a user's own script.

    Only arguments of a class are returned. Nested settings, such as `model.optimizer.eps`, are in a config only if set,
    so a nested setting that `old` lacks was added by the user.
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
    """Return the differences between the config of a checkpoint and the current config, without locations.

    Args:
        old, new: The configs
        unknown: Settings that are not compared
        changeable: Model arguments that do not change the networks
        path: The checkpoint
        found_range: The run's range of stored values; setting the same range is not a change

    Raises:
        UserError: settings that cannot change within a run differ. The message lists their old and new values.
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
        # a class set in only one config may be the default of the other: `refuse_other_optimizers` compares them
        and not (change.setting.endswith(".class_path") and None in (change.old, change.new))
    ]
    if refused:
        listed = "\n".join(f"  {change}: {rule(change.setting, changeable).why}" for change in refused)
        which = "these settings" if len(refused) > 1 else "this setting"
        raise UserError(
            f"{path} cannot be resumed with {which} changed:\n{listed}\nRemove {which} to resume the run unchanged, or "
            "start a new run without `--ckpt`."
        )
    return found


def in_force(found: list[Change], checkpoint: dict[str, Any]) -> list[Change]:
    """Fill in old values of optimizer settings that are missing in the old config, and drop changes whose values turn
    out to be equal."""
    descriptions = checkpoint["genbench"].get("optimizers") or {}
    groups = [state["param_groups"][0] for state in checkpoint.get("optimizer_states") or []]
    had = {player: group | descriptions[player] for player, group in zip(descriptions, groups, strict=False)}
    found_changes = []
    for change in found:
        kind, *player, argument = change.setting.split(".")[1:] if change.setting.count(".") > 1 else ("", "")
        if kind in ("optimizer", "optimizers") and change.old is None:
            values = [had[name].get(argument) for name in (player or had) if name in had]
            values = [list(value) if isinstance(value, tuple) else value for value in values]
            if values and all(value == values[0] for value in values):
                change = Change(change.setting, values[0], change.new)
        same = change.setting.endswith(".class_path") and change.old and same_class(change.old, change.new)
        if change.old != change.new and not same:
            found_changes.append(change)
    return found_changes


def refuse_other_optimizers(trained: dict[str, dict[str, Any]], model: GenerativeModule, path: Path) -> None:
    """Raise UserError if the class of an optimizer differs from that in the checkpoint, `trained`."""
    for player, description in trained.items():
        before = str(description.get("class_path"))
        now = str(model.optimizer_settings.get(player, description).get("class_path"))
        if before.rpartition(".")[2] != now.rpartition(".")[2]:
            raise UserError(
                f"{path} cannot be resumed with a different optimizer: it stores the state of {before} for '{player}', "
                f"but the config sets {now}. Remove {now}, or start a new run without `--ckpt`."
            )


def refuse_other_contents(trained: dict[str, Any], data: Any, found: list[Change], path: Path) -> None:
    """Raise UserError if the images or their range differ from those of the training.

    Args:
        trained: The checkpoint's description of its data
        data: The current DataModule
        found: The changed settings
        path: The checkpoint
    """
    before, now = trained.get("contents"), data.contents() if isinstance(data, DataModule) else None
    moved = next((change for change in found if change.setting == "data.path"), None)
    # compare only the parts that both have: older checkpoints contain only names
    if before and now and any(a != b for a, b in zip(before.split("."), now.split("."), strict=False)):
        place = f"data.path {moved.old} -> {moved.new}" if moved else f"{data.name}"
        raise UserError(
            f"{path} cannot be resumed with {place}: the images differ from the training images (in their names, "
            "number, labels or bytes). Restore the training images, or start a new run without `--ckpt`."
        )
    values = [(trained.get("arguments") or {}).get("range"), now is not None and data.arguments.get("range")]
    if all(values) and values[0] != values[1]:
        raise UserError(
            f"{path} was trained with the range {values[0]} of stored values, but the training images now have the "
            f"range {values[1]}. Restore the old images, or start a new run without `--ckpt`."
        )
    if moved and before is None:
        raise UserError(
            f"{path} cannot be resumed with data.path {moved.old} -> {moved.new}: it does not record which images it "
            "was trained on. Use the old path, or start a new run without `--ckpt`."
        )


def segments(before: list[dict[str, Any]] | None, found: list[Change], images_seen: int) -> list[dict[str, Any]]:
    """Return the history of a resumed run. Each segment has `from` and `to`, in images seen, and `changed`, which maps
    each setting that changed at its start to [old, new]. `found` contains only changes of the training, which begin a
    new segment."""
    history = [dict(segment) for segment in before or [{"from": 0, "to": None, "changed": {}}]]
    trained = {change.setting: [change.old, change.new] for change in found}
    if trained:
        history[-1]["to"] = images_seen
        history.append({"from": images_seen, "to": None, "changed": trained})
    return history


def changes_training(change: Change, changeable: tuple[str, ...], *, schedule: bool) -> bool:
    """Whether a change begins a new segment; a larger budget begins one only if a schedule depends on it."""
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
    """Format a range as in checkpoints, `0,4095`, from a list or text."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value).replace(" ", "")


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        return value["class_path"].rpartition(".")[2]
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def refuse_other_model(trained: str, configured: str, ckpt: Path) -> None:
    """Raise UserError if the class of the config's model differs from that of the checkpoint."""
    if trained.rpartition(".")[2] != configured.rpartition(".")[2]:
        raise UserError(
            f"{ckpt} is a checkpoint of {trained}, but the config sets {configured}. Remove `--config` to use "
            "the run's own config, or pass a different checkpoint."
        )


def note_other_environment(state: dict[str, Any]) -> None:
    """Print a note for each package version that differs from the checkpoint's."""
    for what, now in environment().items():
        before = state.get("environment", {}).get(what, now)
        if before != now:
            console.print(
                f"note: the checkpoint was written with {what} {before}, but this is {what} {now}. The run is resumed, "
                "but not bit for bit."
            )


def note_newer(checkpoint: dict[str, Any], ckpt: Path, folder: Path) -> None:
    """Print a note if a run is resumed from a checkpoint that is not its last."""
    last = folder / "checkpoints" / "last.ckpt"
    if last.is_file() and not last.samefile(ckpt):
        newest, seen = (checkpoint_io.read(last)["genbench"]["images_seen"], checkpoint["genbench"]["images_seen"])
        if newest > seen:
            console.print(
                f"note: {last} has seen {newest:,} images. This run is resumed from {seen:,}, and its later files are "
                "replaced. To keep them, start a new run with `--name OTHER`."
            )


def lacks_last_pictures(folder: Path, model: GenerativeModule, seen: int, film: str) -> bool:
    """Whether a run was killed after its last step, before it wrote the last images and curves."""
    curves, metrics = folder / "curves.png", folder / "metrics.csv"
    if metrics.is_file() and not (curves.is_file() and curves.stat().st_mtime >= metrics.stat().st_mtime):
        with suppress(Unreadable):  # training reports the unreadable file, and draws no curves
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
