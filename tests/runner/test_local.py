"""The runs of a suite on this machine: each is done once, whatever is killed."""

import json
import os
import signal
import subprocess

import pytest
import yaml

from genbench.leaderboard.record import collect
from genbench.runner.local import record_death
from genbench.suites import claims, launch
from genbench.suites.definition import Launch
from genbench.suites.suite_folder import Folder
from tests.helpers.suites import finish, run, start, wait_until, write

VARIES = {"cost", "training", "environment", "created"}  # in a record, from one measurement to the next


def scores(folder):
    """Everything in the records of a folder that does not depend on time."""
    records, skipped = collect([folder])
    assert not skipped
    found = {}
    for record in records:
        kept = {key: value for key, value in record.to_dict().items() if key not in VARIES}
        kept["run"] = {
            k: v for k, v in kept["run"].items() if k not in ("checkpoint_hash", "config", "command", "suite")
        }
        found[record.run["name"], record.run["checkpoint"]] = kept
    assert len(found) == len(records)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A suite that ran in peace: where, and how it ended."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run("run", write(folder), cwd=folder)


def test_a_suite_ends_with_records_of_best_and_last_a_board_and_a_report(undisturbed):
    folder, (status, out, err) = undisturbed
    assert status == 0, err
    assert set(scores(folder)) == {(f"{m}-Digits-seed0", c) for m in ("dcgan", "vae") for c in ("best", "last")}
    assert "Digits · few · generation" in out and "ranked by fid-digitsnet" in out
    assert (folder / "runs" / "tiny" / "report.html").is_file()
    assert "dcgan-Digits-seed0  done, 12,000 images in" in err
    (record,) = [
        r for r in collect([folder])[0] if r.run["name"] == "vae-Digits-seed0" and r.run["checkpoint"] == "last"
    ]
    assert (record.run["suite"], record.run["tried"], record.run["images_seen"]) == ("tiny", 1, 12_000)
    assert record.run["command"].startswith("python -m genbench fit --config=")
    assert not list((folder / "runs" / "tiny" / "jobs").iterdir())


def test_runs_that_are_done_are_skipped(undisturbed, cli):
    folder, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.ckpt")}
    os.chdir(folder)
    status, out, err = cli("suite", "run", "tiny.yaml")
    assert status == 0 and "begins" not in err and "Digits · few · generation" in out
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.ckpt")}
    status, out, _ = cli("suite", "status", "tiny.yaml")
    assert status == 0 and "tiny: 2 of 2 done" in out and out.count("done") == 3
    status, out, _ = cli("suite", "run", "tiny.yaml", "--dry-run")
    assert status == 0 and "2 of them done already" in out


def kill_all(launcher, kept):
    """As a power cut would: the launcher, submitit's processes and those that train."""
    os.killpg(launcher.pid, signal.SIGKILL)
    for name in kept.runs():
        attempt = claims.latest(kept.claims, name)
        if attempt and attempt.alive:
            os.kill(attempt.holder["pid"], signal.SIGKILL)
    launcher.wait()
    # a process takes a moment to die, and would be taken for one of the next launcher's
    wait_until(lambda: not any(state.state == "running" for state in kept.states()))


def test_a_suite_that_was_killed_and_interrupted_ends_with_the_same_scores(undisturbed, tmp_path):
    path, kept = write(tmp_path), Folder(tmp_path / "runs" / "tiny")

    def images():
        return sum(state.images for state in kept.states()) if (kept.path / "suite.yaml").exists() else 0

    for at in (0.2, 0.5, 0.8):  # of all there is to train
        launcher = start("run", path, cwd=tmp_path)
        wait_until(lambda at=at: images() > at * 24_000)
        kill_all(launcher, kept)
        assert all(json.loads(file.read_text()) for file in kept.path.rglob("records/*.json"))
    launcher = start("run", path, cwd=tmp_path)
    wait_until(lambda: any(state.state == "running" for state in kept.states()))
    os.kill(launcher.pid, signal.SIGINT)  # as Ctrl-C, but for those in the terminal's group
    assert launcher.wait(60) == 130
    assert not any(state.state == "running" for state in kept.states())
    status, _, err = run("run", path, cwd=tmp_path)
    assert status == 0, err + (tmp_path / "launcher.log").read_text()
    ours, theirs = scores(tmp_path), scores(undisturbed[0])
    assert ours.keys() == theirs.keys() and all(ours[key] == theirs[key] for key in theirs)
    for name in kept.runs():
        assert sum(attempt.outcome == "done" for attempt in claims.history(kept.claims, name)) == 1


def test_two_launchers_share_the_runs_and_do_each_once(undisturbed, tmp_path):
    path = write(tmp_path)
    both = [start("run", path, "--at-once", 2, cwd=tmp_path) for _ in range(2)]
    assert [launcher.wait(200) for launcher in both] == [0, 0], (tmp_path / "launcher.log").read_text()
    kept = Folder(tmp_path / "runs" / "tiny")
    assert [len(claims.history(kept.claims, name)) for name in kept.runs()] == [1, 1]
    assert scores(tmp_path) == scores(undisturbed[0])


