"""A suite's file says which runs there are, and everything that is wrong with it at once."""

from pathlib import Path

import pytest
import yaml

from genbench.cli import configs
from genbench.core.errors import UserError
from genbench.suites.definition import load

SHIPPED = sorted((configs.folder() / "suites").glob("*.yaml"))


@pytest.fixture
def suite(tmp_path):
    def write(**more):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"models": ["dcgan"], "budget": {"images": "10k"}} | more))
        return load(path, configs.find)

    return write


def names(suite):
    return [run for run, *_ in suite.runs()]


def test_runs_are_models_times_data_times_seeds_and_every_experiment_comes_before_the_next_seed(suite):
    found = suite(models=["dcgan", "vae"], data=["MNIST", "Shapes"], seeds=[0, 7])
    assert names(found) == [
        f"{model}-{data}-seed{seed}" for seed in (0, 7) for model in ("dcgan", "vae") for data in ("MNIST", "Shapes")
    ]
    assert found.name == "mine" and {e.budget.images for e in found.experiments} == {10_000}


def test_without_data_a_config_keeps_its_own(suite):
    found = suite(models=["dcgan", "quickstart"])
    assert names(found) == ["dcgan-MNIST-seed0", "quickstart-Digits-seed0"]
    assert not any(flag.startswith("--data") for e in found.experiments for flag in e.flags)


def test_a_grid_is_tried_in_full_and_counted_for_each_model(suite):
    found = suite(
        models=["dcgan", {"config": "vae", "name": "beta", "grid": {"model.beta": [1, 4]}}],
        grid={"model.optimizer.lr": [1e-4, 2e-4, 5e-4]},
    )
    assert [(e.name, e.tried) for e in found.experiments] == [
        *((f"dcgan-MNIST-lr={lr}", 3) for lr in ("0.0001", "0.0002", "0.0005")),
        *((f"beta-MNIST-lr={lr}-beta={b}", 6) for lr in ("0.0001", "0.0002", "0.0005") for b in (1, 4)),
    ]
    assert found.experiments[1].grid == {"model.optimizer.lr": 2e-4}
    assert "--model.optimizer.lr=0.0002" in found.experiments[1].flags


def test_entries_of_one_config_on_one_data_set_count_together(suite):
    found = suite(models=["dcgan", {"config": "dcgan", "name": "wide", "set": {"model.width": 64}}, "vae"])
    assert [(e.name, e.tried) for e in found.experiments] == [("dcgan-MNIST", 2), ("wide-MNIST", 2), ("vae-MNIST", 1)]


def test_what_is_set_for_all_comes_before_what_is_set_for_one(suite):
    found = suite(
        models=[{"config": "dcgan", "set": {"model.width": 8}}],
        set={"model.width": 16, "validation.every_images": "100k"}, parts=["trainer/bf16"], protocol="quick",
        keep_every="5k",
    )  # fmt: skip
    assert found.experiments[0].flags == (
        "--config=dcgan", "--config=trainer/bf16", "--model.width=16", "--validation.every_images=100k",
        "--protocol=quick", "--checkpoint.keep_every=5k", "--model.width=8",
    )  # fmt: skip


def test_data_may_have_arguments_and_a_name(suite):
    found = suite(data=[{"class_path": "Shapes", "init_args": {"size": 16, "target": "label"}}, {"class_path": "a.B"}])
    assert [e.name for e in found.experiments] == ["dcgan-Shapes-size=16-target=label", "dcgan-B"]
    assert found.experiments[0].flags[1:] == ("--data=Shapes", "--data.size=16", "--data.target=label")


def test_the_command_repeats_the_training(suite):
    found = suite(data=["Shapes"], grid={"data.subset": ["1%", "100%"]})
    assert found.experiments[0].command(3, 5000) == (
        "python -m genbench fit --config=dcgan --data=Shapes --data.subset=1% --seed_everything=3 --max_images=5000"
    )


