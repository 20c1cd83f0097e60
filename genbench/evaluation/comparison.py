"""What an evaluation compares with what, and how both are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from genbench.core.batch import from_stored
from genbench.core.capabilities import HasLikelihood
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import mix
from genbench.data.module import DataModule
from genbench.evaluation.extractor import Extractor
from genbench.evaluation.features import Features, Progress, blocks, cached, extract
from genbench.evaluation.galleries import Gallery
from genbench.evaluation.images import ImageSet, SplitImages, TensorImages, bring, pixel_hash
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.scores import from_features
from genbench.evaluation.statistics import Statistics
from genbench.metrics.registry import REGISTERED

# groups whose scores need the features of each image, not only their mean and covariance
ONE_BY_ONE = {"kid", "is", "neighbors", "classes", "memorization"}


@dataclass
class Comparison:
    """
    subject     a model, images in its place, or None for the baseline
    data        what it is compared with
    given       the data before its images were brought to the size in which images are compared
    reference   the images, or the statistics, of `data` that the protocol names
    sampling    options of the model's methods
    batch_size  images that a model makes at once
    progress    wraps an iterable to show a bar with a title
    gallery     keeps images to look at

    Raises:
        UserError: the protocol is of binary pixels and the data has gray ones; or the extractor gives another number of
            features than the statistics have.
    """

    subject: GenerativeModule | ImageSet | None
    data: DataModule | ImageSet | Statistics
    given: DataModule | ImageSet | Statistics
    reference: ImageSet | Statistics
    protocol: Protocol
    extractor: Extractor
    device: torch.device
    sampling: dict[str, Any]
    batch_size: int
    progress: Progress
    gallery: Gallery

    def __post_init__(self) -> None:
        if self.protocol.pixels == "binary" and not self.binary and isinstance(self.subject, HasLikelihood):
            raise UserError(
                f"The protocol {self.protocol.name} is of binary pixels, and {self.reference.name} has gray ones. "
                "Evaluate on binary images (`--data.binarize static`), or with another protocol."
            )
        self.extractor.check(self.reference.shape, self.device)
        if isinstance(self.reference, Statistics):
            shape = tuple(self.reference.shape)
            kind = torch.float32 if len(shape) == 1 else torch.uint8
            features = self.extractor(torch.zeros(1, *shape, dtype=kind, device=self.device))[0].shape[1]
            if features != len(self.reference.mu):
                raise UserError(
                    f"{self.reference.name} has statistics of {len(self.reference.mu):,} features, and the extractor "
                    f"'{self.extractor.name}' gives {features:,}. Choose the extractor that they were computed with; "
                    "statistics of the FID Inception have 2,048: `--extractor inception`."
                )

    # ---- both sides -------------------------------------------------------------------------------------------------

    @property
    def model(self) -> Any:  # a GenerativeModule with the methods of the evaluator's capability
        assert isinstance(self.subject, GenerativeModule), "only evaluators of models ask for it"
        return self.subject

    @property
    def images(self) -> ImageSet:
        """The reference images."""
        assert not isinstance(self.reference, Statistics), "statistics are compared with samples alone"
        return self.reference

    @property
    def binary(self) -> bool:
        return isinstance(self.data, DataModule) and self.data.spec.binary

    @property
    def pixels(self) -> str:
        """What a likelihood is of."""
        return "binary" if self.binary else self.protocol.pixels

    @cached_property
    def label(self) -> Tensor | None:
        """Labels of the reference images, int64 [N]; -1 where an image has none."""
        return None if isinstance(self.reference, Statistics) else self.reference.label

    @cached_property
    def reference_hash(self) -> str:
        reference = self.reference
        return reference.hash if isinstance(reference, Statistics) else pixel_hash(reference, self.label)

    @cached_property
    def train(self) -> SplitImages | None:
        """Training images, in which samples are searched for copies."""
        if not isinstance(self.data, DataModule) or "memorization" not in self.protocol.metrics:
            return None
        return SplitImages(self.data, "train", self.protocol.train)

    @cached_property
    def train_hash(self) -> str | None:
        return pixel_hash(self.train) if self.train else None

    def target(self, name: str) -> Tensor | None:
        """The labels, captions, masks or sources of the reference images, if they have such."""
        return self.reference.target(name) if isinstance(self.reference, (SplitImages, TensorImages)) else None

    # ---- features ---------------------------------------------------------------------------------------------------

    @property
    def one_by_one(self) -> bool:
        """Whether a score needs the features of each image."""
        metrics = self.protocol.metrics
        return bool(ONE_BY_ONE & set(metrics)) or any(from_features(name) for name in metrics if name in REGISTERED)

    def extract(
        self,
        images: Callable[[Tensor], Tensor],
        count: int,
        title: str,
        seen: Callable[[Tensor, Tensor], None] | None = None,
    ) -> Features:
        return extract(
            self.extractor, images, count, self.protocol.block, keep=self.one_by_one, device=self.device,
            progress=self.progress, title=title, seen=seen,
        )  # fmt: skip

    def images_of(self, images: ImageSet, shape: Sequence[int] | None = None) -> Callable[[Tensor], Tensor]:
        """rows -> images in the shape of the reference, or in another."""
        return lambda rows: bring(images.images(rows), shape or self.reference.shape)

    def cached_features(
        self, images: ImageSet, pixels: str, title: str, shape: Sequence[int] | None = None
    ) -> Features:
        """Features of real images, from the cache if they are in it; `pixels` is their hash."""
        made_of: dict[str, Any] = {
            "pixels": pixels,
            "images": len(images),
            "extractor": [self.extractor.name, self.extractor.hash, self.extractor.resize],
            "block": self.protocol.block,
            "one by one": self.one_by_one,
            "device": self.device.type,
            "torch": str(torch.__version__),
            "format": 2,
        }
        if shape and tuple(shape) != tuple(self.reference.shape):
            made_of["shape"] = list(shape)
        return cached(made_of, lambda: self.extract(self.images_of(images, shape), len(images), title))

    def reference_features(self) -> Features:
        return self.cached_features(self.images, self.reference_hash, f"Features of {self.reference.name}")

    # ---- block by block ---------------------------------------------------------------------------------------------

    def blocks(self, title: str, count: int | None = None) -> Iterator[tuple[int, Tensor, int]]:
        """This process's blocks of `count` images, or of the reference: (number, rows, how many are no padding).

        A model's own draws from the global generators depend on the block and on nothing else.
        """
        for number, rows, real in self.progress(blocks(count or len(self.images), self.protocol.block), title):
            torch.manual_seed(mix("evaluate", self.protocol.seed, number))
            yield number, rows, real

    def for_model(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Reference images as uint8, and as the model takes them: in its size, color and type."""
        images = self.images.images(rows)
        x = from_stored(bring(images, self.model.spec.shape)).to(self.device, self.model.dtype)
        return images, x


def refuse_nan(images: Tensor, method: str, model: GenerativeModule) -> None:
    if not torch.isfinite(images).all():
        what = "numbers" if images.ndim == 2 else "pixels"
        raise UserError(
            f"`{method}` of {type(model).__name__} gave NaN or infinite {what}. Evaluate an earlier checkpoint."
        )
