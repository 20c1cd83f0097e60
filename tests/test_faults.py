"""Nothing that was written is lost by a kill or a full disk, and what goes on ends as in peace.

A few moments of those that benchmarks/scripts/faults.py takes by chance.
"""

import random

import faults
import pytest


@pytest.fixture(scope="module")
def peace(tmp_path_factory):
    """Commands, and what they end with in peace."""
    faults.warm()
    return faults.kinds(tmp_path_factory.mktemp("peace"), {"fit vae", "resume dcgan", "evaluate"}, images=480)


@pytest.fixture
def trial(peace, tmp_path):
    return lambda name: faults.Trial(peace[name], tmp_path / "trial")


def first(kind, *words):
    """The number of a command's first point of writing that is called so."""
    return next(int(line.split()[1]) for line in kind.log if all(word in line for word in words))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fit vae", ("write", ".lock")),
        ("fit vae", ("write", ".best.ckpt")),
        ("fit vae", ("create", ".last.ckpt")),
        ("resume dcgan", ("replace", "config.yaml")),
        ("evaluate", ("write", ".samples.png")),
    ],
)
def test_a_kill_loses_nothing_and_what_goes_on_ends_as_in_peace(peace, trial, name, words):
    faults.killed(trial(name), random.Random(0), at=first(peace[name], *words))


@pytest.mark.parametrize(
    ("name", "words", "seed"),
    [
        ("fit vae", ("fsync", "config.yaml"), 0),
        ("resume dcgan", ("write", ".last.ckpt"), 1),
        ("evaluate", ("create", ".json"), 2),
    ],
)
def test_a_full_disk_loses_nothing_and_what_goes_on_ends_as_in_peace(peace, trial, name, words, seed):
    faults.filled(trial(name), random.Random(seed), mounted=False, at=first(peace[name], *words))


def test_the_first_checkpoint_of_a_run_without_room_goes_elsewhere_and_the_printed_commands_go_on(peace, trial):
    new = trial("fit vae")
    new.fill()
    at = first(peace["fit vae"], "replace", "config.yaml") + 1
    fault = {"below": [str(new.work)], "at": at, "kind": "inodes", "log": str(new.log)}
    assert new.run(new.kind.argv, fault) == 2
    assert f"mv {new.temporary}/genbench-" in new.said[-1]
    assert not list(new.work.rglob("*.ckpt")) and not list(new.work.rglob("metrics.csv"))
    new.end_in_peace()
    faults.equal(new.kind.after, new.work, pictures=False)  # with the rows that had no room
