"""Names that older versions of genbench used, and their names today.

Old names are replaced when a file of an older version is read: settings (`core.yaml_file.read`), checkpoints
(`core.checkpoint_io.read`), records (`leaderboard.record`) and the `metrics.csv` of a resumed run. No other code
contains old names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Names:
    """Old name -> new name for one class of genbench.

    arguments   arguments of the constructor
    networks    attributes of the model: the first part of a name in its state dict
    optimizers  keys of `players`: the first part of a column of metrics.csv
    terms       logged terms: the last part of a column of metrics.csv
    """

    arguments: dict[str, str] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    optimizers: dict[str, str] = field(default_factory=dict)
    terms: dict[str, str] = field(default_factory=dict)


# renamed arguments of all data sets
DATA = Names(arguments={"jitter": "random_crop", "flip": "hflip", "fit": "resize_mode", "labelled": "labeled"})

# renamed values of arguments
VALUES = {"colourise": "colorize", "colour": "color"}

# renamed settings of a protocol. The protocol's key is computed from the old names, so it is the same in all versions
PROTOCOL = {
    "neighbours": "neighbors",
    "neighbours_k": "neighbors_k",
    "neighbours_images": "neighbors_images",
    "fit": "resize_mode",
}

# renamed groups of settings other than model and data, such as validation in `--validation.samples`
GROUPS = {"quality": "validation", "balance": "gan_monitor", "pictures": "samples"}

# renamed callbacks, old name -> new: a checkpoint stores their states under their names
CALLBACKS = {"Quality": "ValidationMetrics", "Balance": "GANMonitor", "Pictures": "SampleLogger", "Budget": "MaxImages"}

GANS = ("ConditionalGAN", "DCGAN", "GAN", "Pix2Pix", "SNGAN", "SemiSupervisedGAN", "TextConditionalGAN")

# in models with one optimizer, the optimizer is now called `train`
ONE = {
    "autoencoder": ("Autoencoder", "ConvAutoencoder", "DenoisingAutoencoder"),
    "mixture": ("LatentMixture",),
    "pixelcnn": ("PixelCNN",),
    "prior": ("VQPrior",),
    "unet": ("SegmentationUNet", "UNet"),
    "vae": ("ConditionalVAE", "VAE"),
}

CLASSES: dict[str, Names] = {
    **dict.fromkeys(GANS, Names(arguments={"game": "adversarial"})),
    **{cls: Names(optimizers={old: "train"}) for old, classes in ONE.items() for cls in classes},
    "CycleGAN": Names(
        networks={
            "to_b": "G_AB",
            "to_a": "G_BA",
            "judge_b": "D_B",
            "judge_a": "D_A",
            "pool_b": "pool_B",
            "pool_a": "pool_A",
        },
    ),
    "VQVAE": Names(
        arguments={"codes": "num_embeddings", "dim": "embedding_dim", "revive_every": "restart_dead_codes"},
        optimizers={"autoencoder": "train"},
        terms={"used": "codebook_usage"},
    ),
}


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run with the current names; other settings are unchanged."""
    config = _keys(config, lambda name: GROUPS.get(name, name))
    for part in ("model", "data"):
        described = config.get(part)
        if isinstance(described, dict) and (names := _of(described.get("class_path"), part)):
            described = _arguments(described, names)  # arguments next to `class_path`
            if isinstance(described.get("init_args"), dict):
                described["init_args"] = _arguments(described["init_args"], names)
            config[part] = described
    return config


def setting(name: str, class_path: str | None) -> str:
    """The current name of a setting, as a flag without `--`.

    Args:
        class_path: Class of the model, to look up the arguments of settings such as `model.game.r1`
    """
    group, *parts = name.split(".")
    names = {"model": _of(class_path), "data": DATA}.get(group)
    if names and parts:
        parts[0] = names.arguments.get(parts[0], parts[0])
        if parts[0] in ("optimizers", "schedules") and len(parts) > 1:
            parts[1] = names.optimizers.get(parts[1], parts[1])
    return ".".join([GROUPS.get(group, group), *parts])


def column(name: str, class_path: str | None) -> str:
    """The current name of a column of `metrics.csv`. `class_path` is the class of the model."""
    first, slash, term = name.partition("/")
    names = _of(class_path)
    if names is None or not slash:
        return name
    return f"{names.optimizers.get(first, first)}/{names.terms.get(term, term)}"


