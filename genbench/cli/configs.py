"""Find configs by name: first in `configs/` of the current folder, then among the configs shipped with genbench."""

from __future__ import annotations

from pathlib import Path

import genbench
from genbench.core.errors import UserError, did_you_mean

PARTS = ("data", "trainer", "logger")  # folders of parts, which are merged into a complete config
OTHERS = ("protocols", "suites")  # these folders contain no training configs; `evaluate` and `suite` list them


def folder() -> Path:
    """Return the folder of the shipped configs: inside the installed package, or next to it in a checkout."""
    inside = Path(genbench.__file__).parent / "configs"
    return inside if inside.is_dir() else inside.parent.parent / "configs"


def listing(*, parts: bool = False) -> dict[str, str]:
    """Map the name of each shipped complete config (of each part, if `parts`) to its first comment line."""
    names = {}
    for path in sorted(folder().rglob("*.yaml"), key=lambda p: (len(p.parts), p)):
        if path.parent.name not in OTHERS and (path.parent.name in PARTS) == parts:
            first = path.read_text().partition("\n")[0]
            name = path.relative_to(folder()).with_suffix("").as_posix()
            names[name] = first.lstrip("# ") if first[:1] == "#" else ""
    return names


def find(name: str) -> Path | None:
    """Return the file for `--config NAME`. NAME is a path or the name of a config; None if no file is found."""
    places = [root / file for root in (Path("configs"), folder()) for file in (name, f"{name}.yaml")]
    return next((path for path in (Path(name), *places, folder() / Path(name).name) if path.is_file()), None)


def named(name: str) -> Path:
    """Like `find`, but an unknown config is an error.

    Raises:
        UserError: the config is unknown. The message lists the known configs and suggests the nearest name.
    """
    if (path := find(name)) is not None:
        return path
    whole, parts = listing(), listing(parts=True)
    kind = name.partition("/")[0]
    known = [part for part in parts if part.startswith(f"{kind}/")] if kind in PARTS else list(whole)
    raise UserError(
        f"Unknown config '{name}'. Choose from: {', '.join(known)}, or pass the path of a file."
        + did_you_mean(name, known if kind in PARTS else [*whole, *parts])
    )
