"""The interface of the evaluators: each measures one capability of a model."""

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

Expected = dict[str, str | None]  # by name of the score: None if it will be computed, else why it will not


@dataclass(frozen=True)
class Held:
    """What is known of a split.

    images  number of its images
    others  number of images of the other domain, if it has two that are not paired
    label   int64 [N], if there are labels
    paired  whether each image comes with the one that it is to be made from
    """

    images: int
    others: int = 0
    label: Tensor | None = None
    paired: bool = False


@dataclass(frozen=True)
class Plan:
    """An evaluation before it runs: a model, and the split of the data that it will be compared with.

    model      a GenerativeModule with the methods of the evaluator's capability
    reference  spec of the images in the size in which they are compared
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
        """Why a score that needs `least` images is not computed of `count`; None if there are enough."""
        return None if count >= least else f"it needs at least {least} images {of}".rstrip() + f", and there is {count}"

    def own(self, track: Track) -> Expected:
        """The user's metrics on a track."""
        names = own_metrics(self.protocol, track)
        return {self.extractor.score(name) if from_features(name) else name: None for name in names}


class Evaluator(ABC):
    """Measures the models that have a capability.

    capability  the protocol class that the models satisfy, see `genbench.core.capabilities`
    track       on which they are ranked
    groups      groups of metrics of a protocol that it computes
    """

    capability: ClassVar[type]
    track: ClassVar[Track]
    groups: ClassVar[frozenset[str]]

    def applies(self, model: GenerativeModule, protocol: Protocol) -> bool:
        """Whether the model has the capability, and the protocol a metric of it."""
        named = self.groups & set(protocol.metrics) or own_metrics(protocol, self.track)
        return isinstance(model, self.capability) and bool(named)

    @abstractmethod
    def expected(self, plan: Plan) -> Expected:
        """The scores that `evaluate` will give.

        Raises:
            UserError: it will end in an error.
        """

    @abstractmethod
    def evaluate(self, comparison: Comparison) -> Scores:
        """Measure the model of a comparison."""