def test_wandb_is_one_group(suite):
    flags = suite(wandb={"project": "theirs"}).experiments[0].flags
    assert {"--trainer.logger.project=theirs", "--trainer.logger.group=mine"} <= set(flags)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": []}, "unknown key 'model'. Choose from: models, data"),
        ({"models": ["dcgna"]}, "models contains the config 'dcgna', but there is no such file"),
        ({"models": [3]}, "models contains 3; expected a config name"),
        ({"models": []}, "models is empty; expected names of configs"),
        ({"models": ["dcgan", "dcgan"]}, "two experiments are named 'dcgan-MNIST'"),
        ({"parts": ["trainer/bf61"]}, "parts contains the config 'trainer/bf61'"),
        ({"seeds": ["a"]}, "seeds is ['a']; expected a list of whole numbers"),
        ({"seeds": [1, 1]}, "list each seed once"),
        ({"budget": {"images": 0}}, "budget is {'images': 0}; expected {images: 1M}"),
        ({"budget": {"minutes": -1}}, "expected {images: 1M}, or {minutes: 5}"),
        ({"budget": 7}, "budget is 7"),
        ({"grid": {"model.width": 3}}, "each with a list of values"),
        ({"set": ["a"]}, "expected keys of a config with values"),
        ({"set": {"seed_everything": 3}}, "set contains 'seed_everything', which the suite itself sets with `seeds`"),
        ({"data": [{"name": "x"}]}, "expected the name of a data set"),
        ({"wandb": {"save_dir": "x"}}, "unknown key 'save_dir' in wandb. Choose from: project, entity"),
        ({"wandb": "yes"}, "wandb is yes; expected settings"),
        ({"launch": {"where": "moon"}}, "launch.where is 'moon'; expected local or slurm"),
        ({"launch": {"at_once": 0}}, "launch.at_once is 0; expected a whole number above 0"),
        ({"launch": {"qoss": 1}}, "unknown key 'qoss' in launch"),
        ({"launch": {"nodes": 2}}, "launch.nodes is only for Slurm"),
        ({"launch": {"sbatch": "x"}}, "launch.sbatch is x; expected a mapping"),
    ],
)
def test_each_mistake_has_its_message(suite, more, message):
    with pytest.raises(UserError) as error:
        suite(**more)
    assert message in str(error.value) and "mine.yaml" in str(error.value)


def test_a_model_may_have_a_budget_of_its_own(suite):
    own = {"config": "vae", "budget": {"minutes": 5}}
    budgets = [e.budget for e in suite(models=["dcgan", own]).experiments]
    assert budgets[0].images == 10_000 and budgets[1].minutes == 5
    with pytest.raises(UserError, match="budget is 3"):
        suite(models=[{"config": "vae", "budget": 3}])


def test_all_mistakes_are_reported_together(suite):
    with pytest.raises(UserError) as error:
        suite(models=["dcgna", "vea"], seeds=[-1], budget=None, launch={"moon": 1})
    assert "5 errors" in str(error.value) and str(error.value).count("\n- ") == 5


@pytest.mark.parametrize("text", ["[1", "3", "budget: {images: 5}", "\x00"])
def test_a_file_that_is_not_a_suite_is_refused(tmp_path, text):
    Path(tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=r"x\.yaml is not?"):
        load(tmp_path / "x.yaml", configs.find)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_suites_load_and_begin_with_a_comment(path):
    assert load(path, configs.find).experiments and path.read_text().startswith("# ")


def test_all_documented_suites_are_shipped():
    assert {path.stem for path in SHIPPED} == {
        "applications",
        "quick",
        "mnist",
        "modern",
        "shapes",
        "cifar10",
        "ring",
        "semi",
        "text",
        "likelihood",
        "likelihood_8bit",
        "reconstruction",
        "colorize",
        "unpaired",
        "segmentation",
    }


def test_quick_trains_every_model(tmp_path):
    import genbench.models

    suite = load(configs.folder() / "suites" / "quick.yaml", configs.find)
    files = {configs.find(flag.partition("=")[2]) for e in suite.experiments for flag in e.flags if "--config" in flag}
    used = {yaml.safe_load(path.read_text())["model"]["class_path"].rpartition(".")[2] for path in files}
    assert used == set(genbench.models.__all__) - {
        "VQPrior",
        "LatentMixture",
        "LatentDiffusion",
    }  # which take the checkpoint of another run
