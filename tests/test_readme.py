"""README and docs: links point to files, named files and configs exist, and example classes and commands run."""

import json
import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import genbench.data
import genbench.models
from genbench.cli import configs, main
from genbench.core import importing
from genbench.metrics import scale
from genbench.suites.definition import load
from tests.helpers.registry import restored_registry

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
SMALL = ["--max_images", "128", "--validation.samples", "16", "--samples.n", "4", "--trainer.accelerator", "cpu"]

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each code block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def files(page: Path) -> dict[str, str]:
    """Code blocks that begin with a file name, such as `# my_model.py`: file name -> text."""
    named = ((re.match(r"# (\w+\.(?:py|yaml))\n", text), text) for _, text in blocks(page))
    return {name[1]: text for name, text in named if name}


def commands(page: Path) -> list[list[str]]:
    """Arguments of each `python -m genbench` command in the code blocks of the page."""
    lines = [line for language, text in blocks(page) if language == "bash" for line in text.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[3:] for line in words if line[:3] == ["python", "-m", "genbench"]]


@pytest.fixture
def own_names():
    """Remove the metrics and modules that the code of a page added."""
    before = set(sys.modules)
    with restored_registry():
        yield
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.fixture
def folder_of(tmp_path, monkeypatch):
    """Return a function that writes the files of a page to an empty folder and makes it the current folder."""

    def write(page):
        monkeypatch.chdir(tmp_path)
        for name, text in files(page).items():
            (tmp_path / name).write_text(text)

    return write


def test_the_readme_is_short():
    lines = README.read_text().splitlines()
    assert len(lines) < 200
    assert max(map(len, lines)) <= 120


@page
def test_relative_links_and_images_point_to_files(page):
    text = prose(page)
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        path = target.partition("#")[0]
        if path and "://" not in path:
            assert (page.parent / path).exists(), target


@page
def test_a_page_loads_nothing_from_the_network(page):
    assert not re.search(r"!\[[^\]]*\]\(\w+://|src=.\w+:|<(script|iframe|link)", prose(page))


def test_the_readme_names_every_model_and_config():
    text = README.read_text()
    for model in genbench.models.__all__:
        assert f"[{model}](" in text, model
    for config in (ROOT / "configs").glob("*.yaml"):
        assert f"`{config.stem}`" in text, config


def test_the_docs_name_every_model_config_and_data_set():
    models, data = ((ROOT / "docs" / name).read_text() for name in ("models.md", "datasets.md"))
    for config in [*(ROOT / "configs").glob("*.yaml"), *(ROOT / "configs/papers").glob("*.yaml")]:
        assert f"`{config.relative_to(ROOT / 'configs').with_suffix('')}`" in models, config
    for model in genbench.models.__all__:
        assert f"`{model}`" in models, model
    for name in set(genbench.data.__all__) - {"DataModule", "ImageData", "Split"}:
        assert f"`{name}`" in data, name


def test_the_architecture_page_names_files_that_exist():
    named = re.findall(
        r"`((?:genbench/|configs|tests|benchmarks)[\w/.]*)`", (ROOT / "docs/architecture.md").read_text()
    )
    assert len(named) > 15
    for path in named:
        assert (ROOT / path).exists(), path
    folders = {path.name for path in (ROOT / "genbench").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert {f"genbench/{name}" for name in folders} <= set(named)


@page
def test_configs_in_example_commands_exist(page):
    own = files(page)
    for words in commands(page):
        for flag, value in pairwise(words):
            if flag == "--config":
                assert value in own or (ROOT / "configs" / f"{value}.yaml").is_file(), value


@pytest.mark.parametrize("name", ["README.md", "docs/tutorials/own_model.md", "docs/tutorials/own_data.md"])
def test_example_classes_train_and_sample_as_written(name, folder_of):
    page = ROOT / name
    folder_of(page)
    own = [words for words in commands(page) if "--import" in words and words[0] in ("fit", "sample")]
    assert {words[0] for words in own} == {"fit", "sample"}
    for words in own:
        assert main([*words, *(SMALL if words[0] == "fit" else [])]) == 0, words
    for words in own:
        if words[0] == "sample":
            assert Path(words[words.index("--out") + 1]).is_file()


def test_the_readmes_model_passes_the_contract_tests(folder_of, capfd):
    folder_of(README)
    (words,) = (words for words in commands(README) if words[:1] == ["check"])
    assert main(words) == 0, capfd.readouterr().out


@pytest.mark.parametrize("name", ["README.md", "docs/tutorials/own_metric.md"])
def test_example_metrics_extractors_and_protocols_evaluate_as_written(name, folder_of, own_names):
    folder_of(ROOT / name)
    config = "vae" if name == "README.md" else "quickstart"
    evaluations = [words for words in commands(ROOT / name) if "evaluate" in words[:1] and "last" not in words]
    assert len(evaluations) == {"README.md": 1, "docs/tutorials/own_metric.md": 3}[name]
    run = evaluations[0][evaluations[0].index("--ckpt") + 1]
    digits = ["--data", "Digits", "--max_images", "64", *SMALL[2:], "--validation.samples", "2"]
    assert main(["fit", "--config", config, "--name", Path(run).name, *digits]) == 0
    for words in evaluations:
        assert main([*words, "--generated", "100", "--device", "cpu"]) == 0, words
    found = {score for path in Path(run, "records").glob("*.json") for score in json.loads(path.read_text())["metrics"]}
    assert {"README.md": {"gradient_l1"}, "docs/tutorials/own_metric.md": {"spectrum_l1", "fid-Coarse"}}[name] <= found


def test_the_example_torchmetrics_metric_registers_as_written(folder_of, own_names):
    folder_of(ROOT / "docs/tutorials/own_metric.md")
    importing.import_module("my_quality", "--import")
    assert scale("uqi").better == "higher" and scale("uqi").track == "reconstruction"


def test_example_classes_are_short():
    lines = {name: len(text.splitlines()) for name, text in files(README).items()}
    assert lines["my_gan.py"] <= 45 and lines["my_data.py"] <= 30 and lines["my_metrics.py"] <= 20
    assert len(files(ROOT / "docs/tutorials/own_metric.md")["my_extractor.py"].splitlines()) <= 20


def test_the_suite_in_the_sweep_tutorial_has_twelve_runs(folder_of):
    folder_of(ROOT / "docs/tutorials/sweep.md")
    assert len(list(load(Path("rates.yaml"), configs.find).runs())) == 12
