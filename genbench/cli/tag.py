"""tag: write the classes of images to a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.cli.flags import Arguments, add_model_arguments, import_modules, own_options, usable_device
from genbench.cli.inputs import (
    Inputs,
    add_image_arguments,
    add_out_arguments,
    images_of,
    model_of,
    refuse_existing,
    refuse_without,
)
from genbench.cli.quiet import quiet
from genbench.core.errors import UserError, counted

if TYPE_CHECKING:
    from torch import Tensor

# shipped classifier -> the data set that it was trained on
CLASSIFIERS = {"mnistnet": "MNIST", "digitsnet": "Digits", "shapesnet": "Shapes", "captionnet": "Shapes"}


def _parser() -> Arguments:
    parser = Arguments(
        "python -m genbench tag",
        description="Write the class of each image to a CSV file, with its probability. The classifier "
        "is a trained model, or one of the classifiers that come with genbench.",
    )
    add_model_arguments(parser, required=False)
    parser.add_argument(
        "--classifier", choices=CLASSIFIERS,
        help="use this classifier instead of --ckpt; captionnet gives captions as in Shapes and their factors (size, "
        "color, shape, place), shapesnet the shape and the color",
    )  # fmt: skip
    add_image_arguments(parser)
    add_out_arguments(parser, "tags.csv", "the table")
    return parser


def main(verb: str, argv: list[str]) -> int:
    argv = import_modules(argv)
    parser = _parser()
    arguments, more = parser.parse_known_args(argv)
    quiet()
    if arguments.ckpt is None and arguments.classifier is None:
        raise UserError(
            "`tag` needs a classifier: use `--ckpt` for a trained model, or `--classifier` with one of: "
            f"{', '.join(CLASSIFIERS)}."
        )
    if arguments.classifier is not None:
        for name in ("ckpt", "raw", "ema", "runs", "name"):
            if getattr(arguments, name) != parser.get_default(name):
                raise UserError(
                    f"--{name} is for a trained model, but --classifier {arguments.classifier} was set. Remove one of "
                    "the two."
                )
    refuse_existing(arguments.out, arguments.overwrite, "The table", ".csv")

    import torch

    model: Any
    if arguments.classifier is None:
        model, contents = model_of(arguments)
        try:
            refuse_without(model, verb, "classify")
        except UserError as error:
            raise UserError(
                f"{error} ConditionalGAN can classify if it was trained with `model.conditioning` auxiliary. "
                "`--classifier` needs no checkpoint."
            ) from error
    else:
        model, contents = _shipped(arguments.classifier, arguments.device)
    inputs, more = images_of(arguments, more, model, contents)
    own_options(model, more, flags=parser.flags())  # the method has no options, so an unknown flag is an error
    with torch.no_grad():
        batches = inputs.batches(arguments.batch_size, str(model.device), "Classifying")
        logits = torch.cat([model.classify(x.to(model.dtype)).double().cpu() for x in batches])
    if not bool(logits.isfinite().all()):
        raise UserError(f"{type(model).__name__} returned logits that are NaN or infinite. Check the checkpoint.")
    return _write(arguments.out, inputs, logits.softmax(1), tuple(model.spec.classes))


def _shipped(name: str, device: str) -> tuple[Any, dict[str, Any]]:
    """A classifier that comes with genbench, as a model that `Classifies`, and its data as an entry of a
    checkpoint."""
    import torch

    import genbench.data
    from genbench.core.batch import DataSpec, to_uint8
    from genbench.core.class_paths import path_of
    from genbench.evaluation import extractors

    place = torch.device(usable_device(device))
    extractor = extractors.build(name).to(place)
    data = getattr(genbench.data, CLASSIFIERS[name])
    channels = 3 if CLASSIFIERS[name] == "Shapes" else 1

    class Classifier:
        spec = DataSpec((channels, 32, 32), "label", extractor.classes)
        dtype, device = torch.float32, place

        def classify(self, x: Tensor) -> Tensor:
            logits = extractor(to_uint8(x))[1]
            assert logits is not None, "a classifier returns logits"
            return logits

    Classifier.__name__ = name  # for errors
    return Classifier(), {"data": {"class": path_of(data), "arguments": {"size": 32}}}


def _write(out: Path, inputs: Inputs, probability: Tensor, classes: tuple[str, ...]) -> int:
    """Write the table, and print the accuracy if the classes of the images are known.

    Args:
        probability: [N, K] of each class
        classes: Names of the K classes
    """
    from genbench.core.files import write_csv
    from genbench.data.shapes import CAPTIONS

    captions = set(classes) == set(CAPTIONS)
    levels = {"caption" if captions else "label": (classes, probability)} | _factors(probability, classes)
    header, columns = ["file"], [[inputs.name(row) for row in range(len(inputs))]]
    for name, (values, of_value) in levels.items():
        best, which = of_value.max(1)
        header += [name, "probability" if name in ("label", "caption") else f"{name} probability"]
        columns += [[values[k] for k in which.tolist()], _decimals(best)]
    if not captions:  # 540 columns would say nothing more than the factors
        header += [f"probability of {name}" for name in classes]
        columns += [_decimals(of_class) for of_class in probability.T]
    write_csv(out, header, zip(*columns, strict=True))
    print(f"{counted(len(inputs), 'image')} of {inputs.images.name} -> {out}")
    for line in _accuracies(inputs, levels):
        print(line)
    return 0


def _decimals(probability: Tensor) -> list[str]:
    return [f"{p:.6f}" for p in probability.tolist()]


def _factors(probability: Tensor, classes: tuple[str, ...]) -> dict[str, tuple[tuple[str, ...], Tensor]]:
    """The factors of the captions of `Shapes`, if the classes combine them: name -> values, and probabilities [N, V].

    The probability of a value is the sum over the classes with this value.
    """
    import torch

    from genbench.data.shapes import CAPTION_FACTORS, CAPTIONS, COLORS, SHAPES, caption_factors

    if set(classes) == set(CAPTIONS):
        of_class = [caption_factors(one) for one in classes]
    elif set(classes) == {f"{shape} {color}" for shape in SHAPES for color in COLORS}:
        of_class = [dict(zip(("shape", "color"), one.split(), strict=True)) for one in classes]
    else:
        return {}
    found: dict[str, tuple[tuple[str, ...], Tensor]] = {}
    for name in of_class[0]:
        values = CAPTION_FACTORS[name]
        number = torch.tensor([values.index(factors[name]) for factors in of_class])
        sums = probability.new_zeros(len(probability), len(values)).index_add_(1, number, probability)
        found[name] = values, sums
    return found


def _accuracies(inputs: Inputs, levels: dict[str, tuple[tuple[str, ...], Tensor]]) -> list[str]:
    """The accuracy as a line of text: of every factor and of the caption for images of `Shapes`, else of the first
    level whose names are those of the images' classes."""
    import torch

    true = _true_factors(inputs)
    shares = []
    for factor in [name for name in ("shape", "color", "size", "place", "caption") if name in levels and true]:
        names, probability = levels[factor]
        found = [names[k] for k in probability.argmax(1).tolist()]
        right = sum(a == factors[factor] for a, factors in zip(found, true, strict=True))
        shares.append(f"{factor} {right / len(true):.4f}")
    if shares:
        return [f"accuracy: {', '.join(shares)} of {counted(len(true), 'image')}"]
    if inputs.label is None or not bool((given := inputs.label >= 0).any()):
        return []
    for level, (names, probability) in levels.items():
        if set(inputs.classes) <= set(names):
            number = torch.tensor([names.index(name) for name in inputs.classes])
            right = (probability.argmax(1)[given] == number[inputs.label[given]]).double().mean().item()
            what = "class" if level == "label" else level
            return [f"accuracy ({what}): {right:.4f} of {counted(int(given.sum()), 'labeled image')}"]
    return [f"no accuracy: the classes of the images ({', '.join(inputs.classes)}) are not those of the classifier"]


def _true_factors(inputs: Inputs) -> list[dict[str, str]]:
    """The caption and its factors of each image of `Shapes`. Empty for other images, whose captions are unknown."""
    from genbench.core.batch import to_words
    from genbench.data.shapes import VOCABULARY, Shapes, caption_factors
    from genbench.evaluation.images import SplitImages

    if not (isinstance(inputs.images, SplitImages) and isinstance(inputs.images.data, Shapes)):
        return []
    tokens = inputs.images.target("caption")
    assert tokens is not None, "Shapes has captions"
    captions = [to_words(row, VOCABULARY) for row in tokens.tolist()]
    return [{"caption": caption} | caption_factors(caption) for caption in captions]
