"""Labeled synthetic images of a trained model, and how well they train a classifier."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genbench.core.batch import Batch, from_stored, to_stored
from genbench.core.capabilities import Classifies
from genbench.core.errors import UserError
from genbench.core.noise import mix
from genbench.data.base import ImageData
from genbench.data.loader import EvalLoader, MemorySource, Source, TrainLoader
from genbench.networks import classifier
from genbench.networks.classifier import SmallClassifier

BATCH = 128  # images in a training batch of the classifier
MOST_DRAWN = 30  # samples drawn per requested image, after which a class is reported as too rare


@dataclass
class Synthetic:
    """
    images  uint8 [N, C, H, W]
    label   int64 [N], in the order 0, 1, ..., K - 1, 0, ... of the chosen classes
    drawn   number of samples drawn
    unsure  number of samples dropped because their probability was too low
    extra   number of samples dropped because their class had enough images already
    """

    images: Tensor
    label: Tensor
    drawn: int
    unsure: int = 0
    extra: int = 0


def refuse_without_classes(model: Any) -> None:
    """Raise UserError if the model neither takes labels nor classifies images, so that its samples have no class."""
    name, spec = type(model).__name__, model.spec
    if len(spec.shape) != 3:
        raise UserError(f"{name} was trained on points of {spec.shape[0]} numbers; `augment` needs a model of images.")
    labeled = spec.target == "label" if model.conditional else isinstance(model, Classifies)
    if labeled and hasattr(model, "sample"):
        return
    raise UserError(
        f"Samples of {name} have no class. `augment` needs a model that samples images of a class (ConditionalGAN, "
        "ConditionalVAE; PixelCNN or VQPrior with `--model.by_class true`), or one that samples and classifies images "
        "(SemiSupervisedGAN)."
    )


@torch.no_grad()
def synthesize(
    model: Any,
    n: int,
    *,
    seed: int = 0,
    classes: Sequence[int] | None = None,
    least_probability: float = 0.0,
    batch_size: int = 64,
    sampling: dict[str, Any] | None = None,
    progress: Callable[[int], None] = lambda found: None,
) -> Synthetic:
    """Draw labeled images from a model, the same number of each class.

    The label is the class that a conditional model was given, or else the class that the model's own `classify`
    predicts for the image. Samples are drawn from the seeds `seed`, `seed` + 1, ... and are kept in this order, so they
    do not depend on the batch size.

    Args:
        model: A trained model in eval mode that samples images of a class, or samples and classifies
        n: Number of images; a multiple of the number of classes
        classes: Indices of the classes. Default: all
        least_probability: Keep only samples whose class has at least this probability under the model's `classify`
        sampling: Options of the model's `sample`
        progress: Called after each batch with the number of images found so far

    Raises:
        UserError: samples of the model have no class; `n` is not divisible by the number of classes; the model cannot
            classify but `least_probability` is set; or the model draws too few images of a class.
    """
    refuse_without_classes(model)
    names = model.spec.classes
    chosen = torch.arange(len(names)) if classes is None else torch.tensor(sorted(set(classes)))
    if n < 1 or n % len(chosen):
        raise UserError(f"{n} images cannot be divided evenly among {len(chosen)} classes. Use a multiple.")
    if least_probability and not isinstance(model, Classifies):
        raise UserError(
            f"{type(model).__name__} cannot classify its samples, so their probability is unknown. Leave out "
            "`least_probability`, or use a model that classifies: ConditionalGAN with `conditioning: auxiliary`, or "
            "SemiSupervisedGAN."
        )
    each, found = n // len(chosen), torch.zeros(len(names), dtype=torch.int64)
    kept: list[list[Tensor]] = [[] for _ in names]
    made = Synthetic(torch.empty(0), chosen.repeat(each), drawn=0)
    while (missing := int((each - found[chosen]).sum())) > 0:
        if made.drawn >= MOST_DRAWN * n:
            least = chosen[found[chosen].argmin()]
            with_least, lower = "", ""
            if least_probability:
                with_least = f" with a probability of at least {least_probability:g}"
                lower = ", or lower the probability"
            raise UserError(
                f"{made.drawn:,} samples of {type(model).__name__} contain only {found[least]:,} images of class "
                f"`{names[least]}`{with_least}; {each:,} were needed. Draw fewer images, "
                f"{'' if lower else 'or '}choose other classes{lower}."
            )
        place = torch.arange(made.drawn, made.drawn + batch_size)
        wanted = chosen[place % len(chosen)] if model.conditional else None
        if wanted is not None and not least_probability:
            place, wanted = place[:missing], wanted[:missing]
        condition = None if wanted is None else wanted.to(model.device)
        images = to_stored(model.sample((seed + place).to(model.device), condition=condition, **sampling or {}))
        label, sure = wanted, torch.ones(len(place), dtype=torch.bool)
        if label is None or least_probability:
            # classify the images as they are stored, so that classifying the written files gives the same labels
            probability = model.classify(from_stored(images).to(model.dtype)).float().softmax(1).cpu()
            label = probability.argmax(1) if label is None else label
            sure = probability.gather(1, label[:, None])[:, 0] >= least_probability
        for image, k, is_sure in zip(images.cpu(), label.tolist(), sure.tolist(), strict=True):
            if missing == 0:  # samples after the last that is kept depend on the batch size, and are not counted
                break
            made.drawn += 1
            if not is_sure:
                made.unsure += 1
            elif k not in chosen or found[k] == each:
                made.extra += 1
            else:
                kept[k].append(image)
                found[k] += 1
                missing -= 1
        progress(n - missing)
    made.images = torch.stack([kept[k][row] for row in range(each) for k in chosen.tolist()])
    return made


def folder_names(classes: Sequence[str]) -> list[str]:
    """Names of the folders of the classes: characters that some file systems refuse are replaced by a hyphen.

    Example:
        >>> folder_names(["T-shirt/top", "St. Bernard"])
        ['T-shirt-top', 'St- Bernard']
    """
    names = [re.sub(r"[^\w +()-]", "-", name).strip() or "-" for name in classes]
    return names if len({*map(str.lower, names)}) == len(names) else [f"{k} {name}" for k, name in enumerate(names)]


# ---- classification accuracy score ----------------------------------------------------------------------------------


def labeled_rows(data: ImageData, count: int | None) -> Tensor:
    """Rows of the training split whose labels a run with `data.labeled` set to `count` uses; None: all rows.

    They follow from `data.split_seed`, so a semi-supervised model trained with this number of labels has seen the
    labels of exactly these images.

    Raises:
        UserError: the data has no labels, or too few of them in a class; or `count` is not a multiple of the number of
            classes.
    """
    if data.spec.target != "label":
        raise UserError(f"{data.name} has no labels, so no classifier can be trained on it. Use data with classes.")
    arguments = data.arguments | {"root": str(data.root), "labeled": count}
    try:
        stream = type(data)(**arguments).streams("train")[0]
    except UserError as error:
        raise UserError(str(error).replace("data.labeled", "The number of labels")) from error
    label = stream.target("label", torch.arange(len(stream)))
    if label is None:
        raise UserError(f"The training images of {data.name} have no labels. Use data with classes.")
    return (label >= 0).nonzero()[:, 0]


def labeled_test(data: ImageData) -> Source:
    """The test images. Raises UserError if they have no labels."""
    test = data.source("test")
    if test.target("label", torch.arange(1)) is None:
        raise UserError(f"The test images of {data.name} have no labels, so no accuracy can be computed.")
    return test


def train_classifier(
    sources: Sequence[Source],
    classes: int,
    images: int,
    *,
    seed: int = 0,
    hflip: bool = False,
    device: str | torch.device = "cpu",
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> SmallClassifier:
    """Train a `SmallClassifier` on labeled images. Each batch has equally many images from each source.

    Args:
        sources: One or two sources of images with labels
        classes: Number of classes, K
        images: Number of training images seen, over all sources
        seed: Seed of the weights, the order, and the rotations and shifts of the images
        hflip: Mirror half of the images
        progress: Wraps the numbers of the steps, to show a progress bar
    """
    device, steps = torch.device(device), max(1, images // BATCH)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        net = SmallClassifier(sources[0].batch(torch.arange(1)).image.shape[1], classes).to(device)
    loaders = [
        iter(TrainLoader(source, BATCH // len(sources), seed=mix("augment", seed, k), hflip=hflip))
        for k, source in enumerate(sources)
    ]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in progress(range(steps)):
            parts = [next(loader) for loader in loaders]
            images = torch.cat([part.image for part in parts])
            yield images.to(device), torch.cat([_label(part) for part in parts]).to(device)

    return classifier.train(net, batches(), steps, torch.Generator().manual_seed(mix("jitter", seed)))


def accuracy(net: SmallClassifier, source: Source, device: str | torch.device = "cpu") -> float:
    """Fraction of the images of a source that a classifier classifies correctly."""
    batches = EvalLoader(source, 500)
    return classifier.accuracy(net, ((batch.image.to(device), _label(batch).to(device)) for batch in batches))


@torch.no_grad()
def own_accuracy(model: Any, data: ImageData) -> float:
    """Fraction of the test images that a model's own `classify` classifies correctly."""
    batches = EvalLoader(data.source("test"), 500)
    return sum(
        int((model.classify(batch.image.to(model.device, model.dtype)).argmax(1).cpu() == _label(batch)).sum())
        for batch in batches
    ) / len(data.source("test"))


