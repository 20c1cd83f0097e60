"""What an evaluation has found: scores as a record holds them, and metrics that are updated block by block."""

from __future__ import annotations

import math
import traceback
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from genbench.core import ranks
from genbench.core.errors import UserError, reason
from genbench.evaluation.extractor import Extractor
from genbench.evaluation.protocol import Protocol
from genbench.metrics.registry import REGISTERED, update_parameters
from genbench.metrics.scales import SCALES, Track
from genbench.metrics.score import Score


@dataclass
class Scores:
    """
    entries  of a record, by name
    cost     of the evaluation, such as images sampled per second
    facts    what the protocol of the record says of the images beside the reference
    subject  what the record says of images in a model's place
    """

    protocol: Protocol
    extractor: Extractor
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    subject: dict[str, Any] = field(default_factory=dict)

    def put(self, score: str, value: Any, n: int, *, featured: bool = False, suffix: str = "", **more: Any) -> None:
        """Enter a score of `n` images; the name of a `featured` one ends in its extractor's."""
        scale = SCALES[score]
        self.entries[self.extractor.score(score) if featured else score + suffix] = {
            "value": None if value is None else float(value),
            "std": None,
            "better": scale.better,
            "low": scale.low if math.isfinite(scale.low) else None,
            "high": scale.high if math.isfinite(scale.high) else None,
            "n": n,
            "track": scale.track,
            "note": None,
        } | more

    def add(
        self,
        group: str,
        n: int,
        metric: Metric,
        *updates: dict[str, Any],
        names: tuple[str, ...] = (),
        featured: bool = False,
        **more: Any,
    ) -> None:
        """Update a metric and enter what it computes, in the first process, if the protocol has the group.

        names  of the scores, if they are not the metric's own
        more   fields of the entries, and `suffix` of their names

        A score that cannot be computed is left blank, with the reason.
        """
        if group not in self.protocol.metrics or ranks.rank() > 0:
            return
        names = names or declared(metric)
        try:
            found = _computed(metric, updates)
        except UserError as error:
            for name in names:
                self.put(name, None, n, featured=featured, **more | {"note": str(error)})
            return
        for name, value in (found if isinstance(found, dict) else {names[0]: found}).items():
            value, std = value if isinstance(value, tuple) else (value, None)
            self.put(name, value, n, featured=featured, **{"std": std} | more)

    def add_own(
        self, name: str, metric: Metric | type[Metric], n: int, *updates: dict[str, Any], failed: str | None = None
    ) -> None:
        """The same of a metric of the user's: whatever it does, the other scores are kept.

        failed  why it could not be updated before
        """
        if ranks.rank() > 0:
            return
        value = None
        if failed is None:
            try:
                made = metric() if isinstance(metric, type) else metric
                value, failed = _number(_computed(made, updates), name)
            except Exception as error:  # it is the user's code
                failed = _failure(error)
        self.put(name, value, n, featured=from_features(name), note=failed)


def _computed(metric: Metric, updates: tuple[dict[str, Any], ...]) -> Any:
    if updates:  # in the first process alone: there is nothing to gather
        metric.distributed_available_fn = lambda: False
    for update in updates:
        metric.update(**update)
    return metric.compute()


def declared(metric: Metric) -> tuple[str, ...]:
    """Names of the scores of a metric of genbench's."""
    assert isinstance(metric, Score)
    return metric.scores


def from_features(name: str) -> bool:
    """Whether a user's metric is computed from what the extractor gives."""
    parameters = update_parameters(REGISTERED[name])
    return SCALES[name].track == "generation" and bool({"features", "logits"} & set(parameters))


def own_metrics(protocol: Protocol, track: Track) -> dict[str, type[Metric]]:
    """The user's metrics on a track that the protocol names."""
    return {n: REGISTERED[n] for n in protocol.metrics if n in REGISTERED and SCALES[n].track == track}


