"""Checkpoints, settings, records and curves of older versions are read with the current names."""

import json
from pathlib import Path

import pytest
import torch
import yaml

import genbench
from genbench.callbacks import EMA, Monitor
from genbench.core import renamed, yaml_file
from genbench.core.arguments import key_of
from genbench.core.batch import DataSpec
from genbench.core.checkpoint_io import AtomicCheckpointIO
from genbench.evaluation.protocol import Protocol, load
from genbench.leaderboard.record import collect
from genbench.loggers import Curves
from genbench.models import DCGAN, VAE, VQVAE, CycleGAN
from tests.helpers.small import RandomImages, run, same_weights

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
IMAGES, DOMAINS = DataSpec((1, 16, 16)), DataSpec((3, 16, 16), "domain", source=(3, 16, 16))
# model, its arguments by name; of each kind of name (`renamed.Names`) what it was called
OLD = {
    "dcgan": (DCGAN, IMAGES, {"width": 4, "latent_dim": 4, "adversarial": {"r1": 1.0}}),
    "vqvae": (VQVAE, IMAGES, {"num_embeddings": 6, "embedding_dim": 3, "width": 8, "restart_dead_codes": 16}),
    "cyclegan": (CycleGAN, DOMAINS, {"width": 2, "blocks": 1, "discriminator_width": 4, "patch_layers": 1}),
    "vae": (VAE, IMAGES, {"width": 4, "latent_dim": 4, "optimizers": {"train": {"lr": 1e-3}}}),
}


def older(names, contents):
    """The contents of a checkpoint by the old names of its class."""
    back = {kind: {new: old for old, new in vars(names)[kind].items()} for kind in vars(names)}

    def keys(mapping, kind, cut=None):
        first = ((name, *name.partition(cut)) if cut else (name, name, "", "") for name in mapping)
        return {back[kind].get(head, head) + dot + rest: mapping[name] for name, head, dot, rest in first}

    state, found = contents["genbench"], {"hyper_parameters": keys(contents["hyper_parameters"], "arguments")}
    if "optimizers" in found["hyper_parameters"]:
        found["hyper_parameters"]["optimizers"] = keys(contents["hyper_parameters"]["optimizers"], "optimizers")
    found["state_dict"] = keys(contents["state_dict"], "networks", ".")
    found["ema"] = contents["ema"] | {"state_dict": keys(contents["ema"]["state_dict"], "networks", ".")}
    terms = {}
    for name, value in state["terms"].items():
        optimizer, term = name.split("/")
        terms[f"{back['optimizers'].get(optimizer, optimizer)}/{back['terms'].get(term, term)}"] = value
    by_optimizer = {key: keys(state[key], "optimizers") for key in ("updates", "optimizers", "scalers")}
    return contents | found | {"genbench": state | {"terms": terms} | by_optimizer}


@pytest.mark.parametrize("name", OLD)
def test_a_checkpoint_with_old_names_resumes_bit_for_bit(tmp_path, name, monkeypatch):
    cls, spec, arguments = OLD[name]
    if spec.source:
        images = torch.randint(0, 256, (64, *spec.source), dtype=torch.uint8)
        monkeypatch.setattr(RandomImages, "targets", {"source": images})
    old, new = tmp_path / "old.ckpt", tmp_path / "new.ckpt"
    run(cls(spec, **arguments), images=24, callbacks=[EMA()]).save_checkpoint(new)
    contents = torch.load(new, weights_only=True)
    before = older(renamed.CLASSES[cls.__name__], contents)
    assert before.keys() == contents.keys() and str(before) != str(contents)
    torch.save(before, old)
    assert same_weights(genbench.load(old), genbench.load(new))
    assert dict(genbench.load(old).hparams) == dict(genbench.load(new).hparams)
    modules = [cls(spec, **arguments) for _ in range(2)]
    for module, path in zip(modules, (old, new), strict=True):
        run(module, images=48, callbacks=[EMA()], ckpt=path, plugins=[AtomicCheckpointIO()])
    assert same_weights(*modules) and modules[0].updates == modules[1].updates
    assert modules[0].read_terms() == modules[1].read_terms()


def test_settings_of_an_older_run_get_current_names(tmp_path):
    path = tmp_path / "config.yaml"
    model = {"class_path": "genbench.models.DCGAN", "init_args": {"width": 4, "game": {"r1": 1}}}
    path.write_text(yaml.safe_dump({"model": model}))
    assert yaml_file.read(path)["model"]["init_args"] == {"width": 4, "adversarial": {"r1": 1}}
    # beside the class, by its short name
    path.write_text(yaml.safe_dump({"model": {"class_path": "DCGAN", "game": {"r1": 1}}}))
    assert yaml_file.read(path)["model"] == {"class_path": "DCGAN", "adversarial": {"r1": 1}}


def test_arguments_of_other_classes_keep_their_names():
    for cls in ("my.module.DCGAN", "genbench.models.VAE"):
        model = {"class_path": cls, "init_args": {"game": 1}}
        assert renamed.settings({"model": model}) == {"model": model}
    assert renamed.setting("model.game.r1", "my.module.DCGAN") == "model.game.r1"
    assert renamed.column("vae/kl", "my.module.VAE") == "vae/kl"


