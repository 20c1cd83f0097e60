"""fit --ckpt: a changed setting is applied, said and recorded, or refused before anything is touched."""

import contextlib
import csv
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import genbench
import genbench.models
from genbench.callbacks.run_record import readable
from genbench.cli import resume
from genbench.core.class_paths import loaded_classes
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.data import Digits, Shapes

from .conftest import wait

LAST = "checkpoints/last.ckpt"
FOLDER = (
    "--data", "ImageFolder", "--data.path", "in", "--data.batch_size", "16", "--data.channels", "1",
    "--data.size", "16", "--data.val_size", "10", "--validation.samples", "10", "--validation.extractor", "digitsnet",
)  # fmt: skip


def saved(run):
    return torch.load(Path(run) / LAST, weights_only=True)


def rates(run, player="train"):
    with open(Path(run) / "metrics.csv", newline="") as file:
        return {
            int(row["images_seen"]): float(row[f"{player}/lr"]) for row in csv.DictReader(file) if row[f"{player}/lr"]
        }


def contents(run):
    return {path: path.read_bytes() for path in sorted(Path(run).rglob("*")) if path.is_file()}


def same_weights(a, b):
    return all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])


@pytest.fixture
def half(cli, config):
    """A VAE that has seen 160 images, in runs/run."""
    assert cli("fit", "--config", config("vae"), "--name", "run", "--max_images", "160")[0] == 0
    return Path("runs/run")


