"""Imports point one way."""

import ast
from pathlib import Path

import pytest

import genbench

ROOT = Path(genbench.__file__).parent

# room -> rooms of genbench that it may import
ALLOWED = {
    "core": {"core"},
    "networks": {"core", "networks"},
    "objectives": {"core", "objectives"},
    "samplers": {"core", "samplers"},
    "metrics": {"core", "metrics"},
    "data": {"core", "data"},
    "models": {"core", "networks", "objectives", "samplers"},
    "callbacks": {"core", "data", "evaluation", "metrics", "callbacks", "loggers"},
    "evaluation": {"core", "data", "evaluation", "leaderboard", "metrics", "networks"},  # never models
    "analysis": {"analysis", "core", "data", "evaluation", "metrics", "networks"},  # never models
    "play": {"analysis", "core", "data", "evaluation", "play"},
    "loggers.py": {"core"},
    "leaderboard": {"core", "leaderboard"},
    "report": {"core", "leaderboard", "report"},
    "suites": {"core", "suites"},
    "runner": {"callbacks", "cli", "core", "data", "evaluation", "leaderboard", "metrics", "runner", "suites"},
    "testing": {"callbacks", "cli", "core", "data", "loggers", "metrics", "models", "testing"},
}


def imported(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_lies_below_it(room):
    files = [ROOT / room] if room.endswith(".py") else sorted((ROOT / room).rglob("*.py"))
    for path in files:
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "genbench" and len(parts) > 1 and (ROOT / parts[1]).exists():
                own = room == "models" and path.name == "__init__.py" and parts[1] == "models"
                assert own or parts[1] in ALLOWED[room], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(("room", "verb"), {"testing": "check.py", "runner": "suite.py", "play": "play.py"}.items())
def test_a_room_above_the_command_line_is_imported_by_its_own_verb_alone(room, verb):
    for path in (ROOT / "cli").glob("*.py"):
        if path.name != verb:
            assert not any(name.startswith(f"genbench.{room}") for name in imported(path)), path


def test_networks_objectives_and_metrics_know_nothing_of_lightning():
    for room in ("networks", "objectives", "samplers", "metrics"):
        for path in (ROOT / room).rglob("*.py"):
            assert not any(name.split(".")[0] == "lightning" for name in imported(path)), path


def test_the_leaderboard_needs_errors_files_and_old_names_alone():
    for path in (ROOT / "leaderboard").rglob("*.py"):
        found = {name for name in imported(path) if name.startswith("genbench.core.")}
        assert all(name.split(".")[2] in ("errors", "files", "renamed") for name in found), path


def test_nothing_reads_lightnings_step_counter():
    for path in ROOT.rglob("*.py"):
        names = {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
        assert "global_step" not in names, path


def test_no_two_modules_have_one_name():
    """But models, networks, objectives, samplers and metrics of one thing, and a verb and the module that it calls."""
    alike = {"networks", "objectives", "samplers", "metrics", "models", "analysis"}
    seen: dict[str, str] = {"module.py": "", "evaluate.py": ""}
    for path in sorted(ROOT.rglob("*.py")):
        if path.parent.name in alike or path.name == "__init__.py" or seen.get(path.name) == "":
            continue
        assert path.name not in seen, f"{path.relative_to(ROOT)} and {seen[path.name]}"
        seen[path.name] = str(path.relative_to(ROOT))