def test_curves_of_an_older_run_continue_in_the_same_columns(tmp_path):
    curves = Curves(tmp_path)
    curves.log_metrics({"vae/kl": 1.0, "val/elbo": 2.0}, step=8)
    module = VAE(IMAGES, width=4, latent_dim=4)
    module.images_seen = 8
    run(module, images=24, callbacks=[Monitor(every_images=8, show=False)], logger=[Curves(tmp_path)])
    rows = Curves(tmp_path).rows()
    assert [row["images_seen"] for row in rows] == ["8", "16", "24"] and all(row["train/kl"] for row in rows)
    assert "vae/kl" not in rows[0] and rows[0]["val/elbo"] == "2"


def test_a_current_name_is_never_replaced():
    model = {"class_path": "DCGAN", "init_args": {"game": {"r1": 1}, "adversarial": {"r1": 2}}}
    assert renamed.settings({"model": model}) == {"model": model}


def test_the_run_in_a_checkpoint_and_in_a_record_gets_current_names():
    config = {"model": {"class_path": "genbench.models.GAN", "init_args": {"game": None}}}
    segments = [{"from": 0, "to": 9, "changed": {"model.game.r1": [1, 2], "max_images": [1, 2]}}]
    run = {"config": config, "segments": segments, "grid": {"model.game.r1": 1}}
    record = {"model": {"class": "genbench.models.gan.GAN", "arguments": {"game": None}}, "run": run}
    renamed.record(record)
    assert record["model"]["arguments"] == {"adversarial": None}
    assert record["run"]["config"]["model"]["init_args"] == {"adversarial": None}
    assert record["run"]["grid"] == {"model.adversarial.r1": 1}
    assert record["run"]["segments"][0]["changed"] == {"model.adversarial.r1": [1, 2], "max_images": [1, 2]}


def test_no_config_of_the_package_has_an_old_name():
    for path in (Path(__file__).parents[2] / "configs").rglob("*.yaml"):
        text = yaml.safe_load(path.read_text())
        assert renamed.settings(text) == text, path


def test_arguments_of_data_and_textual_values_get_current_names():
    former = {
        "model": {"class_path": "DCGAN", "init_args": {"game": {"augment": ["colour", "cutout"]}}},
        "data": {"class_path": "genbench.data.MNIST", "init_args": {
            "jitter": 2, "flip": True, "fit": "pad", "task": "colourise", "labelled": 100, "size": 32,
        }},
        "name": "fit",
    }  # fmt: skip
    today = {
        "model": {"class_path": "DCGAN", "init_args": {"adversarial": {"augment": ["color", "cutout"]}}},
        "data": {"class_path": "genbench.data.MNIST", "init_args": {
            "random_crop": 2, "hflip": True, "resize_mode": "pad", "task": "colorize", "labeled": 100, "size": 32,
        }},
        "name": "fit",
    }  # fmt: skip
    assert renamed.settings(former) == renamed.settings(today) == today
    assert renamed.setting("data.flip", None) == "data.hflip"
    assert renamed.settings({"data": {"class_path": "Digits", "flip": True}})["data"]["hflip"] is True


@pytest.mark.parametrize(
    ("speed", "environment", "seconds"),
    [
        (400.0, {"world_size": 1}, 0.0025),
        (400, {"world_size": 2}, 0.005),  # of one device
        (400.0, {}, 0.0025),
        (400.0, {"world_size": "many"}, 0.0025),
        (None, {}, None),
        (0, {}, None),
        (-3.0, None, None),
        ("fast", {}, "fast"),  # refused as a damaged record
    ],
)
def test_images_per_second_of_an_older_record_become_seconds_per_image(speed, environment, seconds):
    record = {"cost": {"sampling_images_per_second": speed, "evaluation_seconds": 9.0}, "environment": environment}
    renamed.record(record)
    assert record["cost"] == {"sampling_seconds_per_image": seconds, "evaluation_seconds": 9.0}


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks are not there")
def test_records_of_older_versions_are_read_and_keep_their_keys():
    records, skipped = collect([BENCHMARKS])
    former = [json.loads(path.read_text()) for path in BENCHMARKS.rglob("records/*.json")]
    assert len(records) > 150 and not [why for _, why in skipped if "older record" not in why]
    assert any("neighbours_k" in found["protocol"] for found in former)
    assert {found["kind"] for found in former} == {"model", "floor"}
    assert {record.kind for record in records} == {"model", "baseline"}
    assert not any("neighbours_k" in record.protocol or "labelled" in record.data["arguments"] for record in records)
    for record in records:
        named = {name: value for name, value in record.protocol.items() if name not in ("name", "key")}
        assert key_of(renamed.former_protocol(named)) == record.protocol["key"]


def test_a_protocol_has_the_key_that_it_had_before_its_settings_were_renamed():
    assert load("fid10k-test").resolved()["key"] == "16bce7f76b228064"
    assert Protocol("mine", size=8, resize_mode="pad").resolved()["key"] == "aafe2b2f556162f1"


def test_states_of_callbacks_and_groups_of_settings_get_current_names():
    contents = {
        "genbench": {"model": "my.Model"}, "hyper_parameters": {},
        "callbacks": {"Balance": {"a": 1}, "Checkpoint": {"b": 2}},
        "run": {"config": {"quality": {"samples": 10}, "balance": {}, "pictures": {"n": 4}, "ema": {}}},
    }  # fmt: skip
    renamed.checkpoint(contents)
    assert contents["callbacks"] == {"GANMonitor": {"a": 1}, "Checkpoint": {"b": 2}}
    assert contents["run"]["config"] == {
        "validation": {"samples": 10}, "gan_monitor": {}, "samples": {"n": 4}, "ema": {},
    }  # fmt: skip
    assert renamed.setting("quality.samples", None) == "validation.samples"
