"""All evaluators. `measure` runs those that apply to a model and a protocol; `expected` predicts their scores."""

from __future__ import annotations

from genbench.core import ranks
from genbench.core.batch import DataSpec
from genbench.core.capabilities import HasLikelihood, Segments, Translates
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.data.module import DataModule
from genbench.evaluation.classification import Classification
from genbench.evaluation.comparison import Comparison
from genbench.evaluation.evaluator import Evaluator, Expected, Held, Plan
from genbench.evaluation.extractor import Extractor
from genbench.evaluation.generation import Generation
from genbench.evaluation.likelihood import LogLikelihood
from genbench.evaluation.paired import Reconstruction, Translation
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.scores import Scores
from genbench.evaluation.segmentation import Segmentation

GENERATION = Generation()
EVALUATORS: tuple[Evaluator, ...] = (
    GENERATION, Reconstruction(), Translation(), LogLikelihood(), Segmentation(), Classification(),
)  # fmt: skip


def measure(comparison: Comparison) -> Scores:
    """Compute all scores of a comparison that its protocol selects.

    Raises:
        UserError: no score can be computed.
    """
    subject, protocol = comparison.subject, comparison.protocol
    if subject is None:
        return GENERATION.evaluate_baseline(comparison)
    if not isinstance(subject, GenerativeModule):
        return GENERATION.evaluate_images(comparison)
    found = Scores(protocol, comparison.extractor)
    for evaluator in EVALUATORS:
        if evaluator.applies(subject, protocol):
            part = evaluator.evaluate(comparison)
            found.entries |= part.entries
            found.cost |= part.cost
            found.facts |= part.facts
    if not ranks.from_first(bool(found.entries)):
        for capability, needed in ((Translates, "pairs or domains to translate"), (Segments, "masks")):
            if isinstance(subject, capability):
                raise UserError(
                    f"Evaluating {type(subject).__name__} needs {needed}, but {comparison.reference.name} has none. "
                    "Evaluate it on data like its training data."
                )
        raise UserError(
            _nothing(subject, protocol)
            + (
                " Models with a likelihood are VAEs, PixelCNNs, normalizing flows, DDPM and FlowMatching."
                if "likelihood" in protocol.metrics
                else ""
            )
        )
    return found


def expected(
    model: GenerativeModule, data: DataModule, protocol: Protocol, extractor: Extractor, held: Held
) -> Expected:
    """The scores that `measure` will compute for a model on one split of its data.

    Raises:
        UserError: `measure` would raise an error: no score can be computed, or a conditional model has no conditions.
    """
    plan = Plan(model, data, _compared(data), protocol, extractor, held)
    if protocol.pixels == "binary" and not plan.reference.binary and isinstance(model, HasLikelihood):
        raise UserError(f"The protocol {protocol.name} is for binary pixels, but {data.name} has gray pixels.")
    found: Expected = {}
    for evaluator in EVALUATORS:
        if evaluator.applies(model, protocol):
            found |= evaluator.expected(plan)
    if not found:
        raise UserError(_nothing(model, protocol))
    extractor.check(plan.reference.shape)
    return found


def _compared(data: DataModule) -> DataSpec:
    """The spec of `data.reference()`. The reference is not created if that is slow: a folder would be listed again."""
    return data.reference().spec if getattr(data, "published_pixels", True) else data.spec


def _nothing(model: GenerativeModule, protocol: Protocol) -> str:
    return (
        f"No metric of the protocol {protocol.name} applies to {type(model).__name__} on this data. Its metrics are "
        f"{', '.join(protocol.metrics)}."
    )
