"""A user's own metrics: classes of torchmetrics that declare what they are called and how models are ranked by them."""

from __future__ import annotations

import inspect
import math
import re
from typing import TYPE_CHECKING, TypeVar

from genbench.core.errors import UserError, did_you_mean
from genbench.metrics.scales import GROUPS, SCALES, TRACKS, Scale

if TYPE_CHECKING:  # protocols need the names of metrics, and `--help` no torch
    from torchmetrics import Metric

OwnMetric = TypeVar("OwnMetric", bound="type[Metric]")

REGISTERED: dict[str, type[Metric]] = {}
# what `update` is given on each track, in this order; on the track generation by the names of its parameters
INPUTS = {
    "generation": ("images", "imgs", "features", "logits", "labels", "real"),
    "reconstruction": ("reconstruction", "image"),
    "translation": ("translation", "target"),
    "likelihood": ("log_likelihood",),
    "segmentation": ("logits", "mask"),
    "classification": ("logits", "label"),
}


def register(metric: OwnMetric) -> OwnMetric:
    """Class decorator: protocols and `--metrics` may name this metric from now on.

    The class is a `torchmetrics.Metric` without required arguments that has the attributes

    name                                what its score is called
    track                               one of `TRACKS`
    higher_is_better                    True or False
    plot_lower_bound, plot_upper_bound  range of the score; None: unbounded

    The last three are attributes of torchmetrics, so its own metrics have them. `compute` returns one number. `update`
    is called batch by batch:

    generation      with keyword arguments, those that its parameters name: first for the generated images, then, if it
                    has a parameter `real`, for the reference. `images` or `imgs` are uint8 [B, C, H, W], or points
                    [B, D]; `features` [N, D] and `logits` [N, K] are the extractor's, all at once; `labels` [N] are
                    those that a conditional model was given and those of the reference; `real` is a bool
    reconstruction  (reconstruction, image), float32 [B, C, H, W] in [-1, 1]
    translation     (translation, target), likewise; only for data that has pairs
    likelihood      (log p(x) [B]), float64, in nats per image
    segmentation    (logits [B, K, H, W], mask int64 [B, H, W])
    classification  (logits [B, K], label int64 [B])

    Raises:
        UserError: a declaration is missing or wrong, or there is a metric of that name.
    """
    from torchmetrics import Metric

    where = f"The metric {metric.__module__}.{metric.__qualname__}"
    if not (isinstance(metric, type) and issubclass(metric, Metric)):
        raise UserError(f"{where} must be a subclass of torchmetrics.Metric.")
    name, track, higher = (getattr(metric, a, None) for a in ("name", "track", "higher_is_better"))
    if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"{where} has the name {name!r}. Set `name` to lowercase letters, digits and underscores.")
    if not isinstance(track, str) or track not in TRACKS:
        near = did_you_mean(str(track), TRACKS)
        raise UserError(f"{where} has the track {track!r}. Set `track` to one of {', '.join(TRACKS)}.{near}")
    if not isinstance(higher, bool):
        raise UserError(f"{where} has no direction. Set `higher_is_better` to True or False.")
    low, high = metric.plot_lower_bound, metric.plot_upper_bound
    low, high = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    if not low < high:
        raise UserError(f"{where} has the range {low:g} to {high:g}. Set `plot_lower_bound` below `plot_upper_bound`.")
    known = REGISTERED.get(name)
    if name in (*SCALES, *GROUPS) and (
        known is None or (known.__module__, known.__qualname__) != (metric.__module__, metric.__qualname__)
    ):
        whose = "genbench" if known is None else f"{known.__module__}.{known.__qualname__}"
        raise UserError(f"{where} has the name {name}, which is the name of a metric of {whose}. Choose another.")
    _refuse_arguments(metric, track, where)
    SCALES[name] = Scale("higher" if higher else "lower", low, high, track)
    REGISTERED[name] = metric
    return metric


def update_parameters(metric: type[Metric]) -> list[str]:
    """Names of the parameters of `update`, `self` left out."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in list(inspect.signature(metric.update).parameters.values())[1:] if p.kind not in kinds]


def _refuse_arguments(metric: type[Metric], track: str, where: str) -> None:
    """Raise UserError where the metric cannot be made without arguments, or `update` takes other inputs."""
    needed = [
        p.name
        for p in list(inspect.signature(metric.__init__).parameters.values())[1:]
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if needed:
        raise UserError(
            f"{where} cannot be made without {', '.join(needed)}. Give defaults in a subclass: "
            "`def __init__(self): super().__init__(...)`."
        )
    given, taken = INPUTS[track], update_parameters(metric)
    if track == "generation":
        images, features = ({"images", "imgs"} & set(taken), {"features", "logits"} & set(taken))
        fits = set(taken) <= set(given) and bool(images) != bool(features)
        expected = "either `images` or `features` and `logits`, and may have `labels` and `real`"
    else:
        fits = len(taken) == len(given)
        expected = f"{len(given)} parameters, for {' and '.join(given)}"
    if not fits:
        raise UserError(f"{where} has update({', '.join(taken)}). On the track {track} `update` has {expected}.")
