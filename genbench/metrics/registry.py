"""Registration of a user's own metrics: torchmetrics classes that declare their name and how they rank models."""

from __future__ import annotations

import inspect
import math
import re
from typing import TYPE_CHECKING, TypeVar

from genbench.core.errors import UserError, did_you_mean
from genbench.core.importing import required_arguments
from genbench.metrics.scales import GROUPS, SCALES, TRACKS, Scale

if TYPE_CHECKING:  # not at run time: protocols import this module, and `--help` must not import torch
    from torchmetrics import Metric

OwnMetric = TypeVar("OwnMetric", bound="type[Metric]")

REGISTERED: dict[str, type[Metric]] = {}
# positional arguments of `update` on each track; on the generation track, arguments are matched by parameter name
INPUTS = {
    "generation": ("images", "imgs", "features", "logits", "labels", "real"),
    "reconstruction": ("reconstruction", "image"),
    "translation": ("translation", "target"),
    "likelihood": ("log_likelihood",),
    "segmentation": ("logits", "mask"),
    "classification": ("logits", "label"),
}


def register(metric: OwnMetric) -> OwnMetric:
    """Class decorator that registers a metric. Protocols and `--metrics` can then select the metric by its name.

    The class is a `torchmetrics.Metric` without required arguments. It must have the attributes

    name                                name of the score
    track                               kind of evaluation, one of `TRACKS`
    higher_is_better                    True or False
    plot_lower_bound, plot_upper_bound  range of the score; None: unbounded

    The metrics of torchmetrics define all of these except `name` and `track`. `compute` returns one number. `update` is
    called for each batch, with these arguments on each track:

    generation      keyword arguments, selected by the names of the parameters. `update` is called for the generated
                    images and then, if it has a parameter `real`, for the reference images. `images` or `imgs` are
                    uint8 [B, C, H, W], or points [B, D]. `features` [N, D] and `logits` [N, K] are the extractor's
                    outputs, passed in one call for all images. `labels` [N] are the labels passed to a conditional
                    model, or the labels of the reference images. `real` is a bool
    reconstruction  (reconstruction, image), float32 [B, C, H, W] in [-1, 1]
    translation     (translation, target), float32 [B, C, H, W] in [-1, 1]; only for paired data
    likelihood      (log p(x) [B]), float64, in nats per image
    segmentation    (logits [B, K, H, W], mask int64 [B, H, W])
    classification  (logits [B, K], label int64 [B])

    Raises:
        UserError: an attribute is missing or invalid, or a metric with this name is already registered.
    """
    from torchmetrics import Metric

    where = f"The metric {metric.__module__}.{metric.__qualname__}"
    if not (isinstance(metric, type) and issubclass(metric, Metric)):
        raise UserError(f"{where} must be a subclass of torchmetrics.Metric.")
    name, track, higher = (getattr(metric, a, None) for a in ("name", "track", "higher_is_better"))
    if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"{where} has the name {name!r}; it must consist of lowercase letters, digits and underscores.")
    if not isinstance(track, str) or track not in TRACKS:
        near = did_you_mean(str(track), TRACKS)
        raise UserError(f"{where} has the track {track!r}. Choose from: {', '.join(TRACKS)}.{near}")
    if not isinstance(higher, bool):
        raise UserError(f"{where} must set `higher_is_better` to True or False.")
    low, high = metric.plot_lower_bound, metric.plot_upper_bound
    low, high = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    if not low < high:
        raise UserError(f"{where}: plot_lower_bound ({low:g}) must be less than plot_upper_bound ({high:g}).")
    known = REGISTERED.get(name)
    if name in (*SCALES, *GROUPS) and (
        known is None or (known.__module__, known.__qualname__) != (metric.__module__, metric.__qualname__)
    ):
        whose = "genbench" if known is None else f"{known.__module__}.{known.__qualname__}"
        raise UserError(f"{where} has the name {name}, which a metric of {whose} already has. Choose a different name.")
    _refuse_arguments(metric, track, where)
    SCALES[name] = Scale("higher" if higher else "lower", low, high, track)
    REGISTERED[name] = metric
    return metric


def update_parameters(metric: type[Metric]) -> list[str]:
    """Names of the parameters of `update`, without `self`."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in list(inspect.signature(metric.update).parameters.values())[1:] if p.kind not in kinds]


def _refuse_arguments(metric: type[Metric], track: str, where: str) -> None:
    """Raise UserError if the metric has required arguments, or if `update` takes the wrong inputs for the track."""
    if needed := required_arguments(metric):
        raise UserError(
            f"{where} has the required arguments {', '.join(needed)}. Set defaults in a subclass: "
            "`def __init__(self): super().__init__(...)`."
        )
    given, taken = INPUTS[track], update_parameters(metric)
    if track == "generation":
        images, features = ({"images", "imgs"} & set(taken), {"features", "logits"} & set(taken))
        fits = set(taken) <= set(given) and bool(images) != bool(features)
        expected = "either `images`, or `features` and `logits`, and optionally `labels` and `real`"
    else:
        fits = len(taken) == len(given)
        expected = f"{len(given)} parameters, for {' and '.join(given)}"
    if not fits:
        raise UserError(f"{where} has update({', '.join(taken)}). On the track {track}, `update` must take {expected}.")
