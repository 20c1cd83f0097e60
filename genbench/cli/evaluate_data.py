"""Build the reference data of `evaluate` from its flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genbench.core.errors import UserError, did_you_mean
from genbench.evaluation import protocol as protocols


def options_of(flag: str, path: str | None, given: list[str], labels: bool = False) -> dict[str, Any]:
    """Parse flags such as `--images.key` into arguments of the data set that reads `path`.

    `labels`: whether there are also flags for the labels.
    """
    from inspect import signature

    from jsonargparse import ArgumentParser

    from genbench.data.base import ImageData
    from genbench.evaluation.images import reader_of

    if not given:
        return {}
    if path is None:
        raise UserError(f"`{given[0]}` needs `{flag} PATH`, which was not set.")
    reader = reader_of(path)
    of_training = {*signature(ImageData.__init__).parameters, "path", "labels", "labels_key", "test_size"}
    of_training -= {"labels", "labels_key"} if labels else set()
    parser = ArgumentParser(exit_on_error=False)
    known = parser.add_class_arguments(reader, flag.removeprefix("--"), skip=of_training - {"self", "range", "window"})
    for flag_given in (argument.partition("=")[0] for argument in given if argument.startswith("--")):
        name = flag_given.partition(".")[2]
        if name in protocols.PREPARATION:
            ours = name.replace("_", "-")
            raise UserError(f"Unknown option {flag_given}. Use `--{ours}`, which applies to all image files.")
        if flag_given.removeprefix("--") not in known:
            raise UserError(f"Unknown option {flag_given} for {path}. Choose from: --{', --'.join(known)}.")
    return vars(getattr(parser.parse_args(given), flag.removeprefix("--")))


def split_flags(more: list[str], prefix: str) -> tuple[list[str], list[str]]:
    """Split flags, with their values, into those that begin with `prefix` and all others."""
    data: list[str] = []
    other: list[str] = []
    into = other
    for argument in more:
        if argument.startswith("--"):
            into = data if argument.startswith(prefix) else other
        into.append(argument)
    return data, other


def root_of(config: dict[str, Any]) -> str | None:
    """Return the data root of the run, if that folder still exists."""
    data = config.get("data")
    root = ((data.get("init_args") or {}) if isinstance(data, dict) else {}).get("root")
    return root if root and Path(root).expanduser().is_dir() else None


def prepared_data(contents: dict[str, Any], flags: list[str], name: str | None = None) -> Any:
    """The DataModule `name`, or the training data of a checkpoint with the changes that the flags make.

    Args:
        contents: The checkpoint, as `checkpoint_io.read` returns it
    """
    config = (contents.get("run") or {}).get("config") or {}
    data = data_of(name, flags, contents.get("data"), root_of(config))
    data.prepare_data()
    return data


def data_of(
    name: str | None,
    flags: list[str],
    trained_on: dict[str, Any] | None,
    root: str | None = None,
    named_by_user: bool = False,
) -> Any:
    """Build the requested DataModule, or the training data with the changes that the flags make.

    Args:
        named_by_user: True if the class is from a config. A class named by a checkpoint must be imported already,
            because a checkpoint never triggers an import
    """
    import numpy as np
    from jsonargparse import ArgumentParser

    import genbench.data
    from genbench.data.base import ImageData
    from genbench.data.module import DataModule
    from genbench.data.ranges import for_other_files, refuse_unlike
    from genbench.evaluation.checkpoint_facts import data_class

    kept: list[str] = []
    other_files = False  # whether files other than the training files are read, with the training range
    if name is None:
        if trained_on is None:
            raise UserError(
                "There is no data to compare with. Use `--data NAME` (such as MNIST, CIFAR10, ImageFolder with "
                "--data.path) or `--reference PATH`."
            )
        name = trained_on["class"]
        if not named_by_user:
            data_class(name)
        stored, changed = dict(trained_on["arguments"]), {flag.partition("=")[0] for flag in flags}
        if changed & {"--data.range", "--data.window"}:
            stored["range"] = stored["window"] = None
        elif not named_by_user and "--data.path" in changed:
            other_files = True
            stored["range"] = for_other_files(stored.get("range"))
        for key, value in stored.items():
            if value is not None and key != "root":
                kept += [f"--data.{key}={json.dumps(value) if not isinstance(value, str) else value}"]
        if root:
            kept.append(f"--data.root={root}")
    elif "." not in name and name not in genbench.data.__all__:
        known = sorted(genbench.data.__all__)
        raise UserError(f"Unknown data set '{name}'. Choose from: {', '.join(known)}.{did_you_mean(name, known)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=DataModule)
    data = parser.instantiate_classes(parser.parse_args([f"--data={name}", *kept, *flags])).data
    if other_files and isinstance(data, ImageData):
        train = data.split("train")
        for split, trained in zip((train, train.source or train.other), data.ranges(train), strict=True):
            if split is not None:
                refuse_unlike(next(iter(split.pictures(np.array([0])))), trained, split.name(0))
    return data
