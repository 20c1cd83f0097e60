"""What the parser of `fit` says of a wrong setting, in a sentence."""

from __future__ import annotations

import re

from genbench.cli.merging import Merging
from genbench.cli.settable import (
    ROOT,
    USUAL,
    Group,
    find_class,
    parameters,
)
from genbench.core.errors import did_you_mean


def explained(text: str) -> str:
    """The parser's message in one line: the setting's whole name, what is wrong, and the nearest name that there is."""
    noise = (
        "Does not validate", "Subtypes:", "Errors:", "Given value", "Expected a <class 'NoneType'>",
        "Subclass types expect one of:", "a class path (str)", "a dict with", "a dict without",
    )  # fmt: skip
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(noise)]
    names: list[str] = []
    cls: type | None = None
    said: list[str] = []
    for line in lines:
        if found := re.match(r'Parser key "([^"]+)":\s*(.*)', line):
            names.append(found[1])
            said += [found[2]] if found[2] else []
        elif found := re.match(r"Problem with given class_path '([^']+)':", line):
            cls = find_class(found[1], object) or cls
        else:
            said.append(line)
    if missing := re.search(r"Expected a dot import path string: (\S+)", text):
        whole = f"there is no class '{missing[1]}'.{did_you_mean(missing[1], _class_names())}"
        return f"{'.'.join(names)}: {whole}" if names else whole
    whole = "; ".join(dict.fromkeys(said))
    if found := re.search(r"Option '([^']+)' is not accepted", whole):
        known = parameters(cls) if cls is not None else {}
        by = f" by {cls.__name__}" if cls is not None else ""
        whole = whole.replace(found[0], f"{found[0]}{by}.{did_you_mean(found[1], known) or USUAL.get(found[1], '')}")
    elif found := re.search(r"does not accept option '([^']+)'", whole):
        whole = f"There is no setting '{found[1]}'.{did_you_mean(found[1], setting_names())}"
    elif found := re.search(r"module '\S+' has no attribute '([^']+)'", whole):
        whole += f".{did_you_mean(found[1], _class_names())}"
    return f"{'.'.join(names)}: {whole}" if names else whole


def _class_names() -> set[str]:
    """Short names of all classes that a setting may name, of those that are loaded."""
    from lightning import Callback, LightningDataModule, LightningModule
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.strategies import Strategy

    from genbench.core.class_paths import loaded_classes

    bases = (LightningModule, LightningDataModule, Callback, Logger, Strategy)
    return {cls.__name__ for base in bases for cls in loaded_classes(base).values()}


def setting_names() -> set[str]:
    """`trainer.precision`, and what most models and data sets have."""
    from genbench.core.module import GenerativeModule
    from genbench.data import ImageData

    hints = Merging().root.hints
    found = {f"{group}.{name}" for group, of in hints.items() if isinstance(of, Group) for name in of.hints}
    found |= {
        f"{group}.{name}"
        for group, cls in (("model", GenerativeModule), ("data", ImageData))
        for name in parameters(cls)
    }
    return found | {"model.adversarial", "model.width", "model.latent_dim"} | set(ROOT)