def test_a_new_learning_rate_takes_effect_and_config_checkpoint_curve_and_record_say_so(cli, half):
    flags = ("--max_images", "320", "--model.optimizer.lr", "1e-5", "--model.optimizer.weight_decay", "0.5")
    status, _, err = cli("fit", "--ckpt", half, *flags)
    assert status == 0 and "changed: model.optimizer.lr 0.001 -> 1e-05" in err
    assert rates(half) == {n: pytest.approx(1e-3 if n <= 160 else 1e-5) for n in range(32, 321, 32)}
    state = saved(half)
    assert state["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.5
    assert state["run"]["config"]["model"]["init_args"]["optimizer"]["lr"] == 1e-5
    assert [(s["from"], s["to"]) for s in state["run"]["segments"]] == [(0, 160), (160, 320)]
    assert state["run"]["segments"][1]["changed"]["model.optimizer.lr"] == [1e-3, 1e-5]
    assert cli("evaluate", "--ckpt", half, "--data", "Digits", "--generated", "32", "--metrics", "fid")[0] == 0
    from genbench.leaderboard.record import collect

    (record,) = collect([half / "records"])[0]
    assert record.run["segments"] == state["run"]["segments"]


def test_an_argument_that_the_run_had_not_given_is_said_and_begins_a_segment(cli, config):
    own = ("--model.optimizer", "{class_path: torch.optim.AdamW, lr: 1e-3}", "--model.schedule", "{warmup: 0.1}")
    cli("fit", "--config", config("vae"), "--name", "run", "--max_images", "160", *own)
    more = ("--model.optimizer.weight_decay", "0.5", "--model.schedule.decay_from", "0.5")
    status, _, err = cli("fit", "--ckpt", "runs/run", "--max_images", "176", *more)
    assert status == 0 and "changed: model.optimizer.weight_decay 0.01 -> 0.5" in err
    state = saved("runs/run")
    assert state["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.5
    changed = {"model.optimizer.weight_decay": [0.01, 0.5], "model.schedule.decay_from": [None, 0.5]}
    assert state["run"]["segments"][1]["changed"] == changed | {"max_images": [160, 176]}
    before = contents("runs/run")
    status, _, err = cli("fit", "--ckpt", "runs/run", "--max_images", "192", "--model.optimizer.amsgrad", "true")
    assert status == 2 and "model.optimizer.amsgrad none -> true" in err and "Stopped" not in err
    assert contents("runs/run") == before


ONE_CYCLE = "{class_path: OneCycleLR, max_lr: 0.01, total_steps: 10, div_factor: 2.0}"


def test_what_a_schedule_keeps_in_the_optimizer_is_that_of_the_config(cli, config):
    sizes = ("--data.batch_size", "80", "--monitor.every_images", "80", "--validation.every_images", "5k")
    cli("fit", "--config", config("vae"), "--name", "run", "--max_images", "160", *sizes)
    # a state of before there was the schedule, and one of another
    assert cli("fit", "--ckpt", "runs/run", "--max_images", "240", "--model.schedule", ONE_CYCLE)[0] == 0
    assert rates("runs/run")[240] == pytest.approx(0.005)
    status = cli("fit", "--ckpt", "runs/run", "--max_images", "1120", "--model.schedule.max_lr", "0.1")[0]
    assert status == 0 and rates("runs/run")[320] == pytest.approx(0.05)
    (group,) = saved("runs/run")["optimizer_states"][0]["param_groups"]
    # a step of the schedule is 1,000 images: half of the way up, along a cosine
    assert group["max_lr"] == 0.1 and rates("runs/run")[1120] == pytest.approx(0.075)


def test_weights_equal_those_of_a_run_whose_optimizer_was_changed_by_hand(cli, config, half):
    from lightning import Trainer

    from genbench.callbacks import Acceleration, MaxImages

    whole = genbench.load(half / LAST, raw=True)
    start = saved(half)
    cli(
        "fit",
        "--ckpt",
        half,
        "--max_images",
        "240",
        "--model.optimizer.lr",
        "1e-2",
        "--model.optimizer.betas",
        "[0.5, 0.9]",
    )
    # the same in bare PyTorch: the state of the checkpoint, with other settings
    by_hand = type(whole)(**whole.hparams)
    by_hand.load_state_dict(start["state_dict"])

    class Changed(MaxImages):
        def on_train_start(self, trainer, module):
            optimizer = trainer.optimizers[0]
            optimizer.load_state_dict(start["optimizer_states"][0])
            for group in optimizer.param_groups:
                group |= {"lr": 1e-2, "betas": (0.5, 0.9)}
            module.images_seen = 160

    data = Digits(size=16, batch_size=16, subset=80)
    by_hand.images_seen = 160
    Trainer(
        accelerator="cpu", logger=False, callbacks=[Changed(240), Acceleration()], max_epochs=-1,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, limit_val_batches=0,
    ).fit(by_hand, datamodule=data)  # fmt: skip
    assert same_weights(saved(half), {"state_dict": by_hand.state_dict()})


def test_learning_rate_and_schedule_of_one_optimizer_can_change(cli, config):
    cli("fit", "--config", config("dcgan"), "--name", "run", "--max_images", "160")
    flags = ("--model.optimizers", "{discriminator: {lr: 1e-5}}", "--model.schedules", "{generator: {decay_from: 0.5}}")
    assert cli("fit", "--ckpt", "runs/run", "--max_images", "320", *flags)[0] == 0
    discriminator, generator = rates("runs/run", "discriminator"), rates("runs/run", "generator")
    assert discriminator[160] == pytest.approx(2e-4) and discriminator[320] == pytest.approx(1e-5)
    # a row has the rate that follows from the images it is at
    assert generator == {n: pytest.approx(2e-4 * min(1, (320 - n) / 160) if n > 160 else 2e-4) for n in generator}


def test_a_schedule_in_shares_moves_with_the_budget_and_a_resumed_run_equals_one_of_that_budget(cli, config):
    schedule = ("--model.schedule", "{warmup: 0.25, decay_from: 0.5}")
    cli("fit", "--config", config("vae"), "--name", "whole", *schedule)
    expected = {n: min(1, n / 80, (320 - n) / 160) for n in range(32, 321, 32)}
    assert rates("runs/whole") == {n: pytest.approx(1e-3 * share) for n, share in expected.items()}
    cli("fit", "--config", config("vae"), "--name", "part", *schedule, "--max_images", "160")
    assert rates("runs/part")[160] == 0
    status, _, err = cli("fit", "--ckpt", "runs/part", "--max_images", "320")
    assert status == 0 and "changed: max_images 160 -> 320" in err
    assert {n: rate for n, rate in rates("runs/part").items() if n > 160} == {
        n: pytest.approx(1e-3 * share) for n, share in expected.items() if n > 160
    }


def test_a_schedule_that_ends_before_the_budget_is_reported_before_training(cli, config):
    decay = "{class_path: torch.optim.lr_scheduler.LinearLR, start_factor: 1.0, end_factor: 0.0, total_iters: 1}"
    status, _, err = cli(
        "fit", "--config", config("vae"), "--name", "a", "--max_images", "3k", "--model.schedule", decay
    )
    assert (
        status == 0
        and "ends at 1,000 images, but the budget is 3,000: after the end of the schedule the learning rate is 0" in err
    )
    counted = "{decay_from: 100, decay_to: 200}"
    status, _, err = cli("fit", "--config", config("vae"), "--name", "b", "--model.schedule", counted)
    assert status == 0 and "ends at 200 images, but the budget is 320" in err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model.width", "8"], "model.width 4 -> 8"),
        (["--model.latent_dim", "5"], "model.latent_dim 4 -> 5"),
        (["--model.decoder", "gaussian"], "model.decoder bernoulli -> gaussian"),
        (["--data.size", "32"], "data.size 16 -> 32"),
        (["--data.channels", "3"], "data.channels none -> 3"),
        (["--data.subset", "40"], "data.subset 80 -> 40"),
        (["--data.val_size", "20"], "data.val_size none -> 20"),
        (["--data.split_seed", "1"], "data.split_seed 0 -> 1"),
        (["--data.binarize", "static"], "data.binarize none -> static"),
        (["--data", "Shapes"], "data genbench.data.Digits -> genbench.data.Shapes"),
        (["--seed_everything", "7"], "seed_everything 0 -> 7"),
        (["--seed_everything", "true"], "every run needs a seed. Use a whole number"),
        (["--model.optimizer", "{class_path: torch.optim.SGD, lr: 0.1}"], "a different optimizer"),
        (["--checkpoint.monitor", "val/misspelled", "--validation.every_images", "16"], "val/misspelled"),
        (["--model.schedule", "{decay_from: 0.5, decay_to: 0.2}"], "these numbers must increase"),
    ],
)  # fmt: skip
def test_what_cannot_change_is_refused_by_name_and_nothing_in_the_folder_is_touched(cli, half, flags, said):
    before = contents(half)
    status, _, err = cli("fit", "--ckpt", half, "--max_images", "320", *flags)
    assert status == 2 and said in err and "Traceback" not in err
    assert contents(half) == before
    assert cli("fit", "--ckpt", half, "--max_images", "176")[0] == 0