def _label(batch: Batch) -> Tensor:
    assert batch.label is not None, "the source has labels"
    return batch.label


@dataclass
class Trained:
    """The accuracy of classifiers that were trained in the same way, with different seeds.

    labels    number of real labels, or None for synthetic images alone
    on        what they were trained on: `real`, `synthetic` or `both`
    accuracy  accuracy on the real test images, for each seed
    """

    labels: int | None
    on: str
    accuracy: list[float]

    @property
    def mean(self) -> float:
        return sum(self.accuracy) / len(self.accuracy)

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for one seed."""
        return None if len(self.accuracy) < 2 else float(torch.tensor(self.accuracy, dtype=torch.float64).std())


def classification_accuracy(
    data: ImageData,
    synthetic: Synthetic,
    labels: Sequence[int | None],
    *,
    images: int,
    seeds: Sequence[int],
    device: str | torch.device = "cpu",
    progress: Callable[..., Iterable[int]] = lambda steps, title: steps,
) -> list[Trained]:
    """Classification accuracy score (Ravuri & Vinyals, "Classification Accuracy Score for Conditional Generative
    Models", NeurIPS 2019, https://arxiv.org/abs/1905.10887): the accuracy on real test images of a classifier that was
    trained on synthetic images. The function also measures classifiers trained on real images and on both.

    All classifiers see the same number of training images. For a classifier trained on both, half of
    each batch is synthetic.

    Args:
        data: The real data: a data set whose training and test images have labels
        synthetic: Synthetic images in the size and with the classes of the data
        labels: Numbers of real training images with labels, see `labeled_rows`; None for all of them
        images: Number of training images that each classifier sees
        seeds: Seed of each classifier
        progress: Wraps the numbers of the steps of each training, to show a progress bar with a `title`

    Returns:
        Synthetic images alone, then real images and both for each number of labels.

    Raises:
        UserError: the data has no labels or not enough of them, or a shape that differs from the synthetic images.
            This is checked before any training.
    """
    choices = [labeled_rows(data, count) for count in labels]
    test = labeled_test(data)
    if tuple(synthetic.images.shape[1:]) != tuple(data.spec.shape):
        raise UserError(
            f"The synthetic images have the shape {list(synthetic.images.shape[1:])}, but {data.name} has "
            f"{list(data.spec.shape)}. Use the data that the model was trained on."
        )
    train = data.source("train")
    drawn = MemorySource(Batch(synthetic.images, label=synthetic.label))
    rows = {len(some): train if len(some) == len(train) else MemorySource(train.batch(some)) for some in choices}
    sets: dict[tuple[int | None, str], list[Source]] = {(None, "synthetic"): [drawn]}
    for count, real in rows.items():
        sets |= {(count, "real"): [real], (count, "both"): [real, drawn]}
    found = [Trained(count, on, []) for count, on in sets]
    for seed in seeds:
        for one, sources in zip(found, sets.values(), strict=True):
            title = f"seed {seed}: {one.on}" + ("" if one.labels is None else f" at {one.labels:,} labels")
            net = train_classifier(
                sources, len(data.spec.classes), images, seed=seed, hflip=data.hflip, device=device,
                progress=partial(progress, title=title),
            )  # fmt: skip
            one.accuracy.append(accuracy(net, test, device))
    return found
