"""Checkpoints, configs of runs and records of older versions are read by their present names."""

import json
from pathlib import Path

import pytest
import torch

import genbench
from genbench.core import checkpoint, renamed
from genbench.core.arguments import key_of
from genbench.data import Digits
from genbench.evaluation.protocol import Protocol, load
from genbench.leaderboard.record import collect
from genbench.models import VAE

BOARDS = Path(__file__).parents[2] / "benchmarks"


def test_former_names_become_the_present_ones_and_other_names_stay():
    former = {
        "model": {"class_path": "genbench.models.DCGAN", "init_args": {"game": {"augment": ["colour", "cutout"]}}},
        "data": {"class_path": "genbench.data.MNIST", "init_args": {
            "jitter": 2, "flip": True, "fit": "pad", "task": "colourise", "labelled": 100, "size": 32,
        }},
        "name": "fit",
    }  # fmt: skip
    found = renamed.config(former)
    assert found["data"]["init_args"] == {
        "random_crop": 2, "hflip": True, "resize_mode": "pad", "task": "colorize", "labeled": 100, "size": 32,
    }  # fmt: skip
    assert found["name"] == "fit" and ["color", "cutout"] in found["model"]["init_args"].popitem()[1].values()
    assert renamed.config(found) == found
    assert renamed.setting("data.flip") == "data.hflip" and renamed.setting("max_images") == "max_images"


def test_a_checkpoint_of_former_names_is_loaded(tmp_path):
    data = Digits(size=16)
    model = VAE(data.spec, latent_dim=2, width=2)
    torch.save(
        {
            "state_dict": model.state_dict(),
            "hyper_parameters": dict(model.hparams),
            "genbench": {"model": "genbench.models.vae.VAE", "images_seen": 7, "updates": {"vae": 1}, "seed": 0,
                         "optimizers": {}, "scalers": {}, "terms": {}},
            "optimizer_states": [],
            "data": {"class": "genbench.data.Digits", "arguments": {"jitter": 2, "labelled": None}},
            "run": {
                "config": {"data": {"class_path": "genbench.data.Digits", "init_args": {"flip": False}},
                           "ema": {"enabled": False}},
                "segments": [{"from": 0, "to": 7, "changed": {"data.jitter": [0, 2]}}],
            },
        },
        tmp_path / "old.ckpt",
    )  # fmt: skip
    found = checkpoint.read(tmp_path / "old.ckpt")
    assert found["data"]["arguments"] == {"random_crop": 2, "labeled": None}
    assert found["run"]["config"]["data"]["init_args"] == {"hflip": False}
    assert found["run"]["segments"][0]["changed"] == {"data.random_crop": [0, 2]}
    assert genbench.load(tmp_path / "old.ckpt").images_seen == 7


@pytest.mark.skipif(not BOARDS.is_dir(), reason="benchmarks are not there")
def test_records_of_former_names_are_read_and_their_keys_hold():
    records, skipped = collect([BOARDS])
    former = [json.loads(path.read_text()) for path in BOARDS.rglob("records/*.json")]
    assert len(records) > 150 and not [why for _, why in skipped if "older record" not in why]
    assert any("neighbours_k" in found["protocol"] for found in former)
    assert not any("neighbours_k" in record.protocol or "labelled" in record.data["arguments"] for record in records)
    by_key = {record.protocol["key"]: record.protocol for record in records}
    for key, protocol in by_key.items():
        named = {name: value for name, value in protocol.items() if name not in ("name", "key")}
        assert key_of(renamed.former_protocol(named)) == key


def test_a_protocol_has_the_key_that_it_had_before_its_settings_were_renamed():
    assert load("fid10k-test").resolved()["key"] == KEY_OF_FID10K_TEST
    assert Protocol("mine", size=8, resize_mode="pad").resolved()["key"] == KEY_OF_MINE


# computed by the version before the names changed
KEY_OF_FID10K_TEST = "16bce7f76b228064"
KEY_OF_MINE = "aafe2b2f556162f1"
