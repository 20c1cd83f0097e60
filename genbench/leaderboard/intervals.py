"""Combine scores of several seeds: mean, standard deviation and 95% interval."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

NO_BOUND = ("exact", "estimate")  # beginnings of `Score.bound` for likelihoods that are not bounds
SEEDS = 3  # minimum for an interval: for two seeds, Student's t is 12.7


@dataclass(frozen=True)
class Score:
    """mean    over seeds; None if no seed has a value
    std     sample standard deviation over seeds; None for one seed
    low     95% interval of the mean, see `interval`; None for fewer than three seeds or equal values
    high
    seeds   number of seeds with a value
    within  mean of the standard deviations in the records: over splits or subsets of one sample
    bound   exact, estimate or lower bound, for a likelihood, and its options
    note    why there is no value
    """

    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    seeds: int
    within: float | None
    bound: str | None
    note: str | None


@functools.cache
def t_quantile(df: int) -> float:
    """Return the 97.5% quantile of Student's t, by bisection of the series of Abramowitz & Stegun 26.7.3 and 26.7.4.

    SciPy is not used, because its import would take longer than the leaderboard.
    """

    def within(t: float) -> float:  # P(|T| < t)
        theta = math.atan(t / math.sqrt(df))
        term, total = (math.cos(theta), 0.0) if df % 2 else (1.0, 0.0)
        for k in range(2 + df % 2, df + 1, 2):
            total += term
            term *= math.cos(theta) ** 2 * (k - 1) / k
        return (theta + math.sin(theta) * total) * 2 / math.pi if df % 2 else math.sin(theta) * total

    low, high = 0.0, 13.0  # 12.71 for one degree of freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < 0.95 else (low, middle)
    return high


def interval(values: Sequence[float], low: float | None, high: float | None) -> tuple[float, float] | None:
    """Return the 95% confidence interval of the mean by Student's t, within the score's range from `low` to `high`.

    A score with bounds is mapped to an unbounded scale: log(x - low) with only a lower bound, log(high - x) with only
    an upper bound, and the logit of (x - low) / (high - low) with both. On this scale the interval is symmetric about
    the mean, and the delta method gives its width. Only the mean is transformed, so values may lie on a bound.

    None for fewer than three values, for equal values (their deviation is unknown), and for values out of range.
    """
    n = len(values)
    if n < SEEDS or min(values) == max(values):
        return None
    mean, std = _moments(values)
    assert std is not None, "of several values"
    half = t_quantile(n - 1) * std / math.sqrt(n)
    if low is None and high is None:
        return mean - half, mean + half
    below = math.inf if low is None else mean - low
    above = math.inf if high is None else high - mean
    if below <= 0 or above <= 0 or (low is not None and min(values) < low) or (high is not None and max(values) > high):
        return None  # values are outside the range, or so close to a bound that the mean rounds to it
    if high is None:
        assert low is not None, "one of them is given"
        return low + below * math.exp(-half / below), low + below * math.exp(half / below)
    if low is None:
        return high - above * math.exp(half / above), high - above * math.exp(-half / above)
    half *= 1 / below + 1 / above
    odds = [below / above * math.exp(sign * half) for sign in (-1, 1)]
    return low + (high - low) * odds[0] / (1 + odds[0]), low + (high - low) * odds[1] / (1 + odds[1])


def score(entries: Sequence[dict[str, Any]]) -> Score:
    """Combine the entries of one metric over seeds."""
    valued = [entry for entry in entries if entry.get("value") is not None]
    values = [entry["value"] for entry in valued]
    n = len(values)
    mean, std = _moments(values) if n else (None, None)
    low, high = (n and interval(values, valued[0].get("low"), valued[0].get("high"))) or (None, None)
    bounds = [entry["bound"] for entry in entries if entry.get("bound")]
    return Score(
        mean=mean,
        std=std,
        low=low,
        high=high,
        seeds=n,
        within=mean_of(entry.get("std") for entry in entries),
        bound=next((b for b in bounds if not b.startswith(NO_BOUND)), bounds[0] if bounds else None),
        note=None if n and n == len(entries) else next(filter(None, (entry.get("note") for entry in entries)), None),
    )


def _moments(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation; the mean of equal values is exactly that value."""
    n = len(values)
    if n == 1:
        return values[0], None
    mean = min(max(math.fsum(values) / n, min(values)), max(values))
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))


def mean_of(values: Iterable[float | None]) -> float | None:
    there = [v for v in values if v is not None]
    return math.fsum(there) / len(there) if there else None
