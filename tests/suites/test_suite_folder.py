"""What a suite keeps, and what its folder refuses."""

import os

import pytest
import yaml

from genbench.cli import configs
from genbench.core.errors import UserError
from genbench.suites import claims
from genbench.suites.definition import load
from genbench.suites.suite_folder import Folder, State, about, progress, seconds_left


def begin(tmp_path, name="mine", config=None, **more):
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"models": ["dcgan"], "budget": {"minutes": 5}} | more))
    suite = load(path, configs.find)
    kept = Folder(tmp_path / "kept")
    names = [e.name for e in suite.experiments]
    facts = {n: {"devices": 1, "nodes": 1, "parameters": 9} for n in names}
    kept.begin(suite, {n: config or {"model": {"width": 8}} for n in names}, facts)
    return kept


def test_seeds_and_models_may_be_added(tmp_path):
    begin(tmp_path, seeds=[0, 1])
    kept = begin(tmp_path, models=["vae", "dcgan"], seeds=[2])
    assert list(kept.runs()) == ["vae-MNIST-seed2", "dcgan-MNIST-seed2", "dcgan-MNIST-seed0", "dcgan-MNIST-seed1"]


def test_the_same_suite_again_changes_nothing(tmp_path):
    kept = begin(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in kept.path.rglob("*") if path.is_file()}
    begin(tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in kept.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "other"}, "belongs to the suite 'mine', but this is 'other'"),
        ({"budget": {"images": "5k"}}, r"budget \(5 minutes on one device before, 5,000 images now\)"),
        ({"config": {"model": {"width": 16}}}, r"dcgan-MNIST: model.width \(8 before, 16 now\)"),
    ],
)
def test_a_folder_of_another_suite_or_of_other_settings_is_refused(tmp_path, change, message):
    begin(tmp_path)
    with pytest.raises(UserError, match=message):
        begin(tmp_path, **change)


def test_a_suite_killed_while_it_wrote_its_plan_starts_again(tmp_path):
    kept = begin(tmp_path)
    (kept.path / "suite.yaml").unlink()
    kept = begin(tmp_path, config={"model": {"width": 99}})
    assert kept.config("dcgan-MNIST") == {"model": {"width": 99}}


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="contains files that do not belong to a suite"):
        begin(tmp_path)


def test_minutes_become_images_once(tmp_path):
    kept = begin(tmp_path)
    assert kept.images("dcgan-MNIST") is None
    assert kept.keep_images("dcgan-MNIST", {"images": 5000}) == 5000
    assert kept.keep_images("dcgan-MNIST", {"images": 7000}) == 5000  # another seed was faster
    assert kept.images("dcgan-MNIST") == 5000
    assert [path.name for path in (kept.path / "budgets").iterdir()] == ["dcgan-MNIST.json"]


def test_states_follow_from_attempts_and_curves(tmp_path):
    kept = begin(tmp_path, seeds=[0, 1, 2, 3, 4])
    for k, outcome in enumerate(["done", "failed", None, "stopped"]):
        claim = claims.take(kept.claims, f"dcgan-MNIST-seed{k}")
        if outcome:
            claim.end(outcome, "no memory" if outcome == "failed" else None)
    run = kept.path / "dcgan-MNIST-seed2"
    run.mkdir()
    (run / "metrics.csv").write_text("images_seen,images_per_second,loss\n64,100,3\n128,120,2\n192,,\n25")
    states = kept.states()
    assert [s.state for s in states] == ["done", "failed", "running", "stopped", "waiting"]
    assert (states[2].images, states[2].speed, states[1].reason) == (192, 120.0, "no memory")


def test_progress_is_read_from_the_end_of_a_long_curve(tmp_path):
    rows = "".join(f"{k},{k / 7},0.123456\n" for k in range(1, 5000))
    (tmp_path / "metrics.csv").write_text("images_seen,images_per_second,loss\n" + rows)
    assert progress(tmp_path) == (4999, 4999 / 7)
    (tmp_path / "metrics.csv").write_text("images_seen\n")
    assert progress(tmp_path) == (0, None) == progress(tmp_path / "none")


def test_progress_is_read_from_a_curve_that_a_spreadsheet_saved(tmp_path):
    text = "images_seen;loss;images_per_second\r\n64;0,5;99,5\r\n1,28E+02;0,25;120,5\r\n192;0,125;\r\n"
    for encoding in ("utf-8-sig", "cp1252", "utf-16"):
        (tmp_path / "metrics.csv").write_bytes(text.encode(encoding))
        assert progress(tmp_path) == (192, 120.5)
    (tmp_path / "metrics.csv").write_bytes(b"PK\x03\x04" + bytes(range(256)))
    assert progress(tmp_path) == (0, None)


def state(kind, images, budget=1000, speed=None, seconds=None):
    return State("r", "e", kind, images, budget, speed, seconds, None, 1)


@pytest.mark.parametrize("name", ["suite.yaml", "dcgan-MNIST-seed0/metrics.csv", "claims/dcgan-MNIST-seed0.1.json"])
def test_a_named_pipe_is_refused_and_not_read(tmp_path, name):
    kept = begin(tmp_path)
    path = kept.path / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(UserError, match=f"{name} is a named pipe; expected a file"):
        Folder(kept.path).states()


def test_the_time_left_is_the_remaining_training_at_the_measured_speed_plus_overhead():
    done = state("done", 1000, speed=10, seconds=120)  # 100 s of training, 20 s around
    left = [state("running", 400, speed=10), state("waiting", 0)]
    assert seconds_left([done, *left], {}, 1) == pytest.approx(60 + 100 + 2 * 20)
    assert seconds_left([done, *left], {}, 2) == pytest.approx(120)  # the longest
    assert seconds_left(left[1:], {}, 1) is None
    assert seconds_left([state("waiting", 0, budget=None)], {"e": 5.0}, 1) == 300


def test_a_record_names_the_suite_of_its_run(tmp_path):
    kept = begin(tmp_path, grid={"model.width": [8, 16]}, budget={"images": "5k"})
    found = about(kept.path / "dcgan-MNIST-width=16-seed0")
    assert (found["suite"], found["grid"], found["tried"]) == ("mine", {"model.width": 16}, 2)
    assert "--model.width=16" in found["command"] and "--max_images=5000" in found["command"]
    assert about(kept.path / "another") == about(tmp_path / "runs" / "x") == about(None) == {}


def test_a_damaged_plan_is_reported(tmp_path):
    kept = begin(tmp_path)
    (kept.path / "suite.yaml").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        kept.states()
    os.unlink(kept.path / "suite.yaml")
    with pytest.raises(UserError, match="is not the folder of a suite"):
        kept.plan()