def checkpoint(contents: dict[str, Any]) -> None:
    """Replace the old names in the contents of a checkpoint."""
    state = contents["genbench"]
    cls = state["model"]
    contents["hyper_parameters"] = _described({"class": cls, "arguments": contents["hyper_parameters"]})["arguments"]
    if "callbacks" in contents:
        contents["callbacks"] = _keys(contents["callbacks"], lambda name: CALLBACKS.get(name, name))
    if isinstance(contents.get("data"), dict):
        contents["data"] = _described(contents["data"])
    if isinstance(run := contents.get("run"), dict):
        if isinstance(run.get("config"), dict):
            run["config"] = settings(run["config"])
        _history(run, cls)
        if isinstance(run.get("rows"), list):
            run["rows"] = [_keys(row, lambda name: column(name, cls)) for row in run["rows"]]
    if (names := _of(cls)) is None:
        return

    def weight(name: str) -> str:
        network, dot, rest = name.partition(".")
        return names.networks.get(network, network) + dot + rest

    contents["state_dict"] = _keys(contents["state_dict"], weight)
    if isinstance(average := contents.get("ema"), dict):
        average["state_dict"] = _keys(average.get("state_dict"), weight)
    for key in ("updates", "optimizers", "scalers"):
        if key in state:
            state[key] = _keys(state[key], lambda name: names.optimizers.get(name, name))
    if "gradients" in state:
        state["gradients"] = _keys(state["gradients"], weight)
    if "terms" in state:
        state["terms"] = _keys(state["terms"], lambda name: column(name, cls))


def record(found: dict[str, Any]) -> None:
    """Replace the old names in a record, as read from its file."""
    model, run = found.get("model"), found.get("run")
    if found.get("kind") == "floor":
        found["kind"] = "baseline"
    if isinstance(found.get("protocol"), dict):
        found["protocol"] = _words(found["protocol"], PROTOCOL)
    if isinstance(cost := found.get("cost"), dict) and "sampling_images_per_second" in cost:
        found["cost"] = _seconds(cost, found.get("environment"))
    if isinstance(data := found.get("data"), dict) and isinstance(data.get("arguments"), dict):
        found["data"] = data | {"arguments": _arguments(data["arguments"], DATA)}
    if not isinstance(model, dict) or not isinstance(run, dict):
        return
    cls = model.get("class")
    if isinstance(model.get("arguments"), dict):
        model["arguments"] = _described(model)["arguments"]
    if isinstance(run.get("config"), dict):
        run["config"] = settings(run["config"])
    if "grid" in run:
        run["grid"] = _keys(run["grid"], lambda name: setting(name, cls))
    _history(run, cls)


def _seconds(cost: dict[str, Any], environment: Any) -> dict[str, Any]:
    """The cost with the seconds of one device per image, in place of the images per second of all processes."""
    old, new = "sampling_images_per_second", "sampling_seconds_per_image"
    speed = cost[old]
    if isinstance(speed, (int, float)):
        processes = environment.get("world_size") if isinstance(environment, dict) else None
        processes = processes if isinstance(processes, int) and 0 < processes < 1e6 else 1
        speed = processes / speed if speed > 0 else None
    return {new: speed} | {name: value for name, value in cost.items() if name != old}


def former_protocol(protocol: dict[str, Any]) -> dict[str, Any]:
    """A protocol with the old names, from which its key is computed."""
    return _words(protocol, {new: old for old, new in PROTOCOL.items()})


def _words(value: Any, names: dict[str, str]) -> Any:
    """Plain data with renamed keys, and renamed values where they are text."""
    if isinstance(value, dict):
        return {names.get(key, key): _words(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_words(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def _history(run: dict[str, Any], cls: str | None) -> None:
    """Rename the settings that changed when a run was resumed, see `cli.resume.segments`."""
    segments = run.get("segments")
    for segment in segments if isinstance(segments, list) else ():
        if isinstance(segment, dict) and "changed" in segment:
            segment["changed"] = _keys(segment["changed"], lambda name: setting(name, cls))


def _described(described: dict[str, Any]) -> dict[str, Any]:
    """Rename the arguments in `{class: path, arguments: {...}}`; they may be nested, see `core.composition`."""
    names, arguments = _of(described.get("class")), described.get("arguments")
    if not isinstance(arguments, dict):
        return described
    arguments = {
        name: _described(value) if isinstance(value, dict) and {"class", "arguments"} <= value.keys() else value
        for name, value in arguments.items()
    }
    return described | {"arguments": _arguments(arguments, names) if names else arguments}


def _arguments(arguments: dict[str, Any], names: Names) -> dict[str, Any]:
    found = {name: _words(value, VALUES) for name, value in arguments.items()}
    found = _keys(found, lambda name: names.arguments.get(name, name))
    for name in ("optimizers", "schedules"):
        if name in found:
            found[name] = _keys(found[name], lambda optimizer: names.optimizers.get(optimizer, optimizer))
    return found


def _of(class_path: Any, part: str = "model") -> Names | None:
    """The names of a class of genbench, by its full or short name. A short name is of `part`: `model` or `data`."""
    if not isinstance(class_path, str):
        return None
    module, _, name = class_path.rpartition(".")
    if module.startswith("genbench.data") or (not module and part == "data"):
        return DATA
    return CLASSES.get(name) if not module or module.partition(".")[0] == "genbench" else None


def _keys(mapping: Any, rename: Callable[[str], str]) -> Any:
    """A copy with renamed keys, in the same order. A key is kept if its new name also exists, or if it is not text."""
    if not isinstance(mapping, dict):
        return mapping
    renamed = {name: rename(name) if isinstance(name, str) else name for name in mapping}
    return {name if renamed[name] in mapping else renamed[name]: value for name, value in mapping.items()}
