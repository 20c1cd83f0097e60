"""Checkpoints without the state of training, and those that are installed with genbench."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

import genbench
from genbench.cli import main
from genbench.core import checkpoint_io
from genbench.core.errors import UserError
from genbench.core.files import PRETRAINED, find_checkpoint
from genbench.leaderboard import record as records

NAMES = sorted(path.stem for path in PRETRAINED.glob("*.ckpt"))


def test_the_four_families_are_there_with_their_records_in_at_most_8_megabytes():
    assert NAMES == ["cgan-mnist", "dcgan-mnist", "vae-mnist", "vqprior-mnist"]
    assert sum(path.stat().st_size for path in PRETRAINED.iterdir()) <= 8e6


@pytest.mark.parametrize("name", NAMES)
def test_a_record_is_of_the_checkpoint_beside_it_and_has_the_command_that_trained_it(name):
    path = find_checkpoint(f"pretrained/{name}")
    record = records.read(path.with_suffix(".json"))
    about = checkpoint_io.read(path)
    assert record.run["images_seen"] == about["genbench"]["images_seen"]
    assert record.run["checkpoint_hash"] == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert re.match(r"python -m genbench fit --config \w+ ", about["run"]["command"])
    script = (Path(__file__).parents[2] / "benchmarks/scripts/pretrained.py").read_text()
    assert about["run"]["command"] in re.sub(r"\\\n +", "", script)
    assert about["run"]["config"]["data"]["init_args"]["root"] is None


@pytest.mark.parametrize("name", NAMES)
def test_it_samples_the_same_images_each_time(name):
    model = genbench.load(f"pretrained/{name}")
    condition = torch.arange(4) if model.conditional else None
    with torch.no_grad():
        images = model.sample(torch.arange(4), condition=condition)
        again = model.sample(torch.arange(4), condition=condition)
    assert images.shape == (4, 1, 32, 32) and torch.equal(images, again)
    assert 0.02 < (images > 0).float().mean() < 0.3  # white digits on black


def test_a_name_that_does_not_exist_is_refused_with_the_names_that_do():
    with pytest.raises(UserError, match=r"pretrained/dcgan-mnist.*Did you mean 'pretrained/vae-mnist'"):
        find_checkpoint("pretrained/vae-mnst")


def test_a_checkpoint_without_training_state_samples_like_the_whole_one_and_refuses_the_rest(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    fit = ["fit", "--config", "quickstart", "--max_images", "128", "--name", "run", "--validation.samples", "16"]
    assert main(fit) == 0
    whole = Path("runs/run/checkpoints/last.ckpt")
    torch.save(checkpoint_io.without_training_state(checkpoint_io.read(whole)), "small.ckpt")
    assert Path("small.ckpt").stat().st_size < whole.stat().st_size / 2
    a, b = (genbench.load(path).sample(torch.arange(3)) for path in (whole, "small.ckpt"))
    assert torch.equal(a, b)
    with pytest.raises(UserError, match="only EMA weights. Remove `--raw`"):
        genbench.load("small.ckpt", raw=True)
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert main(["fit", "--ckpt", "small.ckpt", "--max_images", "256"]) == 2
    assert "training cannot be resumed" in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before