def test_settings_outside_of_the_training_take_effect_and_begin_no_segment(cli, half):
    flags = ("--monitor.every_images", "16", "--samples.n", "9", "--data.eval_batch_size", "32", "--title", "Mine")
    status, _, err = cli("fit", "--ckpt", half, "--max_images", "320", *flags)
    assert status == 0 and "changed: monitor.every_images 32 -> 16" in err
    assert 176 in rates(half)
    assert [(s["from"], s["to"]) for s in saved(half)["run"]["segments"]] == [(0, 320)]


def test_batch_size_precision_and_augmentation_are_applied_said_and_recorded(cli, half):
    flags = ("--data.batch_size", "32", "--data.hflip", "true", "--trainer.precision", "64-true")
    status, _, err = cli("fit", "--ckpt", half, "--max_images", "320", *flags)
    assert status == 0
    changed = saved(half)["run"]["segments"][1]["changed"]
    assert changed == {
        "data.batch_size": [16, 32], "data.hflip": [None, True], "trainer.precision": [None, "64-true"],
        "max_images": [160, 320],
    } or set(changed) >= {"data.batch_size", "data.hflip", "trainer.precision"}  # fmt: skip
    assert all(f"changed: {name}" in err for name in ("data.batch_size 16 -> 32", "data.hflip", "trainer.precision"))
    assert saved(half)["genbench"]["updates"] == {"train": 15}  # ten steps of 16 images and five of 32


