"""What is printed about a suite while it runs."""

from genbench.suites.show import duration, summary
from genbench.suites.suite_folder import State


def test_durations_and_summaries_are_formatted():
    assert [duration(s) for s in (7, 99, 240, 9000)] == ["7 s", "99 s", "4 min", "2.5 h"]
    states = [State("a", "e", "done", 9, 9, 1.0, 10, None, 1), State("b", "e", "running", 3, 9, 1.0, None, None, 1)]
    assert summary(states, {}, 1) == "1 of 2 done, 1 running; about 7 s left"
    assert summary(states[:1], {}, 1) == "1 of 1 done"
