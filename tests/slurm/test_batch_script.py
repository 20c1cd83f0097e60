"""What a suite asks of Slurm, read from the script that `sbatch` is given: no Slurm is needed for it."""

import json
import os

import pytest

from tests.slurm.test_slurm import write

SBATCH = """#!/bin/sh
[ -n "$SLURM_NTASKS" ] && echo "sbatch: error: inside of an allocation" >&2 && exit 1
number=$(($(ls scripts | wc -l) + 7))
cp "$1" scripts/$number
echo "Submitted batch job $number"
"""
SINFO = """#!/bin/sh
echo "main* (null)"
echo "gpus gpu:a100:4(S:0-1)"
"""


@pytest.fixture
def scripts(cli, tmp_path, monkeypatch):
    """Submits a suite; returns the scripts that `sbatch` got."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"sbatch": SBATCH, "sinfo": SINFO, "srun": "#!/bin/sh", "scontrol": "#!/bin/sh"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    (tmp_path / "scripts").mkdir()

    def submit(*arguments, **more):
        write(tmp_path, **more)
        status, out, err = cli("suite", "run", "tiny.yaml", "--slurm", "--import", "slowed", *arguments)
        assert status == 0, err
        return [path.read_text() for path in sorted((tmp_path / "scripts").iterdir())]

    return submit


def options(script):
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    return {name: value or True for name, _, value in (line.partition("=") for line in lines)}


def test_everything_of_launch_stands_in_the_script(scripts):
    (script,) = scripts(
        seeds=[0, 1, 2],
        launch={
            "at_once": 2, "threads": 6, "devices": 4, "nodes": 2, "minutes": 90, "memory": 40.5, "partition": "gpus",
            "account": "vision", "qos": "low", "where": "slurm", "setup": ["module load cuda"],
            "sbatch": {"constraint": "a100", "mail_type": "FAIL", "exclusive": True, "contiguous": False},
        },
    )  # fmt: skip
    found = options(script)
    expected = {
        "array": "0-2%2", "cpus-per-task": "6", "ntasks-per-node": "4", "nodes": "2", "gpus-per-node": "4",
        "time": "90", "mem": "41472M", "partition": "gpus", "account": "vision", "qos": "low", "constraint": "a100",
        "mail-type": "FAIL", "exclusive": True, "requeue": True, "signal": "USR2@120", "open-mode": "append",
        "job-name": "genbench-tiny",
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == expected
    assert set(found) - set(expected) == {"output", "error"}
    assert script.index("export OMP_NUM_THREADS=6") < script.index("module load cuda") < script.index("srun ")


def test_what_is_not_said_is_left_to_the_cluster(scripts):
    (script,) = scripts(launch={})
    assert set(options(script)) == {
        "job-name", "nodes", "ntasks-per-node", "signal", "requeue", "open-mode", "output", "error"
    }  # fmt: skip


@pytest.mark.parametrize(
    "accelerator, launch, asked",
    [
        ("auto", {}, {}),
        ("auto", {"partition": "gpus"}, {"gpus-per-node": "1"}),
        ("cpu", {"partition": "gpus"}, {}),
        ("gpu", {}, {"gpus-per-node": "1"}),
        ("auto", {"partition": "gpus", "gres": "gpu:a100:1"}, {"gres": "gpu:a100:1"}),
        ("auto", {"partition": "gpus", "sbatch": {"gpus": 1}}, {"gpus": "1"}),
    ],
)
def test_a_gpu_for_each_device_is_asked_for_unless_said_otherwise(scripts, accelerator, launch, asked):
    (script,) = scripts(set={"trainer.accelerator": accelerator}, launch=launch)
    assert {name: value for name, value in options(script).items() if name.startswith("g")} == asked


def test_a_short_limit_leaves_most_of_its_time_to_training(scripts):
    (script,) = scripts(launch={"minutes": 5, "sbatch": {"requeue": False}})
    assert options(script)["signal"] == "USR2@60"
    assert "no-requeue" in options(script) and "requeue" not in options(script)


def test_runs_on_other_machines_are_an_array_of_their_own(scripts, tmp_path):
    models = [
        {"config": "vae.yaml", "name": "one"},
        {"config": "vae.yaml", "name": "two", "set": {"trainer.devices": 2}},
    ]
    first, second = scripts(models=models, seeds=[0, 1], launch={})
    assert [options(script)["ntasks-per-node"] for script in (first, second)] == ["1", "2"]
    submitted = json.loads((tmp_path / "runs" / "tiny" / "jobs" / "submitted.json").read_text())
    assert submitted == {
        "one-Digits-seed0": "7_0", "two-Digits-seed0": "8_0", "one-Digits-seed1": "7_1", "two-Digits-seed1": "8_1"
    }  # fmt: skip


def test_from_inside_of_an_allocation_a_job_is_submitted_as_from_outside(scripts, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    assert len(scripts(launch={})) == 1


def test_a_machine_that_has_slurm_trains_without_it_and_says_nothing_of_it(scripts, cli, tmp_path, recwarn):
    write(tmp_path)
    assert cli("fit", "--config", "vae.yaml", "--import", "slowed", "--max_images", "16")[0] == 0
    assert not [warning for warning in recwarn if "srun" in str(warning.message)]


def test_a_machine_without_slurm_says_so(cli, tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    status, _, err = cli("suite", "run", "tiny.yaml", "--slurm", "--import", "slowed")
    assert status == 2 and err == (
        "error: This machine has no Slurm (`srun` was not found): remove `launch.where` to train here, or use a login "
        "node of the cluster.\n"
    )
