"""augment: labeled synthetic images of a trained model, and the accuracy of classifiers trained on them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.cli import sample
from genbench.cli.evaluate_data import prepared_data, split_flags
from genbench.cli.flags import Arguments, add_model_arguments, import_modules, own_options
from genbench.cli.inputs import add_out_arguments, model_of, refuse_existing, refuse_used
from genbench.core.errors import UserError, counted, refuse_below
from genbench.core.files import removed_on_failure
from genbench.core.units import Images

if TYPE_CHECKING:
    from genbench.analysis.augmentation import Synthetic, Trained
    from genbench.core.module import GenerativeModule
    from genbench.data.base import ImageData

# arguments of the data that select the images and labels; with other values, the classifiers would get labels that the
# model was not trained with
FIXED = ("labeled", "split_seed", "val_size", "test_size", "subset", "per_class", "only_classes")


def _parser() -> Arguments:
    parser = Arguments(
        "python -m genbench augment", description="Labeled synthetic images: write them, or train classifiers on them."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="write|measure")
    write = actions.add_parser("write", help="write a labeled synthetic data set")
    measure = actions.add_parser("measure", help="compare classifiers trained on real and on synthetic images")
    for action, n in ((write, 1000), (measure, 10_000)):
        add_model_arguments(action)
        action.add_argument("--n", type=int, default=n, help=f"number of synthetic images (default {n:,})")
        action.add_argument("--seed", type=int, default=0, help="seed of the first sample (default 0)")
        action.add_argument(
            "--least-probability", type=float, default=0.0, metavar="P",
            help="keep only samples whose class has this probability under the model's own classifier (default 0)",
        )  # fmt: skip
        action.add_argument("--batch-size", type=int, default=64, help="images drawn at once; changes only the speed")
        action.epilog = "A model's own sampling options are flags too; an unknown flag lists them."
    write.add_argument("--classes", nargs="+", metavar="CLASS", help="only these classes, by name or number")
    add_out_arguments(write, "synthetic", "a folder (one folder of PNGs for each class) or an .npz (images, labels)")
    measure.add_argument(
        "--labels", default="100,1000,all", help="numbers of real labeled images (default 100,1000,all)"
    )
    measure.add_argument("--seeds", type=int, default=3, help="classifiers trained in each case (default 3)")
    measure.add_argument(
        "--train-images", default="50k", metavar="IMAGES", help="images that each classifier sees (default 50k)"
    )
    add_out_arguments(measure, "augment.json", "the results")
    return parser


def main(verb: str, argv: list[str]) -> int:
    argv = import_modules(argv)
    arguments, more = _parser().parse_known_args(argv)
    refuse_below(1, {"--n": arguments.n, "--batch-size": arguments.batch_size})
    if not 0 <= arguments.least_probability <= 1:
        raise UserError(f"--least-probability is {arguments.least_probability}; it must be between 0 and 1.")
    return _write(arguments, more) if arguments.action == "write" else _measure(arguments, more)


def _write(arguments: argparse.Namespace, more: list[str]) -> int:
    out = arguments.out
    if out.suffix not in ("", ".npz"):
        raise UserError(f"--out {out}: '{out.suffix}' is neither a folder nor an .npz file.")
    if out.suffix:
        refuse_existing(out, arguments.overwrite, "The images")
    else:
        refuse_used(out, arguments.overwrite, "The images")
    model, _ = model_of(arguments)

    from genbench.analysis import augmentation
    from genbench.core.conditions import class_number

    augmentation.refuse_without_classes(model)
    classes = None
    if arguments.classes is not None:
        classes = [class_number(given, model.spec.classes, "--classes") for given in arguments.classes]
    made = _synthesize(arguments, more, model, classes, out if not out.suffix else None)
    names = [model.spec.classes[k] for k in made.label.unique().tolist()]
    if out.suffix:
        _write_arrays(made, model.spec.classes, out)
    else:
        with removed_on_failure(out):
            _write_folders(made, model.spec.classes, out)
    print(_summary(made, model))
    print(f"{counted(len(made.label), 'image')}, {len(made.label) // len(names):,} each of {', '.join(names)} -> {out}")
    return 0


def _measure(arguments: argparse.Namespace, more: list[str]) -> int:
    out = arguments.out
    refuse_existing(out, arguments.overwrite, "The results", ".json")
    refuse_below(1, {"--seeds": arguments.seeds})
    labels = _counts(arguments.labels)
    try:
        images = Images(arguments.train_images)
    except ValueError as error:
        raise UserError(f"--train-images: {error}.") from error
    flags, more = split_flags(more, "--data.")
    model, contents = model_of(arguments)

    from rich.progress import Progress

    from genbench.analysis import augmentation
    from genbench.core import files
    from genbench.core.capabilities import Classifies

    augmentation.refuse_without_classes(model)
    data, seen = _data(contents, flags)
    # raise errors before long work
    counts = [len(augmentation.labeled_rows(data, count)) for count in labels]
    augmentation.labeled_test(data)
    less = [f"{count:,}" for count in counts if count < seen]
    if less:
        print(
            f"note: the model was trained with {counted(seen, 'label')}, but the classifiers at {' and '.join(less)} "
            "labels get fewer. There, the synthetic images also contain information from the other labels. For a fair "
            "comparison, train the model with the same labels (`--data.labeled` or `--data.subset`)."
        )
    made = _synthesize(arguments, more, model)
    print(_summary(made, model))
    with Progress(transient=True) as bar:

        def advancing(steps: Sequence[int], title: str) -> Iterator[int]:
            task = bar.add_task(title, total=len(steps))
            for step in steps:
                yield step
                bar.advance(task)
            bar.remove_task(task)

        found = augmentation.classification_accuracy(
            data, made, labels, images=images, seeds=range(arguments.seeds), device=model.device, progress=advancing
        )
    own = augmentation.own_accuracy(model, data) if isinstance(model, Classifies) else None
    content = {
        "checkpoint": str(arguments.ckpt),
        "model": type(model).__name__,
        "images_seen": model.images_seen,
        "labels_of_the_model": seen,
        "accuracy_of_the_model": own,
        "data": {"name": data.name, "arguments": data.arguments},
        "synthetic": {
            "images": len(made.label), "seed": arguments.seed, "least_probability": arguments.least_probability,
            "drawn": made.drawn, "unsure": made.unsure, "extra": made.extra,
        },
        "train_images": int(images),
        "seeds": list(range(arguments.seeds)),
        "classifiers": [
            {"labels": one.labels, "trained_on": one.on, "accuracy": one.accuracy, "mean": one.mean, "std": one.std}
            for one in found
        ],
    }  # fmt: skip
    files.write(out, lambda file: file.write(json.dumps(content, indent=1).encode()))
    _print_table(found, seen, own, type(model).__name__)
    print(
        f"{counted(len(found) * arguments.seeds, 'classifier')}, {counted(int(images), 'training image')} each -> {out}"
    )
    return 0


# ---- the model, its classes and its data ----------------------------------------------------------------------------


def _synthesize(
    arguments: argparse.Namespace, more: list[str], model: GenerativeModule, classes: list[int] | None = None,
    folder: Path | None = None,
) -> Synthetic:  # fmt: skip
    """Draw the images, with a progress bar. `folder` is checked first: it may hold only images that are replaced."""
    from rich.progress import Progress

    from genbench.analysis import augmentation

    if folder is not None:
        _refuse_others(folder, augmentation.folder_names(model.spec.classes))
    flags = [f"--{name.replace('_', '-')}" for name in vars(arguments)]
    options = own_options(model, more, "sample", flags=flags)
    with Progress(transient=True) as bar:
        task = bar.add_task("Sampling", total=arguments.n)
        return augmentation.synthesize(
            model, arguments.n, seed=arguments.seed, classes=classes, least_probability=arguments.least_probability,
            batch_size=arguments.batch_size, sampling=options, progress=lambda found: bar.update(task, completed=found),
        )  # fmt: skip


def _summary(made: Synthetic, model: GenerativeModule) -> str:
    dropped = [
        f"{count:,} {why}"
        for count, why in ((made.unsure, "below --least-probability"), (made.extra, "of classes that were full"))
        if count
    ]
    return (
        f"{counted(made.drawn, 'sample')} of {type(model).__name__}: {len(made.label):,} kept"
        f"{''.join(f', {text} dropped' for text in dropped)}"
    )


def _counts(text: str) -> list[int | None]:
    """`100,1000,all` -> [100, 1000, None]"""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part != "all" and not (part.isdecimal() and len(part) < 10 and int(part) > 0):
            raise UserError(f"--labels {text}: '{part}' is not a number of labels. Use a list such as 100,1000,all.")
    return list(dict.fromkeys(None if part == "all" else int(part) for part in parts))


def _data(contents: dict[str, Any], flags: list[str]) -> tuple[ImageData, int]:
    """The training data of the checkpoint, with all labels; and the number of labels that the model was trained with.

    Raises:
        UserError: a flag would select other images or labels than in training, or the data are not images.
    """
    from genbench.analysis.augmentation import labeled_rows
    from genbench.data.base import ImageData

    for flag in flags:
        if flag.partition("=")[0].removeprefix("--data.") in FIXED:
            raise UserError(
                f"`{flag.partition('=')[0]}` cannot be set: the images and labels are those that the model was trained "
                "with. Use `--labels` for the numbers of labels."
            )
    trained_on = contents.get("data")
    if trained_on is None:
        raise UserError("The checkpoint does not say which data it was trained on, so its labels are unknown.")
    arguments = trained_on.get("arguments") or {}
    # images in the size of training, without what only training does to them
    plain = ["--data.labeled=null", "--data.random_crop=0"]
    if arguments.get("binarize") == "dynamic":
        plain.append("--data.binarize=static")
    data = prepared_data(contents, [*plain, *flags])
    if not isinstance(data, ImageData):
        raise UserError(f"{data.name} is not a data set of images.")
    return data, arguments.get("labeled") or len(labeled_rows(data, None))


# ---- output ---------------------------------------------------------------------------------------------------------


def _refuse_others(out: Path, names: list[str]) -> None:
    """Raise UserError if a folder holds anything but class folders, whose images `--overwrite` replaces."""
    for path in sorted(out.iterdir()) if out.is_dir() else ():
        if not path.is_dir() or path.name not in names:
            raise UserError(
                f"--out {out} contains {path.name}, which `augment` did not write and does not remove. Use a different "
                "folder."
            )
        sample.drawn_before(path)


def _write_folders(made: Synthetic, classes: tuple[str, ...], out: Path) -> None:
    from genbench.analysis.augmentation import folder_names

    for k, name in enumerate(folder_names(classes)):
        rows = made.label == k
        if rows.any():
            sample.write(made.images[rows], out / name)
        elif (out / name).is_dir():  # of an earlier call, with other classes
            sample.write(made.images[:0], out / name)
            with suppress(OSError):
                (out / name).rmdir()  # only if it is empty


def _write_arrays(made: Synthetic, classes: tuple[str, ...], out: Path) -> None:
    """`images` uint8 [N, H, W, C], and `labels` [N]: names of classes, or integers if the names are 0 to K - 1."""
    import numpy as np

    from genbench.core import files

    numbered = classes == tuple(map(str, range(len(classes))))
    labels = made.label.numpy() if numbered else np.array(classes)[made.label.numpy()]
    images = made.images.permute(0, 2, 3, 1).numpy()
    files.write(out, lambda file: np.savez_compressed(file, images=images, labels=labels))


def _print_table(found: list[Trained], seen: int, own: float | None, model: str) -> None:
    from rich.console import Console
    from rich.table import Table

    by = {(one.labels, one.on): one for one in found}
    synthetic = by[None, "synthetic"]
    table = Table("labels", "real", "synthetic", "real and synthetic", title="accuracy on real test images")
    counts = [one.labels for one in found if one.labels is not None and one.on == "real"]
    for count in counts:
        real, both = by[count, "real"], by[count, "both"]
        table.add_row(f"{count:,}", *map(_percent, (real, synthetic, both)))
    Console().print(table)
    for count in counts:
        real, both = by[count, "real"], by[count, "both"]
        better = sum(a > b for a, b in zip(both.accuracy, real.accuracy, strict=True))
        print(
            f"At {counted(count, 'label')}, real and synthetic images give {_percent(both)}, real images alone "
            f"{_percent(real)}: better in {better} of {counted(len(real.accuracy), 'seed')}"
            f"{', but the model had ' + counted(seen, 'label') if count < seen else ''}."
        )
    if own is not None:
        print(f"The classifier of {model} itself: {own:.2%}.")


def _percent(one: Trained) -> str:
    return f"{one.mean:.2%}" + ("" if one.std is None else f" ± {100 * one.std:.2f}")