def test_last_means_the_newest_folder_also_where_it_was_called_otherwise_before(cli, half):
    half.rename("runs/renamed")
    assert cli("fit", "--ckpt", "last", "--max_images", "240")[0] == 0
    assert saved("runs/renamed")["genbench"]["images_seen"] == 240


def test_a_finished_run_whose_curves_have_one_row_is_done(cli, config):
    status, _, _ = cli("fit", "--config", config("vae", monitor={}), "--name", "deep/er", "--max_images", "16")
    assert status == 0 and "name: deep/er" in Path("runs/deep/er/config.yaml").read_text()
    assert not Path("runs/deep/er/curves.png").exists()
    before = contents("runs")
    status, _, err = cli("fit", "--ckpt", "runs/deep/er")
    assert status == 2 and "the run is done" in err and "Stopped" not in err and contents("runs") == before


def test_a_moved_or_copied_run_is_resumed_in_place(cli, half):
    half.rename("runs/renamed")
    assert cli("fit", "--ckpt", "runs/renamed", "--max_images", "240")[0] == 0
    shutil.copytree("runs/renamed", "elsewhere/copy")
    with contextlib.chdir("elsewhere/copy"):
        assert cli("fit", "--ckpt", ".", "--max_images", "320")[0] == 0
    assert saved("elsewhere/copy")["run"]["name"] == "copy"
    assert {path.name for path in Path("runs").iterdir()} == {"renamed"}
    assert saved("runs/renamed")["genbench"]["images_seen"] == 240
    assert saved("elsewhere/copy")["genbench"]["images_seen"] == 320


def test_a_link_to_a_checkpoint_means_the_run_that_it_leads_to(cli, half):
    Path("link.ckpt").symlink_to(half / LAST)
    assert cli("fit", "--ckpt", "link.ckpt", "--max_images", "240")[0] == 0
    assert saved(half)["genbench"]["images_seen"] == 240 and {path.name for path in Path("runs").iterdir()} == {"run"}


def test_config_yaml_shows_the_model_first_and_no_null_that_is_a_default_of_lightning(half):
    text = (half / "config.yaml").read_text()
    found, whole = yaml.safe_load(text), saved(half)["run"]["config"]
    assert list(found)[:5] == ["model", "data", "max_images", "seed_everything", "trainer"]
    assert None not in found["trainer"].values() and found["trainer"]["max_epochs"] == -1
    assert whole["trainer"] == dict.fromkeys(whole["trainer"]) | found["trainer"]
    assert {name: value for name, value in found.items() if name != "trainer"} == {
        name: value for name, value in whole.items() if name != "trainer"
    }


def test_a_null_that_is_no_default_of_lightning_stays_in_config_yaml():
    config = {"trainer": {"devices": None, "logger": None}, "name": "run", "model": {"init_args": {"clip_norm": None}}}
    assert readable(config) == config | {"trainer": {"devices": None}}
    assert list(readable(config)) == ["model", "trainer", "name"]


def test_a_run_goes_on_from_its_config_yaml_and_from_that_of_an_older_version_alike(cli, half):
    """An older version wrote every setting, nulls included, in the order of the parser."""
    shutil.copytree(half, "runs/old")
    former = dict(sorted(saved(half)["run"]["config"].items(), reverse=True))
    assert len(former["trainer"]) > len(yaml.safe_load((half / "config.yaml").read_text())["trainer"])
    Path("runs/old/config.yaml").write_text(yaml.safe_dump(former | {"name": "old"}, sort_keys=False))
    for run in ("runs/run", "runs/old"):
        status, _, err = cli("fit", "--ckpt", run, "--max_images", "240")
        assert status == 0 and [line for line in err.splitlines() if line.startswith("changed:")] == [
            "changed: max_images 160 -> 240"
        ]
    assert same_weights(saved("runs/run"), saved("runs/old"))
    new, old = (Path(run, "config.yaml").read_text() for run in ("runs/run", "runs/old"))
    assert new == old.replace("name: old", "name: run").replace("runs/old", "runs/run")


