"""The interface of the evaluators. Each evaluator measures one capability of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from genbench.core.batch import DataSpec
from genbench.core.module import GenerativeModule
from genbench.data.module import DataModule
from genbench.evaluation.comparison import Comparison
from genbench.evaluation.extractor import Extractor
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.scores import Scores, from_features, own_metrics
from genbench.metrics.scales import Track

Expected = dict[str, str | None]  # score name -> None if the score will be computed, else the reason why not


@dataclass(frozen=True)
class Held:
    """Facts about a split of the data.

    images  number of images
    others  number of images of the other domain, for data with two unpaired domains
    label   labels int64 [N], or None
    paired  whether each image is paired with its source image
    """

    images: int
    others: int = 0
    label: Tensor | None = None
    paired: bool = False


@dataclass(frozen=True)
class Plan:
    """An evaluation that has not run yet: a model, and the split of the data that it will be compared with.

    model      a GenerativeModule that has the evaluator's capability
    reference  spec of the reference images, in the size of the comparison
    """

    model: Any
    data: DataModule
    reference: DataSpec
    protocol: Protocol
    extractor: Extractor
    held: Held

    @property
    def real(self) -> int:
        """Number of reference images."""
        return min(self.held.images, self.protocol.real)

    @property
    def points(self) -> bool:
        return len(self.reference.shape) == 1

    def few(self, count: int, least: int, of: str = "") -> str | None:
        """None if `count` images are enough for a score that needs `least`, else the reason why it is not computed."""
        return None if count >= least else f"it needs at least {least} images {of}".rstrip() + f"; got {count}"

    def own(self, track: Track) -> Expected:
        """The scores of the user's own metrics on a track."""
        names = own_metrics(self.protocol, track)
        return {self.extractor.score(name) if from_features(name) else name: None for name in names}


class Evaluator(ABC):
    """Evaluates models that have a capability.

    capability  the `typing.Protocol` class that the models satisfy, see `genbench.core.capabilities`
    track       kind of evaluation; models are ranked separately on each track
    groups      groups of metrics that the evaluator computes
    """

    capability: ClassVar[type]
    track: ClassVar[Track]
    groups: ClassVar[frozenset[str]]

    def applies(self, model: GenerativeModule, protocol: Protocol) -> bool:
        """Whether the model has the capability, and the protocol selects a metric of this evaluator."""
        named = self.groups & set(protocol.metrics) or own_metrics(protocol, self.track)
        return isinstance(model, self.capability) and bool(named)

    @abstractmethod
    def expected(self, plan: Plan) -> Expected:
        """The scores that `evaluate` will compute.

        Raises:
            UserError: `evaluate` would raise an error.
        """

    @abstractmethod
    def evaluate(self, comparison: Comparison) -> Scores:
        """Measure the model of a comparison."""
