"""Features of a set of images, extracted once for all scores. Features of references are cached on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from genbench.core import ranks
from genbench.core.arguments import key_of
from genbench.core.errors import UserError
from genbench.core.files import replacing
from genbench.data.module import DataModule
from genbench.evaluation.extractor import Extractor, state_hash
from genbench.evaluation.images import ImageSet, SplitImages
from genbench.metrics.frechet import FeatureSums

Progress = Callable[[Iterable, str], Iterable]


@dataclass
class Features:
    """
    sums      sums that give the mean and covariance of the features
    features  [N, D] float32, if a score needs the features of each image
    logits    [N, K] float32, if the extractor is a classifier
    """

    sums: FeatureSums
    features: Tensor | None = None
    logits: Tensor | None = None

    def state(self) -> dict[str, Tensor]:
        parts = {"total": self.sums.total, "outer": self.sums.outer, "features": self.features, "logits": self.logits}
        return {name: value for name, value in parts.items() if value is not None}


def blocks(count: int, size: int) -> list[tuple[int, Tensor, int]]:
    """The blocks of this process: (number, rows, count without padding). Rows are padded to `size` with the last
    row."""
    return [
        (number, torch.cat([rows, rows[-1:].expand(size - len(rows))]), len(rows))
        for number, rows in enumerate(torch.arange(count).split(size))
        if number % ranks.world() == ranks.rank()
    ]


def in_order(parts: list[tuple[int, Tensor]]) -> Tensor:
    """The values that all processes computed for their blocks, joined in the order of the blocks."""
    return torch.cat([value for _, value in sorted(ranks.gather(parts), key=lambda part: part[0])])


class Extraction:
    """Extracts features block by block and sums them. The features of each image are stored only with `keep`."""

    def __init__(self, extractor: Extractor, keep: bool) -> None:
        self.extractor, self.keep = extractor, keep
        self._sums: FeatureSums | None = None
        self._features: list[tuple[int, Tensor]] = []
        self._logits: list[tuple[int, Tensor]] = []

    def add(self, number: int, images: Tensor, count: int) -> None:
        """Add block `number`: uint8 [B, C, H, W], of which the first `count` are not padding."""
        features, logits = self.extractor(images)
        features = features[:count]
        found = FeatureSums.of(features)
        found = FeatureSums(count, found.total.cpu(), found.outer.cpu())
        self._sums = found if self._sums is None else self._sums + found
        if self.keep:
            self._features.append((number, features.cpu()))
            if logits is not None:
                self._logits.append((number, logits[:count].cpu()))

    def result(self) -> Features:
        """The features of the blocks of all processes, on every process."""
        first, *others = (sums for sums in ranks.gather([self._sums]) if sums is not None)
        sums = sum(others, first)
        if not torch.isfinite(sums.outer).all():
            raise UserError(f"The extractor '{self.extractor.name}' returned features that are not finite.")
        if not self.keep:
            return Features(sums)
        logits = in_order(self._logits) if any(ranks.gather([bool(self._logits)])) else None
        return Features(sums, in_order(self._features), logits)


def extract(
    extractor: Extractor,
    images: Callable[[Tensor], Tensor],
    count: int,
    block: int,
    *,
    keep: bool,
    device: torch.device,
    progress: Progress,
    title: str,
    seen: Callable[[Tensor, Tensor], None] | None = None,
) -> Features:
    """Features of `count` images; `images(rows)` returns uint8 images [B, C, H, W].

    seen  is called with the rows and the images of each block, without padding
    """
    extraction = Extraction(extractor, keep)
    for number, rows, real in progress(blocks(count, block), title):
        found = images(rows)
        extraction.add(number, found.to(device), real)
        if seen is not None:
            seen(rows[:real], found[:real])
    return extraction.result()


# hashes of the splits of each data module, kept because all validations of a run use the same images
_HASHES: WeakKeyDictionary[DataModule, dict[tuple[str, int, bool], str]] = WeakKeyDictionary()


def pixel_hash(images: ImageSet, labels: Tensor | None = None) -> str:
    """Hash (16 hex digits) of all pixels, in order, and of the labels."""
    known = _HASHES.setdefault(images.data, {}) if isinstance(images, SplitImages) else {}
    key = (images.name, len(images), labels is not None)
    if key not in known:
        digest = hashlib.sha256(str((len(images), *images.shape)).encode())
        for rows in torch.arange(len(images)).split(1000):
            digest.update(images.images(rows).contiguous().numpy().tobytes())
        if labels is not None:
            digest.update(labels.contiguous().numpy().tobytes())
        known[key] = digest.hexdigest()[:16]
    return known[key]


# ---- on disk --------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """`$GENBENCH_CACHE`, or by default the folder `genbench` in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "genbench"
    return Path(os.environ.get("GENBENCH_CACHE") or default)


def cached(made_of: dict[str, Any], make: Callable[[], Features]) -> Features:
    """Features from the cache. Missing features are computed by `make` and stored.

    The file name contains a hash of `made_of`, which describes everything that the features depend on. A file that is
    damaged, or whose content does not match its name, is written again.
    """
    path = cache_folder() / f"features-{key_of(made_of)}.safetensors"
    found = _read(path, made_of) if ranks.rank() == 0 else None
    hit = ranks.from_first(found is not None)
    if not hit:
        found = make()
        if ranks.rank() == 0:
            _write(path, made_of, found)
    elif ranks.several() and ranks.rank() > 0:
        found = Features(FeatureSums(0, torch.empty(0), torch.empty(0)))  # only the first process computes scores
    if ranks.several():
        dist.barrier()
    assert found is not None, "the features were read or computed"
    return found


def _read(path: Path, made_of: dict[str, Any]) -> Features | None:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is not a dict
        if json.loads(about["made_of"]) != made_of or about["checksum"] != state_hash(state):
            return None
        sums = FeatureSums(int(about["count"]), state.pop("total"), state.pop("outer"))
        return Features(sums, **state)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None


def _write(path: Path, made_of: dict[str, Any], found: Features) -> None:
    from safetensors.torch import save

    state = {name: value.contiguous() for name, value in found.state().items()}
    about = {"made_of": json.dumps(made_of), "count": str(found.sums.count), "checksum": state_hash(state)}
    try:
        with replacing(path) as file:
            file.write(save(state, about))
    except OSError:
        pass  # if the cache cannot be written, the features are only computed again next time