def test_a_run_without_its_config_file_and_a_checkpoint_alone_go_on_with_the_config_in_the_checkpoint(cli, half):
    (half / "config.yaml").unlink()
    assert cli("fit", "--ckpt", half, "--max_images", "240")[0] == 0
    assert saved(half)["genbench"]["images_seen"] == 240 and (half / "config.yaml").is_file()
    shutil.copy(half / LAST, "alone.ckpt")
    before = contents(half)
    assert cli("fit", "--ckpt", "alone.ckpt", "--name", "other", "--max_images", "320")[0] == 0
    assert contents(half) == before and saved("runs/other")["genbench"]["images_seen"] == 320
    assert saved("runs/other")["run"]["config"]["model"] == saved(half)["run"]["config"]["model"]


@pytest.mark.parametrize("text", ["not json", "[]", '{"number": 1}', '{"number": 1, "holder": 5, "begun": ""}'])
def test_a_lock_that_cannot_be_read_is_taken_for_another_process_until_it_is_old(cli, half, text):
    lock = half / ".lock" / "fit.1.json"
    lock.write_text(text)
    status, _, err = cli("fit", "--ckpt", half, "--max_images", "240")
    assert status == 2 and "written by an unknown process" in err and "Wait 120 seconds" in err
    os.utime(lock, (0, 0))
    assert cli("fit", "--ckpt", half, "--max_images", "240")[0] == 0


def test_a_file_in_place_of_the_lock_is_named(cli, half):
    shutil.rmtree(half / ".lock")
    (half / ".lock").write_text("")
    status, _, err = cli("fit", "--ckpt", half, "--max_images", "240")
    assert status == 2 and "runs/run/.lock is not a folder" in err and "Remove it" in err


def test_images_whose_values_have_another_range_are_refused(cli, config):
    from PIL import Image

    Path("in").mkdir()
    for k in range(60):
        Image.fromarray(np.full((16, 16), k * 40, np.uint16)).save(f"in/{k:02}.png")
    assert cli("fit", "--config", config("vae"), "--name", "run", *FOLDER, "--max_images", "32")[0] == 0
    Image.fromarray(np.full((16, 16), 3000, np.uint16)).save("in/01.png")  # none of those whose bytes are compared
    before = contents("runs/run")
    status, _, err = cli("fit", "--ckpt", "runs/run", "--max_images", "96")
    assert (
        status == 2
        and "was trained with the range 0,2360 of stored values" in err
        and "now have the range 0,3000" in err
    )
    assert contents("runs/run") == before


def test_setting_the_current_optimizer_class_changes_nothing(cli, config):
    assert cli("fit", "--config", config(), "--name", "run", "--max_images", "32")[0] == 0
    had = saved("runs/run")["optimizer_states"][0]["param_groups"][0]
    assert (had["lr"], had["betas"]) == (2e-4, (0.5, 0.999))  # the model's own
    for k, name in enumerate(("Adam", "torch.optim.Adam", "torch.optim.adam.Adam", "{class_path: Adam}")):
        images = str(48 + 16 * k)
        status, _, err = cli("fit", "--ckpt", "runs/run", "--max_images", images, "--model.optimizer", name)
        assert status == 0 and "changed: model" not in err, err
        state = saved("runs/run")
        now = state["optimizer_states"][0]["param_groups"][0]
        assert {k: now[k] for k in ("lr", "betas")} == {k: had[k] for k in ("lr", "betas")}
        assert len(state["run"]["segments"]) == 1
    more = ("--max_images", "112", "--model.optimizer", "{class_path: Adam, weight_decay: 0.1}")
    status, _, err = cli("fit", "--ckpt", "runs/run", *more)
    assert status == 0 and "changed: model.optimizer.weight_decay 0 -> 0.1" in err and err.count("changed: model") == 1


def test_resuming_in_a_different_runs_folder_needs_a_name(cli, half):
    before = contents(half)
    status, _, err = cli("fit", "--ckpt", half, "--runs", "other", "--max_images", "240")
    assert status == 2 and "is not in --runs other" in err and contents(half) == before
    assert cli("fit", "--ckpt", half, "--runs", "other", "--name", "run", "--max_images", "240")[0] == 0
    assert contents(half) == before and saved("other/run")["genbench"]["images_seen"] == 240
    assert cli("fit", "--ckpt", "last", "--runs", "other", "--max_images", "320")[0] == 0
    assert saved("other/run")["genbench"]["images_seen"] == 320


