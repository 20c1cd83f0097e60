"""Shipped configs say what makes them differ, and parts of configs are found, merged and refused by name."""

import re
from pathlib import Path

import pytest
import yaml

from genbench.cli import configs, sentence
from genbench.cli.fit import with_configs
from genbench.cli.parser import Parser
from genbench.core import yaml_file

WHOLE = configs.listing()
PARTS = configs.listing(parts=True)
FILES = sorted(configs.folder().rglob("*.yaml"))
ROOT = Path(__file__).parents[2]
PLAIN = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
NUMBER = re.compile(r"[-+]?\.?[0-9][0-9_,.]*([eE][-+]?[0-9]+)?[kKmMgG]?")


def resolved(*words):
    """The config with everything that was set, as a run of `fit` has it."""
    command = with_configs("fit", list(words))
    if not hasattr(resolved, "parser"):
        resolved.parser = Parser.run("fit", command)
    return resolved.parser.dump(resolved.parser.parse(command))


def together(*names):
    return resolved(*(f"--config={name}" for name in names))


def refused(*words):
    with pytest.raises(Exception) as error:
        resolved(*words)
    return sentence(error.value)


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---- whole configs ----------------------------------------------------------------------------------------------


def test_a_config_without_a_budget_and_intervals_has_the_usual_ones():
    found = together("dcgan")
    assert (found["max_images"], found["seed_everything"], found["protocol"]) == (1_000_000, 0, "fid10k-test")
    assert found["ema"]["halflife"] == 10_000 and found["data"]["init_args"]["batch_size"] == 64
    assert {found[group]["every_images"] for group in ("checkpoint", "samples", "validation")} == {50_000}


@pytest.mark.parametrize("name", WHOLE)
def test_a_config_restates_no_default_outside_of_its_model(name):
    text = yaml_file.read(configs.named(name))
    required = {key: value for key, value in text["data"].get("init_args", {}).items() if key == "path"}
    bare = {"model": text["model"], "data": {"class_path": text["data"]["class_path"], "init_args": required}}
    Path("bare.yaml").write_text(yaml.safe_dump(bare))
    default = dict(leaves(together("bare.yaml")))
    kept = ("model", "data") if name.startswith("papers/") else ("model",)  # with every setting of the paper
    given = {path: value for path, value in leaves(text) if path[0] not in kept and path[-1] != "class_path"}
    asked = {("data", "init_args", key) for key in required}
    assert not {path for path, value in given.items() if default.get(path) == value} - asked


@pytest.mark.parametrize("name", [*WHOLE, *PARTS])
def test_a_config_begins_with_what_it_is_and_the_command_that_uses_it(name):
    first, *others = configs.named(name).read_text().splitlines()
    header = [line for line in others if line.startswith("#")]
    command = f"# python -m genbench fit {'' if name in WHOLE else '--config dcgan '}--config {name}"
    assert first.startswith("# ") and header[-1].startswith(command)
    if name in WHOLE:
        assert re.search(r"\b(19|20)\d\d\b", " ".join(header)), "the year of a paper"


# ---- numbers ----------------------------------------------------------------------------------------------------


def numbers(text):
    """Every value without quotes that a person would take for a number."""
    scalars = [event for event in yaml.parse(text) if isinstance(event, yaml.ScalarEvent) and event.style is None]
    return [event.value for event in scalars if NUMBER.fullmatch(event.value)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(configs.folder())))
def test_a_number_in_a_shipped_file_is_written_in_plain_digits(path):
    assert [number for number in numbers(path.read_text()) if not PLAIN.fullmatch(number)] == []


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.stem
)
def test_a_number_in_a_yaml_example_of_the_docs_is_written_in_plain_digits(page):
    examples = re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    assert [n for text in examples for n in numbers(text) if not PLAIN.fullmatch(n)] == []


@pytest.mark.parametrize("text", ["1000000", "0", "-1", "0.0005", "10.0"])
def test_a_number_in_plain_digits_is_one_to_every_reader(text):
    assert PLAIN.fullmatch(text)
    assert yaml_file.parse(text, "text") == yaml.safe_load(text) == float(text)


# ---- parts ------------------------------------------------------------------------------------------------------


