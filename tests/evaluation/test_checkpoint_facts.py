"""Facts about a run in records. The config hash is equal for all seeds of an experiment and differs for other
settings."""

import copy

import pytest

from genbench.core.errors import UserError
from genbench.data import Digits
from genbench.evaluation.checkpoint_facts import config_hash, data_class, facts

CONFIG = {
    "seed_everything": 0, "name": "a", "runs": "runs", "ckpt": None, "max_images": 100, "protocol": "quick",
    "model": {"class_path": "genbench.models.DCGAN", "init_args": {"width": 4}},
    "data": {
        "class_path": "genbench.data.Digits",
        "init_args": {"size": 16, "batch_size": 16, "subset": None, "root": "a", "download": True, "workers": 1,
                      "memory": "auto", "eval_batch_size": 256},
    },
    "trainer": {"precision": "32-true", "devices": 1, "logger": True, "default_root_dir": "a"},
    "ema": {"halflife": 100}, "validation": {"every_images": 100}, "samples": {"n": 4}, "monitor": {"every_images": 10},
    "gan_monitor": {"every_images": 20}, "checkpoint": {"every_images": 50},
}  # fmt: skip
ELSEWHERE = [
    "seed_everything", "name", "runs", "ckpt", "protocol", "samples", "monitor", "gan_monitor", "data.init_args.root",
    "data.init_args.download", "data.init_args.workers", "data.init_args.memory", "trainer.logger",
    "trainer.default_root_dir", "data.init_args.eval_batch_size", "checkpoint.every_images",
]  # fmt: skip
DECISIVE = [
    "max_images", "model.class_path", "model.init_args.width", "data.class_path", "data.init_args.size",
    "data.init_args.batch_size", "data.init_args.subset", "trainer.precision", "trainer.devices", "ema.halflife",
    "validation.every_images",
]  # fmt: skip


def changed(path, remove=False):
    config = copy.deepcopy(CONFIG)
    *folders, last = path.split(".")
    place = config
    for name in folders:
        place = place[name]
    if remove:
        del place[last]
    else:
        place[last] = {"another": 1} if isinstance(place[last], dict) else "another"
    return config


@pytest.mark.parametrize("path", ELSEWHERE)
def test_settings_that_do_not_affect_training_do_not_change_the_hash(path):
    assert config_hash(changed(path)) == config_hash(CONFIG) == config_hash(changed(path, remove=True))


@pytest.mark.parametrize("path", DECISIVE)
def test_any_other_setting_changes_the_hash(path):
    assert config_hash(changed(path)) != config_hash(CONFIG)


def test_the_list_above_is_complete():
    def paths(value, above=()):
        if isinstance(value, dict) and ".".join(above) not in ELSEWHERE:
            return [p for name, inner in value.items() for p in paths(inner, (*above, name))]
        return [".".join(above)]

    assert set(paths(CONFIG)) == set(ELSEWHERE) | set(DECISIVE)


def test_hashing_does_not_change_the_config_and_accepts_any_config():
    config = copy.deepcopy(CONFIG)
    config_hash(config)
    assert config == CONFIG
    assert len({config_hash({}), config_hash({"data": None, "model": 1}), config_hash({"data": "MNIST"})}) == 3


def test_a_checkpoint_without_a_config_is_described_by_the_models_arguments(tmp_path):
    path = tmp_path / "best.ckpt"
    path.write_bytes(b"contents")
    checkpoint = {
        "genbench": {"seed": 3, "images_seen": 40, "updates": {"generator": 5}},
        "hyper_parameters": {"width": 4}, "ema": {},
    }  # fmt: skip
    run, training = facts(checkpoint, path, "ema")
    assert (run["seed"], run["images_seen"], run["updates"]) == (3, 40, {"generator": 5})
    assert (run["name"], run["checkpoint"], run["weights"], training) == ("best", "best", "ema", None)
    assert run["checkpoint_hash"] == "d1b2a59fbea7e20077af9f91b27e95e865061b270be03ff539ab3b73587882e8"[:16]
    assert facts(checkpoint, path, "raw")[0]["weights"] == "raw"
    wider = facts(checkpoint | {"hyper_parameters": {"width": 8}}, path, "ema")[0]
    assert wider["config_hash"] != run["config_hash"]


def test_a_data_set_is_found_by_name_among_those_loaded_and_nothing_is_imported():
    assert data_class("genbench.data.digits.Digits") is Digits
    with pytest.raises(UserError, match="mine.sets.Cats, which is not loaded.*--import mine.sets.*--data"):
        data_class("mine.sets.Cats")
