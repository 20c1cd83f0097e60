"""One holder at a time, whoever tries, and whatever dies."""

import json
import multiprocessing
import os
import signal
import time

import pytest

from genbench.suites import claims


def test_the_first_process_to_take_a_run_holds_it(tmp_path):
    claim = claims.take(tmp_path, "a")
    assert claim.attempt.number == 1
    assert claims.take(tmp_path, "a") is None
    assert claims.latest(tmp_path, "a").alive and claims.latest(tmp_path, "b") is None


def take(folder, start, found):
    start.wait()
    found.put(claims.take(folder, "a") is not None)
    start.wait()  # a winner that has died is succeeded


def test_only_one_of_many_simultaneous_processes_takes_a_run(tmp_path):
    context = multiprocessing.get_context("fork")
    for number in range(1, 4):
        start, found = context.Barrier(8), context.Queue()
        tries = [context.Process(target=take, args=(tmp_path, start, found)) for _ in range(8)]
        for process in tries:
            process.start()
        won = [found.get(timeout=30) for _ in tries]
        for process in tries:
            process.join()
        assert sum(won) == 1
        assert len(claims.history(tmp_path, "a")) == number  # the winner has died: its successors compete again


@pytest.mark.parametrize(("outcome", "again", "open_"), [
    ("done", False, False), ("done", True, False),
    ("failed", False, False), ("failed", True, True),
    ("stopped", False, True),
])  # fmt: skip
def test_the_outcome_of_an_attempt_decides_whether_another_may_begin(tmp_path, outcome, again, open_):
    claims.take(tmp_path, "a").end(outcome, "why")
    after = claims.take(tmp_path, "a", again=again)
    assert (after is not None) == open_
    assert claims.history(tmp_path, "a")[0].reason == "why"


def test_a_killed_holder_on_this_machine_is_detected_at_once(tmp_path):
    number = os.fork()
    if number == 0:
        claims.take(tmp_path, "a")
        signal.pause()
    while claims.latest(tmp_path, "a") is None:
        time.sleep(0.01)
    time.sleep(0.1)
    assert claims.latest(tmp_path, "a").alive
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    assert not claims.latest(tmp_path, "a").alive
    assert claims.take(tmp_path, "a").attempt.number == 2


def elsewhere(tmp_path, silent):
    """A claim of another machine that gave its last sign of life so many seconds ago."""
    claims.take(tmp_path, "a")
    path = tmp_path / "a.1.json"
    found = json.loads(path.read_text())
    found["holder"]["host"] = "elsewhere"
    path.write_text(json.dumps(found))
    os.utime(path, (time.time() - silent,) * 2)


def test_a_suspended_holder_on_this_machine_keeps_its_run(tmp_path):
    claims.take(tmp_path, "a")
    os.utime(tmp_path / "a.1.json", (0, 0))  # as after a night with the lid closed
    assert claims.latest(tmp_path, "a").alive and claims.take(tmp_path, "a") is None


def test_a_holder_on_another_machine_is_replaced_after_stale_seconds_without_a_heartbeat(tmp_path):
    elsewhere(tmp_path, claims.STALE - 20)
    assert claims.take(tmp_path, "a") is None
    elsewhere_path = tmp_path / "a.1.json"
    os.utime(elsewhere_path, (time.time() - claims.STALE - 1,) * 2)
    assert claims.take(tmp_path, "a").attempt.number == 2


def test_a_claim_sends_heartbeats(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT", 0.05)
    claim = claims.take(tmp_path, "a")
    path = tmp_path / "a.1.json"
    os.utime(path, (0, 0))
    with claim:
        for _ in range(100):
            if path.stat().st_mtime > time.time() - 60:
                break
            time.sleep(0.05)
    assert path.stat().st_mtime > time.time() - 60


def test_a_suspended_holder_that_was_replaced_exits(tmp_path):
    number = os.fork()
    if number == 0:
        claims.HEARTBEAT = 0.05
        with claims.take(tmp_path, "a"):
            time.sleep(60)
        os._exit(0)
    while not (tmp_path / "a.1.json").exists():
        time.sleep(0.01)
    (tmp_path / "a.2.json").write_text("{}")
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 1


def test_a_holder_that_died_before_it_wrote_its_file_is_replaced(tmp_path):
    (tmp_path / "a.1.json").write_text("")
    assert claims.latest(tmp_path, "a").alive  # it may be about to
    os.utime(tmp_path / "a.1.json", (0, 0))
    assert claims.take(tmp_path, "a").attempt.number == 2


def test_a_requeued_job_takes_its_run_again_at_once(tmp_path):
    claims.take(tmp_path, "a", job="7_1")
    path = tmp_path / "a.1.json"
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', '"pid": 1').replace('"host": "', '"host": "x'))
    assert claims.take(tmp_path, "a", job="7_2") is None
    assert claims.take(tmp_path, "a", job="7_1").attempt.number == 2


def test_a_claim_on_a_full_disk_leaves_no_file(tmp_path, full, monkeypatch):
    full(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        claims.take(tmp_path, "a")
    assert claims.latest(tmp_path, "a") is None and not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert claims.take(tmp_path, "a").attempt.number == 1
