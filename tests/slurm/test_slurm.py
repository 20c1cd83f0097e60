"""A suite on a real Slurm gives what it gives here, whatever happens to its jobs in between."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from genbench.leaderboard.record import read
from genbench.suites import claims
from genbench.suites.suite_folder import Folder
from tests.cli.conftest import TINY

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm", "no_jobs_are_left")]

MINE = """
import time
from pathlib import Path

from lightning import Callback


class Slow(Callback):
    def on_train_batch_end(self, *_):
        if Path("slow").exists():
            time.sleep(0.4)


class Asleep(Callback):
    def __init__(self):
        if Path("asleep").exists():
            time.sleep(30)


class Hungry(Callback):
    def on_train_batch_end(self, *_):
        self.eaten = b"x" * 3_500_000_000
        time.sleep(20)  # Slurm looks each second
"""
VAE = {
    "model": TINY["vae"],
    "data": {"class_path": "genbench.data.Digits", "init_args": {"size": 16, "batch_size": 16, "subset": 80}},
    "trainer": {"callbacks": [{"class_path": "slowed.Slow"}]},
    "monitor": {"every_images": 32},
    "ema": {"every_images": 32},
    "checkpoint": {"every_images": 48},
    "validation": {"every_images": 320, "samples": 16},
    "samples": {"every_images": 320, "n": 4},
}
PROTOCOL = {"real": 60, "generated": 48, "metrics": ["fid"], "block": 16}


def write(folder, models=({"config": "vae.yaml"},), **more):
    """A suite in a folder, with a config, a protocol and a module of its own."""
    (folder / "configs" / "protocols").mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "protocols" / "mine.yaml").write_text(yaml.safe_dump(PROTOCOL))
    (folder / "vae.yaml").write_text(yaml.safe_dump(VAE))
    for name in ("Hungry", "Asleep"):
        text = VAE | {"trainer": {"callbacks": [{"class_path": f"slowed.{name}"}]}}
        (folder / f"{name.lower()}.yaml").write_text(yaml.safe_dump(text))
    (folder / "slowed.py").write_text(MINE)
    text = {"models": list(models), "budget": {"images": 320}, "protocol": "mine", "launch": {"threads": 1}} | more
    (folder / "tiny.yaml").write_text(yaml.safe_dump(text))


@pytest.fixture
def suite(tmp_path, cli, monkeypatch):
    """Writes a suite and runs a verb of it; returns (exit status, standard output, standard error)."""
    monkeypatch.setattr("genbench.runner.cluster.SLURM_POLL", 1.0)

    def run(what, *arguments, **more):
        if more:
            write(tmp_path, **more)
        return cli("suite", what, "tiny.yaml" if what == "run" else "runs/tiny", *arguments)

    return run


@pytest.fixture
def kept(tmp_path):
    return Folder(tmp_path / "runs" / "tiny")


@pytest.fixture
def no_jobs_are_left(slurm):
    yield
    slurm_says("scancel", "--user=root")
    until(lambda: not slurm_says("squeue", "--noheader"))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Gives the folder of two runs that are trained on this machine, without Slurm, in the meantime."""
    folder = tmp_path_factory.mktemp("here")
    write(folder, seeds=[0, 1], launch={"threads": 1, "at_once": 1})
    command = [sys.executable, "-m", "genbench", "suite", "run", "tiny.yaml", "--import", "slowed"]
    with open(folder / "said", "w") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)

    def trained():
        assert process.wait(timeout=120) == 0, (folder / "said").read_text()
        return folder / "runs" / "tiny"

    yield trained
    process.terminate()
    process.wait()


def states(kept):
    return {state.run: state.state for state in kept.states()}


def until(true, seconds=60):
    stop = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < stop, "it does not happen"
        time.sleep(0.2)


def slurm_says(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def jobs(kept):
    return json.loads((kept.path / "jobs" / "submitted.json").read_text())


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_same_results(one, other):
    """Weights and optimizers bit for bit, and records but for time and place."""
    for name in ("best", "last"):
        a, b = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for run in (one, other))
        for what in ("state_dict", "optimizer_states", "genbench"):
            assert same(a[what], b[what]), what
    a, b = (sorted((read(path) for path in run.glob("records/*.json")), key=lambda r: r.run["checkpoint"])
            for run in (one, other))  # fmt: skip
    assert len(a) == len(b) == 2
    for x, y in zip(a, b, strict=True):
        assert (x.model, x.data, x.protocol, x.metrics) == (y.model, y.data, y.protocol, y.metrics)
        for key in ("config_hash", "seed", "images_seen", "updates", "command"):
            assert x.run[key] == y.run[key], key
        assert [x.training[key] for key in ("world_size", "precision")] == [1, "32-true"]


