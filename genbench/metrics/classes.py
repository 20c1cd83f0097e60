"""Scores of generated images by class: coverage of the classes, accuracy of the requested class, quality per class.

The logits come from a classifier that is applied to the images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genbench.core.batch import to_words
from genbench.core.errors import UserError
from genbench.metrics.frechet import feature_moments, frechet_distance
from genbench.metrics.score import FeatureScore, require, require_finite


def class_statistics(logits: Tensor) -> dict[str, float | None]:
    """Compute from logits [N, K]:

    modes          number of classes that at least one image belongs to
    class_entropy  entropy of the fractions of images in each class, in nats
    mode_kl        KL(fractions || uniform) in nats, equal to log K - class_entropy (the "reverse KL" of VEEGAN)

    Even perfect samples have a mode_kl of about (K - 1) / 2N, so compare only values computed from equally many images.

    Example:
        >>> found = class_statistics(torch.eye(4)[[0, 0, 1, 1]])  # two of the four classes
        >>> found["modes"], round(found["class_entropy"], 4), round(found["mode_kl"], 4)  # both are log 2
        (2.0, 0.6931, 0.6931)
    """
    require(len(logits), 1, "generated", "A statistic of classes")
    require_finite(logits, "generated")
    return shares(logits.argmax(1).bincount(minlength=logits.shape[1]))


def class_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Fraction of images that are classified as the requested class; logits [N, K], labels [N].

    Example:
        >>> class_accuracy(torch.eye(2), torch.tensor([0, 0]))
        0.5
    """
    require(len(logits), 1, "generated", "A class accuracy")
    require_finite(logits, "generated")
    return (logits.argmax(1) == labels).double().mean().item()


def caption_classes(captions: Tensor, vocabulary: Sequence[str], classes: Sequence[str]) -> Tensor:
    """The class named by each caption: the class that is the caption if all captions are classes, else the class whose
    words all occur in the caption. Tokens [N, L] -> int64 [N].

    Raises:
        UserError: a caption names no class, or more than one.

    Example:
        >>> caption_classes(torch.tensor([[1, 3], [2, 3]]), ("<pad>", "red", "blue", "star"), ("red star", "blue star"))
        tensor([0, 1])
    """
    number = {name: k for k, name in enumerate(classes)}
    texts = [to_words(row, vocabulary) for row in captions.tolist()]
    if all(text in number for text in texts):
        return torch.tensor([number[text] for text in texts])
    token = {word: place for place, word in enumerate(vocabulary)}
    has = torch.zeros(len(captions), len(vocabulary), dtype=torch.bool).scatter(1, captions, True)  # [N, V]
    named = torch.zeros(len(captions), len(classes), dtype=torch.bool)
    for k, words in enumerate(name.split() for name in classes):
        if all(word in token for word in words):
            named[:, k] = has[:, [token[word] for word in words]].all(1)
    if not (unclear := named.sum(1) != 1).any():
        return named.int().argmax(1)
    first = int(unclear.nonzero()[0])
    caption = to_words(captions[first], vocabulary)
    found = " and ".join(f"`{classes[k]}`" for k in named[first].nonzero()[:, 0]) or "none"
    raise UserError(f"A caption must name exactly one class of the extractor, but `{caption}` names {found}.")


def class_frechet_distance(fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor) -> float:
    """Mean over the classes of the Fréchet distance within a class; features [N, D] and [M, D], labels [N] and [M].

    Intra-FID of Miyato & Koyama 2018, "cGANs with Projection Discriminator", section 4. With few images per class it is
    biased upwards, so compare only values computed from equally many images.
    """
    require_finite(fake, "generated")
    require_finite(real, "real")
    classes = torch.cat([fake_labels, real_labels]).unique().tolist()
    require(len(classes), 1, "generated and real", "A Fréchet distance by class")
    distances = []
    for label in classes:
        of_fake, of_real = fake[fake_labels == label], real[real_labels == label]
        if min(len(of_fake), len(of_real)) < 2:
            raise UserError(
                f"A Fréchet distance by class needs at least 2 generated and 2 real images of each class; "
                f"class {label:g} has {len(of_fake)} generated and {len(of_real)} real images."
            )
        distances.append(frechet_distance(*feature_moments(of_fake), *feature_moments(of_real)))
    return torch.stack(distances).mean().item()


def shares(counts: Tensor) -> dict[str, float | None]:
    """modes, class_entropy and mode_kl from the number of images in each class, int64 [K].

    class_entropy and mode_kl are None if there are no images.
    """
    entropy = torch.special.entr(counts.double() / counts.sum()).sum().item() if counts.any() else None
    return {
        "modes": float((counts > 0).sum()),
        "class_entropy": entropy,
        "mode_kl": None if entropy is None else max(0.0, math.log(len(counts)) - entropy),  # rounding may give -1e-16
    }


class ClassStatistics(FeatureScore, scores=["modes", "class_entropy", "mode_kl"]):
    """Computes a dict of modes, class_entropy and mode_kl."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("logits", **kwargs)

    def update(self, logits: Tensor) -> None:
        """logits [B, K]"""
        self.keep("logits", logits)

    def compute(self) -> dict[str, float | None]:
        return class_statistics(self.kept("logits"))


class ClassAccuracy(FeatureScore, scores=["class_accuracy"]):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("logits", "labels", **kwargs)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """logits [B, K], labels [B]"""
        self.keep("logits", logits)
        self.keep("labels", labels)

    def compute(self) -> float:
        return class_accuracy(self.kept("logits"), self.kept("labels"))


class ClassFrechetDistance(FeatureScore, scores=["class_fid"]):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("fake", "fake_labels", "real", "real_labels", **kwargs)

    def update(self, features: Tensor, labels: Tensor, real: bool) -> None:
        """features [B, D], labels [B]"""
        name = "real" if real else "fake"
        self.keep(name, features)
        self.keep(f"{name}_labels", labels)

    def compute(self) -> float:
        return class_frechet_distance(*(self.kept(name) for name in ("fake", "fake_labels", "real", "real_labels")))
