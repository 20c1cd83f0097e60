"""Flags win over configs wherever they stand, and every spelling of a setting means the same."""

import random
import shlex
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from genbench.cli import compose, sentence, settable
from genbench.cli.fit import with_configs
from genbench.cli.parser import Parser
from genbench.core.class_paths import same_class
from genbench.core.errors import UserError
from genbench.models import VAE


class Scaled:
    def __init__(self, factor: float = 1.0, options: dict[str, Any] | None = None) -> None:
        self.factor, self.options = factor, options


class Inverted(Scaled):
    pass


class Mine(VAE):
    """As a user would write one: with mappings and a class among its arguments."""

    def __init__(
        self,
        spec=None,
        extra: dict[str, Any] | None = None,
        names: dict[str, str] | None = None,
        scaling: Scaled | None = None,
        **more: Any,
    ) -> None:
        super().__init__(spec)


MINE = f"--model {__name__}.Mine --data Digits"
ADAM = {"class_path": "torch.optim.Adam", "lr": 2e-4, "betas": [0.5, 0.999], "weight_decay": 0.1}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with `base.yaml`, a DCGAN on digits."""
    monkeypatch.chdir(tmp_path)
    write("base", {
        "max_images": 1000,
        "model": {"class_path": "genbench.models.DCGAN", "init_args": {
            "width": 4, "optimizer": ADAM, "adversarial": {"objective": "non_saturating", "r1": 1.0}}},
        "data": {"class_path": "genbench.data.Digits", "init_args": {"batch_size": 16, "size": 16}},
    })  # fmt: skip


def write(name, text):
    Path(f"{name}.yaml").write_text(text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False))


def merged(line, verb="fit"):
    return compose.settings(with_configs(verb, shlex.split(line) if isinstance(line, str) else line))


def joined(words):
    return [word for some in words for word in some]


def resolved(line):
    """The config with everything that was set, as a run of `fit` has it."""
    command = with_configs("fit", shlex.split(line) if isinstance(line, str) else line)
    if not hasattr(resolved, "parser"):
        resolved.parser = Parser.run("fit", command)
    return resolved.parser.parse(command)["fit"].as_dict()


def model(line):
    return resolved(line)["model"]["init_args"]


def refused(line):
    with pytest.raises(Exception) as error:
        resolved(line)
    said = sentence(error.value)
    assert said is not None, error.value
    assert "\n" not in said
    return said


# ---- position ---------------------------------------------------------------------------------------------------


def test_a_flag_before_a_config_wins_like_one_behind_it():
    found = resolved("--max_images 600 --seed_everything 5 --model.width 8 --config base.yaml")
    assert (found["max_images"], found["seed_everything"], found["model"]["init_args"]["width"]) == (600, 5, 8)
    assert found["model"]["init_args"]["optimizer"] == ADAM


def test_the_order_of_flags_and_configs_changes_nothing_but_configs_among_one_another():
    write("more", {"model": {"init_args": {"optimizer": {"lr": 0.01}, "norm": "layer"}}, "max_images": "2k"})
    words = [
        ["--config", "base.yaml"], ["--config=more.yaml"], ["--model.optimizer.lr", "1e-5"],
        ["--model.optimizer.betas.1=0.9"], ["--model.adversarial", "{objective: hinge}"],
        ["--model.adversarial.smoothing", "0.9"],
        ["--data", "Shapes"], ["--data.size", "32"], ["--trainer.devices", "2"], ["--title", "{a} 5"],
        ["--model.optimizers.generator.lr", "3e-4"], ["--trainer.logger.project", "mine"],
        ["--trainer.logger", "genbench.loggers.Wandb"], ["--trainer.precision=bf16-mixed"],
        ["--validation.samples", "64"],
    ]  # fmt: skip
    expected = merged(joined(words)).config
    assert expected["model"]["init_args"]["optimizer"] == ADAM | {"lr": 1e-5, "betas": [0.5, 0.9]}
    assert expected["model"]["init_args"]["adversarial"] == {"objective": "hinge", "r1": 1.0, "smoothing": 0.9}
    assert expected["data"] == {"class_path": "Shapes", "init_args": {"size": "32"}}
    assert expected["max_images"] == "2k" and expected["model"]["init_args"]["norm"] == "layer"
    draw = random.Random(0)
    for _ in range(100):
        order = draw.sample(words, len(words))
        first = [order.index(word) for word in words[:2]]
        if first[0] > first[1]:
            order[first[0]], order[first[1]] = order[first[1]], order[first[0]]
        assert merged(joined(order)).config == expected, order


def test_the_last_of_two_equal_flags_wins():
    assert model("--model.width 8 --config base.yaml --model.width 16")["width"] == 16
    assert model("--config base.yaml --model.adversarial.r1 2 --model.adversarial '{r1: 3}'")["adversarial"]["r1"] == 3
    assert model("--config base.yaml --model.adversarial '{r1: 3}' --model.adversarial.r1 2")["adversarial"]["r1"] == 2


# ---- merging ----------------------------------------------------------------------------------------------------


def test_a_second_config_changes_what_it_names_and_nothing_else():
    write("lr", {"model": {"init_args": {"optimizer": {"lr": 0.01}}}})
    assert model("--config base.yaml --config lr.yaml")["optimizer"] == ADAM | {"lr": 0.01}
    write("lr", "model:\n  optimizer: {lr: 1e-2}\n")  # without init_args, and a number that YAML 1.1 reads as text
    assert model("--config base.yaml --config lr.yaml")["optimizer"] == ADAM | {"lr": 0.01}
    write("lr", "model.optimizer.lr: 1e-2\n")
    assert model("--config base.yaml --config lr.yaml")["optimizer"] == ADAM | {"lr": 0.01}


@pytest.mark.parametrize("spelling", [
    "--model.optimizer '{class_path: torch.optim.SGD, lr: 0.5}'", "--model.optimizer SGD --model.optimizer.lr 0.5",
    "--model.optimizer.lr 0.5 --model.optimizer.class_path torch.optim.SGD", "--model.optimizer sgd.yaml",
    "--model.optimizer '{class_path: torch.optim.SGD, init_args: {lr: 0.5}}'", "--config sgd_model.yaml",
])  # fmt: skip
def test_another_class_drops_the_arguments_of_the_old_one_and_says_so(spelling):
    write("sgd", {"class_path": "torch.optim.SGD", "lr": 0.5})
    write("sgd_model", {"model": {"init_args": {"optimizer": {"class_path": "torch.optim.SGD", "lr": 0.5}}}})
    found = merged(f"--config base.yaml {spelling}")
    optimizer = found.config["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"].endswith("SGD") and optimizer["lr"] == 0.5 and len(optimizer) == 2
    (said,) = found.dropped
    assert said.startswith(
        "model.optimizer: SGD replaces the config's Adam, whose settings are dropped: lr=0.0002, betas="
    )


@pytest.mark.parametrize("name", ["Adam", "torch.optim.Adam", "torch.optim.adam.Adam"])
def test_the_same_class_by_another_name_keeps_its_arguments(name):
    found = model(f"--config base.yaml --model.optimizer.class_path {name}")["optimizer"]
    assert found | {"class_path": "torch.optim.Adam"} == ADAM
    data = resolved("--config base.yaml --data genbench.data.digits.Digits")["data"]
    assert (data["init_args"]["batch_size"], data["init_args"]["size"]) == (16, 16)
    assert resolved("--config base.yaml --data Digits")["data"]["init_args"]["size"] == 16


@pytest.mark.parametrize("spelling", [
    "--data Shapes --data.size 32", "--data.size 32 --data Shapes", "--data.class_path=Shapes --data.init_args.size=32",
    "--data '{class_path: Shapes, init_args: {size: 32}}'", "--data '{class_path: genbench.data.Shapes, size: 32}'",
    "--data shapes.yaml", "--config with_shapes.yaml",
])  # fmt: skip
def test_another_data_set_in_any_spelling(spelling):
    write("shapes", {"class_path": "Shapes", "init_args": {"size": 32}})
    write("with_shapes", {"data": "shapes.yaml"})
    data = resolved(f"--config base.yaml {spelling}")["data"]
    assert data["class_path"] == "genbench.data.Shapes" and data["init_args"]["size"] == 32
    assert data["init_args"]["batch_size"] == 64  # its default, not the other's


@pytest.mark.parametrize(("flags", "lr"), [
    ("--model.optimizer '{class_path: SGD, lr: 0.1}' --model.optimizer Adam", None),
    ("--model.optimizer Adam --model.optimizer '{class_path: SGD, lr: 0.1}'", 0.1),
    ("--model.optimizer '{class_path: SGD, lr: 0.1}' --model.optimizer.lr 0.2", 0.2),
    ("--model.optimizer.lr 0.2 --model.optimizer SGD", 0.2),
])  # fmt: skip
def test_arguments_in_braces_beside_a_class_belong_to_it(flags, lr):
    write("vae", {"model": {"class_path": "VAE"}, "data": "Digits"})
    assert model(f"--config vae.yaml {flags}")["optimizer"].get("lr") == lr
    data = resolved("--config vae.yaml --data '{class_path: MNIST, init_args: {size: 64}}' --data CIFAR10")["data"]
    assert data["class_path"] == "genbench.data.CIFAR10" and data["init_args"]["size"] is None


def test_an_optimizer_without_a_class_is_adam():
    write("lr", {"model": {"class_path": "VAE", "init_args": {"optimizer": {"lr": 0.01}}}, "data": "Digits"})
    assert merged("--config lr.yaml --model.optimizer.class_path torch.optim.Adam").config["model"]["init_args"][
        "optimizer"
    ] == {"class_path": "torch.optim.Adam", "lr": 0.01}
    found = merged("--config lr.yaml --model.optimizer.class_path torch.optim.SGD")
    assert found.config["model"]["init_args"]["optimizer"] == {"class_path": "torch.optim.SGD"}


# ---- spellings --------------------------------------------------------------------------------------------------


def test_dotted_and_brace_spellings_of_nested_mappings_agree():
    draw = random.Random(0)

    def nested(depth):
        values = [draw.choice([1, 0.5, 1e-3, "word", True, None, [1, 2], "a b"]) for _ in range(3)]
        return {
            f"k{k}": nested(depth - 1) if depth and draw.random() < 0.4 else value for k, value in enumerate(values)
        }

    def dotted(path, value):
        if isinstance(value, dict):
            return [word for key, inner in value.items() for word in dotted(f"{path}.{key}", inner)]
        return [path, yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]]

    for _ in range(40):
        config, change = nested(3), nested(3)
        text = {"class_path": f"{__name__}.Mine", "init_args": {"extra": config}}
        write("mine", {"model": text, "data": "Digits"})
        base = ["--config", "mine.yaml"]
        braces = merged([*base, "--model.extra", yaml.safe_dump(change, default_flow_style=True, width=10**6)])
        dots = merged([*dotted("--model.extra", change), *base])
        write("change", {"model": {"init_args": {"extra": change}}})
        file = merged([*base, "--config", "change.yaml"])
        assert braces.config == dots.config == file.config


def test_the_type_of_a_users_mapping_decides_what_text_is():
    found = model(
        f"{MINE} --model.extra.a 5 --model.extra.b.c 1e-3 --model.names.a 5 --model.extra.d 1:30 --model.extra.e 'x: y'"
    )
    assert found["extra"] == {"a": 5, "b": {"c": 1e-3}, "d": "1:30", "e": "x: y"} and found["names"] == {"a": "5"}


def test_a_class_among_a_models_arguments_has_arguments_of_its_own():
    name = f"{__name__}.Inverted"
    for line in (f"--model.scaling {name} --model.scaling.factor 3", f"--model.scaling.factor 3 --model.scaling {name}",
                 f"--model.scaling '{{class_path: {name}, init_args: {{factor: 3}}}}'"):  # fmt: skip
        found = model(f"{MINE} {line} --model.scaling.options.deep.er 2")["scaling"]
        assert found == {"class_path": name, "init_args": {"factor": 3.0, "options": {"deep": {"er": 2}}}}


@pytest.mark.parametrize(
    ("flags", "betas"),
    [
        ("--model.optimizer.betas.0 0.0", [0.0, 0.999]),
        ("--model.optimizer.betas.1=0.9 --model.optimizer.betas.0=0.1", [0.1, 0.9]),
        ("--model.optimizer.betas '[0.1, 0.2]'", [0.1, 0.2]),
        ("--model.optimizer '{betas: [0.1, 0.2]}'", [0.1, 0.2]),
        ("--model.optimizer.betas '[0.1, 0.2]' --model.optimizer.betas.0 0.3", [0.3, 0.2]),
    ],
)
def test_a_list_is_replaced_whole_or_one_element_by_its_number(flags, betas):
    assert model(f"--config base.yaml {flags}")["optimizer"] == ADAM | {"betas": betas}


def test_an_element_that_is_not_there_is_refused():
    assert "The list has 2 elements" in refused("--config base.yaml --model.optimizer.betas.2 0.1")
    assert "Set the whole list: --model.optimizer.betas" in refused(f"{MINE} --model.optimizer.betas.0 0.1")


def test_callbacks_are_named_appended_and_given_arguments_as_jsonargparse_documents():
    def callbacks(line):
        found = resolved(f"--config base.yaml {line}")["trainer"]["callbacks"]
        found = found if isinstance(found, list) else [found]
        return [(c["class_path"].rpartition(".")[2], c["init_args"].get("logging_interval")) for c in found]

    one, two = ("LearningRateMonitor", None), ("LearningRateMonitor", "step")
    name = "LearningRateMonitor"
    assert callbacks(f"--trainer.callbacks {name}") == [one]
    assert callbacks(f"--trainer.callbacks+ {name}") == [one]
    assert callbacks(f"--trainer.callbacks {name} --trainer.callbacks.logging_interval step") == [two]
    line = f"--trainer.callbacks={name} --trainer.callbacks+={name} --trainer.callbacks.logging_interval=step"
    assert callbacks(line) == [one, two]
    assert callbacks(f"{line} --trainer.callbacks.0.logging_interval step") == [two, two]
    assert callbacks(f"--trainer.callbacks '[{{class_path: {name}}}, {name}]'") == [one, one]
    write("append", {"trainer": {"callbacks+": [{"class_path": name, "init_args": {"logging_interval": "step"}}]}})
    assert callbacks(f"--config append.yaml --config append.yaml --trainer.callbacks+ {name}") == [two, two, one]


def test_a_logger_is_a_class_or_none():
    write("wandb", {"trainer": {"logger": {"class_path": "genbench.loggers.Wandb", "init_args": {"project": "a"}}}})
    base = "--config base.yaml --config wandb.yaml"
    assert resolved(f"{base} --trainer.logger.project b")["trainer"]["logger"]["init_args"]["project"] == "b"
    kept = resolved(f"{base} --trainer.logger Wandb --trainer.logger.group g")["trainer"]["logger"]["init_args"]
    assert (kept["project"], kept["group"]) == ("a", "g")
    for text, value in {"false": False, "null": None}.items():
        assert resolved(f"{base} --trainer.logger {text}")["trainer"]["logger"] is value


@pytest.mark.parametrize(
    ("text", "images"), [("1e6", 10**6), ("1M", 10**6), ("50k", 50_000), ("600", 600), ("0600", 600), ("1_000", 1000)]
)
def test_numbers_of_images_are_read_as_people_write_them_in_flags_and_configs(text, images):
    assert resolved(f"--config base.yaml --max_images={text}")["max_images"] == images
    write("images", f"max_images: {text}\n")
    assert resolved("--config base.yaml --config images.yaml")["max_images"] == images


@pytest.mark.parametrize(
    ("flag", "path", "value"),
    [
        ("--model.clip_norm null", "model.init_args.clip_norm", None),
        ("--model.clip_norm 1e-3", "model.init_args.clip_norm", 1e-3),
        ("--data.download no", "data.init_args.download", False),
        ("--title -5", "title", "-5"),
        ("--title=--x", "title", "--x"),
        ("--title 007", "title", "007"),
        ("--title '#1'", "title", "#1"),
        ("--model.adversarial.objective '# x'", "model.init_args.adversarial.objective", "# x"),
        ("--title '{a: b}'", "title", "{a: b}"),
        ("--title '[a'", "title", "[a"),
        ("--model.width 010", "model.init_args.width", 10),
        ("--trainer.devices '[0, 1]'", "trainer.devices", [0, 1]),
        ("--model.adversarial null", "model.init_args.adversarial", None),
        ("--model.adversarial '{}'", "model.init_args.adversarial", {"objective": "non_saturating", "r1": 1.0}),
        ("--trainer '{precision: bf16-mixed}'", "trainer.precision", "bf16-mixed"),
        ("--validation '{samples: 7, every_images: 5k}'", "validation.samples", 7),
    ],
)
def test_values_are_what_they_say(flag, path, value):
    found = resolved(f"--config base.yaml {flag}")
    for key in path.split("."):
        found = found[key]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "value"), [("'8'", 8), ("010", 10), ("true", None), ("8.5", None), ("1:30", None), ("eight", None)]
)
def test_a_config_that_gives_a_number_as_something_else_is_read_as_meant_or_refused(text, value):
    write("width", f"model:\n  init_args:\n    width: {text}\n")
    line = "--config base.yaml --config width.yaml"
    if value is None:
        assert "width" in refused(line)
    else:
        assert model(line)["width"] == value


def test_settings_twice_in_two_spellings_of_one_config_are_refused():
    write("twice", "model:\n  init_args: {width: 8}\n  width: 16\n")
    assert "'width' is set twice" in refused("--config base.yaml --config twice.yaml")
    write("twice", "model.width: 8\nmodel: {width: 4}\n")
    assert "'model.width' is set twice" in refused("--config base.yaml --config twice.yaml")


def test_an_empty_group_of_a_config_sets_nothing():
    write("empty", "quality:\ntrainer:\n")
    assert resolved("--config base.yaml --config empty.yaml")["max_images"] == 1000


# ---- what was given ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["name", "runs", "ckpt"])
def test_a_list_where_a_run_is_named_is_refused_before_it_is_looked_for(name):
    write("more", {name: ["a"]})
    assert f"{name} is ['a']; expected text" in refused("--ckpt last --config more.yaml" if name != "ckpt" else
                                                            "--config more.yaml")  # fmt: skip


def test_the_runs_own_config_comes_first_unless_another_names_a_model(tmp_path):
    run = tmp_path / "runs" / "a"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    (run / "config.yaml").write_text(Path("base.yaml").read_text())
    write("extra", {"model": {"init_args": {"optimizer": {"lr": 0.01}}}, "trainer": {"precision": "bf16-mixed"}})
    found = merged("--max_images 5k --ckpt runs/a --model.adversarial.r1 2 --config extra.yaml")
    base = yaml.safe_load(Path("base.yaml").read_text())
    arguments = base["model"]["init_args"] | {
        "optimizer": ADAM | {"lr": 0.01}, "adversarial": {"objective": "non_saturating", "r1": 2},
    }  # fmt: skip
    assert found.config == base | {
        "model": base["model"] | {"init_args": arguments}, "trainer": {"precision": "bf16-mixed"},
        "max_images": "5k", "ckpt": "runs/a",
    }  # fmt: skip
    assert found.config["model"]["init_args"]["width"] == 4  # of the run
    write("other", {"model": {"class_path": "VAE"}, "data": {"class_path": "Shapes"}})
    assert merged("--ckpt runs/a --config other.yaml").config["model"] == {"class_path": "VAE"}


def test_another_kind_of_network_drops_the_settings_of_the_first_and_says_so():
    settings = {"width": 8, "multipliers": [1, 2]}
    write("net", {"model": {"class_path": "EDM", "init_args": {"network": settings}}, "data": {"class_path": "Digits"}})
    for flags in ("--model.network.kind dit --model.network.patch 2", "--model.network '{kind: dit, patch: 2}'"):
        found = merged(f"--config net.yaml {flags}")
        assert found.config["model"]["init_args"]["network"] == {"kind": "dit", "patch": 2}
        assert "model.network: dit replaces the config's unet, whose settings are dropped: width=8" in found.dropped[0]
    same = merged("--config net.yaml --model.network.kind unet")
    assert same.config["model"]["init_args"]["network"] == settings | {"kind": "unet"} and not same.dropped


# ---- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--max_imges 5", "fit has no setting --max_imges. Did you mean 'max_images'?"),
        ("--max-images 5", "Did you mean 'max_images'?"),
        ("--optimizer.lr 5", "fit has no setting --optimizer.lr. Did you mean 'model.optimizer'?"),
        ("--batch_size 5", "Did you mean 'data.batch_size'?"),
        ("--modle.width 5", "fit has no setting --modle.width. Did you mean 'model.width'?"),
        ("--trianer.devices 2", "Did you mean 'trainer.devices'?"),
        ("--lr 1", "Did you mean 'model.optimizer.lr'?"),
        ("--model.lr 1", "Did you mean 'model.optimizer.lr'?"),
        ("--epochs 5", "Did you mean 'max_images'? The budget is counted in images."),
        ("--devices 2", "Did you mean 'trainer.devices'?"),
        ("--trainer.precison bf16", "Did you mean 'trainer.precision'?"),
        (
            "--quality.every_images 5",
            "fit has no setting --quality.every_images. Did you mean 'validation.every_images'?",
        ),
        ("--validation.every_image 5", "Did you mean 'validation.every_images'?"),
        ("--model.widht 5", "Option 'widht' is not accepted by DCGAN. Did you mean 'width'?"),
        ("--data.bach_size 5", "Option 'bach_size' is not accepted by Digits. Did you mean 'batch_size'?"),
        ("--model DCGNA", "model: there is no class 'DCGNA'. Did you mean 'DCGAN'?"),
        ("--data MINST", "data: there is no class 'MINST'. Did you mean 'MNIST'?"),
        ("--data genbench.data.MINST", "Did you mean 'MNIST'?"),
        ("--trainer.logger Wandbb", "trainer.logger: there is no class 'Wandbb'. Did you mean 'Wandb'?"),
        ("--config quickstrat", "Unknown config 'quickstrat'"),
        ("--config quickstrat", "Did you mean 'quickstart'?"),
        ("quickstart", "Pass a config as `--config quickstart`"),
        ("--max_images", "--max_images needs a value"),
        ("--title --name x", "--title needs a value"),
        ("--validation 5", "validation is 5; expected settings"),
        ("--model.width 1:30", "model.init_args.width is 1:30, which is not a number"),
        ("--model.width 1e1", "model.width: Expected a <class 'int'>. Got value: 10.0"),
        ("--model.adversarial '{r1: 1, r1: 2}'", "--model.adversarial, line 1: 'r1' is set twice"),
        ("--model.adversarial '{r1: 1'", "--model.adversarial is not YAML"),
        (
            "--model DDPM --model.prediction nois",
            "model.prediction: 'nois' is unknown. Choose from: noise, image, v. Did you mean 'noise'?",
        ),
        ("--model.adversarial hinge", "model.adversarial: Expected a <class 'dict'>"),
    ],
)
def test_a_mistake_is_one_sentence_that_proposes_the_nearest(flags, said):
    assert said in refused(f"--config base.yaml {flags}")


def test_a_missing_model_or_data_set_is_reported():
    assert refused("--data MNIST") == "No model is set. Pass `--config NAME` or `--model DCGAN`."
    assert refused("--config base.yaml --model null").startswith("No model is set")
    assert refused("--model DCGAN") == "No data is set. Pass `--data MNIST`."


def test_a_config_with_a_setting_twice_is_refused():
    write("twice", "max_images: 5\nmodel:\n  class_path: VAE\nmax_images: 6\n")
    assert refused("--config twice.yaml") == (
        "twice.yaml, line 4: 'max_images' is set twice, first in line 1. Keep one of the two."
    )
    write("typo", {"max_imags": 5})
    assert "typo.yaml: there is no setting 'max_imags'. Did you mean 'max_images'?" in refused("--config typo.yaml")


def test_the_settings_that_are_known_before_torch_are_those_of_the_parser():
    from genbench.cli.trainer import SETTINGS, GenbenchCLI

    resolved("--config base.yaml")
    found = {action.dest.partition(".")[0] for action in resolved.parser.parser._subparsers._group_actions[0].choices[
        "fit"]._actions}  # fmt: skip
    assert found - {"help", "config", "print_config"} == set(settable.ROOT)
    assert set(SETTINGS) | {"trainer"} == set(settable.GROUPS) and GenbenchCLI.verb == "fit"


def test_types_tell_classes_from_mappings_and_text():
    hints = typing.get_type_hints(Mine.__init__)
    assert settable.base_of(hints["scaling"]) is Scaled and settable.inner_of(hints["extra"]) is Any
    assert settable.base_of(hints["extra"]) is None and settable.inner_of(hints["names"]) is str
    assert same_class("Adam", "torch.optim.Adam") and not same_class("a.Adam", "torch.optim.Adam")
    with pytest.raises(UserError, match="no setting '--nonsense'|no setting --nonsense"):
        merged("--nonsense 1")
