"""Names that settings had in older versions, for checkpoints, configs of runs and records that have them still."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# keys of arguments, and values that are words
WORDS = {
    "labelled": "labeled",
    "colourise": "colorize",
    "colour": "color",
}
DATA = {"jitter": "random_crop", "flip": "hflip", "fit": "resize_mode"}  # arguments of data sets
# settings of protocols; their keys are of the former names, so that records of all versions are compared
PROTOCOL = {
    "neighbours": "neighbors",
    "neighbours_k": "neighbors_k",
    "neighbours_images": "neighbors_images",
    "fit": "resize_mode",
}


def words(value: Any, names: Mapping[str, str] = WORDS) -> Any:
    """Plain data with the present names in place of the former, as keys and as values."""
    if isinstance(value, dict):
        return {names.get(key, key): words(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [words(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def data_arguments(arguments: Any) -> Any:
    """The arguments of a data set."""
    if not isinstance(arguments, dict):
        return arguments
    return {DATA.get(name, name): value for name, value in words(arguments).items()}


def config(config: Any) -> Any:
    """The config of a run."""
    found = words(config)
    if isinstance(found, dict) and isinstance(found.get("data"), dict) and "init_args" in found["data"]:
        found["data"]["init_args"] = data_arguments(found["data"]["init_args"])
    return found


def setting(name: str) -> str:
    """A setting as a history of changes has it, such as `data.flip`."""
    group, *rest = name.split(".")
    names = WORDS | (DATA if group == "data" else {})
    return ".".join([group, *(names.get(part, part) for part in rest)])


def run(run: Any) -> Any:
    """What a checkpoint or a record says of its run: config, and segments with what changed."""
    if not isinstance(run, dict):
        return run
    found = run | ({"config": config(run["config"])} if "config" in run else {})
    if isinstance(run.get("segments"), list):
        found["segments"] = [_segment(segment) for segment in run["segments"]]
    return found


def _segment(segment: Any) -> Any:
    if not isinstance(segment, dict) or not isinstance(segment.get("changed"), dict):
        return segment
    return segment | {"changed": {setting(name): values for name, values in segment["changed"].items()}}


def checkpoint(contents: dict[str, Any]) -> dict[str, Any]:
    """The contents of a checkpoint, of which only settings have names that may have changed."""
    found = contents | {"hyper_parameters": words(contents["hyper_parameters"])}
    if "run" in contents:
        found["run"] = run(contents["run"])
    if isinstance(contents.get("data"), dict):
        found["data"] = contents["data"] | {"arguments": data_arguments(contents["data"].get("arguments"))}
    return found


def record(found: dict[str, Any]) -> dict[str, Any]:
    """A record as its file has it."""
    found = dict(found)
    if isinstance(found.get("protocol"), dict):
        found["protocol"] = words(found["protocol"], PROTOCOL)
    if isinstance(found.get("data"), dict):
        found["data"] = found["data"] | {"arguments": data_arguments(found["data"].get("arguments"))}
    if isinstance(found.get("model"), dict):
        found["model"] = words(found["model"])
    if "run" in found:
        found["run"] = run(found["run"])
    return found


def former_protocol(protocol: dict[str, Any]) -> dict[str, Any]:
    """The settings and facts of a protocol by their former names, of which its key is."""
    return words(protocol, {new: old for old, new in PROTOCOL.items()})