def test_an_array_gives_what_the_suite_gives_here(suite, kept, here):
    status, out, err = suite("run", "--slurm", "--import", "slowed", "--at-once", "1", seeds=[0, 1])
    assert status == 0 and "2 runs submitted to Slurm" in err
    (number,) = {job.partition("_")[0] for job in jobs(kept).values()}

    most = 0
    seen = set()
    while True:
        found = slurm_says("squeue", "--noheader", "--array", "--format=%T").split()
        most = max(most, found.count("RUNNING"))
        if "PENDING" in found and "running" in states(kept).values() and not seen:
            _, out, _ = suite("status")
            seen |= set(re.findall(r"seed\d +(\w+)(?: \(JobArrayTaskLimit\))?", out))
            status, _, err = suite("run", "--slurm", "--import", "slowed")
            assert status == 0 and "submitted" not in err  # none is submitted twice
        if not found:
            break
        time.sleep(0.5)
    assert most == 1 and seen == {"running", "queued"}
    assert {job.partition("_")[0] for job in jobs(kept).values()} == {number}

    status, out, err = suite("run", "--slurm", "--wait", "--import", "slowed")  # all is done: the board and the report
    assert status == 0 and "VAE" in out and (kept.path / "report.html").exists()
    assert re.search(r"2 of 2 done", suite("status")[1])
    for run in states(kept):
        assert_same_results(kept.path / run, here() / run)


def test_queued_again_it_goes_on_from_its_checkpoint(suite, kept, here, tmp_path):
    (tmp_path / "slow").touch()
    assert suite("run", "--slurm", "--import", "slowed", seeds=[0, 1])[0] == 0
    preempted, limited = list(states(kept))
    for run in (preempted, limited):
        until(lambda run=run: (kept.path / run / "checkpoints" / "last.ckpt").exists())
    slurm_says("scontrol", "requeue", jobs(kept)[preempted])
    slurm_says("scancel", "--signal=USR2", jobs(kept)[limited])  # as before a time limit
    until(lambda: list(states(kept).values()) == ["stopped", "stopped"])
    (tmp_path / "slow").unlink()
    _, out, _ = suite("status")
    assert re.findall(r"seed\d +(\w+)", out) == ["queued", "queued"]

    assert suite("run", "--slurm", "--wait", "--import", "slowed")[0] == 0
    for run, signal in ((preempted, "SIGTERM"), (limited, "SIGUSR2")):
        first, second = claims.history(kept.claims, run)
        assert (first.outcome, first.reason, second.outcome) == ("stopped", signal, "done")
        assert first.holder["job"] == second.holder["job"] == jobs(kept)[run]
        log = kept.log(run).read_text()
        assert log.count("====") == 2 and f"{signal}: finishing this step" in log
        assert_same_results(kept.path / run, here() / run)


def test_killed_hard_or_stopped_before_it_began(suite, kept, here, tmp_path):
    (tmp_path / "slow").touch()
    models = ["vae.yaml", "asleep.yaml"]
    assert suite("run", "--slurm", "--import", "slowed", models=models)[0] == 0
    (tmp_path / "asleep").touch()
    killed, early = list(states(kept))
    until(lambda: states(kept)[early] == "running")
    until(lambda: (kept.path / killed / "checkpoints" / "last.ckpt").exists())
    os.kill(claims.latest(kept.claims, killed).holder["pid"], 9)  # as with its machine
    slurm_says("scancel", "--signal=USR2", jobs(kept)[early])
    (tmp_path / "slow").unlink()
    slurm_says("scontrol", "requeue", jobs(kept)[killed])
    status, _, err = suite("run", "--slurm", "--wait", "--import", "slowed")
    assert status == 1 and f"{early}  failed: it reached its time limit before it had saved anything new" in err, err
    first, second = claims.history(kept.claims, killed)
    assert first.outcome is None and second.outcome == "done"
    assert_same_results(kept.path / killed, here() / killed)