def test_a_folder_moved_during_training_is_reported_and_both_parts_can_be_resumed(cli, half, child, tmp_path):
    from genbench.cli import main

    ready = tmp_path / "ready"
    first = child(training(main, ["fit", "--ckpt", "runs/run", "--max_images", "10k"], ready))
    until(ready)
    half.rename("runs/moved")
    os.kill(first, signal.SIGTERM)
    assert wait(first) == 128 + signal.SIGTERM
    seen = saved(half)["genbench"]["images_seen"]
    assert seen > 160 and (half / "config.yaml").read_bytes() == Path("runs/moved/config.yaml").read_bytes()
    assert cli("fit", "--ckpt", half, "--max_images", str(seen + 16))[0] == 0
    assert cli("fit", "--ckpt", "runs/moved", "--max_images", "240")[0] == 0


def test_validate_refuses_settings_that_it_would_ignore(cli, half):
    for flag, said in (
        (("--model.beta", "50"), "is scored as it was trained. Remove the changed setting model.beta 1.0 -> 50.0"),
        (("--model.width", "8"), "model.width 4 -> 8"),
        (("--data.split_seed", "3"), "data.split_seed 0 -> 3"),
        (("--data.val_size", "20"), "data.val_size none -> 20"),
        (("--ema.enabled", "false"), "ema.enabled"),
        (("--data", "MNIST"), "data genbench.data.Digits -> genbench.data.MNIST"),
    ):
        status, _, err = cli("validate", "--ckpt", half, *flag)
        assert status == 2 and "Traceback" not in err, flag
        assert said in err, err
    assert cli("validate", "--ckpt", half, "--data.eval_batch_size", "16")[0] == 0


def test_another_name_begins_a_new_run_from_the_checkpoint_and_leaves_the_first(cli, half):
    before = contents(half)
    assert cli("fit", "--ckpt", half, "--name", "fork", "--max_images", "320")[0] == 0
    assert contents(half) == before and saved("runs/fork")["genbench"]["images_seen"] == 320


@pytest.mark.parametrize("name", ["../out", "/tmp/genbench-out", ".", "", "a/../../out", "x" * 300, "line\nbreak"])
def test_a_run_name_cannot_lead_out_of_the_runs_folder(cli, config, name):
    before = set(Path().resolve().parent.iterdir())
    status, _, err = cli("fit", "--config", config(), f"--name={name}")
    assert status == 2 and "--name" in err and "Traceback" not in err
    assert set(Path().resolve().parent.iterdir()) == before and not Path("/tmp/genbench-out").exists()


def training(cli_main, arguments, ready):
    """A child's work: train, and say so once the first batch is over."""

    def start():
        from genbench.callbacks import max_images

        told = max_images.MaxImages.on_train_batch_end

        def tell(self, trainer, module, *rest):
            ready.touch()
            time.sleep(0.05)
            told(self, trainer, module, *rest)

        max_images.MaxImages.on_train_batch_end = tell
        return cli_main(arguments)

    return start


def until(path):
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.05)
    raise TimeoutError(path)


def test_a_second_process_is_refused_in_a_folder_that_one_trains_in(cli, half, child, tmp_path):
    from genbench.cli import main

    ready = tmp_path / "ready"
    first = child(training(main, ["fit", "--ckpt", "runs/run", "--max_images", "10k"], ready))
    until(ready)
    status, _, err = cli("fit", "--ckpt", half, "--max_images", "20k")
    assert status == 2 and "Another process trains in runs/run already" in err and str(first) in err
    os.kill(first, 9)
    wait(first)
    assert cli("fit", "--ckpt", half, "--max_images", "400")[0] == 0  # it is gone, which is seen at once


