"""The configs that travel with the package."""

from __future__ import annotations

from pathlib import Path

import genbench
from genbench.core.errors import UserError, did_you_mean


def folder() -> Path:
    """Where they lie: inside the installed package, or beside it in a checkout."""
    inside = Path(genbench.__file__).parent / "configs"
    return inside if inside.is_dir() else inside.parent.parent / "configs"


def listing() -> dict[str, str]:
    """Name -> first comment line, of every config. Those in papers/ want data that is fetched by hand; others in
    sub-folders are parts to add to one."""
    names = {}
    for path in sorted(folder().rglob("*.yaml"), key=lambda p: (len(p.parts), p)):
        if path.parent.name in ("protocols", "suites"):  # no parts of a run: `evaluate` and `suite` list them
            continue
        first = path.read_text().partition("\n")[0]
        names[path.relative_to(folder()).with_suffix("").as_posix()] = first.lstrip("# ") if first[:1] == "#" else ""
    return names


def find(name: str) -> Path | None:
    """The file that `--config NAME` means: a path, or the name of a shipped config; None if there is neither."""
    for path in (Path(name), folder() / name, folder() / f"{name}.yaml", folder() / Path(name).name):
        if path.is_file():
            return path
    return None


def named(name: str) -> Path:
    """As `find`.

    Raises:
        UserError: there is none; proposes the nearest.
    """
    path = find(name)
    if path is None:
        known = listing()
        raise UserError(
            f"There is no config '{name}'; there are {', '.join(known)}, or give the path of a file."
            + did_you_mean(name, known)
        )
    return path
