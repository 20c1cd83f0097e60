"""Which scores an evaluation will give, known before a model is trained: what `Measurement` computes, by the numbers of
images and by what comes with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genbench.core.batch import DataSpec
from genbench.core.capabilities import Classifies, Encodes, HasLikelihood, Reconstructs, Samples, Segments, Translates
from genbench.core.errors import UserError, dimensions
from genbench.core.module import GenerativeModule
from genbench.data.module import DataModule
from genbench.evaluation.extractors import Extractor
from genbench.evaluation.measurement import (
    CLASSES,
    GENERATION,
    LPIPS_LEAST,
    LPIPS_WEIGHTS,
    MIXTURE,
    class_columns,
)
from genbench.evaluation.protocol import GROUPS, Protocol
from genbench.metrics.reconstruction import WINDOW


@dataclass(frozen=True)
class Held:
    """What is known of a split.

    images  number of its images
    others  number of images of the other domain, where it has two in no relation; 0 where it has not
    label   int64 [N], if there are labels
    paired  whether each image comes with the one that it is to be made from
    """

    images: int
    others: int = 0
    label: Tensor | None = None
    paired: bool = False


Expected = dict[str, str | None]  # by name of the score: None where it will be computed, else why it will not


def expected(
    model: GenerativeModule, data: DataModule, protocol: Protocol, extractor: Extractor, held: Held
) -> Expected:
    """The scores of a model on one split of its data.

    Raises:
        UserError: the evaluation will end in an error: nothing can be scored, or a condition cannot be asked for.
    """
    reference, found = _compared(data), _Found(extractor, min(held.images, protocol.real))
    groups, generated, points = set(protocol.metrics), protocol.generated, len(reference.shape) == 1
    if protocol.pixels == "binary" and not reference.binary and isinstance(model, HasLikelihood):
        raise UserError(f"The protocol {protocol.name} is of binary pixels, and {data.name} has gray ones.")
    if isinstance(model, Samples) and GENERATION & groups:
        found.sampled(model, data, protocol, held.label, generated)
    if "reconstruction" in groups:
        if isinstance(model, Reconstructs):
            found.made("", reference.shape, found.real, beside=True)
            if isinstance(model, Encodes):
                found.add("code_bits")
        if isinstance(model, Translates) and (held.paired or held.others):
            images = found.real if held.paired else min(found.real, held.others)
            for to, prefix in (("B", "translation_"), ("A", "translation_a_")):
                if to in model.domains:
                    found.made(prefix, reference.shape, images, held.paired)
            if len(model.domains) > 1:
                found.add("cycle_l1")
    if "likelihood" in groups and isinstance(model, HasLikelihood):
        kind = "density" if points else "binary" if reference.binary else protocol.pixels
        why = None if model.pixels == kind else f"it is of {model.pixels} pixels, and those here are {kind}"
        same = tuple(model.spec.shape) == tuple(reference.shape)
        for name in GROUPS["likelihood"]:
            found.add(name if same else f"{name}-{dimensions(model.spec.shape).replace('×', 'x')}", why)
    if "segmentation" in groups and isinstance(model, Segments) and model.spec.target == "mask":
        for name in GROUPS["segmentation"]:
            found.add(name)
    if "classes" in groups and isinstance(model, Classifies):
        found.add("accuracy", None if held.label is not None else f"{data.name} has no labels there")
    if not found.scores:
        raise UserError(
            f"{type(model).__name__} can do nothing that the protocol {protocol.name} scores on this data: it asks for "
            f"{', '.join(protocol.metrics)}."
        )
    return found.scores


def _compared(data: DataModule) -> DataSpec:
    """The spec of `data.reference()`, which is not made where that takes long: a folder would be listed again."""
    return data.reference().spec if getattr(data, "published_pixels", True) else data.spec


class _Found:
    """The scores found so far."""

    def __init__(self, extractor: Extractor, real: int) -> None:
        self.extractor, self.real = extractor, real
        self.scores: Expected = {}

    def add(self, name: str, why: str | None = None) -> None:
        self.scores[name] = why

    def featured(self, name: str, why: str | None = None) -> None:
        """A score that carries the extractor's name."""
        self.add(self.extractor.score(name), why)

    def sampled(
        self, model: GenerativeModule, data: DataModule, protocol: Protocol, label: Tensor | None, generated: int
    ) -> None:
        groups, real, target = set(protocol.metrics), self.real, model.spec.target
        if model.conditional and target == "label" and label is None:
            raise UserError(
                f"{type(model).__name__} is conditional on a label, and the images of the split {protocol.split} have "
                "none to ask for."
            )
        both = min(real, generated)
        if "fid" in groups:
            self.featured("fid", _few(both, 2))
        if "kid" in groups:
            self.featured("kid", _few(both, protocol.kid_subset_size))
        if "is" in groups and self._classifies(data):
            self.featured("is", _few(generated, protocol.is_splits))
        if "neighbors" in groups:
            for name in GROUPS["neighbors"]:
                self.featured(name, _few(min(both, protocol.neighbors_images), protocol.neighbors_k + 1))
        if "memorization" in groups:
            for name in GROUPS["memorization"]:
                if name != "nearest_train_ratio" or protocol.split != "train":
                    self.featured(name)
        if "classes" in groups:
            names = MIXTURE if self.extractor.mixture else CLASSES if self.extractor.classes else ()
            for name in names:
                self.featured(name)
            if model.conditional and target == "label":
                if class_columns(self.extractor.classes, data.classes) is not None:
                    self.featured("class_accuracy")
                counts = label[label >= 0].bincount()
                self.featured("class_fid", _few(int(counts[counts > 0].min()), 2, "of each class"))
            if model.conditional and target == "caption":
                self.featured("caption_accuracy")

    def _classifies(self, data: DataModule) -> bool:
        """Whether the extractor gives logits, which it tells by giving some."""
        shape = _compared(data).shape
        kind = torch.float32 if len(shape) == 1 else torch.uint8
        return self.extractor(torch.zeros(1, *shape, dtype=kind))[1] is not None

    def made(self, prefix: str, shape: tuple[int, ...], images: int, beside: bool) -> None:
        """What is scored of images that a model makes of others: beside the true ones, or as a set alone."""
        points = len(shape) == 1
        if beside:
            self.add(f"{prefix}mse")
        if beside and not points:
            side = min(shape[1:])
            self.add(f"{prefix}psnr")
            self.add(f"{prefix}ssim", None if side >= WINDOW else f"needs images of at least {WINDOW}×{WINDOW}")
            lpips = side >= LPIPS_LEAST and (Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS).is_file()
            self.add(f"{prefix}lpips", None if lpips else "needs larger images or weights that are not at hand")
        self.featured(f"{prefix or 'reconstruction_'}fid", _few(images, 2))


def _few(count: int, least: int, of: str = "") -> str | None:
    return None if count >= least else f"it needs at least {least} images {of}".rstrip() + f", and there is {count}"
