"""Direction, range and track (kind of evaluation) of every score that a record can contain.

A score has the same name in code, logs, records and tables. The name of a score computed from features ends in the
extractor's name after a hyphen (`fid-mnistnet`), unless the extractor is the FID Inception. `scale` accepts both forms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

Track = Literal["generation", "reconstruction", "likelihood", "translation", "segmentation", "classification"]
TRACKS: tuple[Track, ...] = get_args(Track)


@dataclass(frozen=True)
class Scale:
    """better  whether lower or higher values are better; None: the score only describes a model
    low, high  range of the score
    track      kind of evaluation; models are ranked in one table per track
    """

    better: Literal["lower", "higher"] | None
    low: float
    high: float
    track: Track


SCALES: dict[str, Scale] = {
    "fid": Scale("lower", 0, math.inf, "generation"),
    "kid": Scale("lower", -math.inf, math.inf, "generation"),  # unbiased, so it may be slightly negative
    "is": Scale("higher", 1, math.inf, "generation"),
    "precision": Scale("higher", 0, 1, "generation"),
    "recall": Scale("higher", 0, 1, "generation"),
    "density": Scale("higher", 0, math.inf, "generation"),
    "coverage": Scale("higher", 0, 1, "generation"),
    "class_fid": Scale("lower", 0, math.inf, "generation"),
    "class_accuracy": Scale("higher", 0, 1, "generation"),
    "caption_accuracy": Scale("higher", 0, 1, "generation"),
    "modes": Scale("higher", 0, math.inf, "generation"),
    "class_entropy": Scale("higher", 0, math.inf, "generation"),  # nats
    "mode_kl": Scale("lower", 0, math.inf, "generation"),  # nats
    "good_samples": Scale("higher", 0, 1, "generation"),
    "nearest_train": Scale(None, 0, math.inf, "generation"),  # distance in feature space
    "nearest_train_ratio": Scale(None, 0, math.inf, "generation"),  # relative to held-out images
    "authenticity": Scale("higher", 0, 1, "generation"),
    "mse": Scale("lower", 0, 4, "reconstruction"),  # of pixels in [-1, 1]
    "psnr": Scale("higher", 0, math.inf, "reconstruction"),  # dB
    "ssim": Scale("higher", -1, 1, "reconstruction"),
    "lpips": Scale("lower", 0, math.inf, "reconstruction"),
    "reconstruction_fid": Scale("lower", 0, math.inf, "reconstruction"),
    "code_bits": Scale(None, 0, math.inf, "reconstruction"),  # bits per image of the code
    "cycle_l1": Scale("lower", 0, 2, "translation"),  # of pixels in [-1, 1]
    "nats": Scale("higher", -math.inf, math.inf, "likelihood"),  # log p(x) per image
    "bits_per_dim": Scale("lower", -math.inf, math.inf, "likelihood"),
    "mean_iou": Scale("higher", 0, 1, "segmentation"),
    "dice": Scale("higher", 0, 1, "segmentation"),
    "pixel_accuracy": Scale("higher", 0, 1, "segmentation"),
    "accuracy": Scale("higher", 0, 1, "classification"),
}
# translations to domain B and to domain A have the same scores as reconstructions
_TRANSLATED = {
    prefix + name.removeprefix("reconstruction_"): replace(SCALES[name], track="translation")
    for prefix in ("translation_", "translation_a_")
    for name in ("mse", "psnr", "ssim", "lpips", "reconstruction_fid")
}
SCALES |= _TRANSLATED

# groups of metrics that a protocol can select, with the scores of each group; a user's own metric is a group by itself
GROUPS = {
    "fid": ("fid",),
    "kid": ("kid",),
    "is": ("is",),
    "neighbors": ("precision", "recall", "density", "coverage"),
    "classes": (
        "class_accuracy",
        "caption_accuracy",
        "class_fid",
        "modes",
        "class_entropy",
        "mode_kl",
        "good_samples",
        "accuracy",
    ),
    "memorization": ("nearest_train", "nearest_train_ratio", "authenticity"),
    # model outputs compared with ground truth: reconstructions and translations
    "reconstruction": ("mse", "psnr", "ssim", "lpips", "reconstruction_fid", "code_bits", *_TRANSLATED, "cycle_l1"),
    "likelihood": ("nats", "bits_per_dim"),
    "segmentation": ("mean_iou", "dice", "pixel_accuracy"),
}


def scale(name: str) -> Scale:
    """The scale of a score, by its full name. `fid-mnistnet` has the scale of `fid`.

    Example:
        >>> scale("fid-mnistnet").better
        'lower'
    """
    return SCALES[name.partition("-")[0]]
