"""Every score that a record can hold: which way is better, what range it has, and on which track it ranks.

One name for one thing: a score has this name in code, logs, records and tables. Scores of a feature space that is not
the FID Inception's carry the extractor's name behind a hyphen (`fid-mnistnet`); `scale` finds them too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Track = Literal["generation", "reconstruction", "likelihood", "translation", "segmentation", "classification"]


@dataclass(frozen=True)
class Scale:
    """better  which way is better; none where a score describes and does not judge
    low, high  the range
    track      where models are ranked by it
    """

    better: Literal["lower", "higher"] | None
    low: float
    high: float
    track: Track


SCALES: dict[str, Scale] = {
    "fid": Scale("lower", 0, math.inf, "generation"),
    "kid": Scale("lower", -math.inf, math.inf, "generation"),  # unbiased: slightly below zero for equal sets
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
    "nearest_train_ratio": Scale(None, 0, math.inf, "generation"),  # beside that of held-out images
    "authenticity": Scale("higher", 0, 1, "generation"),
    "mse": Scale("lower", 0, 4, "reconstruction"),  # of pixels in [-1, 1]
    "psnr": Scale("higher", 0, math.inf, "reconstruction"),  # dB
    "ssim": Scale("higher", -1, 1, "reconstruction"),
    "lpips": Scale("lower", 0, math.inf, "reconstruction"),
    "reconstruction_fid": Scale("lower", 0, math.inf, "reconstruction"),
    "code_bits": Scale(None, 0, math.inf, "reconstruction"),  # bits per image of the code
    "translation_psnr": Scale("higher", 0, math.inf, "translation"),
    "translation_mse": Scale("lower", 0, 4, "translation"),
    "translation_ssim": Scale("higher", -1, 1, "translation"),
    "translation_lpips": Scale("lower", 0, math.inf, "translation"),
    "translation_fid": Scale("lower", 0, math.inf, "translation"),
    "translation_a_psnr": Scale("higher", 0, math.inf, "translation"),
    "translation_a_mse": Scale("lower", 0, 4, "translation"),
    "translation_a_ssim": Scale("higher", -1, 1, "translation"),
    "translation_a_lpips": Scale("lower", 0, math.inf, "translation"),
    "translation_a_fid": Scale("lower", 0, math.inf, "translation"),
    "cycle_l1": Scale("lower", 0, 2, "translation"),  # of pixels in [-1, 1]
    "nats": Scale("higher", -math.inf, math.inf, "likelihood"),  # log p(x) per image
    "bits_per_dim": Scale("lower", -math.inf, math.inf, "likelihood"),
    "mean_iou": Scale("higher", 0, 1, "segmentation"),
    "dice": Scale("higher", 0, 1, "segmentation"),
    "pixel_accuracy": Scale("higher", 0, 1, "segmentation"),
    "accuracy": Scale("higher", 0, 1, "classification"),
}


def scale(name: str) -> Scale:
    """The scale of a score by its full name: that of `fid` for `fid-mnistnet`.

    Example:
        >>> scale("fid-mnistnet").better
        'lower'
    """
    return SCALES[name.partition("-")[0]]