def test_a_failed_run_does_not_stop_the_others_and_can_be_retried(tmp_path, monkeypatch):
    one = {"config": "vae.yaml", "name": "greedy", "set": {"data.per_class": 1000}}
    path = write(tmp_path, models=[one, "vae.yaml"], budget={"images": 640}, wandb={"project": "theirs"})
    monkeypatch.setenv("WANDB_MODE", "offline")
    status, out, err = run("run", path, "--at-once", 1, cwd=tmp_path)
    assert status == 1 and "greedy-Digits-seed0  failed: data.per_class is 1000" in err
    assert "vae-Digits-seed0  done" in err and "Digits · few · generation" in out and "Traceback" not in err
    status, out, _ = run("status", path, cwd=tmp_path)
    assert "greedy-Digits-seed0 failed: data.per_class is 1000" in out and "logs/greedy-Digits-seed0.log" in out
    assert "tiny: 1 of 2 done, 1 failed" in out
    assert "error: data.per_class is 1000" in (tmp_path / "runs/tiny/logs/greedy-Digits-seed0.log").read_text()
    kept = Folder(tmp_path / "runs" / "tiny")
    # one group in Weights & Biases: a run each, and a table of the board
    assert len(list(kept.path.glob("vae-Digits-seed0/wandb/offline-run-*"))) == 1
    (table,) = kept.path.glob("wandb/wandb/offline-run-*/files/media/table/*.json")
    table = json.loads(table.read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    # its only validation is at the end, so that its best checkpoint is its last
    assert {(row["runs"], row["checkpoint"]) for row in rows} == {("vae-Digits-seed0", "best = last")}
    assert {row["track"] for row in rows} >= {"generation", "reconstruction"}
    config = yaml.safe_load((kept.path / "vae-Digits-seed0" / "config.yaml").read_text())
    assert config["trainer"]["logger"]["init_args"]["group"] == "tiny"
    assert run("run", path, cwd=tmp_path)[0] == 1 and len(claims.history(kept.claims, "greedy-Digits-seed0")) == 1
    run("run", path, "--retry-failed", "--only", "greedy-*", cwd=tmp_path)
    assert len(claims.history(kept.claims, "greedy-Digits-seed0")) == 2


def test_minutes_of_a_device_become_images_on_several_too(tmp_path):
    launch = {"devices": 2, "threads": 1}
    path = write(tmp_path, models=["vae.yaml"], budget={"minutes": 0.02}, launch=launch)
    status, _, err = run("run", path, cwd=tmp_path)
    kept = Folder(tmp_path / "runs" / "tiny")
    assert status == 0, err + "".join(file.read_text() for file in kept.path.glob("logs/*"))
    budget = json.loads((kept.path / "budgets" / "vae-Digits.json").read_text())
    assert budget["images"] == pytest.approx(budget["images_per_second"] * 0.02 * 60 / 2, abs=1)
    assert kept.states()[0].budget == budget["images"]
    best, last = collect([kept.path])[0]
    assert best.training["world_size"] == last.training["world_size"] == 2
    assert last.run["images_seen"] == -(-budget["images"] // 16) * 16  # whole batches


def test_a_run_killed_for_memory_is_reported_and_the_others_continue(tmp_path, monkeypatch):
    killed = tmp_path / "killed"
    monkeypatch.setattr(launch, "killed_for_memory", lambda: len(list(tmp_path.glob("killed"))))

    def dies(folder, name):
        import os as system

        from genbench.suites import claims as them

        with them.take(folder, name):
            killed.touch()
            system.kill(system.getpid(), 9)

    def lives(folder, name):
        from genbench.suites import claims as them

        them.take(folder, name).end("done")
        return True

    kept = Folder(tmp_path / "kept")
    here = launch.Here(kept.path, Launch(at_once=1), 0)
    here.start("a", 1, dies, kept.claims, "a")
    for name, (took, why) in finish(here).items():
        assert not took
        record_death(kept, name, 0, why, False)
    here.start("b", 1, lives, kept.claims, "b")
    assert finish(here) == {"b": [True, None]}
    here.close()
    assert not list((kept.path / "jobs").iterdir())
    first, second = (claims.latest(kept.claims, name) for name in "ab")
    assert (first.outcome, second.outcome) == ("failed", "done") and "out of memory" in first.reason
    assert here.room(1)


@pytest.mark.parametrize("how", ["dies", "raises"])
def test_a_process_that_dies_before_its_run_begins_fails_with_its_last_output(tmp_path, how):
    def dies():
        import sys as system

        if how == "raises":
            raise OSError("no such module")
        print("no such module", file=system.stderr)
        system.stderr.flush()
        __import__("os")._exit(3)

    kept = Folder(tmp_path / "kept")
    here = launch.Here(kept.path, Launch(at_once=1), 0)
    here.start("a", 1, dies)
    record_death(kept, "a", 0, finish(here)["a"][1], False)
    attempt = claims.latest(kept.claims, "a")
    assert attempt.outcome == "failed" and attempt.reason.endswith("no such module")


@pytest.mark.skipif(os.getuid() != 0, reason="a small disk is mounted by root")
def test_a_full_disk_ends_the_suite_with_a_message_and_nothing_is_lost(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        path = write(tmp_path, models=["vae.yaml"], budget={"images": 1280})
        status, out, err = run("run", path, "--folder", disk / "tiny", cwd=tmp_path)
        assert status == 2 and "The disk" in err and "is full" in err and "Traceback" not in err, err
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        status, out, err = run("run", path, "--folder", disk / "tiny", cwd=tmp_path)
        assert status == 0, err
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
