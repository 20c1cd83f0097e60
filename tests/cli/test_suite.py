"""suite: mistakes are reported before anything begins."""

from pathlib import Path

import pytest

from tests.helpers.suites import write


def test_all_errors_of_a_suite_are_reported_before_a_run_starts(cli, tmp_path):
    models = [
        {"config": "vae.yaml", "name": "a", "set": {"model.widht": 3}},
        {"config": "vae.yaml", "name": "b", "set": {"data.size": 7}},
        {"config": "dcgan.yaml", "name": "c", "set": {"protocol": "fid10"}},
        {"config": "dcgan.yaml", "name": "d", "set": {"trainer.strategy": "fsdp", "trainer.devices": "x"}},
    ]
    status, _, err = cli("suite", "run", write(tmp_path, models=models, by="fdi"))
    assert status == 2 and "5 errors" in err and "Traceback" not in err
    for told in ("a-Digits: ", "'widht'", "b-Digits: ", "c-Digits: Unknown protocol 'fid10'", "d-Digits: ",
                 "by is 'fdi', which is not a metric. Choose from: fid, kid"):  # fmt: skip
        assert told in err, told
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "mnits"],
            "Unknown suite 'mnits'. Choose from: applications, cifar10, colorize, likelihood, likelihood_8bit, mnist, ",
        ),
        (["run", "tiny.yaml", "--only", "x*"], "--only x* matches no run. Choose from: dcgan-Digits-seed0, vae"),
        (["run", "tiny.yaml", "--at-once", "0"], "--at-once is 0; it must be at least 1"),
        (["run", "tiny.yaml", "--folder", "."], "contains files that do not belong to a suite"),
        (["run", "tiny.yaml", "--slurm"], "Slurm"),
        (["status", "tiny.yaml"], "is not the folder of a suite"),
        (["status", "quick"], "is not the folder of a suite"),
    ],
)
def test_a_users_mistake_is_answered_in_a_sentence(cli, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setenv("PATH", "/usr/bin:/bin" if "--slurm" not in arguments else "/nowhere")
    write(tmp_path)
    status, _, err = cli("suite", *arguments)
    assert status == 2 and message in err and "Traceback" not in err
