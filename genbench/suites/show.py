"""Print messages about a suite while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from genbench.suites.suite_folder import Folder, State, seconds_left


class Lines:
    """Prints a line when a run begins or ends. A terminal also shows the current counts of runs."""

    def __init__(self, kept: Folder, at_once: int) -> None:
        self.kept, self.at_once, self.minutes = kept, at_once, kept.minutes()
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Any = Status("", console=self.console) if self.console.is_terminal else None
        self._next = 0.0
        if self._live:
            self._live.start()

    def begins(self, state: State) -> None:
        self.say(f"{state.run}  {'resumes' if state.attempts else 'begins'}")

    def ended(self, run: str) -> None:
        (state,) = self.kept.states([run])
        if state.state == "failed":
            self.say(f"{run}  failed: {(state.reason or '').rstrip('.')}. Its log: {self.kept.log(run)}")
        elif state.state == "done":
            took = f" in {duration(state.seconds)}" if state.seconds else ""
            self.say(f"{run}  done, {state.images:,} images{took}")
        elif state.state == "stopped":
            self.say(f"{run}  stopped, can be resumed" + (f": {state.reason}" if state.reason else ""))

    def say(self, text: str) -> None:
        self.console.print(escape(f"{time.strftime('%H:%M:%S')}  {text}"))

    def refresh(self, states: Iterable[State]) -> None:
        if self._live is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 2
        self._live.update(summary(list(states), self.minutes, self.at_once))

    def close(self) -> None:
        if self._live:
            self._live.stop()


def summary(states: list[State], minutes: dict[str, float | None], at_once: int) -> str:
    """Summarize states: `5 of 12 done, 2 running, 1 failed; about 17 min left`."""
    count = {kind: sum(state.state == kind for state in states) for kind in ("running", "queued", "failed", "stopped")}
    parts = [f"{sum(s.state == 'done' for s in states)} of {len(states)} done"]
    parts += [f"{n} {kind}" for kind, n in count.items() if n]
    text = ", ".join(parts)
    if all(state.state in ("done", "failed") for state in states):
        return text
    left = seconds_left(states, minutes, at_once)
    return text + ("; the time left is not known yet" if left is None else f"; about {duration(left)} left")


def duration(seconds: float) -> str:
    """Format a duration: 17 s, 4 min, 2.5 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"
