"""What one evaluation computes: features of both sides, and from them the scores of every ability."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from genbench.core import ranks
from genbench.core.batch import from_stored, to_stored
from genbench.core.capabilities import (
    Classifies,
    Encodes,
    HasLikelihood,
    Reconstructs,
    Samples,
    Segments,
    Translates,
    options,
)
from genbench.core.errors import UserError, dimensions
from genbench.core.image_grid import beside, painted
from genbench.core.module import GenerativeModule
from genbench.core.noise import mix
from genbench.data.module import DataModule
from genbench.evaluation import extractors
from genbench.evaluation.extractors import Extractor
from genbench.evaluation.features import (
    Extraction,
    Features,
    Progress,
    blocks,
    cached,
    extract,
    in_order,
)
from genbench.evaluation.galleries import COLUMNS, Gallery, nearest
from genbench.evaluation.images import ImageSet, SplitImages, TensorImages, bring, choice, pixel_hash
from genbench.evaluation.protocol import GROUPS, Protocol
from genbench.evaluation.statistics import Statistics
from genbench.metrics.classes import caption_classes, class_accuracy, class_frechet_distance, class_statistics
from genbench.metrics.frechet import frechet_distance
from genbench.metrics.inception_score import inception_score
from genbench.metrics.kernel import kernel_distance
from genbench.metrics.likelihood import bits_per_dim
from genbench.metrics.memorization import memorization
from genbench.metrics.mixture import mixture_statistics
from genbench.metrics.neighbors import neighbor_scores
from genbench.metrics.reconstruction import WINDOW, mse, psnr, ssim
from genbench.metrics.scales import SCALES
from genbench.metrics.segmentation import confusion, dice, mean_iou, pixel_accuracy

LPIPS_WEIGHTS = "vgg16-397923af.pth"
LPIPS_LEAST = 16  # pixels a side, which VGG16 halves four times
CLASSES = ("modes", "class_entropy", "mode_kl")  # scores that need a classifier
MIXTURE = (*CLASSES, "good_samples")  # scores that need to know the density
GENERATION = {"fid", "kid", "is", "neighbors", "classes", "memorization"}  # groups that need samples


class Measurement:
    """One evaluation: what is known of the two sides, and the scores so far."""

    def __init__(
        self,
        subject: GenerativeModule | ImageSet | None,
        data: DataModule | ImageSet,
        reference: ImageSet | Statistics,
        given: DataModule | ImageSet,
        protocol: Protocol,
        extractor: Extractor,
        device: torch.device,
        sampling: dict[str, Any],
        batch_size: int,
        progress: Progress,
        pictures: Gallery,
    ) -> None:
        self.subject, self.data, self.reference, self.protocol = subject, data, reference, protocol
        self.given = given  # the data before it was brought to the pixels in which images are compared
        self.extractor, self.device, self.progress = extractor, device, progress
        self.sampling, self.batch_size, self.pictures = sampling, batch_size, pictures
        self.model = subject if isinstance(subject, GenerativeModule) else None
        self.statistics = reference if isinstance(reference, Statistics) else None
        self.label = None if self.statistics else reference.label
        self.reference_hash = self.statistics.hash if self.statistics else pixel_hash(reference, self.label)
        self.shown_hash: str | None = None  # of what a model that translates is shown
        self.train: SplitImages | None = None  # what samples are searched in for copies
        if isinstance(data, DataModule) and "memorization" in protocol.metrics:
            self.train = SplitImages(data, "train", protocol.train)
        self.train_hash = pixel_hash(self.train) if self.train else None
        binary = isinstance(data, DataModule) and data.spec.binary
        if protocol.pixels == "binary" and not binary and isinstance(subject, HasLikelihood):
            raise UserError(
                f"The protocol {protocol.name} is of binary pixels, and {reference.name} has gray ones. Evaluate on "
                "binary images (`--data.binarize static`), or by another protocol."
            )
        self.pixels = "binary" if binary else protocol.pixels  # what a likelihood is of
        self.judged: dict[str, Any] = {}  # of images in a model's place: which ones
        self.scores: dict[str, dict[str, Any]] = {}
        self.cost: dict[str, Any] = {}
        if self.statistics is not None:
            self._refuse_other_features()
        # scores that need features one by one
        self.keep = bool({"kid", "is", "neighbors", "classes", "memorization"} & set(protocol.metrics))

    def _refuse_other_features(self) -> None:
        """Raise UserError where the statistics are of another number of features; before an hour of sampling."""
        shape = tuple(self.reference.shape)
        one = torch.zeros(1, *shape, dtype=torch.float32 if len(shape) == 1 else torch.uint8, device=self.device)
        features, dimensions = self.extractor(one)[0].shape[1], len(self.statistics.mu)
        if features != dimensions:
            raise UserError(
                f"{self.statistics.name} has statistics of {dimensions:,} features, and the extractor "
                f"'{self.extractor.name}' gives {features:,}. Choose the extractor that they were computed with; "
                "statistics of the FID Inception have 2,048: `--extractor inception`."
            )

    # ---- scores -----------------------------------------------------------------------------------------------------

    def put(
        self, metric: str, value: float | None, n: int, *, featured: bool = True, own: str = "", **more: Any
    ) -> None:
        """Enter a score; `featured` ones are called after their feature space, others may have a suffix, `own`."""
        scale = SCALES[metric]
        value = None if value is None else float(value)
        entry = {
            "value": value,
            "std": None,
            "better": scale.better,
            "low": scale.low if math.isfinite(scale.low) else None,
            "high": scale.high if math.isfinite(scale.high) else None,
            "n": n,
            "track": scale.track,
            "note": None,
        }
        self.scores[self.extractor.score(metric) if featured else metric + own] = entry | more

    def group(
        self,
        group: str,
        n: int,
        compute: Callable[[], dict[str, Any]],
        scores: tuple[str, ...] = (),
        *,
        featured: bool = True,
    ) -> None:
        """Enter a group of scores, or `scores` of it; what cannot be computed is left blank, with the reason."""
        if group not in self.protocol.metrics or ranks.rank() > 0:
            return
        try:
            for metric, value in compute().items():
                value, std = value if isinstance(value, tuple) else (value, None)
                self.put(metric, value, n, featured=featured, std=std)
        except UserError as error:
            for metric in scores or GROUPS[group]:
                self.put(metric, None, n, featured=featured, note=str(error))

    def take(self, generated: int) -> None:
        if self.subject is None:
            self.baseline(generated)
        elif self.model is None:
            images = self.subject
            self.judged = {"images": len(images), "shape": list(images.shape), "hash": pixel_hash(images)}
            self._look_at(images)
            self.compare(self._extract(self._images_of(self.subject), generated, "Features of the images"), generated)
        else:
            if isinstance(self.model, Samples) and GENERATION & set(self.protocol.metrics):
                self.sample(generated)
            if isinstance(self.model, Reconstructs) and "reconstruction" in self.protocol.metrics:
                self.reconstruct()
            if isinstance(self.model, Translates) and "reconstruction" in self.protocol.metrics:
                self.translate()
            if isinstance(self.model, HasLikelihood) and "likelihood" in self.protocol.metrics:
                self.likelihood()
            if isinstance(self.model, Segments) and "segmentation" in self.protocol.metrics:
                self.segment()
            if isinstance(self.model, Classifies) and "classes" in self.protocol.metrics:
                self.classify()
        if not ranks.from_first(bool(self.scores)):
            for capability, lacks in ((Translates, "pairs or domains to translate"), (Segments, "masks")):
                if isinstance(self.model, capability):
                    raise UserError(
                        f"{type(self.model).__name__} is measured by {lacks}, and {self.reference.name} has none. "
                        "Evaluate it on data like that it was trained on."
                    )
            raise UserError(
                f"{type(self.subject).__name__} can do nothing that the protocol {self.protocol.name} scores: it asks "
                f"for {', '.join(self.protocol.metrics)}."
                + (" Models with a likelihood are VAEs and PixelCNNs." if "likelihood" in self.protocol.metrics else "")
            )

    # ---- generation -------------------------------------------------------------------------------------------------

    def _extract(self, images: Callable[[Tensor], Tensor], count: int, title: str) -> Features:
        return extract(
            self.extractor, images, count, self.protocol.block, keep=self.keep, device=self.device,
            progress=self.progress, title=title,
        )  # fmt: skip

    def _images_of(self, images: ImageSet, shape: Sequence[int] | None = None) -> Callable[[Tensor], Tensor]:
        return lambda rows: bring(images.images(rows), shape or self.reference.shape)

    def _cached(self, images: ImageSet, pixels: str, title: str, shape: Sequence[int] | None = None) -> Features:
        """Features of real images, in the reference's shape or another, from the cache where they are in it."""
        made_of = {
            "pixels": pixels,
            "images": len(images),
            "extractor": [self.extractor.name, self.extractor.hash, self.extractor.resize],
            "block": self.protocol.block,
            "one by one": self.keep,
            "device": self.device.type,
            "torch": str(torch.__version__),
            "format": 1,
        }
        if shape and tuple(shape) != tuple(self.reference.shape):
            made_of["shape"] = list(shape)
        return cached(made_of, lambda: self._extract(self._images_of(images, shape), len(images), title))

    def baseline(self, generated: int) -> None:
        """Real images that are not the reference, in a model's place."""
        if not isinstance(self.data, DataModule):
            raise UserError("A baseline needs a data set with a second split: give `--data`, not `--reference`.")
        split = "test" if self.protocol.split == "train" else "train"
        others = SplitImages(self.data, split, generated)
        if len(others) < generated:  # a baseline of fewer images is higher: the board says so
            self.judged = {"name": f"{len(others):,} real images"}
        self._look_at(others)
        features = self._cached(others, pixel_hash(others), f"Features of {others.name}")
        self.compare(features, len(others), others.label)

    def _look_at(self, images: ImageSet) -> None:
        if self.pictures.samples:
            rows = choice(len(images), self.pictures.shown(self.reference.shape))
            self.pictures.keep("samples", rows, self._images_of(images)(rows), rows)

    def sample(self, generated: int) -> None:
        condition = self._conditions(generated)
        own_options = {k: v for k, v in self.sampling.items() if k in options(self.model.sample)}
        spent = [0.0]

        def draw(rows: Tensor) -> Tensor:
            seeds = (rows + self.protocol.seed * 2**32).to(self.device)
            asked = None if condition is None else condition[rows].to(self.device)
            before = self._now()
            found = self.model.sample(seeds, condition=asked, **own_options)
            spent[0] += self._now() - before
            return to_stored(_checked(found, "sample", type(self.model).__name__))

        def images(rows: Tensor) -> Tensor:
            found = torch.cat([draw(part) for part in rows.split(self.batch_size)])
            found = bring(found, self.reference.shape)
            self.pictures.keep("samples", rows, found, torch.arange(self.pictures.shown(self.reference.shape)))
            return found

        features = self._extract(images, generated, "Sampling")
        seconds = max(ranks.gather(spent))
        padded = -(-generated // self.protocol.block) * self.protocol.block
        self.cost["sampling_images_per_second"] = padded / seconds if seconds else None
        asked = {} if condition is None else {"label" if condition.ndim == 1 else "caption": condition}
        self.compare(features, generated, **asked)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _target(self, name: str) -> Tensor | None:
        """What comes with each image of the reference, where it has such."""
        return self.reference.target(name) if isinstance(self.reference, (SplitImages, TensorImages)) else None

    def _conditions(self, count: int) -> Tensor | None:
        """What a conditional model is asked for: the reference's own labels or captions, in turn."""
        if not self.model.conditional:
            return None
        target = self.model.spec.target
        found = self._target(target)
        if found is None:
            raise UserError(
                f"{type(self.model).__name__} is conditional on a {target}, and {self.reference.name} has none to ask "
                "for. Evaluate it on the data that it was trained on."
            )
        own, theirs = self.model.spec.classes, getattr(self.data, "classes", ())
        if target == "label" and theirs and len(own) != len(theirs):
            raise UserError(
                f"{type(self.model).__name__} draws {len(own)} classes ({', '.join(own[:3])}, ...), and "
                f"{self.reference.name} has {len(theirs)}. Evaluate it on the data that it was trained on."
            )
        found = found[choice(len(found), count)]  # not the first: data is often sorted by class
        return found[torch.arange(count) % len(found)]

    def compare(self, fake: Features, n: int, label: Tensor | None = None, caption: Tensor | None = None) -> None:
        """All scores of features against the reference's; each was asked to be of `label` [n] or `caption` [n, L]."""
        protocol = self.protocol
        self.pictures.gather("samples")
        self._show_real()
        if self.statistics is not None:
            self._compare_with_statistics(fake, n)
            return
        real = self._cached(self.reference, self.reference_hash, f"Features of {self.reference.name}")
        self.group("fid", n, lambda: {"fid": _frechet(fake, real)})
        self.group(
            "kid", n, lambda: {"kid": kernel_distance(
                fake.features, real.features, protocol.kid_subsets, protocol.kid_subset_size, protocol.score_seed)},
        )  # fmt: skip
        if fake.logits is not None:
            self.group("is", n, lambda: {"is": inception_score(fake.logits, protocol.is_splits, protocol.score_seed)})
        self.group("neighbors", min(n, protocol.neighbors_images), lambda: self._neighbors(real, fake))
        self._classes(real, fake, n, label)
        if caption is not None:
            self._captions(fake, n, caption)
        if "memorization" in protocol.metrics and self.subject is not None:
            self._memorization(real, fake, n)

    def _compare_with_statistics(self, fake: Features, n: int) -> None:
        real = Features(None, self.statistics.mu, self.statistics.sigma)
        self.group("fid", n, lambda: {"fid": _frechet(fake, real)})
        for entry in self.scores.values():
            entry["note"] = entry["note"] or f"against the mu and sigma of {Path(self.statistics.name).name} alone"

    def _neighbors(self, real: Features, fake: Features) -> dict[str, float]:
        most = self.protocol.neighbors_images
        return neighbor_scores(
            *(x.features[choice(x.count, most)] for x in (real, fake)), self.protocol.neighbors_k,
            progress=lambda items: self.progress(items, "Neighbors"),
        )  # fmt: skip

    def _classes(self, real: Features, fake: Features, n: int, label: Tensor | None) -> None:
        known = self.extractor.classes
        if self.extractor.mixture:
            self.group("classes", n, lambda: mixture_statistics(fake.features, *self.extractor.mixture), MIXTURE)
        elif known:
            self.group("classes", n, lambda: class_statistics(fake.logits), CLASSES)
        if label is None or self.label is None:
            return
        columns = class_columns(known, self.data.classes)
        if columns is not None:
            self.group(
                "classes", n,
                lambda: {"class_accuracy": class_accuracy(class_logits(fake.logits, columns), label)},
                ("class_accuracy",),
            )  # fmt: skip
        self.group(
            "classes", n,
            lambda: {"class_fid": class_frechet_distance(fake.features, label, real.features, self.label)},
            ("class_fid",),
        )  # fmt: skip

    def _captions(self, fake: Features, n: int, caption: Tensor) -> None:
        words, known = self.model.spec.vocabulary, self.extractor.classes
        self.group(
            "classes", n,
            lambda: {"caption_accuracy": class_accuracy(fake.logits, caption_classes(caption, words, known))},
            ("caption_accuracy",),
        )  # fmt: skip

    def _memorization(self, real: Features, fake: Features, n: int) -> None:
        if self.train is None:
            return
        seen = self._cached(self.train, self.train_hash, f"Features of {self.train.name}")
        held_out = None if self.protocol.split == "train" else real.features
        self.group(
            "memorization", n,
            lambda: memorization(fake.features, seen.features, held_out,
                                 progress=lambda items: self.progress(items, "Nearest training images")),
        )  # fmt: skip
        images = len(self.reference.shape) == 3  # a point beside its neighbors shows nothing
        if self.pictures.searched and images and ranks.rank() == 0:
            self._show_neighbors(fake, seen)

    def _show_real(self) -> None:
        """Points of the reference lie behind the samples."""
        if len(self.reference.shape) == 1 and self.statistics is None:
            self.pictures.real = self.reference.images(
                choice(len(self.reference), self.pictures.shown(self.reference.shape))
            )

    def _show_neighbors(self, fake: Features, seen: Features) -> None:
        rows = torch.tensor(self.pictures.rows("samples")[: self.pictures.searched])
        samples = self.pictures.found["samples"][: len(rows)]
        found = nearest(fake.features[rows], seen.features, COLUMNS["neighbors"] - 1)
        beside = self._images_of(self.train)(found.flatten()).unflatten(0, found.shape)
        self.pictures.keep("neighbors", rows, torch.cat([samples[:, None], beside], 1), rows)

    # ---- what else a model can do -----------------------------------------------------------------------------------

    def _each_block(
        self, title: str, compute: Callable[[int, Tensor, int], dict[str, Tensor]], count: int | None = None
    ) -> dict[str, Tensor]:
        """compute(number, rows, how many are real) -> values [block, ...] by name; all joined.

        The rows are of `count` images, or of the reference.

        A model's own draws from the global generators depend on the block and on nothing else.
        """
        parts: dict[str, list[tuple[int, Tensor]]] = {}
        for number, rows, real in self.progress(blocks(count or len(self.reference), self.protocol.block), title):
            torch.manual_seed(mix("evaluate", self.protocol.seed, number))
            for name, values in compute(number, rows, real).items():
                parts.setdefault(name, []).append((number, values[:real].cpu()))
        return {name: in_order(parts.get(name, [])) for name in sorted(set(ranks.gather(list(parts))))}

    def _for_model(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Reference images as uint8, and as the model takes them: in its size, color and type."""
        images = self.reference.images(rows)
        x = from_stored(bring(images, self.model.spec.shape)).to(self.device, self.model.dtype)
        return images, x

    def reconstruct(self) -> None:
        def make(rows: Tensor) -> tuple[Tensor, Tensor]:
            images, x = self._for_model(rows)
            return images, self.model.reconstruct(x)

        b = self.reference
        self._made("reconstruct", "Reconstructing", "", "reconstructions", make, shown=b, wanted=b, truth=b)
        if isinstance(self.model, Encodes):
            numbers = math.prod(self.model.latent_shape)
            each = 32 if self.model.latent_dtype == "float32" else math.log2(self.model.latent_values)
            self.group("reconstruction", len(b), lambda: {"code_bits": numbers * each}, featured=False)

    def translate(self) -> None:
        """To each domain of the model: beside the true image where it is known, else as one set beside another."""
        sources, b = self._target("source"), self.reference
        paired = sources is not None
        if paired:
            a: ImageSet = TensorImages(f"{b.name}, what it is made from", sources)
            # a split says by itself whether its sources are any images of the other domain
            paired = not isinstance(b, TensorImages) or self.model.spec.target == "image"
        elif isinstance(b, SplitImages) and b.unpaired:
            a = SplitImages(self.data, self.protocol.split, self.protocol.real, domain="A")
        else:
            return
        self.shown_hash = pixel_hash(a)
        spec, back = self.model.spec, []
        for to, shown, wanted, size in (("B", a, b, spec.source), ("A", b, a, spec.shape)):
            if to not in self.model.domains:
                continue

            def make(
                rows: Tensor, to: str = to, shown: ImageSet = shown, size: Sequence[int] = size
            ) -> tuple[Tensor, ...]:
                images = shown.images(rows)
                parts = from_stored(bring(images, size)).to(self.device, self.model.dtype).split(self.batch_size)
                made = [self.model.translate(x, to=to) for x in parts]
                if len(self.model.domains) == 1:
                    return images, torch.cat(made)
                again = [self.model.translate(x, to="B" if to == "A" else "A") for x in made]
                return images, torch.cat(made), torch.cat(again)

            prefix, sheet = ("translation_", "translations") if to == "B" else ("translation_a_", "translations_a")
            truth = wanted if paired else None
            found = self._made("translate", f"Translating to {to}", prefix, sheet, make, shown, wanted, truth)
            back += [found["back"]] if "back" in found else []
        if back:
            cycle = {"cycle_l1": sum(back) / len(back)}
            self.group("reconstruction", len(b), lambda: cycle, featured=False)

    def _made(
        self,
        method: str,
        title: str,
        prefix: str,
        sheet: str,
        make: Callable[[Tensor], tuple[Tensor, ...]],
        shown: ImageSet,
        wanted: ImageSet,
        truth: ImageSet | None,
    ) -> dict[str, float]:
        """Scores of what a model makes of images that it is shown, and the means that they come from.

        prefix  of the scores' names
        make    rows -> uint8 images that are shown, what the model made of them and, where it can, of that again
        wanted  images of the kind that are to be made: their distribution is compared
        truth   those that are to be made, row by row, which may be `shown` itself; where there are none, only
                distributions are compared
        """
        extraction = Extraction(self.extractor, keep=False)
        points = len(wanted.shape) == 1
        large = not points and min(wanted.shape[1:]) >= LPIPS_LEAST
        lpips = lpips_at_hand(self.device) if large and truth is not None else None
        kept = choice(len(shown), self.pictures.reconstructions)

        def compute(number: int, rows: Tensor, real: int) -> dict[str, Tensor]:
            images, found, *again = make(rows)
            _refuse_nan(found, method, type(self.model).__name__)
            found = bring(to_stored(found), wanted.shape)  # clamped: a linear decoder may leave the range
            extraction.add(number, found.to(self.device), real)
            true = None if truth is None else images if truth is shown else truth.images(rows)
            back = [bring(to_stored(x), shown.shape) for x in again]
            third = [] if truth is shown else back if true is None else [true]
            self.pictures.keep(sheet, rows, beside([images, found, *third]), kept)
            scores = {}
            if back:
                scores["back"] = (from_stored(back[0].cpu()) - from_stored(images)).abs().flatten(1).mean(1)
            if true is None:
                return scores
            a, b = from_stored(true[:real]).to(self.device), from_stored(found[:real])
            scores["mse"] = mse(b, a)
            if points:
                return scores
            scores["psnr"] = psnr(b, a)
            if min(b.shape[-2:]) >= WINDOW:
                scores["ssim"] = ssim(b, a)
            if lpips is not None:
                scores["lpips"] = lpips(b, a)
            return scores

        values = self._each_block(title, compute, len(shown))
        self.pictures.gather(sheet)
        n = len(shown)
        means = {name: value.double().mean().item() for name, value in values.items()}
        named = {prefix + name: value for name, value in means.items() if name != "back"}
        self.group("reconstruction", n, lambda: named, featured=False)
        if truth is not None and not points:
            if "ssim" not in means:
                note = f"needs images of at least {WINDOW}×{WINDOW}"
                self.put(f"{prefix}ssim", None, n, featured=False, note=note)
            if lpips is None:
                note = f"needs torchvision's {LPIPS_WEIGHTS} in torch's cache"
                note = note if large else f"needs images of at least {LPIPS_LEAST}×{LPIPS_LEAST}"
                self.put(f"{prefix}lpips", None, n, featured=False, note=note)
        features = extraction.result()
        own = f"{prefix or 'reconstruction_'}fid"
        known = self.reference_hash if wanted is self.reference else self.shown_hash
        real = self._cached(wanted, known, f"Features of {wanted.name}", wanted.shape)
        self.group("reconstruction", n, lambda: {own: _frechet(features, real)}, (own,))
        return means

    def likelihood(self) -> None:
        """log p of the reference; of a model that was trained on 8-bit pixels of another size, of these, under a name
        that says so."""
        model, images = self.model, self.reference
        own_options = {k: self.sampling.get(k, v) for k, v in options(model.log_likelihood).items()}
        bound = ", ".join([model.likelihood, *(f"{v} {k.replace('_', ' ')}" for k, v in own_options.items())])
        points = len(images.shape) == 1  # which have a density, whatever the pixels of a protocol are
        kind, shape = "density" if points else self.pixels, tuple(model.spec.shape)
        size = dimensions(shape)
        if shape != images.shape and isinstance(self.given, DataModule) and self.given.spec.shape == shape:
            images = SplitImages(self.given, self.protocol.split, self.protocol.real)
        if model.pixels != kind or shape != images.shape:
            here = f"{kind} pixels, {dimensions(images.shape)}"
            note = f"the model's likelihood is of {model.pixels} pixels, {size}, and here of {here}"
            if model.pixels == "binary" != kind:
                note += "; binary ones are made by `--data.binarize static`"
            elif shape != images.shape and not points:
                note += f"; `--data.size {shape[-1]}` gives images of its size"
            for metric in GROUPS["likelihood"]:
                self.put(metric, None, len(images), featured=False, note=note, bound=bound)
            return
        own = "" if images is self.reference else f"-{size.replace('×', 'x')}"

        def compute(number: int, rows: Tensor, real: int) -> dict[str, Tensor]:
            x = from_stored(images.images(rows)).to(self.device, model.dtype)
            return {"nats": model.log_likelihood(x, **own_options).double()}

        each = self._each_block("Likelihood", compute, len(images))["nats"]
        nats = each.mean().item() if (bad := int((~each.isfinite()).sum())) == 0 else None
        bits = None if nats is None else float(bits_per_dim(nats, math.prod(shape)))
        note = f"the likelihoods of {bad} of {len(each)} images are NaN or infinite" if bad else None
        for metric, value in {"nats": nats, "bits_per_dim": bits}.items():
            self.put(metric, value, len(images), own=own, featured=False, bound=bound, note=note)

    def segment(self) -> None:
        masks = self._target("mask")
        if masks is None:
            return
        kept = choice(len(self.reference), self.pictures.reconstructions)

        def compute(number: int, rows: Tensor, real: int) -> dict[str, Tensor]:
            image, x = self._for_model(rows)
            logits = self.model.segment(x).float().cpu()
            if logits.shape[-2:] != masks.shape[-2:]:
                logits = interpolate(logits, masks.shape[-2:], mode="bilinear", align_corners=False)
            self.pictures.keep("masks", rows, beside([image, painted(logits.argmax(1)), painted(masks[rows])]), kept)
            each = [confusion(logits[k : k + 1], masks[rows[k : k + 1]].long()) for k in range(real)]
            return {"confusion": torch.stack(each)}

        table = self._each_block("Segmenting", compute)["confusion"].sum(0)
        self.pictures.gather("masks")
        scores = {"mean_iou": mean_iou(table), "dice": dice(table), "pixel_accuracy": pixel_accuracy(table)}
        self.group("segmentation", len(self.reference), lambda: scores, featured=False)

    def classify(self) -> None:
        given = torch.zeros(0, dtype=torch.bool) if self.label is None else self.label >= 0
        own, theirs = len(self.model.spec.classes), len(getattr(self.data, "classes", ()))
        note = None
        if not given.any():
            note = f"{self.reference.name} has no labels"
        elif own != theirs:
            note = f"the model knows {own} classes, and {self.reference.name} has {theirs}"
        if note is not None:
            self.put("accuracy", None, 0, featured=False, note=note)
            return

        def compute(number: int, rows: Tensor, real: int) -> dict[str, Tensor]:
            logits = self.model.classify(self._for_model(rows)[1])
            _refuse_nan(logits, "classify", type(self.model).__name__)
            return {"logits": logits}

        logits = self._each_block("Classifying", compute)["logits"][given]
        accuracy = class_accuracy(logits, self.label[given])
        self.group("classes", len(logits), lambda: {"accuracy": accuracy}, featured=False)


def _frechet(fake: Features, real: Features) -> float:
    for features, what in ((fake, "compared images"), (real, "reference images")):
        if features.count is not None and features.count < 2:
            raise UserError(f"needs at least 2 {what}, got {features.count}")
    return frechet_distance(fake.mu, fake.sigma, real.mu, real.sigma).item()


def _refuse_nan(images: Tensor, method: str, model: str) -> None:
    if not torch.isfinite(images).all():
        what = "numbers" if images.ndim == 2 else "pixels"
        raise UserError(f"`{method}` of {model} gave NaN or infinite {what}. Evaluate an earlier checkpoint.")


def _checked(images: Tensor, method: str, model: str) -> Tensor:
    """Samples as the contract has them.

    Raises:
        UserError: NaN, or values of images well outside [-1, 1].
    """
    _refuse_nan(images, method, model)
    if images.ndim == 2:  # points may lie anywhere
        return images
    low, high = (float(v) for v in torch.aminmax(images.float()))
    if low < -1.01 or high > 1.01:
        raise UserError(f"`{method}` of {model} gave values from {low:.3g} to {high:.3g}; images lie in [-1, 1].")
    return images


def class_logits(logits: Tensor, columns: list[list[int]]) -> Tensor:
    """[N, K] of an extractor's classes -> [N, len(columns)]: each column's classes count as one."""
    return torch.stack([logits[:, own].logsumexp(1) for own in columns], 1)


def class_columns(classes: tuple[str, ...], wanted: tuple[str, ...]) -> list[list[int]] | None:
    """For each wanted class those of the extractor's that are it, "circle red" a "circle"; None where one lacks."""
    columns = [[k for k, known in enumerate(classes) if name in (known, known.split()[0])] for name in wanted]
    return columns if columns and all(columns) else None


def lpips_at_hand(device: torch.device) -> Callable[[Tensor, Tensor], Tensor] | None:
    """LPIPS with VGG16 (Zhang et al. 2018) [B, 3, H, W] x 2 -> [B], if torchvision's weights are in torch's cache."""
    if not (Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS).is_file():
        return None
    from torchmetrics.functional.image.lpips import _LPIPS

    network = _LPIPS(pretrained=True, net="vgg").to(device).eval()

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return network(extractors.in_channels(a, 3), extractors.in_channels(b, 3)).flatten()

    return distance
