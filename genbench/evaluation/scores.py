"""The results of an evaluation in the format of records, and metrics that are updated block by block."""

from __future__ import annotations

import math
import traceback
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

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
    entries  scores in the format of a record, by name
    cost     costs of the evaluation, such as images sampled per second
    facts    facts about images other than the reference, stored in the record's protocol
    subject  facts for the record about a set of images that was evaluated instead of a model
    """

    protocol: Protocol
    extractor: Extractor
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    subject: dict[str, Any] = field(default_factory=dict)

    def put(self, score: str, value: Any, n: int, *, featured: bool = False, suffix: str = "", **more: Any) -> None:
        """Store a score of `n` images. The name of a `featured` score ends in the name of the extractor."""
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
        """Update a metric and store its scores, in the first process, if the protocol contains the group.

        names  names of the scores. Default: the names that the metric declares
        more   additional fields of the entries, and `suffix` of their names

        A score that cannot be computed is stored without a value, with the reason as its note.
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
        """Like `add`, for a user's own metric. Any exception in it becomes its note, so the other scores are kept.

        failed  the reason why an earlier update failed
        """
        if ranks.rank() > 0:
            return
        value = None
        if failed is None:
            try:
                made = metric() if isinstance(metric, type) else metric
                value, failed = _number(_computed(made, updates), name)
            except Exception as error:  # user code may raise anything
                failed = _failure(error)
        self.put(name, value, n, featured=from_features(name), note=failed)


def _computed(metric: Metric, updates: tuple[dict[str, Any], ...]) -> Any:
    if updates:  # updates run only in the first process, so there is nothing to gather
        metric.distributed_available_fn = lambda: False
    for update in updates:
        metric.update(**update)
    return metric.compute()


def declared(metric: Metric) -> tuple[str, ...]:
    """Names of the scores of a built-in metric."""
    assert isinstance(metric, Score)
    return metric.scores


def from_features(name: str) -> bool:
    """Whether a user's metric is computed from features or logits of the extractor."""
    parameters = update_parameters(REGISTERED[name])
    return SCALES[name].track == "generation" and bool({"features", "logits"} & set(parameters))


def own_metrics(protocol: Protocol, track: Track) -> dict[str, type[Metric]]:
    """The user's own metrics on a track that the protocol selects."""
    return {n: REGISTERED[n] for n in protocol.metrics if n in REGISTERED and SCALES[n].track == track}


def _number(found: Any, name: str) -> tuple[float | None, str | None]:
    """The value that a user's metric returned and None, or None and an error message."""
    if isinstance(found, Tensor) and found.numel() != 1:
        return None, f"`compute` returned a tensor of shape {list(found.shape)}; expected one number"
    try:
        value = float(found)
    except (TypeError, ValueError):
        return None, f"`compute` returned {type(found).__name__}; expected one number"
    scale = SCALES[name]
    if not math.isfinite(value):
        return None, f"`compute` returned {value}"
    if not scale.low <= value <= scale.high:
        return None, f"`compute` returned {value:g}, outside of its range {scale.low:g} to {scale.high:g}"
    return value, None


def _failure(error: Exception) -> str:
    """The exception of a user's metric, with its file and line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{reason(error)} ({last.filename}, line {last.lineno})"


class BlockUpdates:
    """Built-in metrics and the user's own metrics that each process updates with its blocks of images.

    Args:
        own: The user's own metrics, by name
        device: Device of the metrics and of their inputs
        metrics: Built-in metrics, by any key
    """

    def __init__(self, own: dict[str, type[Metric]], device: torch.device, **metrics: Metric) -> None:
        self.own = own
        self.metrics = {key: metric.to(device) for key, metric in metrics.items()}
        self._failed: dict[str, str] = {}  # the reason why a user's metric failed
        for name, metric in own.items():
            try:
                self.metrics[name] = metric().to(device)
            except Exception as error:  # user code may raise anything
                self._failed[name] = _failure(error)
        self._numbers: dict[str, list[int]] = {key: [] for key in self.metrics}

    def update(self, number: int, *tensors: Tensor) -> None:
        """Update all metrics with block `number`."""
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
        """Stop updating a metric, for this reason."""
        self._failed[key] = why

    def join(self) -> None:
        """Join the updates of all processes in the first process.

        Lists with one tensor per update are joined in the order of the blocks.
        """
        if ranks.several():
            for failed in ranks.gather([self._failed]):
                self._failed = failed | self._failed
            for key, metric in self.metrics.items():
                parts = ranks.gather([(self._numbers[key], _on_cpu(metric.metric_state))])
                if ranks.rank() == 0:
                    _set_joined(metric, parts)

    def add_own(self, scores: Scores, n: int) -> None:
        """Enter the user's metrics, of `n` images."""
        for name, metric in self.own.items():
            scores.add_own(name, self.metrics.get(name, metric), n, failed=self._failed.get(name))


def _on_cpu(state: dict[str, Any]) -> dict[str, Any]:
    return {name: [x.cpu() for x in v] if isinstance(v, list) else v.cpu() for name, v in state.items()}


def _set_joined(metric: Metric, parts: list[tuple[list[int], dict[str, Any]]]) -> None:
    """Make the metric compute with the states of all processes; `parts` contains the blocks and the state of each.

    torchmetrics gathers states with `dist_sync_fn`, which is replaced here, since the states are gathered already.
    """
    numbers = [number for own, _ in parts for number in own]
    gathered: dict[int, list[Tensor]] = {}
    for name, mine in metric.metric_state.items():
        states = [state[name] for _, state in parts]
        if isinstance(mine, Tensor):
            gathered[id(mine)] = [state.to(mine.device) for state in states]
            continue
        joined = [x.to(metric.device) for state in states for x in state]
        if len(joined) == len(numbers):  # one tensor per update
            joined = [x for _, x in sorted(zip(numbers, joined, strict=True), key=lambda pair: pair[0])]
        setattr(metric, name, joined)
    metric.dist_sync_fn = lambda mine, group=None: gathered.get(id(mine), [mine])
    metric.distributed_available_fn = lambda: True
