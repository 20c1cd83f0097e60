"""The two sides that an evaluation compares, and how images and features of both are read."""

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
from genbench.evaluation.features import Features, Progress, blocks, cached, extract, pixel_hash
from genbench.evaluation.galleries import Gallery
from genbench.evaluation.images import ImageSet, SplitImages, TensorImages, bring
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.scores import from_features
from genbench.evaluation.statistics import Statistics
from genbench.metrics.registry import REGISTERED

# groups of metrics that need the features of each image, not only their mean and covariance
ONE_BY_ONE = {"kid", "is", "neighbors", "classes", "memorization"}


@dataclass
class Comparison:
    """
    subject     a model, a set of images, or None for the baseline
    data        the data that the subject is compared with
    given       the same data before its images were resized for the comparison
    reference   the images or the statistics of `data` that the protocol selects
    sampling    options of the model's methods
    batch_size  number of images that the model generates at once
    progress    wraps an iterable to show a progress bar with a title
    gallery     stores example images

    Raises:
        UserError: the protocol is for binary pixels but the data has gray pixels; or the extractor and the statistics
            have different numbers of features.
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
                f"The protocol {self.protocol.name} is for binary pixels, but {self.reference.name} has gray pixels. "
                "Evaluate on binary images (`--data.binarize static`), or with a different protocol."
            )
        self.extractor.check(self.reference.shape, self.device)
        if isinstance(self.reference, Statistics):
            shape = tuple(self.reference.shape)
            kind = torch.float32 if len(shape) == 1 else torch.uint8
            features = self.extractor(torch.zeros(1, *shape, dtype=kind, device=self.device))[0].shape[1]
            if features != len(self.reference.mu):
                raise UserError(
                    f"{self.reference.name} has statistics of {len(self.reference.mu):,} features, but the extractor "
                    f"'{self.extractor.name}' has {features:,}. Choose the extractor that the statistics were computed "
                    "with. Statistics of the FID Inception have 2,048 features: `--extractor inception`."
                )

    # ---- both sides -------------------------------------------------------------------------------------------------

    @property
    def model(self) -> Any:  # a GenerativeModule that has the evaluator's capability
        assert isinstance(self.subject, GenerativeModule), "only evaluators of models use it"
        return self.subject

    @property
    def images(self) -> ImageSet:
        """The reference images."""
        assert not isinstance(self.reference, Statistics), "statistics are compared only with samples"
        return self.reference

    @property
    def binary(self) -> bool:
        return isinstance(self.data, DataModule) and self.data.spec.binary

    @property
    def pixels(self) -> str:
        """The kind of pixels that the likelihood is defined over."""
        return "binary" if self.binary else self.protocol.pixels

    @cached_property
    def label(self) -> Tensor | None:
        """Labels of the reference images, int64 [N]; -1 for images without a label."""
        return None if isinstance(self.reference, Statistics) else self.reference.label

    @cached_property
    def reference_hash(self) -> str:
        reference = self.reference
        return reference.hash if isinstance(reference, Statistics) else pixel_hash(reference, self.label)

    @cached_property
    def train(self) -> SplitImages | None:
        """Training images that samples are compared with to find copies."""
        if not isinstance(self.data, DataModule) or "memorization" not in self.protocol.metrics:
            return None
        return SplitImages(self.data, "train", self.protocol.train)

    @cached_property
    def train_hash(self) -> str | None:
        return pixel_hash(self.train) if self.train else None

    def target(self, name: str) -> Tensor | None:
        """The labels, captions, masks or sources of the reference images, or None if there are none."""
        return self.reference.target(name) if isinstance(self.reference, (SplitImages, TensorImages)) else None

    # ---- features ---------------------------------------------------------------------------------------------------

    @property
    def one_by_one(self) -> bool:
        """Whether any score needs the features of each image."""
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
        """A function from row numbers to images, resized to `shape` or else to the shape of the reference."""
        return lambda rows: bring(images.images(rows), shape or self.reference.shape)

    def cached_features(
        self, images: ImageSet, pixels: str, title: str, shape: Sequence[int] | None = None
    ) -> Features:
        """Features of real images, from the cache if possible. `pixels` is the hash of the images."""
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
        """The blocks of this process, of `count` images or of the reference: (number, rows, count without padding).

        The global random generators are seeded for each block, so a model's random draws depend only on the block.
        """
        for number, rows, real in self.progress(blocks(count or len(self.images), self.protocol.block), title):
            torch.manual_seed(mix("evaluate", self.protocol.seed, number))
            yield number, rows, real

    def for_model(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Reference images as uint8, and as model inputs in the size, channels and dtype of the model."""
        images = self.images.images(rows)
        x = from_stored(bring(images, self.model.spec.shape)).to(self.device, self.model.dtype)
        return images, x


def refuse_nan(images: Tensor, method: str, model: GenerativeModule) -> None:
    if not torch.isfinite(images).all():
        what = "numbers" if images.ndim == 2 else "pixels"
        raise UserError(
            f"`{method}` of {type(model).__name__} returned NaN or infinite {what}. Use an earlier checkpoint, or "
            "other options."
        )
