"""fit: a run can be followed, stopped, killed and gone on with, and what goes wrong is said in a sentence."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import genbench
from genbench.cli import main
from genbench.cli.next_steps import imports
from genbench.core.batch import DataSpec
from genbench.metrics.registry import REGISTERED
from genbench.models import DCGAN

from .conftest import wait


def curve(run):
    with open(Path(run) / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(file)]


def saved(path):
    return torch.load(path, weights_only=True)


def same_run(a, b):
    a_last, b_last = (saved(Path(run) / "checkpoints" / "last.ckpt") for run in (a, b))
    for part in (lambda c: c["state_dict"], lambda c: c["ema"]["state_dict"]):
        assert all(torch.equal(part(a_last)[k], part(b_last)[k]) for k in part(a_last))
    assert a_last["genbench"]["updates"] == b_last["genbench"]["updates"]
    a_moments, b_moments = (c["optimizer_states"][0]["state"][0]["exp_avg"] for c in (a_last, b_last))
    assert torch.equal(a_moments, b_moments)
    assert curve(a) == curve(b)


def test_a_run_folder_holds_all_files_of_the_run_and_is_printed_at_the_end(cli, config, tmp_path):
    status, _, err = cli("fit", "--config", config("vae"), "--name", "run")
    assert status == 0
    found = {str(p.relative_to("runs/run")) for p in Path("runs/run").rglob("*") if p.is_file()}
    assert found == {
        ".lock/fit.1.json",
        "config.yaml", "metrics.csv", "curves.png", "checkpoints/last.ckpt", "checkpoints/best.ckpt",
        "samples/0000000160.png", "samples/0000000320.png", "samples.gif",
        "reconstructions/0000000160.png", "reconstructions/0000000320.png", "reconstructions.gif",
    }  # fmt: skip
    assert [p.name for p in tmp_path.joinpath("runs").iterdir()] == ["run"]
    assert "All files are in runs/run/" in err
    assert "python -m genbench sample --ckpt runs/run/checkpoints/last.ckpt" in err
    assert "python -m genbench fit --ckpt runs/run/checkpoints/last.ckpt" in err
    assert Image.open("runs/run/samples.gif").n_frames == 2
    rows = curve("runs/run")
    assert [int(r["images_seen"]) for r in rows if r["train/kl"]] == list(range(32, 321, 32))
    assert [int(r["images_seen"]) for r in rows if r["val/elbo"]] == [160, 320]
    assert yaml.safe_load(Path("runs/run/config.yaml").read_text())["model"]["init_args"]["accumulate"] == 1


def test_an_existing_run_is_refused_with_the_command_that_resumes_it(cli, config):
    assert cli("fit", "--config", config(), "--name", "run")[0] == 0
    before = Path("runs/run/checkpoints/last.ckpt").read_bytes()
    status, _, err = cli("fit", "--config", config(), "--name", "run")
    assert status == 2 and "python -m genbench fit --ckpt runs/run/checkpoints/last.ckpt" in err
    assert Path("runs/run/checkpoints/last.ckpt").read_bytes() == before


def test_a_finished_run_is_resumed_with_a_larger_budget_and_no_config(cli, config):
    cli("fit", "--config", config(), "--name", "run", "--max_images", "160")
    status, _, err = cli("fit", "--ckpt", "last")
    assert status == 2 and "has seen 160 images and the budget is 160" in err
    assert cli("fit", "--ckpt", "last", "--max_images", "0.32k")[0] == 0
    assert genbench.load("runs/run/checkpoints/last.ckpt").images_seen == 320


# 80 images a pass, 16 a batch, saved every 80: killed in mid-epoch, on a pass's last batch, between two players
@pytest.mark.parametrize(
    ("name", "where"),
    [("dcgan", 208), ("dcgan", 240), ("dcgan", "between"), ("vae", 208), ("vae", 240)],
)
def test_killed_and_resumed_equals_uninterrupted(cli, config, child, name, where):
    assert cli("fit", "--config", config(name), "--name", "whole")[0] == 0

    def killed():
        from genbench.core.module import GenerativeModule

        original = GenerativeModule.record

        def record(module, term, value):
            if where == "between":
                if module.images_seen == 208 and term.startswith("generator"):
                    os.kill(os.getpid(), signal.SIGKILL)
            elif module.images_seen == where:
                os.kill(os.getpid(), signal.SIGKILL)
            original(module, term, value)

        GenerativeModule.record = record
        return main(["fit", "--config", str(config(name)), "--name", "part"])

    assert wait(child(killed)) == -signal.SIGKILL
    assert saved("runs/part/checkpoints/last.ckpt")["genbench"]["images_seen"] == 160
    with open("runs/part/metrics.csv", "a") as file:
        file.write("192,0.1")  # a row that the kill cut short
    status, _, err = cli("fit", "--ckpt", "last", "--name", "part")
    assert status == 0, err
    same_run("runs/whole", "runs/part")


# in mid-run, and where validation is due: it runs before the end, or the resumed run would never have its score
@pytest.mark.parametrize(
    ("signum", "status", "where"),
    [(signal.SIGINT, 130, 112), (signal.SIGTERM, 143, 112), (signal.SIGUSR2, 140, 160), (signal.SIGHUP, 129, 112)],
)
def test_a_signal_finishes_the_step_saves_and_says_how_to_resume(cli, config, child, signum, status, where, tmp_path):
    path = config("dcgan")
    assert cli("fit", "--config", path, "--name", "whole")[0] == 0

    def stopped():
        from genbench.core.module import GenerativeModule

        original = GenerativeModule.record

        def record(module, term, value):
            if module.images_seen == where and term == "discriminator/real":
                os.kill(os.getpid(), signum)
            original(module, term, value)

        GenerativeModule.record = record
        return main(["fit", "--config", str(path), "--name", "part"])

    assert wait(child(stopped)) == status
    said = (tmp_path / "child.log").read_text()
    assert "finishing this step and saving" in said
    assert "python -m genbench fit --ckpt runs/part/checkpoints/last.ckpt" in said
    assert "Traceback" not in said
    assert saved("runs/part/checkpoints/last.ckpt")["genbench"]["images_seen"] == where
    assert cli("fit", "--ckpt", "last", "--name", "part")[0] == 0
    same_run("runs/whole", "runs/part")


def test_a_signal_at_the_last_step_changes_nothing(cli, config, child):
    path = config("vae")
    assert cli("fit", "--config", path, "--name", "whole")[0] == 0

    def stopped():
        from genbench.core.module import GenerativeModule

        original = GenerativeModule.record

        def record(module, term, value):
            if module.images_seen == 320 and term == "train/kl":
                os.kill(os.getpid(), signal.SIGTERM)
            original(module, term, value)

        GenerativeModule.record = record
        return main(["fit", "--config", str(path), "--name", "part"])

    assert wait(child(stopped)) == 0
    same_run("runs/whole", "runs/part")


def test_a_second_ctrl_c_ends_at_once_without_saving(config, child, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def stubborn():
        from genbench.core.module import GenerativeModule

        def record(module, term, value):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

        GenerativeModule.record = record
        return main(["fit", "--config", str(config()), "--name", "run"])

    number = child(stubborn)
    for _ in range(1200):
        if b"SIGINT" in (tmp_path / "child.log").read_bytes() if (tmp_path / "child.log").exists() else False:
            break
        time.sleep(0.05)
    os.kill(number, signal.SIGINT)
    assert wait(number) == 130
    assert not list(Path("runs/run").rglob("*.ckpt"))


def test_two_processes_are_one_run_in_one_folder_that_rank_0_named(config, tmp_path):
    command = [sys.executable, "-m", "genbench", "fit", "--config", str(config("vae"))]
    devices = ["--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    done = subprocess.run([*command, *devices], cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("vae-digits-")
    assert [int(row["images_seen"]) for row in curve(run) if row["train/kl"]] == list(range(32, 321, 32))
    assert saved(run / "checkpoints" / "last.ckpt")["genbench"]["updates"] == {"train": 20}


def test_the_same_seed_gives_the_same_run_with_and_without_images(cli, config):
    path = config("dcgan")
    cli("fit", "--config", path, "--name", "a")
    cli("fit", "--config", path, "--name", "b", "--samples.every_images", "32")
    cli("fit", "--config", path, "--name", "c", "--seed_everything", "1")
    a, b, c = (saved(f"runs/{n}/checkpoints/last.ckpt")["state_dict"] for n in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_another_data_set_is_one_flag_and_dropped_arguments_are_printed(cli, config):
    status, _, err = cli("fit", "--config", config(), "--data", "Shapes", "--data.train_images", 96, "--max_images", 32)
    assert status == 0, err
    assert (
        "data: Shapes replaces the config's Digits, whose settings are dropped: batch_size=16, size=16, subset=80."
        in err
    )
    assert "defaults of Shapes" in err
    (run,) = Path("runs").iterdir()
    assert run.name.startswith("dcgan-shapes-")


def test_a_budget_is_read_as_people_write_it(cli, config):
    for k, text in enumerate(["32", "3.2e1", "0.032k"]):
        assert cli("fit", "--config", config(), "--max_images", text, "--name", str(k))[0] == 0
        assert genbench.load(f"runs/{k}/checkpoints/last.ckpt").images_seen == 32


def test_validate_scores_the_averaged_weights(cli, config):
    cli("fit", "--config", config("vae"), "--name", "run")
    last = [row for row in curve("runs/run") if row["val/elbo"]][-1]
    status, out, _ = cli("validate", "--ckpt", "last")
    assert status == 0 and f"{float(last['val/elbo']):.5g}" in out
    status, _, err = cli("validate")
    assert status == 2 and "--ckpt PATH" in err
    Path("runs/run/checkpoints/last.ckpt").rename("moved.ckpt")
    status, out, _ = cli("validate", "--ckpt", "moved.ckpt")  # which holds the config of its run
    assert status == 0 and f"{float(last['val/elbo']):.5g}" in out
    contents = torch.load("moved.ckpt", weights_only=True)
    del contents["run"]  # as a script of one's own writes it
    torch.save(contents, "moved.ckpt")
    for verb in ("validate", "fit"):
        status, _, err = cli(verb, "--ckpt", "moved.ckpt")
        assert (
            status == 2 and "moved.ckpt does not contain the config of its run" in err and "pass `--config` too" in err
        )


def test_a_model_from_a_users_own_repository_needs_only_import(cli, config):
    Path("mine.py").write_text("from genbench.models.vae import VAE\n\n\nclass Mine(VAE):\n    pass\n")
    path = config("vae", model={"class_path": "mine.Mine", "init_args": {"width": 4, "latent_dim": 4}})
    status, _, err = cli("fit", "--import", "mine", "--config", path, "--name", "run", "--max_images", "32")
    assert status == 0, err
    assert cli("sample", "--import", "mine", "--ckpt", "last", "--out", "x.png")[0] == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.lattent_dim", "3"], "Option 'lattent_dim' is not accepted"),
        (["--model.latent_dim", "three"], "Expected a <class 'int'>. Got value: three"),
        (["--max_images", "lots"], "'lots' is not a number of images"),
        (["--trainer.max_epochs", "3"], "use `--max_images`"),
        (["--data.size", "48"], "needs images of 16, 32, 64, 128, 256 pixels per side, but the data has 48"),
        (["--trainer.accelerator", "gpu"], "This machine has 0 GPUs"),
        (["--model.optimizer.lr", "1e15"], "model.optimizer.lr is 1000000000000000.0; it must be at most 10"),
        (["--model.adversarial.r1", "1e38"], "The loss is no longer finite: "),
        (["--data", "FashionMNIST", "--data.root", "nowhere", "--data.download", "false"], "FashionMNIST is not at "),
        (["--ckpt", "last"], "there is no runs/run/checkpoints/last.ckpt yet"),
        (["--ckpt", "cut.ckpt"], "cut.ckpt is damaged"),
        (["--ckpt", "vae.ckpt"], "is a checkpoint of genbench.models.vae.VAE, but the config sets genbench.models."),
        (["--seed_everything", "-1"], "--seed_everything -1: every run needs a seed"),
        (["--seed_everything", "false"], "every run needs a seed. Use a whole number from 0"),
        (["--nonsense", "1"], "fit has no setting --nonsense"),
        (["--import", "no_such_module"], "No module named 'no_such_module'"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_answered_in_a_sentence_and_costs_nothing(cli, config, flags, message):
    if torch.cuda.is_available() and "gpu" in flags:
        pytest.skip("there is a GPU")
    Path("cut.ckpt").write_bytes(b"PK\x03\x04 and no more")
    if "vae.ckpt" in flags:
        cli("fit", "--config", config("vae"), "--name", "other", "--max_images", "16")
        Path("runs/other/checkpoints/last.ckpt").rename("vae.ckpt")
    status, _, err = cli("fit", "--config", config(), "--name", "run", *flags)
    assert status == 2
    assert message in err and "Traceback" not in err
    assert not list(Path("runs").glob("run/checkpoints/*"))


def test_a_score_that_validation_does_not_compute_is_rejected_before_training(cli, config):
    status, _, err = cli("fit", "--config", config(), "--name", "run", "--checkpoint.monitor", "val/foo")
    assert (
        status == 2
        and "checkpoint.monitor is 'val/foo', which validation does not compute. Choose from: val/fid-digitsnet" in err
    )
    assert not Path("runs/run").exists()


def test_a_broken_config_and_a_missing_one_are_named(cli):
    Path("broken.yaml").write_text("model: [\n")
    status, _, err = cli("fit", "--config", "broken.yaml")
    assert status == 2 and "broken.yaml is not YAML" in err and "Traceback" not in err
    status, _, err = cli("fit", "--config", "nosuch")
    assert status == 2 and "Unknown config 'nosuch'" in err and "quickstart" in err


def test_a_resume_on_another_version_says_that_it_is_not_bit_for_bit(cli, config):
    cli("fit", "--config", config(), "--name", "run", "--max_images", "32")
    path = Path("runs/run/checkpoints/last.ckpt")
    checkpoint = saved(path)
    checkpoint["run"]["environment"]["torch"] = "1.0"
    torch.save(checkpoint, path)
    status, _, err = cli("fit", "--ckpt", "last", "--max_images", "64")
    assert status == 0 and "was written with torch 1.0" in err


def test_printed_commands_import_the_modules_of_the_users_metrics(monkeypatch):
    monkeypatch.setitem(REGISTERED, "mine", type("Mine", (), {"__module__": "my_metrics"}))
    assert imports(DCGAN(DataSpec((1, 16, 16)), latent_dim=2, width=2)) == " --import my_metrics"
