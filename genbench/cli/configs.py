"""Configs by name: those below `configs/` in the current folder, then those that are installed with genbench."""

from __future__ import annotations

from pathlib import Path

import genbench
from genbench.core.errors import UserError, did_you_mean

PARTS = ("data", "trainer", "logger")  # folders of parts, which are merged after a whole config
OTHERS = ("protocols", "suites")  # folders of other files, which `evaluate` and `suite` list


def folder() -> Path:
    """The folder of the shipped configs: inside the installed package, or beside it in a checkout."""
    inside = Path(genbench.__file__).parent / "configs"
    return inside if inside.is_dir() else inside.parent.parent / "configs"


def listing(*, parts: bool = False) -> dict[str, str]:
    """Name -> first comment line of each shipped whole config, or of each part of one."""
    names = {}
    for path in sorted(folder().rglob("*.yaml"), key=lambda p: (len(p.parts), p)):
        if path.parent.name not in OTHERS and (path.parent.name in PARTS) == parts:
            first = path.read_text().partition("\n")[0]
            name = path.relative_to(folder()).with_suffix("").as_posix()
            names[name] = first.lstrip("# ") if first[:1] == "#" else ""
    return names


def find(name: str) -> Path | None:
    """The file that `--config NAME` means: a path, or the name of a config; None if there is neither."""
    places = [root / file for root in (Path("configs"), folder()) for file in (name, f"{name}.yaml")]
    return next((path for path in (Path(name), *places, folder() / Path(name).name) if path.is_file()), None)


def named(name: str) -> Path:
    """As `find`.

    Raises:
        UserError: there is no such config. The message lists those there are, and the nearest name.
    """
    if (path := find(name)) is not None:
        return path
    whole, parts = listing(), listing(parts=True)
    kind = name.partition("/")[0]
    known = [part for part in parts if part.startswith(f"{kind}/")] if kind in PARTS else list(whole)
    raise UserError(
        f"There is no config '{name}'; there are {', '.join(known)}, or give the path of a file."
        + did_you_mean(name, known if kind in PARTS else [*whole, *parts])
    )
