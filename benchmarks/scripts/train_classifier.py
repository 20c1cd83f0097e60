"""Trains the small classifiers that are shipped with the package. Each is reproducible from its seed.

python benchmarks/scripts/train_classifier.py mnistnet|digitsnet|shapesnet|captionnet [--data-root DATA]

It writes `genbench/evaluation/weights/NAME.safetensors`. The metadata contains the accuracy on the whole test split;
for captionnet also the accuracy of each factor.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from rich.progress import track
from safetensors.torch import save
from torch import Tensor, nn

from genbench.core.batch import Batch
from genbench.core.files import replacing
from genbench.core.noise import mix
from genbench.data import MNIST, Digits, Shapes
from genbench.data.base import ImageData
from genbench.data.loader import EvalLoader, TrainLoader
from genbench.data.shapes import CAPTION_FACTORS, CAPTIONS, COLORS, SHAPES, describe
from genbench.evaluation.extractors import SHIPPED
from genbench.networks import classifier
from genbench.networks.classifier import FactorClassifier, SmallClassifier


@dataclass(frozen=True)
class Recipe:
    data: type[ImageData]
    classes: tuple[str, ...]
    images: int  # number of training images seen
    # arguments of the data sets that training alternates between; the first is also tested on
    options: tuple[dict, ...] = ({},)
    # name of each factor -> its values, for classes that are all combinations of them
    factors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 0


HARDER = {"texture": 0.5, "noise": 0.1, "occlusion": 0.2, "seed": 1}
NUMBER = {caption: number for number, caption in enumerate(CAPTIONS)}
DIGITS = tuple("0123456789")
RECIPES = {
    "mnistnet": Recipe(MNIST, DIGITS, images=400_000),
    "digitsnet": Recipe(Digits, DIGITS, images=120_000),
    # classes combine shape and color, so that both are predicted; the second data set is harder, for robustness
    "shapesnet": Recipe(
        Shapes,
        tuple(f"{shape} {color}" for shape in SHAPES for color in COLORS),
        images=480_000,
        options=({}, HARDER),
    ),
    "captionnet": Recipe(Shapes, CAPTIONS, images=640_000, options=({}, HARDER), factors=CAPTION_FACTORS),
}


def labels_of(batch: Batch, recipe: Recipe) -> Tensor:
    """Labels [B] int64, as indices of the recipe's classes."""
    if recipe.data is not Shapes:
        return batch.label
    if recipe.factors:
        return torch.tensor([NUMBER[describe(row)] for row in batch.factors.numpy()])
    return batch.factors[:, 0].long() * len(COLORS) + batch.factors[:, 1].long()


def train(recipe: Recipe, root: str | None = None, images: int | None = None) -> nn.Module:
    """Train a classifier by the recipe, or on fewer images. Returns it in eval mode."""
    sets = [recipe.data(root=root, val_size=1, batch_size=128, **options) for options in recipe.options]
    for data in sets:
        data.prepare_data()
    torch.manual_seed(recipe.seed)
    channels = sets[0].spec.channels
    net: nn.Module = SmallClassifier(channels, len(recipe.classes))
    if recipe.factors:
        net = FactorClassifier(channels, [len(values) for values in recipe.factors.values()])
    steps = (images or recipe.images) // 128
    streams = [iter(TrainLoader(data.source("train"), 128, seed=recipe.seed)) for data in sets]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step in track(range(steps), f"Training on {recipe.data.__name__}"):
            batch = next(streams[step % len(streams)])
            yield batch.image, labels_of(batch, recipe)

    # shifted images would have other captions
    generator = None if recipe.factors else torch.Generator().manual_seed(mix("jitter", recipe.seed))
    return classifier.train(net, batches(), steps, generator)


def accuracy(net: nn.Module, recipe: Recipe, root: str | None = None) -> float:
    """Fraction of the test split of the recipe's first data set that the classifier gets right."""
    source = recipe.data(root=root, **recipe.options[0]).source("test")
    return classifier.accuracy(net, ((batch.image, labels_of(batch, recipe)) for batch in EvalLoader(source, 500)))


def factor_accuracies(net: nn.Module, recipe: Recipe, root: str | None = None) -> dict[str, float]:
    """The fraction of the same images for which each factor is right."""
    source = recipe.data(root=root, **recipe.options[0]).source("test")
    sizes = [len(values) for values in recipe.factors.values()]
    right = torch.zeros(len(sizes), dtype=torch.long)
    with torch.no_grad():
        for batch in EvalLoader(source, 500):
            found = torch.unravel_index(net(batch.image)[1].argmax(1), sizes)
            true = torch.unravel_index(labels_of(batch, recipe), sizes)
            right += torch.stack([(a == b).sum() for a, b in zip(found, true, strict=True)])
    return dict(zip(recipe.factors, (right / len(source)).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data-root", default=None)
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.name]
    torch.set_num_threads(1)  # sums are then always added in the same order
    net = train(recipe, arguments.data_root)
    right = accuracy(net, recipe, arguments.data_root)
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    metadata = {
        "classes": "\n".join(recipe.classes),
        "channels": str(next(net.parameters()).shape[1]),
        "trained_on": recipe.data.__name__,
        "images": str(recipe.images),
        "seed": str(recipe.seed),
        "test_accuracy": f"{right:.4f}",
    }
    if recipe.factors:
        metadata["factors"] = " ".join(str(len(values)) for values in recipe.factors.values())
        for name, value in factor_accuracies(net, recipe, arguments.data_root).items():
            metadata[f"test_accuracy_{name}"] = f"{value:.4f}"
    with replacing(SHIPPED / f"{arguments.name}.safetensors") as file:
        file.write(save(weights, metadata))
    print(f"{arguments.name}: {right:.2%} of the test split; {SHIPPED / arguments.name}.safetensors")


if __name__ == "__main__":
    main()
