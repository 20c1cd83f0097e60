"""Likelihood: log p(x) of the reference images."""

from __future__ import annotations

import math
from typing import Any

from genbench.core import ranks
from genbench.core.batch import from_stored
from genbench.core.capabilities import HasLikelihood, options
from genbench.core.errors import dimensions
from genbench.data.module import DataModule
from genbench.evaluation.comparison import Comparison
from genbench.evaluation.evaluator import Evaluator, Expected, Plan
from genbench.evaluation.images import SplitImages
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.scores import BlockUpdates, Scores, own_metrics
from genbench.metrics.likelihood import Likelihood
from genbench.metrics.scales import GROUPS


def not_asked(model: Any, sampling: dict[str, Any]) -> str | None:
    """Why the likelihood of this model is not computed with these options: it takes long; None if it is computed."""
    option = getattr(model, "likelihood_option", None)
    if option is None or sampling.get(option):
        return None
    return f"it takes long, and is computed only with `--{option} N`"


def _suffix(own: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """The end of the names of scores: the size of the model's images, if it is not that of the reference."""
    return "" if tuple(own) == tuple(shape) else f"-{dimensions(own).replace('×', 'x')}"


def _names(protocol: Protocol) -> tuple[str, ...]:
    return GROUPS["likelihood"] if "likelihood" in protocol.metrics else ()


class LogLikelihood(Evaluator):
    """Likelihood of the reference images. If the model was trained on images of a different size, the likelihood is
    computed at that size, and the size is appended to the names of the scores."""

    capability = HasLikelihood
    track = "likelihood"
    groups = frozenset({"likelihood"})

    def expected(self, plan: Plan) -> Expected:
        model, reference = plan.model, plan.reference
        kind = "density" if plan.points else "binary" if reference.binary else plan.protocol.pixels
        why = None if model.pixels == kind else f"it is for {model.pixels} pixels, but the data has {kind} pixels"
        why = why or not_asked(model, {})
        suffix = _suffix(model.spec.shape, reference.shape)
        return dict.fromkeys((*(name + suffix for name in _names(plan.protocol)), *plan.own(self.track)), why)

    def evaluate(self, comparison: Comparison) -> Scores:
        c, model, images = comparison, comparison.model, comparison.images
        scores, own = Scores(c.protocol, c.extractor), own_metrics(c.protocol, self.track)
        own_options = {k: c.sampling.get(k, v) for k, v in options(model.log_likelihood).items()}
        if note := not_asked(model, c.sampling):
            suffix = _suffix(model.spec.shape, images.shape)
            for name in _names(c.protocol):
                scores.put(name, None, len(images), suffix=suffix, note=note, bound=model.likelihood)
            for name in own:
                scores.put(name, None, len(images), note=note, bound=model.likelihood)
            return scores
        bound = ", ".join([model.likelihood, *(f"{v} {k.replace('_', ' ')}" for k, v in own_options.items())])
        points = len(images.shape) == 1  # points always have a density, for any `pixels` of the protocol
        kind, shape = "density" if points else c.pixels, tuple(model.spec.shape)
        size = dimensions(shape)
        if shape != images.shape and isinstance(c.given, DataModule) and c.given.spec.shape == shape:
            images = SplitImages(c.given, c.protocol.split, c.protocol.real)
        if model.pixels != kind or shape != images.shape:
            here = f"{kind} pixels, {dimensions(images.shape)}"
            note = f"the model's likelihood is for {model.pixels} pixels, {size}, but the data has {here}"
            if model.pixels == "binary" != kind:
                note += "; use `--data.binarize static` for binary pixels"
            elif shape != images.shape and not points:
                note += f"; use `--data.size {shape[-1]}` for images of the model's size"
            for name in (*_names(c.protocol), *own):
                scores.put(name, None, len(images), note=note, bound=bound)
            return scores
        more: dict[str, Any] = {"bound": bound, "suffix": _suffix(shape, c.images.shape)}
        metric = Likelihood(math.prod(shape))
        updates = BlockUpdates(own, c.device, likelihood=metric)
        estimated, squared_errors = hasattr(model, "log_likelihood_and_error"), 0.0
        for number, rows, real in c.blocks("Likelihood", len(images)):
            x = from_stored(images.images(rows)).to(c.device, model.dtype)
            if estimated:
                nats, error = model.log_likelihood_and_error(x, **own_options)
                squared_errors += error.double()[:real].square().sum().item()
            else:
                nats = model.log_likelihood(x, **own_options)
            updates.update(number, nats.double()[:real])
        updates.join()
        error = sum(ranks.gather([squared_errors])) ** 0.5 / len(images)
        if error and model.likelihood == "exact":  # it is one only without random vectors
            more["bound"] = bound.replace("exact", "estimate", 1)
        if math.isnan(error):
            more["note"] = "an estimate from one random vector, without a standard error"
        elif error:
            more["note"] = f"standard error of the estimate: {error:.3g} nats"
        scores.add("likelihood", len(images), metric, **more)
        updates.add_own(scores, len(images))
        return scores