def test_parts_are_merged_from_left_to_right():
    found = together("dcgan", "data/cifar10", "trainer/bf16")
    alone = together("dcgan")
    assert found["model"] == alone["model"] and found["trainer"] == alone["trainer"] | {"precision": "bf16-mixed"}
    assert found["data"]["class_path"] == "genbench.data.CIFAR10"
    assert together("dcgan", "trainer/bf16", "trainer/fp16")["trainer"]["precision"] == "16-mixed"
    assert together("dcgan", "trainer/fp16", "trainer/bf16")["trainer"]["precision"] == "bf16-mixed"
    assert together("data/cifar10", "dcgan")["data"]["class_path"] == "genbench.data.MNIST"


def test_a_part_with_another_data_set_drops_the_arguments_of_the_former_one():
    found = together("semi_supervised_gan", "data/digits")["data"]
    assert found["init_args"] == together("dcgan", "data/digits")["data"]["init_args"]
    assert together("semi_supervised_gan", "data/mnist")["data"] == together("semi_supervised_gan")["data"]


@pytest.mark.parametrize("name", PARTS)
def test_a_part_changes_only_the_settings_that_it_contains(name, recwarn):
    Path("photos").mkdir()
    path = ["--data.path=photos"] if name == "data/folder" else []
    with_it, without = (dict(leaves(resolved(*words))) for words in (
        ["--config=dcgan", f"--config={name}", *path], ["--config=dcgan"],
    ))  # fmt: skip
    groups = {path[0] for path in with_it.keys() | without.keys() if with_it.get(path) != without.get(path)}
    assert groups <= yaml_file.read(configs.named(name)).keys()


def test_a_part_of_the_current_folder_is_found_before_a_shipped_one():
    assert configs.find("data/mnist") == configs.folder() / "data/mnist.yaml"
    Path("configs/data").mkdir(parents=True)
    Path("configs/data/mnist.yaml").write_text("data: {class_path: genbench.data.MNIST, init_args: {size: 64}}")
    Path("configs/data/mine.yaml").write_text("data: {class_path: genbench.data.Digits}")
    assert together("dcgan", "data/mnist")["data"]["init_args"]["size"] == 64
    assert together("dcgan", "data/mine")["data"]["class_path"] == "genbench.data.Digits"
    assert together("dcgan", configs.folder() / "data/mnist.yaml")["data"]["init_args"]["size"] is None


def test_a_part_alone_is_refused_with_what_is_missing():
    said = refused("--config=data/cifar10")
    assert re.fullmatch(
        r"No model is set in .*configs/data/cifar10\.yaml\. Pass a complete config first, such as `--config dcgan`, or "
        r"`--model DCGAN`\.", said
    )  # fmt: skip
    two = refused("--config=trainer/bf16", "--config=trainer/cpu")
    assert re.match(r"No model is set in .*bf16\.yaml, .*cpu\.yaml\. ", two)
    assert re.search(r"No data is set in .*\. Pass `--data MNIST`", refused("--config=trainer/bf16", "--model=DCGAN"))
    assert resolved("--config=data/digits", "--model=DCGAN")["model"]["class_path"] == "genbench.models.DCGAN"


def test_an_unknown_part_lists_those_of_its_folder_and_the_nearest():
    assert refused("--config=dcgan", "--config=trainer/bf61") == (
        "Unknown config 'trainer/bf61'. Choose from: trainer/bf16, trainer/compile, trainer/cpu, trainer/ddp, "
        "trainer/fp16, or pass the path of a file. Did you mean 'trainer/bf16'?"
    )
    assert refused("--config=cifar10").endswith("Did you mean 'data/cifar10'?")
    assert "data/mnist" not in refused("--config=dcgna")


def test_a_part_whose_data_does_not_fit_the_model_is_refused(cli):
    status, _, err = cli("fit", "--config", "segmentation_unet", "--config", "data/digits", "--name", "run")
    assert status == 2 and "SegmentationUNet needs masks, but this data has none." in err
    assert not Path("runs/run").exists()


def test_a_model_trains_on_the_data_and_the_device_of_two_parts(cli, config):
    shapes = {"class_path": "genbench.data.Shapes", "init_args": {"size": 16, "batch_size": 8}}
    words = ("--config", "data/digits", "--config", "trainer/cpu", "--max_images", 64, "--data.subset", 80)
    status, _, err = cli("fit", "--config", config("vae", data=shapes), *words, "--name", "run")
    assert status == 0, err
    kept = yaml.safe_load(Path("runs/run/config.yaml").read_text())
    assert kept["data"]["class_path"] == "genbench.data.Digits" and kept["data"]["init_args"]["batch_size"] == 64
    assert kept["trainer"]["accelerator"] == "cpu"
