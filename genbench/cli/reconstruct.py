"""reconstruct: reconstruct images, and write the error of each."""

from __future__ import annotations

import argparse
import csv
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from genbench.cli.flags import Arguments, add_model_arguments, import_modules, own_options
from genbench.cli.inputs import (
    Inputs,
    add_image_arguments,
    add_label_argument,
    add_out_arguments,
    images_of,
    labels_for_encoder,
    model_of,
    refuse_blocked,
    refuse_not_finite,
    refuse_points,
    refuse_used,
    refuse_without,
)
from genbench.cli.quiet import quiet
from genbench.core.errors import UserError, counted
from genbench.core.files import removed_on_failure

if TYPE_CHECKING:
    from torch import Tensor

    from genbench.core.module import GenerativeModule

SHOWN = 32  # images in the grid


def _parser() -> Arguments:
    parser = Arguments(
        "python -m genbench reconstruct",
        description="Reconstruct images with a trained model. The folder --out gets one PNG for each image, a grid of "
        "images next to their reconstructions (grid.png), and the name and error of each image (errors.csv).",
    )
    add_model_arguments(parser)
    add_image_arguments(parser)
    add_label_argument(parser)
    add_out_arguments(parser, "reconstructions", "folder of the results")
    return parser


def main(verb: str, argv: list[str]) -> int:
    argv = import_modules(argv)
    arguments, more = _parser().parse_known_args(argv)
    quiet()
    refuse_used(arguments.out, arguments.overwrite, "The reconstructions")
    refuse_blocked(arguments.out / name for name in ("errors.csv", "grid.png"))

    import torch

    from genbench.core.capabilities import Decodes, Encodes, Reconstructs

    model, contents = model_of(arguments)
    if not isinstance(model, Reconstructs) and not (isinstance(model, Encodes) and isinstance(model, Decodes)):
        _refuse(model)
    refuse_points(model, verb)
    inputs, more = images_of(arguments, more, model, contents)
    own_options(model, more, flags=_parser().flags())  # there are none: an unknown flag is an error
    condition = labels_for_encoder(model, inputs, arguments.label)
    with removed_on_failure(arguments.out), torch.no_grad():
        return _reconstruct(arguments, model, inputs, condition)


def _refuse(model: GenerativeModule) -> None:
    """Raise UserError for a model that cannot reconstruct; the message names the command to use instead."""
    from genbench.core.capabilities import Segments, Translates

    if isinstance(model, (Translates, Segments)):
        does = "translates images to another domain" if isinstance(model, Translates) else "predicts masks"
        raise UserError(
            f"{type(model).__name__} {does} and has no reconstructions. Use `translate --ckpt ... --input FOLDER`."
        )
    refuse_without(model, "reconstruct", "encode", "decode")  # every model that has `reconstruct` has both


def _places(inputs: Inputs) -> list[str]:
    """The path of each reconstruction in the output folder: the name of its file, as PNG.

    Raises:
        UserError: two images would be written to one file.
    """
    from genbench.data.readers import EXTENSIONS

    taken: dict[str, str] = {}
    for row in range(len(inputs)):
        name, number = inputs.name(row), f"{row:06d}" if inputs.names is not None else f"{int(inputs.name(row)):06d}"
        path = PurePosixPath(name)
        keep = inputs.names is not None and path.suffix.lower() in EXTENSIONS
        if keep and not path.is_absolute() and ".." not in path.parts:
            place = str(path.with_suffix(".png"))
        else:
            place = f"{number}.png"  # an image of an array, of a file with several frames, or of a data set
        if place in taken or place == "grid.png":
            other = taken.get(place, "the grid of all images")
            raise UserError(f"{other} and {name} would both be written to {place}. Rename one of the files.")
        taken[place] = name
    return list(taken)


