"""Protocols: all settings that a score depends on, except the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from genbench.core import renamed, yaml_file
from genbench.core.arguments import key_of
from genbench.core.errors import UserError, did_you_mean
from genbench.metrics.registry import REGISTERED
from genbench.metrics.scales import GROUPS

PREPARATION = ("size", "channels", "resize_mode", "enlarge")
LEAST = {"seed": 0, "score_seed": 0, "kid_subset_size": 2}  # least values of integer settings, if they are not 1


@dataclass(frozen=True)
class Protocol:
    """
    name               name of the protocol; changing any setting below changes the name
    split              split of the data set that is used as the reference
    real               maximum number of reference images; a fixed random choice if the split has more
    generated          number of samples
    extractor          network whose features are compared; `default` is the default extractor of the data set
    weights            averaged (ema) or raw weights of the model
    seed               seed of the samples: sample i has seed 2³² · seed + i
    metrics            groups of metrics, see GROUPS, and names of the user's own metrics
    block              number of images that pass through the networks at once; the last block is padded. Networks round
                       differently at different batch sizes, so the block size is part of the protocol. Scores do not
                       depend on how images are loaded or on the number of processes
    kid_subsets, kid_subset_size, is_splits, score_seed
                       as in torch-fidelity
    neighbors_k        the k of precision, recall, density and coverage
    neighbors_images   maximum number of images of each set for precision, recall, density and coverage
    train              maximum number of training images that samples are compared with to find copies
    pixels             what a likelihood is defined over: binary pixels, 8-bit pixels, or dequantized pixels (density)
    filter             filter for resizing samples to the size of the reference
    size, channels, resize_mode, enlarge
                       how images read from files are resized to a square and converted, by the rules of `ImageFolder`.
                       Default: they are not changed
    """

    name: str
    split: Literal["train", "val", "test"] = "test"
    real: int = 10_000
    generated: int = 10_000
    extractor: str = "default"
    weights: Literal["ema", "raw"] = "ema"
    seed: int = 0
    metrics: tuple[str, ...] = tuple(GROUPS)
    block: int = 64
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    is_splits: int = 10
    score_seed: int = 2020
    neighbors_k: int = 5
    neighbors_images: int = 10_000
    train: int = 60_000
    pixels: Literal["binary", "8-bit", "density"] = "8-bit"
    filter: Literal["bicubic, antialias"] = "bicubic, antialias"
    size: int | None = None
    channels: Literal[1, 3] | None = None
    resize_mode: Literal["crop", "pad", "stretch", "none"] = "crop"
    enlarge: bool = False

    @property
    def preparation(self) -> dict[str, Any]:
        """The settings for images read from files that differ from their defaults."""
        usual = {field.name: field.default for field in fields(self)}
        return {name: self[name] for name in PREPARATION if self[name] != usual[name]}

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value, least = getattr(self, name), LEAST.get(name, 1)
            if type(None) in get_args(kind):
                if value is None:
                    continue
                kind = get_args(kind)[0]
            if kind is bool and type(value) is not bool:
                raise UserError(f"protocol {self.name}: {name} is {value}; it must be true or false.")
            if kind is int and (type(value) is not int or value < least):
                raise UserError(
                    f"protocol {self.name}: {name} is {value}; it must be a whole number of at least {least}."
                )
            if kind is int and value >= 2**31:
                raise UserError(f"protocol {self.name}: {name} is {value}; it must be below 2³¹.")
            choices = get_args(kind) if get_origin(kind) is Literal else (value,)
            if value not in choices:
                named = [str(choice) for choice in choices]
                listed = " or ".join(filter(None, (", ".join(named[:-1]), named[-1])))
                raise UserError(f"protocol {self.name}: {name} is '{value}'; it must be {listed}.")
        if not isinstance(self.metrics, (list, tuple)) or not self.metrics:
            raise UserError(
                f"protocol {self.name}: metrics is {self.metrics!r}; it must be a list of groups of metrics."
            )
        for group in self.metrics:
            known = (*GROUPS, *REGISTERED)
            if not isinstance(group, str) or group not in known:
                raise UserError(
                    f"protocol {self.name}: unknown metric group '{group}'. Choose from: {', '.join(known)}."
                    f"{_hint(group) or did_you_mean(str(group), known)} A metric of your own needs the decorator "
                    "`@register` and `--import my.module`."
                )

    def changed(self, **changes: Any) -> Protocol:
        """A protocol with changed settings, which are appended to its name: `fid10k-test+generated=500`."""
        changes = {name: value for name, value in changes.items() if value is not None and value != self[name]}
        suffix = "".join(f"+{name}={_short(value)}" for name, value in sorted(changes.items()))
        return replace(self, name=self.name + suffix, **changes)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def resolved(self, **facts: Any) -> dict[str, Any]:
        """All settings, the given facts (such as hashes of extractor and reference), and a key that is a hash of
        both."""
        # default values of these settings are omitted, so that keys from before the settings existed stay valid
        settings = {name: value for name, value in asdict(self).items() if name not in PREPARATION} | self.preparation
        plain = json.loads(json.dumps(settings | facts))
        named = {name: value for name, value in plain.items() if name != "name"}
        return {"name": self.name, "key": key_of(renamed.former_protocol(named))} | named


def _hint(score: Any) -> str:
    """The group of a score that was named in the place of a group."""
    return next((f" The group of {score} is {group}." for group, scores in GROUPS.items() if score in scores), "")


def _short(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def folders() -> list[Path]:
    """Folders with protocols: first below the current folder, then those shipped with genbench."""
    package = Path(__file__).parents[1]
    above = (Path(), package, package.parent)
    return [place for folder in above if (place := folder / "configs" / "protocols").is_dir()]


def names() -> list[str]:
    return sorted({path.stem for folder in folders() for path in folder.glob("*.yaml")})


def load(name: str) -> Protocol:
    """Load the protocol of this name, or from this YAML file.

    Raises:
        UserError: the protocol does not exist, or contains an unknown or invalid setting.
    """
    places = [Path(name)] if name.endswith((".yaml", ".yml")) else [f / f"{name}.yaml" for f in folders()]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(
            f"Unknown protocol '{name}'. Choose from: {', '.join(names())}, or pass the path of a YAML file."
            + did_you_mean(name, names())
        )
    values = yaml_file.read(path)
    known = [f.name for f in fields(Protocol)]
    if unknown := set(values) - set(known):
        wrong = min(map(str, unknown))
        raise UserError(
            f"{path}: unknown setting '{wrong}'. Choose from: {', '.join(known)}.{did_you_mean(wrong, known)}"
        )
    values = {k: tuple(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for k, v in values.items()}
    if not isinstance(values.get("name", ""), str):
        raise UserError(f"{path}: name is {values['name']}; expected a word.")
    return Protocol(**{"name": path.stem} | values)
