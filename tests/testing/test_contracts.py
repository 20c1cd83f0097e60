"""What every model must do, over all configs. A new config is found here by itself."""

import json
from pathlib import Path

import pytest

from genbench.cli import configs
from genbench.cli.check import PROMISES, Recipe, two_processes
from tests.helpers import shared_state

EXPERIMENTS = sorted(configs.folder().glob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.__name__)
def test_every_model_keeps_its_promises(promise, path, tmp_path):
    promise(Recipe(path), tmp_path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """All configs on one pair of processes, and models with shared state: a start costs more than the runs."""
    folder, paths = tmp_path_factory.mktemp("pair"), list(EXPERIMENTS)
    for name in ("Reduced", "Drifting", "Exempted", "Astray"):
        paths.append(folder / f"{name}.yaml")
        digits = {"class_path": "genbench.data.Digits", "init_args": {"size": 16}}
        paths[-1].write_text(json.dumps({"model": {"class_path": f"{shared_state.__name__}.{name}"}, "data": digits}))
    return two_processes([Recipe(path) for path in paths], folder, [shared_state.__name__])


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_two_processes_have_equal_weights_and_different_noise(pair, path):
    assert pair[path.stem] is None


def test_state_that_a_batch_shares_is_reduced_over_processes_or_exempted_by_name(pair):
    assert pair["Reduced"] is None and pair["Exempted"] is None
    assert "the buffers brightness differ between two processes" in pair["Drifting"]
    assert "`ranks.mean`" in pair["Drifting"] and "`per_process`" in pair["Drifting"]
    assert "the weights encoder.0.bias differ between two processes" in pair["Astray"]


def test_check_runs_them_on_a_config_of_ones_own_and_names_what_is_broken(tmp_path, capsys, monkeypatch):
    from genbench.cli import main

    monkeypatch.chdir(tmp_path)
    Path("theirs.py").write_text(
        "import torch\n"
        "from genbench.models import VAE\n\n\n"
        "class Theirs(VAE):\n"
        "    averaged = ('encoder', 'decoder')\n\n"
        "    def sample(self, seeds, *, condition=None):\n"
        "        return self.decode(torch.randn(len(seeds), self.latent_dim))\n"  # not from the seeds
    )
    config = {
        "model": {"class_path": "theirs.Theirs", "init_args": {"width": 4, "latent_dim": 4}},
        "data": {"class_path": "genbench.data.Digits", "init_args": {"size": 16}},
    }
    Path("theirs.yaml").write_text(json.dumps(config))
    assert main(["check", "--import", "theirs", "--config", "theirs.yaml"]) == 1
    out = capsys.readouterr().out
    assert "broken  a sample depends on its seed alone" in out and "levels apart" in out
    assert "kept    interrupted equals uninterrupted" in out and "kept    two processes agree" in out
