"""Contract tests of the models of all configs. New configs are found automatically."""

import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import genbench.testing
from genbench.cli import configs
from genbench.testing.contracts import CONTRACT_TESTS
from genbench.testing.processes import two_processes
from genbench.testing.recipe import Recipe
from tests.helpers import shared_state

EXPERIMENTS = sorted(configs.folder().glob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
@pytest.mark.parametrize("contract_test", CONTRACT_TESTS)
def test_every_model_passes_its_contract_tests(contract_test, path, tmp_path):
    contract_test(Recipe(path), tmp_path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """All configs on one pair of processes, and models with shared state: a start costs more than the runs."""
    folder, paths = tmp_path_factory.mktemp("pair"), list(EXPERIMENTS)
    for name in ("Reduced", "Drifting", "Exempted", "Astray"):
        paths.append(folder / f"{name}.yaml")
        digits = {"class_path": "genbench.data.Digits", "init_args": {"size": 16}}
        paths[-1].write_text(json.dumps({"model": {"class_path": f"{shared_state.__name__}.{name}"}, "data": digits}))
    return two_processes([Recipe(path, [shared_state.__name__]) for path in paths], folder)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_two_processes_have_equal_weights_and_different_noise(pair, path):
    assert pair[path.stem] is None


def test_state_that_a_batch_shares_is_reduced_over_processes_or_exempted_by_name(pair):
    assert pair["Reduced"] is None and pair["Exempted"] is None
    assert "the buffers brightness differ between two processes" in pair["Drifting"]
    assert "`ranks.mean`" in pair["Drifting"] and "`per_process`" in pair["Drifting"]
    assert "the weights encoder.0.bias differ between two processes" in pair["Astray"]


def test_check_runs_them_on_a_users_config_and_prints_what_failed(tmp_path, capsys, monkeypatch):
    from genbench.cli import main

    monkeypatch.chdir(tmp_path)
    Path("theirs.py").write_text(
        "import torch\n"
        "from genbench.models import VAE\n\n\n"
        "class Theirs(VAE):\n"
        "    ema = ('encoder', 'decoder')\n\n"
        "    def sample_latents(self, seeds):\n"
        "        return torch.randn(len(seeds), self.latent_dim)\n"  # not from the seeds
    )
    config = {
        "model": {"class_path": "theirs.Theirs", "init_args": {"width": 4, "latent_dim": 4}},
        "data": {"class_path": "genbench.data.Digits", "init_args": {"size": 16}},
    }
    Path("theirs.yaml").write_text(json.dumps(config))
    assert main(["check", "--import", "theirs", "--config", "theirs.yaml"]) == 1
    out = capsys.readouterr().out
    assert "failed  a sample depends on its seed alone" in out and "levels between batch sizes" in out
    assert "failed  decoded latents are the samples" in out
    assert "passed  interrupted equals uninterrupted" in out and "passed  two processes agree" in out
    assert "\n7 of 10 contract tests passed by theirs\n" in out


def test_the_documented_example_runs_them_in_pytest(tmp_path):
    example = dedent("".join(re.findall(r"^(?:    .*)?\n", genbench.testing.__doc__, re.MULTILINE)))
    (tmp_path / "test_my_model.py").write_text(example)
    (tmp_path / "my_model.py").write_text(
        "from genbench.models import VAE\n\n\nclass MyModel(VAE):\n    ema = ('encoder', 'no_such_part')\n"
    )
    config = {
        "model": {"class_path": "my_model.MyModel", "init_args": {"width": 4, "latent_dim": 4}},
        "data": {"class_path": "genbench.data.Digits", "init_args": {"size": 16}},
    }
    (tmp_path / "my_model.yaml").write_text(json.dumps(config))
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-k", "players or shape"],
        cwd=tmp_path, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "PASSED test_my_model.py::test_my_model[samples_have_the_shape_and_range_of_the_data]" in said
    assert "FAILED test_my_model.py::test_my_model[players_own_every_parameter_once]" in said
    assert "genbench.testing.contracts.ContractViolation: `ema` names 'no_such_part'" in said
