"""The files of the repository are small, and the text files at its top agree with the package."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

import genbench

ROOT = Path(__file__).parents[1]
LIMIT = 500_000  # bytes; the hook of .pre-commit-config.yaml has the same
SHIPPED_WEIGHTS = re.compile("^genbench/(evaluation/weights|pretrained)/")


@pytest.fixture(scope="module")
def tracked():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_but_shipped_weights_exceeds_the_size_limit(tracked):
    sizes = {name: (ROOT / name).stat().st_size for name in tracked if not SHIPPED_WEIGHTS.match(name)}
    assert {name: size for name, size in sizes.items() if size > LIMIT} == {}


def test_the_readme_of_benchmarks_names_every_script_and_every_result():
    text = (ROOT / "benchmarks/README.md").read_text()
    named = set(re.findall(r"`([\w.]+\.(?:py|json|md))", text))
    scripts = {path.name for path in (ROOT / "benchmarks/scripts").glob("*.py")}
    results = {path.name for path in (ROOT / "benchmarks/results").iterdir() if path.is_file()}
    assert named >= scripts | results
    assert named - scripts - results == set(re.findall(r"`([\w.]+)`, not stored here", text))


def test_paths_in_benchmarks_that_files_name_exist(tracked):
    sources = [
        n for n in tracked if n.endswith((".md", ".py")) and n.split("/")[0] in ("README.md", "docs", "genbench")
    ]
    found = {(n, p) for n in sources for p in re.findall(r"benchmarks/[\w/.-]*\w", (ROOT / n).read_text())}
    assert [f"{name} names {path}" for name, path in sorted(found) if not (ROOT / path).exists()] == []


def test_the_hook_has_the_size_limit_of_this_test_and_the_citation_the_version_of_the_package():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    (size,) = (hook for hook in hooks if hook["id"] == "check-added-large-files")
    kibibytes = int(size["args"][1].removeprefix("--maxkb="))
    assert kibibytes * 1024 <= LIMIT < (kibibytes + 1) * 1024 and size["exclude"] == SHIPPED_WEIGHTS.pattern
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == genbench.__version__
