"""Scores of predicted segmentation masks, computed from the confusion matrix of the pixels.

As in Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge", section 4.4, pixels are summed over
all images before a ratio is computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genbench.core.errors import UserError
from genbench.metrics.score import FeatureScore


def confusion(logits: Tensor, mask: Tensor) -> Tensor:
    """Number of pixels by true class (row) and predicted class (column); [B, K, H, W] and [B, H, W] -> [K, K] int64.

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
            f"A mask for {classes} classes must contain 0 to {classes - 1}; this mask contains {truth.min()} to "
            f"{truth.max()}."
        )
    pairs = truth * classes + logits.argmax(1).flatten()
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_iou(confusion: Tensor) -> float:
    """Mean intersection over union, over the classes that occur in truth or prediction; from the confusion matrix [K,
    K].

    Example:
        >>> round(mean_iou(torch.tensor([[3, 1], [0, 4]])), 6)  # 3/4 and 4/5
        0.775
    """
    hits, union = confusion.diagonal(), confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    _require_pixels(confusion)
    return (hits[union > 0].double() / union[union > 0]).mean().item()


def dice(confusion: Tensor) -> float:
    """Mean Dice coefficient, over the classes that occur in truth or prediction; from the confusion matrix [K, K].

    For each class it is twice the intersection divided by the sum of both areas (Dice 1945, "Measures of the Amount of
    Ecologic Association Between Species"), which is the F1 score of the pixels of that class.

    Example:
        >>> round(dice(torch.tensor([[3, 1], [0, 4]])), 6)  # 6/7 and 8/9
        0.873016
    """
    hits, areas = confusion.diagonal(), confusion.sum(0) + confusion.sum(1)
    _require_pixels(confusion)
    return (2 * hits[areas > 0].double() / areas[areas > 0]).mean().item()


def pixel_accuracy(confusion: Tensor) -> float:
    """Fraction of pixels that are classified correctly; from the confusion matrix [K, K].

    Example:
        >>> pixel_accuracy(torch.tensor([[3, 1], [0, 4]]))
        0.875
    """
    _require_pixels(confusion)
    return (confusion.trace().double() / confusion.sum()).item()


def _require_pixels(confusion: Tensor) -> None:
    if not confusion.any():
        raise UserError("A segmentation score needs at least one image with a mask; got none.")


class Segmentation(FeatureScore, scores=["mean_iou", "dice", "pixel_accuracy"]):
    """Computes a dict of the three scores."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("confusion", **kwargs)

    def update(self, logits: Tensor, mask: Tensor) -> None:
        """logits [B, K, H, W], mask [B, H, W]"""
        self.keep("confusion", confusion(logits, mask)[None])

    def compute(self) -> dict[str, float]:
        table = self.kept("confusion").sum(0)  # [K, K]
        _require_pixels(table)
        return {"mean_iou": mean_iou(table), "dice": dice(table), "pixel_accuracy": pixel_accuracy(table)}