def test_of_two_runs_that_start_with_the_same_name_at_the_same_time_one_is_rejected(cli, config, child, tmp_path):
    from genbench.cli import main

    flags = ["fit", "--config", str(config("vae")), "--name", "run", "--trainer.logger", "false"]
    children = [child(lambda: main(flags)) for _ in range(2)]
    assert sorted(wait(number) for number in children) == [0, 2]
    assert saved("runs/run")["genbench"]["images_seen"] == 320


def test_default_names_do_not_collide(monkeypatch, tmp_path):
    from genbench.cli import run_folders

    names = []
    for _ in range(3):
        monkeypatch.delenv("GENBENCH_RUN", raising=False)
        names.append(run_folders.new_name("vae-digits", tmp_path))
    assert len(set(names)) == 3


def test_a_run_killed_before_its_first_checkpoint_begins_again_by_the_same_command(cli, config, child):
    from genbench.cli import main

    flags = ["fit", "--config", str(config("vae")), "--name", "run", "--monitor.every_images", "16"]

    def killed():
        from genbench.callbacks import max_images

        told = max_images.MaxImages.on_train_batch_end

        def kill(self, trainer, module, *rest):
            told(self, trainer, module, *rest)
            if module.images_seen == 64:
                os.kill(os.getpid(), 9)

        max_images.MaxImages.on_train_batch_end = kill
        return main(flags)

    assert wait(child(killed)) == -9
    assert Path("runs/run/config.yaml").is_file() and not Path("runs/run", LAST).exists()
    status, _, err = cli(*flags)
    assert status == 0 and "has no checkpoint, so its run starts again" in err
    assert sorted(rates("runs/run")) == list(range(16, 321, 16))


def test_a_folder_with_files_of_its_own_is_left_alone(cli, config):
    Path("runs/run").mkdir(parents=True)
    Path("runs/run/thesis.tex").write_text("years of work")
    status, _, err = cli("fit", "--config", config(), "--name", "run")
    assert status == 2 and "contains thesis.tex" in err
    assert Path("runs/run/thesis.tex").read_text() == "years of work"


def test_a_run_killed_between_its_last_checkpoint_and_its_end_gets_what_is_missing(cli, config, child):
    from genbench.cli import main

    cli("fit", "--config", config("vae"), "--name", "whole")

    def killed():
        from genbench.callbacks import Checkpoint

        told = Checkpoint.save

        def kill(self, trainer, module, **rest):
            told(self, trainer, module, **rest)
            if module.images_seen == 320:
                os.kill(os.getpid(), 9)

        Checkpoint.save = kill
        return main(["fit", "--config", str(config("vae")), "--name", "run"])

    assert wait(child(killed)) == -9
    assert not Path("runs/run/curves.png").exists() and not Path("runs/run/samples.gif").exists()
    assert cli("fit", "--ckpt", "runs/run")[0] == 0
    assert {p.relative_to("runs/run") for p in contents("runs/run")} - {Path(".lock/fit.2.json")} == {
        p.relative_to("runs/whole") for p in contents("runs/whole")
    }
    for name in ("samples/0000000320.png", "samples.gif", "reconstructions.gif"):
        assert Path("runs/run", name).read_bytes() == Path("runs/whole", name).read_bytes()
    assert rates("runs/run") == rates("runs/whole")
    status, _, err = cli("fit", "--ckpt", "runs/run")
    assert status == 2 and "the run is done" in err


def test_the_same_images_may_be_moved_but_other_images_are_rejected(cli, config):
    from PIL import Image

    Path("in").mkdir()
    for k in range(60):
        Image.new("L", (16, 16), k * 4).save(f"in/{k:02}.png")
    cli("fit", "--config", config("vae"), "--name", "run", *FOLDER, "--max_images", "32")
    shutil.copytree("in", "moved")
    status, _, err = cli("fit", "--ckpt", "runs/run", "--max_images", "64", "--data.path", "moved")
    assert status == 0 and "changed: data.path in -> moved" in err
    assert len(saved("runs/run")["run"]["segments"]) == 1
    other = ("fit", "--ckpt", "runs/run", "--max_images", "80", "--name", "other")
    assert "data.range none -> 0,100" in cli(*other, "--data.range", "0,100")[2]
    status, _, err = cli(*other, "--data.range", "dtype")  # as was found
    assert status == 0 and "data.range" not in err
    before = contents("runs/run")
    for file in Path("moved").iterdir():
        Image.open(file).point(lambda value: 255 - value, "L").save(file)
    status, _, err = cli("fit", "--ckpt", "runs/run", "--max_images", "96")
    assert status == 2 and "the images differ from the training images" in err
    assert "Stopped" not in err, "nothing was begun"
    Path("moved/07.png").unlink()
    status, _, err = cli("fit", "--ckpt", "runs/run", "--max_images", "96")
    assert status == 2 and "the images differ from the training images" in err
    status, _, err = cli("fit", "--ckpt", "runs/run", "--max_images", "96", "--data.path", "in")
    assert status == 0, err
    assert before.keys() <= contents("runs/run").keys()


