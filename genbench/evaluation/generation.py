"""Scores of samples: distances between two sets of images in an extractor's feature space."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from genbench.core import ranks
from genbench.core.batch import to_stored
from genbench.core.capabilities import Samples, options
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.passes import counting
from genbench.data.module import DataModule
from genbench.evaluation.comparison import Comparison, refuse_nan
from genbench.evaluation.evaluator import Evaluator, Expected, Plan
from genbench.evaluation.features import Features, pixel_hash
from genbench.evaluation.galleries import COLUMNS, nearest
from genbench.evaluation.images import ImageSet, SplitImages, bring, choice
from genbench.evaluation.scores import BlockUpdates, Scores, own_metrics
from genbench.evaluation.statistics import Statistics
from genbench.metrics.classes import ClassAccuracy, ClassFrechetDistance, ClassStatistics, caption_classes
from genbench.metrics.frechet import FrechetDistance, frechet_distance
from genbench.metrics.inception_score import InceptionScore
from genbench.metrics.kernel import KernelDistance
from genbench.metrics.memorization import Memorization
from genbench.metrics.mixture import MixtureStatistics
from genbench.metrics.neighbors import NeighborScores
from genbench.metrics.registry import update_parameters
from genbench.metrics.scales import GROUPS
from genbench.metrics.score import Score


class Generation(Evaluator):
    """Compares samples of a model, a set of images, or real images as the baseline, with the reference."""

    capability = Samples
    track = "generation"
    groups = frozenset({"fid", "kid", "is", "neighbors", "classes", "memorization"})

    def expected(self, plan: Plan) -> Expected:
        model, protocol, extractor, label = plan.model, plan.protocol, plan.extractor, plan.held.label
        groups, target = set(protocol.metrics), model.spec.target
        if model.conditional and target == "label" and label is None:
            raise UserError(
                f"{type(model).__name__} needs labels as conditions, but the images of the split {protocol.split} have "
                "no labels."
            )
        both = min(plan.real, protocol.generated)
        found: Expected = {}
        if "fid" in groups:
            found["fid"] = plan.few(both, 2)
        if "kid" in groups:
            found["kid"] = plan.few(both, protocol.kid_subset_size)
        if "is" in groups and _classifies(plan):
            found["is"] = plan.few(protocol.generated, protocol.is_splits)
        if "neighbors" in groups:
            few = plan.few(min(both, protocol.neighbors_images), protocol.neighbors_k + 1)
            found |= dict.fromkeys(GROUPS["neighbors"], few)
        if "memorization" in groups:
            found |= dict.fromkeys(GROUPS["memorization"])
            if protocol.split == "train":
                del found["nearest_train_ratio"]
        if "classes" in groups:
            if extractor.classes:
                found |= dict.fromkeys((MixtureStatistics if extractor.mixture else ClassStatistics).scores)
            if model.conditional and target == "label":
                if class_columns(extractor.classes, plan.data.classes) is not None:
                    found["class_accuracy"] = None
                assert label is not None, "checked above"
                counts = label[label >= 0].bincount()
                found["class_fid"] = plan.few(int(counts[counts > 0].min()), 2, "of each class")
            if model.conditional and target == "caption":
                found["caption_accuracy"] = None
        return {extractor.score(name): why for name, why in found.items()} | plan.own(self.track)

    def evaluate(self, comparison: Comparison) -> Scores:
        c, model, protocol = comparison, comparison.model, comparison.protocol
        condition = _conditions(c)
        own_options = {k: v for k, v in c.sampling.items() if k in options(model.sample)}
        seconds: list[float] = []  # of each block

        def draw(rows: Tensor) -> Tensor:
            seeds = (rows + protocol.seed * 2**32).to(c.device)
            chosen = None if condition is None else condition[rows].to(c.device)
            before = _now(c.device)
            found = model.sample(seeds, condition=chosen, **own_options)
            seconds[-1] += _now(c.device) - before
            return to_stored(_checked(found, model))

        def images(rows: Tensor) -> Tensor:
            seconds.append(0.0)
            found = torch.cat([draw(part) for part in rows.split(c.batch_size)])
            found = bring(found, c.reference.shape)
            c.gallery.keep("samples", rows, found, torch.arange(c.gallery.shown(c.reference.shape)))
            return found

        conditions = {} if condition is None else {"label" if condition.ndim == 1 else "caption": condition}
        own = _OwnMetrics(c, conditions.get("label"))
        with counting(model) as passes:
            fake = c.extract(images, protocol.generated, "Sampling", own.generated)
        measured = ranks.gather([(max(passes.values(), default=0), seconds)])
        scores = compare(c, fake, own, **conditions)
        scores.cost |= sampling_cost(measured, protocol.block)
        return scores

    def evaluate_images(self, comparison: Comparison) -> Scores:
        """Evaluate a set of images as if a model had generated them."""
        c, images = comparison, comparison.subject
        assert images is not None and not isinstance(images, GenerativeModule)
        _look_at(c, images)
        own = _OwnMetrics(c, None)
        scores = compare(c, c.extract(c.images_of(images), len(images), "Features of the images", own.generated), own)
        scores.subject = {"images": len(images), "shape": list(images.shape), "hash": pixel_hash(images)}
        return scores

    def evaluate_baseline(self, comparison: Comparison) -> Scores:
        """Evaluate real images that are not part of the reference as if a model had generated them."""
        c, protocol = comparison, comparison.protocol
        if not isinstance(c.data, DataModule):
            raise UserError("A baseline needs a data set with a second split. Use `--data` instead of `--reference`.")
        others = SplitImages(c.data, "test" if protocol.split == "train" else "train", protocol.generated)
        _look_at(c, others)
        own = _OwnMetrics(c, others.label)
        features = c.cached_features(others, pixel_hash(others), f"Features of {others.name}")
        own.update(others, real=False)
        scores = compare(c, features, own, others.label)
        if len(others) < protocol.generated:  # a baseline of fewer images is biased: show the number on the leaderboard
            scores.subject = {"name": f"{len(others):,} real images"}
        return scores


def sampling_cost(measured: list[tuple[int, list[float]]], block: int) -> dict[str, float | None]:
    """Network evaluations and seconds per image, for a record.

    Args:
        measured: For each process, the passes through the network that is passed most often, and the seconds that
            sampling took in each block
        block: Images of a block

    The seconds are those of one device, from the median over blocks, which a pause of the machine does not change. The
    first block of a process is left out, unless it is the only one, since it includes compilation and other work that
    is done once. Without any pass, the number of evaluations is unknown: the model does not call its networks.
    """
    passes = sum(most for most, _ in measured)
    images = block * sum(len(seconds) for _, seconds in measured)
    timed = [second for _, seconds in measured for second in (seconds[1:] or seconds)]
    return {
        "network_evaluations_per_image": passes / images if passes else None,
        "sampling_seconds_per_image": median(timed) / block,
    }


def compare(
    comparison: Comparison,
    fake: Features,
    own: _OwnMetrics,
    label: Tensor | None = None,
    caption: Tensor | None = None,
) -> Scores:
    """All scores of the features of generated images, compared with the reference.

    label, caption  the conditions of the generated images, [N] or [N, L]
    """
    c = comparison
    scores = Scores(c.protocol, c.extractor)
    c.gallery.gather("samples")
    if isinstance(c.reference, Statistics):
        _compare_with_statistics(scores, fake, c.reference)
        return scores
    if len(c.reference.shape) == 1:  # reference points are plotted behind the samples
        c.gallery.real = c.images.images(choice(len(c.images), c.gallery.shown(c.reference.shape)))
    real = c.reference_features()
    if ranks.rank() == 0:
        _add_distances(c, scores, real, fake)
        _add_classes(c, scores, real, fake, label, caption)
    if c.train is not None and c.subject is not None:
        _add_memorization(c, scores, real, fake)
    own.add(scores, real, fake, label)
    return scores


def _add_distances(c: Comparison, scores: Scores, real: Features, fake: Features) -> None:
    """Add distances and overlaps of the two sets of features, which do not depend on classes."""
    protocol, n, most = c.protocol, fake.sums.count, c.protocol.neighbors_images
    sums = [{"features": x.sums, "real": x is real} for x in (fake, real)]
    scores.add("fid", n, FrechetDistance(len(fake.sums.total)), *sums, featured=True)
    if fake.features is None or real.features is None:
        return
    each: list[dict[str, Any]] = [{"features": x.features, "real": x is real} for x in (fake, real)]
    kernel = KernelDistance(protocol.kid_subsets, protocol.kid_subset_size, protocol.score_seed)
    scores.add("kid", n, kernel, *each, featured=True)
    if fake.logits is not None:
        inception = InceptionScore(protocol.is_splits, protocol.score_seed)
        scores.add("is", n, inception, {"logits": fake.logits}, featured=True)
    neighbors = NeighborScores(protocol.neighbors_k, progress=lambda items: c.progress(items, "Neighbors"))
    chosen = [{**side, "features": side["features"][choice(len(side["features"]), most)]} for side in each]
    scores.add("neighbors", min(n, most), neighbors, *chosen, featured=True)


def _add_classes(
    c: Comparison, scores: Scores, real: Features, fake: Features, label: Tensor | None, caption: Tensor | None
) -> None:
    """Add scores by class: coverage of the classes, accuracy of the requested class, and quality per class."""
    if "classes" not in c.protocol.metrics:
        return
    n, classes, theirs = fake.sums.count, c.extractor.classes, getattr(c.data, "classes", ())

    def add(metric: Score, *updates: dict[str, Any], **more: Any) -> None:
        scores.add("classes", n, metric, *updates, featured=True, **more)

    if c.extractor.mixture:
        add(MixtureStatistics(*c.extractor.mixture), {"points": fake.features})
    elif classes:
        add(ClassStatistics(), {"logits": fake.logits})
    if label is not None and c.label is not None:
        columns = class_columns(classes, theirs)
        if columns is not None and fake.logits is not None:
            add(ClassAccuracy(), {"logits": class_logits(fake.logits, columns), "labels": label})
        of_fake = {"features": fake.features, "labels": label, "real": False}
        add(ClassFrechetDistance(), of_fake, {"features": real.features, "labels": c.label, "real": True})
    if caption is not None:
        name = ("caption_accuracy",)
        try:
            named = caption_classes(caption, c.model.spec.vocabulary, classes)
        except UserError as error:
            scores.put(*name, None, n, featured=True, note=str(error))
        else:
            add(ClassAccuracy(), {"logits": fake.logits, "labels": named}, names=name)


def _compare_with_statistics(scores: Scores, fake: Features, reference: Statistics) -> None:
    n = fake.sums.count
    if n < 2:
        scores.put("fid", None, n, featured=True, note=f"needs at least 2 generated images; got {n}")
        return
    value = frechet_distance(*fake.sums.moments(), reference.mu, reference.sigma)
    note = f"compared only with mu and sigma of {Path(reference.name).name}"
    scores.put("fid", value.item(), n, featured=True, note=note)


def _add_memorization(c: Comparison, scores: Scores, real: Features, fake: Features) -> None:
    assert c.train is not None and c.train_hash is not None
    seen = c.cached_features(c.train, c.train_hash, f"Features of {c.train.name}")
    metric = Memorization(progress=lambda items: c.progress(items, "Nearest training images"))
    sets = {"fake": fake, "train": seen} | ({} if c.protocol.split == "train" else {"held_out": real})
    updates = [{"features": x.features, "which": which} for which, x in sets.items()]
    scores.add("memorization", fake.sums.count, metric, *updates, featured=True)
    images = len(c.reference.shape) == 3  # not for points, whose neighbors show nothing
    if c.gallery.searched and images and ranks.rank() == 0:
        rows = torch.tensor(c.gallery.rows("samples")[: c.gallery.searched])
        samples = c.gallery.found["samples"][: len(rows)]
        assert fake.features is not None and seen.features is not None, "`memorization` stores all features"
        found = nearest(fake.features[rows], seen.features, COLUMNS["neighbors"] - 1)
        beside = c.images_of(c.train)(found.flatten()).unflatten(0, found.shape)
        c.gallery.keep("neighbors", rows, torch.cat([samples[:, None], beside], 1), rows)


class _OwnMetrics:
    """The user's own metrics of samples. Metrics that use images are updated block by block, others with all
    features."""

    def __init__(self, comparison: Comparison, label: Tensor | None) -> None:
        self.c, self.label = comparison, label
        self.metrics = own_metrics(comparison.protocol, "generation")
        self.takes = {name: set(update_parameters(metric)) for name, metric in self.metrics.items()}
        on_images = {n: m for n, m in self.metrics.items() if {"images", "imgs"} & self.takes[n]}
        self.blocks = BlockUpdates(on_images, comparison.device)

    def generated(self, rows: Tensor, images: Tensor) -> None:
        """Update with one block of samples."""
        self._update(rows, images, self.label, real=False)

    def update(self, images: ImageSet, *, real: bool) -> None:
        """Update with all images of a set."""
        if not self.blocks.metrics:
            return
        for _, rows, count in self.c.blocks(f"{images.name} for your metrics", len(images)):
            self._update(
                rows[:count], self.c.images_of(images)(rows[:count]), self.c.label if real else self.label, real
            )

    def _update(self, rows: Tensor, images: Tensor, labels: Tensor | None, real: bool) -> None:
        for name in self.blocks.metrics:
            if real and "real" not in self.takes[name]:
                continue
            given = {"images": images, "imgs": images, "real": real}
            given |= {} if labels is None else {"labels": labels[rows]}
            if missing := self.takes[name] - given.keys():
                self.blocks.leave_blank(name, _needs(missing))
            number = int(rows[0]) // self.c.protocol.block
            self.blocks.update_one(number, name, **{k: v for k, v in given.items() if k in self.takes[name]})

    def add(self, scores: Scores, real: Features, fake: Features, label: Tensor | None) -> None:
        """Add the scores of all own metrics."""
        self.update(self.c.images, real=True)
        self.blocks.join()
        self.blocks.add_own(scores, fake.sums.count)
        for name in (n for n in self.metrics if n not in self.blocks.own):
            takes, updates, failed = self.takes[name], [], None
            for side, labels in ((fake, label), (real, self.c.label))[: 2 if "real" in takes else 1]:
                given = {"features": side.features, "logits": side.logits, "labels": labels, "real": side is real}
                updates.append({k: v for k, v in given.items() if k in takes and v is not None})
                if missing := takes - updates[-1].keys():
                    failed = _needs(missing)
            scores.add_own(name, self.metrics[name], fake.sums.count, *updates, failed=failed)


def _needs(missing: set[str]) -> str:
    return f"needs {' and '.join(sorted(missing))}, which are not available here"


def _classifies(plan: Plan) -> bool:
    """Whether the extractor returns logits, found by calling it once."""
    kind = torch.float32 if plan.points else torch.uint8
    return plan.extractor(torch.zeros(1, *plan.reference.shape, dtype=kind))[1] is not None


def _look_at(c: Comparison, images: ImageSet) -> None:
    if c.gallery.samples:
        rows = choice(len(images), c.gallery.shown(c.reference.shape))
        c.gallery.keep("samples", rows, c.images_of(images)(rows), rows)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _conditions(c: Comparison) -> Tensor | None:
    """The labels or captions that a conditional model is sampled with: those of the reference, in turn."""
    model = c.model
    if not model.conditional:
        return None
    target = model.spec.target
    found = c.target(target)
    if found is None:
        raise UserError(
            f"{type(model).__name__} needs a {target} for each sample, but {c.reference.name} has none. "
            "Evaluate the model on its training data set."
        )
    own, theirs = model.spec.classes, getattr(c.data, "classes", ())
    if target == "label" and theirs and len(own) != len(theirs):
        raise UserError(
            f"{type(model).__name__} samples {len(own)} classes ({', '.join(own[:3])}, ...), but {c.reference.name} "
            f"has {len(theirs)}. Evaluate the model on its training data set."
        )
    count = c.protocol.generated
    found = found[choice(len(found), count)]  # a random choice, since data is often sorted by class
    return found[torch.arange(count) % len(found)]


def _checked(images: Tensor, model: GenerativeModule) -> Tensor:
    """Return the samples unchanged if they are valid.

    Raises:
        UserError: samples contain NaN or infinity, or pixels well outside [-1, 1].
    """
    refuse_nan(images, "sample", model)
    if images.ndim == 2:  # points may lie anywhere
        return images
    low, high = (float(v) for v in torch.aminmax(images.float()))
    if low < -1.01 or high > 1.01:
        raise UserError(
            f"`sample` of {type(model).__name__} returned values from {low:.3g} to {high:.3g}; expected [-1, 1]."
        )
    return images


def class_logits(logits: Tensor, columns: list[list[int]]) -> Tensor:
    """Logits of the extractor's classes [N, K] -> [N, len(columns)]; the classes listed in a column are merged."""
    return torch.stack([logits[:, own].logsumexp(1) for own in columns], 1)


def class_columns(classes: tuple[str, ...], wanted: tuple[str, ...]) -> list[list[int]] | None:
    """For each wanted class, the indices of the extractor's classes that belong to it.

    For example, "circle red" belongs to "circle". Returns None if no class of the extractor belongs to a wanted class.
    """
    columns = [[k for k, known in enumerate(classes) if name in (known, known.split()[0])] for name in wanted]
    return columns if columns and all(columns) else None