def _number(found: Any, name: str) -> tuple[float | None, str | None]:
    """The value that a user's metric has computed, or None and what is wrong with it."""
    if isinstance(found, Tensor) and found.numel() != 1:
        return None, f"`compute` gave a tensor of shape {list(found.shape)}, and one number was expected"
    try:
        value = float(found)
    except (TypeError, ValueError):
        return None, f"`compute` gave {type(found).__name__}, and one number was expected"
    scale = SCALES[name]
    if not math.isfinite(value):
        return None, f"`compute` gave {value}"
    if not scale.low <= value <= scale.high:
        return None, f"`compute` gave {value:g}, outside of its range {scale.low:g} to {scale.high:g}"
    return value, None


def _failure(error: Exception) -> str:
    """What went wrong in a user's metric, and on which line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{reason(error)} ({last.filename}, line {last.lineno})"


class BlockUpdates:
    """Metrics that each process updates with its own blocks of images: some of genbench's, and the user's on a track.

    Args:
        own: The user's, by name
        device: Where metrics and their inputs are
        metrics: genbench's, by any key
    """

    def __init__(self, own: dict[str, type[Metric]], device: torch.device, **metrics: Metric) -> None:
        self.own = own
        self.metrics = {key: metric.to(device) for key, metric in metrics.items()}
        self._failed: dict[str, str] = {}  # why a user's metric was updated no further
        for name, metric in own.items():
            try:
                self.metrics[name] = metric().to(device)
            except Exception as error:  # it is the user's code
                self.metrics[name], self._failed[name] = MeanMetric(), _failure(error)
        self._numbers: dict[str, list[int]] = {key: [] for key in self.metrics}

    def update(self, number: int, *tensors: Tensor) -> None:
        """Block `number` for all metrics."""
        for key in self.metrics:
            self.update_one(number, key, *tensors)

    def update_one(self, number: int, key: str, *tensors: Tensor, **named: Any) -> None:
        if key in self._failed:
            return
        self._numbers[key].append(number)
        metric = self.metrics[key]
        tensors = tuple(x.to(metric.device) for x in tensors)
        named = {name: x.to(metric.device) if isinstance(x, Tensor) else x for name, x in named.items()}
        try:
            metric.update(*tensors, **named)
        except Exception as error:
            if key not in self.own:
                raise
            self._failed[key] = _failure(error)

    def leave_blank(self, key: str, why: str) -> None:
        """Update a metric no further."""
        self._failed[key] = why

    def join(self) -> None:
        """Join the updates of all processes in the first one, values that are kept image by image in the order of the
        blocks."""
        if ranks.several():
            for failed in ranks.gather([self._failed]):
                self._failed = failed | self._failed
            for key, metric in self.metrics.items():
                parts = ranks.gather([(self._numbers[key], _on_cpu(metric.metric_state))])
                if ranks.rank() == 0:
                    _set_joined(metric, parts)

    def add_own(self, scores: Scores, n: int) -> None:
        """Enter the user's metrics, of `n` images."""
        for name in self.own:
            scores.add_own(name, self.metrics[name], n, failed=self._failed.get(name))


def _on_cpu(state: dict[str, Any]) -> dict[str, Any]:
    return {name: [x.cpu() for x in v] if isinstance(v, list) else v.cpu() for name, v in state.items()}


def _set_joined(metric: Metric, parts: list[tuple[list[int], dict[str, Any]]]) -> None:
    """Let the metric compute with the states of all processes; `parts` has the blocks and the state of each.

    torchmetrics gathers states with `dist_sync_fn`; here they have been gathered already.
    """
    numbers = [number for own, _ in parts for number in own]
    gathered: dict[int, list[Tensor]] = {}
    for name, mine in metric.metric_state.items():
        states = [state[name] for _, state in parts]
        if isinstance(mine, Tensor):
            gathered[id(mine)] = [state.to(mine.device) for state in states]
            continue
        joined = [x.to(metric.device) for state in states for x in state]
        if len(joined) == len(numbers):  # one tensor for each update
            joined = [x for _, x in sorted(zip(numbers, joined, strict=True), key=lambda pair: pair[0])]
        setattr(metric, name, joined)
    metric.dist_sync_fn = lambda mine, group=None: gathered.get(id(mine), [mine])
    metric.distributed_available_fn = lambda: True