def test_resuming_from_a_checkpoint_that_is_not_the_last_prints_a_note(cli, half):
    cli("fit", "--ckpt", half, "--max_images", "240", "--checkpoint.keep_every", "80")
    shutil.copy(half / "checkpoints/0000000240.ckpt", half / "checkpoints/kept.ckpt")
    cli("fit", "--ckpt", half, "--max_images", "320")
    status, _, err = cli("fit", "--ckpt", half / "checkpoints/kept.ckpt", "--max_images", "320")
    assert status == 0 and "has seen 320 images. This run is resumed from 240" in err


def test_every_setting_of_fit_has_a_rule_and_the_docs_have_the_table():
    table = (Path(__file__).parents[2] / "docs" / "resume.md").read_text()
    for rule in resume.TABLE:
        for setting in rule.settings:
            assert f"`{setting}`" in table, setting


SPECS = {
    "Pix2Pix": Shapes(task="colorize", size=256, enlarge=True),
    "UNet": Shapes(task="colorize"),
    "CycleGAN": Shapes(target="domain"),
    "SegmentationUNet": Shapes(target="mask"),
    "TextConditionalGAN": Shapes(target="caption"),
}
OTHER = {"class_weight": 0.5, "beta": 4.0, "kl_warmup": 500, "free_bits": 0.5, "importance_samples": 3, "cycle": 1.0,
         "identity": 0.0, "corruption": "masking", "amount": 0.1, "l1": 1.0, "unsupervised": 0.5, "consistency": 0.5,
         "mismatches": 2, "mismatch_weight": 1.0, "diversity": 0.1, "decay": 0.5, "commitment": 1.0,
         "restart_dead_codes": 100, "interval_share": 0.5, "log_mean": -1.0, "log_std": 1.5, "weight_power": 0.5,
         "weight_constant": 0.01, "first_intervals": 20, "last_intervals": 640, "curriculum_images": 5000}  # fmt: skip


@pytest.mark.parametrize(
    "cls",
    [c for c in loaded_classes(GenerativeModule).values() if c.changeable and c.__module__.startswith("genbench")],
    ids=lambda c: c.__name__,
)
def test_a_changeable_argument_changes_no_network(cls):
    other = OTHER | {"loss": "dice" if cls.__name__ == "SegmentationUNet" else "l2", "transforms": ["flip"]}
    other["generator"] = "adversarial"
    if cls.__name__ == "SemiSupervisedGAN":
        other["transforms"] = ["translation"]
    data = SPECS.get(cls.__name__, Digits())

    def shapes(**arguments):
        return {name: tensor.shape for name, tensor in cls(data.spec, **arguments).state_dict().items()}

    usual = shapes()
    for name in cls.changeable:
        assert shapes(**{name: other[name]}) == usual, name


def test_the_classes_that_are_used_cannot_change_on_resume():
    assert resume.rule("data.only_classes").effect == "refused"
    old, new = ({"data": {"init_args": {"only_classes": kept}}} for kept in ([3], [4]))
    with pytest.raises(UserError, match=r"data.only_classes \[3\] -> \[4\]: .*its classes"):
        resume.changes(old, new, set(), (), Path("last.ckpt"))
    assert resume.changes(old, old, set(), (), Path("last.ckpt")) == []
