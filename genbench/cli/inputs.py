"""What the commands that apply a trained model have in common: the model, its images, and the output folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.cli.evaluate_data import options_of, prepared_data, split_flags
from genbench.cli.flags import find_checkpoint, usable_device
from genbench.core.errors import UserError, refuse_below

if TYPE_CHECKING:
    from torch import Tensor

    from genbench.core.module import GenerativeModule
    from genbench.evaluation.images import FileImages, ImageSet


@dataclass
class Inputs:
    """Images in the shape of a model.

    images   uint8 [N, C, H, W], or points [N, D], read on demand
    label    classes [N] int64, or None
    classes  names of the classes: the model's, or those of the files if the model has none or different ones
    names    file names, or None for a data set
    """

    images: ImageSet
    label: Tensor | None
    classes: tuple[str, ...]
    names: list[str] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def name(self, row: int) -> str:
        """The file of an image, or its number in a data set."""
        if self.names is not None:
            return self.names[row]
        return str(int(rows[row]) if (rows := getattr(self.images, "rows", None)) is not None else row)

    def class_name(self, row: int) -> str:
        """The class of an image, its number if the class has no name, or "" if the class is unknown."""
        if self.label is None or (number := int(self.label[row])) < 0:
            return ""
        return self.classes[number] if number < len(self.classes) else str(number)

    def batches(self, batch_size: int, device: str, title: str) -> Iterator[Tensor]:
        """Batches [B, C, H, W] in [-1, 1] on the device, with a progress bar."""
        from genbench.core.batch import from_stored

        for rows in blocks(len(self), batch_size, title):
            yield from_stored(self.images.images(rows)).to(device)


def blocks(count: int, size: int, title: str) -> Iterator[Tensor]:
    """The rows 0 to count - 1 in blocks of at most `size`, with a progress bar."""
    import torch
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task(title, total=count)
        for rows in torch.arange(count).split(size):
            yield rows
            bar.advance(task, len(rows))


HEADERS = 1000  # image files whose sizes are compared for a note
# method of each capability -> what it does, for errors
ABILITIES = {
    "sample": "sample images",
    "sample_latents": "sample latents",
    "encode": "encode images",
    "decode": "decode latents",
    "posterior": "sample from a posterior",
    "reconstruct": "reconstruct images",
    "log_likelihood": "compute likelihoods",
    "classify": "classify images",
    "discriminate": "discriminate real images from generated ones",
    "translate": "translate images",
    "segment": "segment images",
}


def model_of(arguments: argparse.Namespace) -> tuple[GenerativeModule, dict[str, Any]]:
    """The model selected by the flags of `add_model_arguments`, in eval mode on its device, and the contents of its
    checkpoint."""
    import genbench.data
    import genbench.models  # noqa: F401  registers genbench's classes
    from genbench.core import checkpoint_io

    path = find_checkpoint(arguments.ckpt, arguments.runs, arguments.name)
    device = usable_device(arguments.device)
    contents = checkpoint_io.read(path)
    return checkpoint_io.rebuild(contents, path, raw=arguments.raw, ema=arguments.ema, device=device), contents


def refuse_without(model: GenerativeModule, verb: str, *methods: str, real_codes: bool = False) -> None:
    """Raise UserError if the model lacks a method that the command needs. The message lists the models that have it,
    without those of integer codes if the command needs `real_codes`."""
    import genbench.models

    lacking = [name for name in methods if not hasattr(model, name)]
    if not lacking:
        return
    every = [getattr(genbench.models, name) for name in genbench.models.__all__]
    if real_codes:
        every = [cls for cls in every if getattr(cls, "latent_dtype", "float32") == "float32"]
    able = sorted(cls.__name__ for cls in every if all(hasattr(cls, name) for name in methods))
    raise UserError(
        f"{type(model).__name__} cannot {' or '.join(ABILITIES[name] for name in lacking)} (it has no "
        f"`{'` and no `'.join(lacking)}` method), which `{verb}` needs. Models that can: {', '.join(able)}."
    )


def refuse_points(model: GenerativeModule, verb: str) -> None:
    """Raise UserError for a model of points, which cannot be written as images."""
    if len(model.spec.shape) == 1:
        raise UserError(
            f"{type(model).__name__} was trained on points, and `{verb}` needs images. In Python, "
            "`genbench.load(...)` gives the model, whose methods take points."
        )


# ---- conditions and codes -------------------------------------------------------------------------------------------


def condition_of(model: Any, n: int, label: str | None = None, prompt: str | None = None) -> Any:
    """The condition of n images, int64 [n] or [n, L] on the model's device, by default every class in turn. None for an
    unconditional model.

    Args:
        label: `--label`, a class by name or number
        prompt: `--prompt`, a caption

    Raises:
        UserError: the model was not trained on labels or captions, or lacks the class or a word.
    """
    from genbench.core.conditions import in_turn, of_caption, of_class

    name, spec = type(model).__name__, model.spec
    if label is not None and prompt is not None:
        raise UserError("--label and --prompt cannot be combined: a model has labels or captions. Remove one of them.")
    if not model.conditional:
        if label is None and prompt is None:
            return None
        target, flag = ("labels", f"--label {label}") if prompt is None else ("captions", f"--prompt '{prompt}'")
        raise UserError(
            f"{name} was trained without {target}, so it cannot use `{flag}`. Remove the flag, or train a "
            "conditional model."
        )
    if spec.target == "caption":
        if label is not None or prompt is None or not prompt.split():
            words = ", ".join(spec.vocabulary[1:])
            raise UserError(f"{name} was trained on captions. Use `--prompt '...'` with words from: {words}.")
        return of_caption(n, prompt, spec).to(model.device)
    if prompt is not None:
        known = ", ".join(spec.classes)
        raise UserError(f"{name} was trained on labels and takes no --prompt. Use `--label` with one of: {known}.")
    return in_turn(model, n) if label is None else of_class(n, label, spec, "--label").to(model.device)


def condition_of_images(model: Any, inputs: Inputs, label: str | None, prompt: str | None = None) -> Any:
    """The condition [N, ...] of each image on the model's device: `--label` or `--prompt`, or else its own label.

    Raises:
        UserError: as in `condition_of`; or some images have no label of the model's classes.
    """
    if label is not None or prompt is not None or model.spec.target != "label":
        return condition_of(model, len(inputs), label, prompt)
    if inputs.label is None or inputs.classes != tuple(model.spec.classes) or bool((inputs.label < 0).any()):
        raise UserError(  # -1 is unknown
            f"{type(model).__name__} needs the class of each image, but {inputs.images.name} has no labels of the "
            f"model's classes ({', '.join(model.spec.classes)}). Use `--label`, or a folder with one subfolder for "
            "each class."
        )
    return inputs.label.long().to(model.device)


def labels_for_encoder(model: Any, inputs: Inputs, label: str | None) -> Any:
    """The labels [N] with which images are encoded, as in `condition_of_images`; None for an encoder without labels.

    Raises:
        UserError: as in `condition_of_images`; or `--label` was set, but the encoder takes no labels.
    """
    from genbench.core.capabilities import takes_condition

    if any(takes_condition(getattr(model, name)) for name in ("encode", "posterior") if hasattr(model, name)):
        return condition_of_images(model, inputs, label)
    if label is not None:
        raise UserError(f"The encoder of {type(model).__name__} takes no labels. Remove `--label {label}`.")
    return None


def encoded(model: Any, inputs: Inputs, condition: Any, batch_size: int) -> Tensor:
    """Codes [N, *latent] of images, on the model's device, with a progress bar.

    Args:
        condition: Labels [N], or None
    """
    import torch

    from genbench.analysis.latents import encode

    codes, first = [], 0
    for x in inputs.batches(batch_size, str(model.device), "Encoding"):
        given = None if condition is None else condition[first : first + len(x)]
        codes.append(encode(model, x.to(model.dtype), given))
        refuse_not_finite(model, codes[-1], "codes")
        first += len(x)
    return torch.cat(codes)


# ---- output ---------------------------------------------------------------------------------------------------------


def add_out_arguments(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    """Add `--out`, a file or a folder, with the default `name`; and `--overwrite`. `what` describes the output."""
    parser.add_argument("--out", type=Path, default=Path(name), help=f"{what} (default: {name})")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the results of an earlier call; other files stay"
    )


def refuse_existing(out: Path, overwrite: bool, what: str, suffix: str | None = None) -> None:
    """Raise UserError, before long work, for a file `--out` that has a different suffix, cannot be written, or exists
    and `--overwrite` is not set."""
    from genbench.core.files import kind_of, refuse_unwritable

    if suffix is not None and out.suffix.lower() != suffix:
        raise UserError(f"--out {out} must end in {suffix}.")
    refuse_unwritable(out.parent, what)
    if out.exists() and not out.is_file():
        raise UserError(f"{out} is {kind_of(out)}; expected a file. Use a different `--out`.")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists already. Use a different `--out`, or add `--overwrite`.")


def refuse_not_finite(model: Any, values: Tensor, what: str = "images") -> None:
    """Raise UserError for NaN or infinity in the output of a model."""
    if not bool(values.isfinite().all()):
        raise UserError(
            f"{type(model).__name__} returned {what} that are NaN or infinite. Check the input, or use a different "
            "checkpoint."
        )


def refuse_used(folder: Path, overwrite: bool, what: str = "The results") -> None:
    """Raise UserError, before long work, if `--out` cannot be written or contains files and `--overwrite` is not
    set."""
    from genbench.core.files import kind_of, refuse_unwritable

    if os.path.lexists(folder) and not folder.is_dir():  # also a broken link
        raise UserError(f"--out {folder} is {kind_of(folder)}; expected a folder.")
    refuse_unwritable(folder, what)
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--out {folder} contains files already. Use a different folder, or add `--overwrite`.")


def refuse_blocked(paths: Iterable[Path]) -> None:
    """Raise UserError, before long work, if a folder, a named pipe or a device has the name of a result."""
    from genbench.core.files import kind_of

    for path in paths:
        if path.exists() and not path.is_file():
            raise UserError(
                f"{path} is {kind_of(path)}, but a result has this name. Remove it, or use a different `--out`."
            )


# ---- images ---------------------------------------------------------------------------------------------------------


def add_image_arguments(parser: argparse.ArgumentParser, n: int | None = None) -> None:
    """Add the flags that select images: files, or a split of a data set. `n` is the default of `--n`."""
    parser.add_argument("--images", metavar="PATH", help="folder, zip, .npz or .npy of images; folders may be classes")
    parser.add_argument("--data", metavar="NAME", help="data set, if --images is not set (default: the training data)")
    parser.add_argument("--split", choices=("train", "val", "test"), help="split of the data set (default test)")
    which = "all" if n is None else f"{n:,}"
    parser.add_argument(
        "--n", type=int, default=n, help=f"use at most this many images, chosen at random (default {which})"
    )
    add_batch_size(parser)


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=int, default=256, help="images processed at once; changes only the speed")


def add_label_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--label", help="class of all images, by name or number, for models trained on labels")


def images_of(
    arguments: argparse.Namespace, more: list[str], model: GenerativeModule, contents: dict[str, Any]
) -> tuple[Inputs, list[str]]:
    """Read the images for a model, and return the remaining flags.

    Files are resized and converted as in training, which is printed.

    Args:
        arguments: The flags of `add_image_arguments`
        more: Flags that the command does not know: `--images.…` and `--data.…` are used here
        contents: The model's checkpoint, as `checkpoint_io.read` returns it

    Raises:
        UserError: the images cannot be read, or they do not fit the model.
    """
    from genbench.evaluation.images import SplitImages

    refuse_below(1, {"--n": arguments.n, "--batch-size": arguments.batch_size})
    image_flags, more = split_flags(more, "--images.")
    data_flags, more = split_flags(more, "--data.")
    if arguments.images is None:
        if image_flags:
            raise UserError(f"`{image_flags[0]}` needs `--images PATH`, which was not set.")
        if arguments.data is None and not contents.get("data"):
            raise UserError("The checkpoint does not say which data it was trained on. Use `--images` or `--data`.")
        data = prepared_data(contents, data_flags, arguments.data)
        images = SplitImages(data, arguments.split or "test", arguments.n)
        _refuse_other_shape(images, model)
        return Inputs(images, images.label, tuple(data.spec.classes)), more
    if arguments.data or arguments.split or data_flags:
        flag = "--data" if arguments.data else "--split" if arguments.split else data_flags[0]
        raise UserError(f"{flag} is for images of a data set, but --images was set. Remove one of the two.")
    return _of_files(arguments, image_flags, model, contents.get("data") or {}), more


def _of_files(
    arguments: argparse.Namespace, flags: list[str], model: GenerativeModule, trained_on: dict[str, Any]
) -> Inputs:
    from genbench.evaluation.images import FileImages, SomeImages, choice, open_images

    _refuse_out_in_images(arguments)
    options = {"labels": True} | options_of("--images", arguments.images, flags, labels=True)
    found: Any = open_images(arguments.images, **options)
    label, classes, names = None, model.spec.classes, None
    if model.spec.binary:
        raise UserError(
            f"{type(model).__name__} was trained on images that are black or white (`data.binarize`), and --images "
            "may have gray pixels. Use a data set (`--data`) instead."
        )
    if isinstance(found, FileImages):
        names = [Path(found.split.name(row)).as_posix() for row in range(len(found))]
        label, classes = _labels(found, model.spec.classes)
        whose = "the classifier's training" if getattr(arguments, "classifier", None) else "training"
        found = _as_in_training(found, model, trained_on, whose)
    _refuse_other_shape(found, model)
    if arguments.n is not None and arguments.n < len(found):
        rows = choice(len(found), arguments.n)
        found, label = SomeImages(found, rows), None if label is None else label[rows]
        names = None if names is None else [names[row] for row in rows.tolist()]
    return Inputs(found, label, tuple(classes), names)


def _refuse_out_in_images(arguments: argparse.Namespace) -> None:
    """Raise UserError if `--out` could replace images of `--images`, or if the next call would read its results."""
    images, out = Path(arguments.images).expanduser().resolve(), Path(arguments.out).resolve()
    if out.is_relative_to(images):
        where = "the same as" if out == images else "in"
        raise UserError(
            f"--out {arguments.out} is {where} --images {arguments.images}, so results would mix with images or "
            "replace them. Use a different path."
        )


def _labels(files: FileImages, known: tuple[str, ...]) -> tuple[Tensor | None, tuple[str, ...]]:
    """The labels of files, with the numbers of the classes `known` if all their classes are among them."""
    import torch

    if files.split.label is None:
        return None, known
    if set(files.classes) <= set(known):
        return torch.tensor([known.index(name) for name in files.classes])[files.split.label], known
    return files.split.label, files.classes


def _as_in_training(
    files: FileImages, model: GenerativeModule, trained_on: dict[str, Any], whose: str = "training"
) -> FileImages:
    """The files in the model's size and channels, resized as its training images. `whose` training is printed."""
    from genbench.data import ranges
    from genbench.evaluation.images import resizing_of

    how, enlarge = resizing_of(trained_on)
    settings = trained_on.get("arguments") or {}
    if (range := ranges.of_domain(settings.get("range"), "B")) is not None:
        files = files.by(range, "the training images")
    channels, height, width = files.shape
    wanted = model.spec.shape
    if len(wanted) != 3:
        raise UserError(
            f"{type(model).__name__} was trained on points of {wanted[0]} numbers, but {files.name} has images."
        )
    several = _several_sizes(files)
    if several or files.shape != wanted:
        given = "several sizes" if several else f"{width}×{height} {'gray' if channels == 1 else 'RGB'}"
        print(
            f"note: images of {files.name} are converted as in {whose}: {given} to {wanted[2]}×{wanted[1]} "
            f"{'gray' if wanted[0] == 1 else 'RGB'} ({how})"
        )
    return files.at(wanted[1], wanted[0], how, enlarge)


def _several_sizes(files: FileImages) -> bool:
    """Whether image files have several sizes, from the headers of at most 1,000 of them."""
    from genbench.data.readers import FilePictures
    from genbench.data.streams import Joined
    from genbench.evaluation.images import choice

    parts = files.split.pictures
    every = [split.pictures for split in parts.splits] if isinstance(parts, Joined) else [parts]
    pictures = [(part.reader, one) for part in every if isinstance(part, FilePictures) for one in part.pictures]
    sizes = set()
    for row in choice(len(pictures), HEADERS).tolist():
        reader, picture = pictures[row]
        with suppress(UserError):  # a damaged file is an error when it is decoded
            sizes.add(tuple(reader.size(picture)))
        if len(sizes) > 1:
            return True
    return False


def _refuse_other_shape(images: ImageSet, model: GenerativeModule) -> None:
    if tuple(images.shape) != tuple(model.spec.shape):
        raise UserError(
            f"{images.name} has the shape {'×'.join(map(str, images.shape))}, but {type(model).__name__} was trained "
            f"on {'×'.join(map(str, model.spec.shape))}. Use other images, or set `--data.size` and `--data.channels`."
        )