def _written_before(out: Path) -> set[Path]:
    """The reconstructions of an earlier call, from its table in the output folder. No link leads out of the folder."""
    try:
        with open(out / "errors.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
            places = [PurePosixPath(row.get("reconstruction") or "") for row in csv.DictReader(file)]
    except (OSError, csv.Error):
        return set()
    found = set()
    for place in places:
        if place.suffix == ".png" and not place.is_absolute() and ".." not in place.parts:
            with suppress(OSError, ValueError, RuntimeError):  # an edited name may have a null byte, links may loop
                path = _without_links(out / place)
                if path.is_relative_to(out.resolve()):
                    found.add(path)
    return found


def _without_links(path: Path) -> Path:
    """The path with the links of its folders resolved. A link with the name itself stays: to remove it is enough."""
    return path.parent.resolve() / path.name


def _reconstruct(arguments: argparse.Namespace, model: Any, inputs: Inputs, condition: Tensor | None) -> int:
    """Write all files."""
    import torch
    from PIL import Image

    import genbench.models
    from genbench.analysis.variations import reconstruct
    from genbench.core.batch import from_uint8, to_uint8
    from genbench.core.files import write_csv, write_png
    from genbench.core.image_grid import arranged, enlarged
    from genbench.metrics.reconstruction import WINDOW, mse, psnr, ssim

    out, places, before = arguments.out, _places(inputs), _written_before(arguments.out)
    refuse_blocked(out / place for place in places)
    metrics = {"mse": mse, "psnr": psnr} | ({"ssim": ssim} if min(model.spec.shape[1:]) >= WINDOW else {})
    values: dict[str, list[Tensor]] = {name: [] for name in metrics}
    shown: list[Tensor] = []
    first = 0
    for x in inputs.batches(arguments.batch_size, str(model.device), "Reconstructing"):
        labels = None if condition is None else condition[first : first + len(x)]
        found = reconstruct(model, x.to(model.dtype), labels)
        refuse_not_finite(model, found)
        images = to_uint8(found).cpu()
        real, made = to_uint8(x).cpu(), from_uint8(images)  # errors are those of the images that are written
        for name, metric in metrics.items():
            values[name].append(metric(made, x.float().cpu()))
        for row, image in enumerate(images):
            if first + row < SHOWN:
                shown += [real[row], image]
            array = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            write_png(out / places[first + row], Image.fromarray(array.numpy()))
        first += len(x)
    each = {name: torch.cat(parts).tolist() for name, parts in values.items()}
    write_csv(
        out / "errors.csv", ["file", "reconstruction", *each],
        ([inputs.name(row), place, *(f"{column[row]:.6g}" for column in each.values())]
         for row, place in enumerate(places)),
    )  # fmt: skip
    for path in before - {_without_links(out / place) for place in places}:
        with suppress(OSError, ValueError):  # a name that was edited may have a null byte
            path.unlink()
        with suppress(OSError):  # the first folder that is not empty ends the loop
            for folder in path.parents[: len(path.relative_to(out.resolve()).parts) - 1]:
                folder.rmdir()
    sheet = enlarged(arranged(torch.stack(shown), 8))  # four pairs in a row
    write_png(out / "grid.png", sheet)
    means = ", ".join(f"{_title(name)} {sum(column) / len(column):.4g}" for name, column in each.items())
    print(f"{counted(len(inputs), 'image')} of {inputs.images.name} -> {out}: one PNG each, errors.csv and grid.png")
    print(f"mean {means}" + ("" if "ssim" in each else f"; SSIM needs images of at least {WINDOW}×{WINDOW}"))
    if isinstance(model, genbench.models.DenoisingAutoencoder):
        print(
            "note: DenoisingAutoencoder removes noise, so the errors contain the noise that it removed. To measure "
            "denoising with known noise, use `validate --ckpt ...`."
        )
    return 0


def _title(name: str) -> str:
    return {"mse": "MSE", "psnr": "PSNR (dB)", "ssim": "SSIM"}[name]