def test_two_tasks_train_as_two_ranks(suite, kept):
    status, out, err = suite(
        "run", "--slurm", "--wait", "--import", "slowed", seeds=[0], launch={"threads": 1, "devices": 2}
    )
    assert status == 0, err
    (run,) = states(kept)
    records = [read(path) for path in (kept.path / run).glob("records/*.json")]
    assert sorted(record.run["checkpoint"] for record in records) == ["best", "last"]
    for record in records:
        assert record.training["world_size"] == 2
    assert (kept.path / "jobs" / f"{jobs(kept)[run]}_1_log.out").exists()


def test_a_run_killed_for_memory_is_named_and_the_other_goes_on(suite, kept):
    models = [{"config": "hungry.yaml", "name": "hungry"}, {"config": "vae.yaml", "name": "vae"}]
    launch = {"threads": 1, "memory": 3}
    status, out, err = suite("run", "--slurm", "--wait", "--import", "slowed", models=models, launch=launch)
    assert status == 1 and "VAE" in out
    assert re.search(r"hungry-Digits-seed0  failed: out of memory", err)
    assert states(kept) == {"hungry-Digits-seed0": "failed", "vae-Digits-seed0": "done"}
    assert "hungry-Digits-seed0 failed: out of memory" in suite("status")[1]
    assert "submitted" not in suite("run", "--slurm", "--wait", "--import", "slowed")[2]  # not tried again unasked


def test_a_canceled_job_is_told_and_submitted_anew(suite, kept):
    launch = {"sbatch": {"hold": True}}
    assert suite("run", "--slurm", "--import", "slowed", seeds=[0, 1], launch=launch)[0] == 0
    before = jobs(kept)
    assert re.findall(r"seed\d +(queued \(JobHeldUser\))", suite("status")[1]) == ["queued (JobHeldUser)"] * 2
    one, other = before
    slurm_says("scancel", before[one])
    until(lambda: f"{one} stopped: " in suite("status")[1])  # Slurm forgets a task of an array that never ran
    out = suite("status")[1]
    assert re.search(f"{one} stopped: .* it was canceled", out) and re.search(f"{other} +queued", out)
    assert "1 run submitted" in suite("run", "--slurm", "--import", "slowed")[2]
    assert jobs(kept)[other] == before[other] and jobs(kept)[one] != before[one]
    slurm_says("scancel", jobs(kept)[one])
    until(lambda: f"{one} stopped: its job was canceled" in suite("status")[1])


@pytest.mark.parametrize(
    "launch, words",
    [
        ({"partition": "nowhere"}, "invalid partition specified: nowhere. Batch job submission failed: Invalid"),
        ({"threads": 64}, "Slurm would never start the jobs: PartitionConfig."),
        ({"partition": "short", "minutes": 60}, "Slurm would never start the jobs: Partition"),
        ({"memory": 90}, "Memory specification can not be satisfied"),
        ({"gres": "gpu:1"}, "Requested node configuration is not available"),
        ({"sbatch": {"output": "x"}}, "launch.sbatch contains output, which the suite itself sets"),
    ],
)
def test_what_slurm_refuses_is_told_in_its_words(suite, kept, launch, words):
    status, out, err = suite("run", "--slurm", "--import", "slowed", seeds=[0, 1], launch=launch)
    assert status == 2 and words in err and len(err.strip().splitlines()) == 1
    assert set(states(kept).values()) == {"waiting"}
    until(lambda: not slurm_says("squeue", "--noheader"), seconds=10)


def test_where_slurm_does_not_answer_nothing_is_submitted_twice(suite, kept, monkeypatch, tmp_path):
    assert suite("run", "--slurm", "--import", "slowed", seeds=[0], launch={"sbatch": {"hold": True}})[0] == 0
    before = jobs(kept)
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", Path(os.environ["SLURM_CONF"]).read_text())
        + "MessageTimeout=2\n"
    )
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SLURM_CONF", str(conf))
        status, _, err = suite("run", "--slurm", "--import", "slowed")
        assert status == 2 and "Slurm does not answer" in err
        status, out, err = suite("status")
        assert status == 0 and "Slurm does not answer" in err and "waiting" in out
    assert jobs(kept) == before
