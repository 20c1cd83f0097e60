"""Shorten errors of the parser of `fit` to one sentence."""

from __future__ import annotations

import re
from typing import Any

from genbench.cli.merging import Merging
from genbench.cli.settable import ROOT, USUAL, Group, find_class, parameters
from genbench.core.errors import did_you_mean


def explained(text: str) -> str:
    """Return the parser's message in one line: full name of the setting, error, and nearest existing name."""
    noise = (
        "Does not validate", "Subtypes:", "Errors:", "Given value", "Expected a <class 'NoneType'>",
        "Subclass types expect one of:", "a class path (str)", "a dict with", "a dict without",
    )  # fmt: skip
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(noise)]
    names: list[str] = []
    cls: type | None = None
    parts: list[str] = []
    for line in lines:
        if found := re.match(r'Parser key "([^"]+)":\s*(.*)', line):
            names.append(found[1])
            parts += [found[2]] if found[2] else []
        elif found := re.match(r"Problem with given class_path '([^']+)':", line):
            cls = find_class(found[1], object) or cls
        else:
            parts.append(line)
    message = "; ".join(dict.fromkeys(parts))
    if found := re.search(r"Expected a dot import path string: (\S+)", text):
        message = f"there is no class '{found[1]}'.{did_you_mean(found[1], _class_names())}"
    elif found := re.fullmatch(r"Expected a typing\.Literal\[(.*)\]\. Got value: (.*)", message):
        choices = [text or number for text, number in re.findall(r"'([^']*)'|([^', ]+)", found[1])]
        message = f"'{found[2]}' is unknown. Choose from: {', '.join(choices)}.{did_you_mean(found[2], choices)}"
    elif found := re.search(r"Option '([^']+)' is not accepted", message):
        known = parameters(cls) if cls is not None else {}
        by = f" by {cls.__name__}" if cls is not None else ""
        near = did_you_mean(found[1], known) or USUAL.get(found[1], "")
        message = message.replace(found[0], f"{found[0]}{by}.{near}")
    elif found := re.search(r"does not accept option '([^']+)'", message):
        message = f"There is no setting '{found[1]}'.{did_you_mean(found[1], setting_names())}"
    elif found := re.search(r"module '\S+' has no attribute '([^']+)'", message):
        message += f".{did_you_mean(found[1], _class_names())}"
    return f"{'.'.join(names)}: {message}" if names else message


def _class_names() -> set[str]:
    """Return the short names of all loaded classes that a setting may name."""
    from lightning import Callback, LightningDataModule, LightningModule
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.strategies import Strategy

    from genbench.core.class_paths import loaded_classes

    bases = (LightningModule, LightningDataModule, Callback, Logger, Strategy)
    return {cls.__name__ for base in bases for cls in loaded_classes(base).values()}


def setting_names() -> set[str]:
    """Return names of settings such as `trainer.precision`, with those common to models and data sets."""
    from genbench.core.module import GenerativeModule
    from genbench.data import ImageData

    hints = Merging().root.hints
    groups: dict[str, Any] = {group: each.hints for group, each in hints.items() if isinstance(each, Group)}
    groups |= {"model": parameters(GenerativeModule), "data": parameters(ImageData)}
    found = {f"{group}.{name}" for group, names in groups.items() for name in names}
    return found | {"model.adversarial", "model.width", "model.latent_dim"} | set(ROOT)
