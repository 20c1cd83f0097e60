"""How well predicted masks agree with true ones, by the confusion of pixels.

Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge", section 4.4: the sums run over all pixels of
all images before a ratio is taken.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genbench.core.errors import UserError
from genbench.metrics.score import FeatureScore


def confusion(logits: Tensor, mask: Tensor) -> Tensor:
    """Pixels of true class (row) and predicted class (column); [B, K, H, W] and [B, H, W] -> [K, K] int64.

    Example:
        >>> logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).reshape(1, 2, 1, 2)  # class 1, then class 0
        >>> confusion(logits, torch.tensor([[[1, 1]]]))
        tensor([[0, 0],
                [1, 1]])
    """
    classes = logits.shape[1]
    truth = mask.long().flatten()
    if len(truth) and not (truth.min() >= 0 and truth.max() < classes):
        raise UserError(
            f"A mask for {classes} classes holds 0 to {classes - 1}; this one holds {truth.min()} to {truth.max()}."
        )
    pairs = truth * classes + logits.argmax(1).flatten()
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_iou(confusion: Tensor) -> float:
    """Intersection over union, mean over the classes that are in truth or prediction; [K, K].

    Example:
        >>> round(mean_iou(torch.tensor([[3, 1], [0, 4]])), 6)  # 3/4 and 4/5
        0.775
    """
    hits, union = confusion.diagonal(), confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    _require_pixels(confusion)
    return (hits[union > 0].double() / union[union > 0]).mean().item()


def dice(confusion: Tensor) -> float:
    """Twice the intersection over the sum of both areas, mean over the classes that are in truth or prediction; [K, K].

    Dice 1945, "Measures of the Amount of Ecologic Association Between Species": the F1 score of a class's pixels.

    Example:
        >>> round(dice(torch.tensor([[3, 1], [0, 4]])), 6)  # 6/7 and 8/9
        0.873016
    """
    hits, areas = confusion.diagonal(), confusion.sum(0) + confusion.sum(1)
    _require_pixels(confusion)
    return (2 * hits[areas > 0].double() / areas[areas > 0]).mean().item()


def pixel_accuracy(confusion: Tensor) -> float:
    """Share of pixels in their true class; [K, K].

    Example:
        >>> pixel_accuracy(torch.tensor([[3, 1], [0, 4]]))
        0.875
    """
    _require_pixels(confusion)
    return (confusion.trace().double() / confusion.sum()).item()


def _require_pixels(confusion: Tensor) -> None:
    if not confusion.any():
        raise UserError("A score of segmentation needs at least one image with its mask; none was given.")


class Segmentation(FeatureScore, scores=["mean_iou", "dice", "pixel_accuracy"]):
    """Computes a dict of the three."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("confusion", **kwargs)

    def update(self, logits: Tensor, mask: Tensor) -> None:
        """logits [B, K, H, W], mask [B, H, W]"""
        self.keep("confusion", confusion(logits, mask)[None])

    def compute(self) -> dict[str, float]:
        table = self.kept("confusion").sum(0)  # [K, K]
        _require_pixels(table)
        return {"mean_iou": mean_iou(table), "dice": dice(table), "pixel_accuracy": pixel_accuracy(table)}
