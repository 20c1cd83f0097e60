"""latents arithmetic: a - b + c, of seeds, images or mean codes of classes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genbench.cli.codes import read_codes
from genbench.cli.flags import add_model_arguments
from genbench.cli.inputs import (
    Inputs,
    add_batch_size,
    add_out_arguments,
    images_of,
    refuse_existing,
    refuse_without,
)
from genbench.cli.latents_shared import (
    add_condition,
    decoded,
    encoded_with,
    float_model,
    integers,
    of_seeds,
    refuse_unknown,
    same_condition,
)
from genbench.core import files
from genbench.core.errors import UserError, refuse_below

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MEMBERS = 3  # images of an operand in the picture, as in figure 7 of Radford et al. 2016


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    for name in "abc":
        parser.add_argument(
            f"--{name}", required=True, metavar="OPERAND",
            help="seeds:1,2,3 | images:PATH (file, folder or array) | class:NAME (training images) | codes:FILE",
        )  # fmt: skip
    parser.add_argument("--data", metavar="NAME", help="data set of class:NAME (default: the training data)")
    parser.add_argument("--noise", type=float, default=0.25, help="amplitude of the uniform noise (default 0.25)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default 0)")
    add_condition(parser)
    add_batch_size(parser)
    add_out_arguments(parser, "arithmetic.png", "the picture, a .png")


def run(arguments: argparse.Namespace, more: list[str]) -> int:
    import torch

    from genbench.analysis.latents import arithmetic
    from genbench.cli.evaluate_data import split_flags
    from genbench.core.noise import per_seed

    if not 0 <= arguments.noise < float("inf"):
        raise UserError(f"--noise is {arguments.noise}; expected a number of at least 0.")
    refuse_below(1, {"--batch-size": arguments.batch_size})
    refuse_existing(arguments.out, arguments.overwrite, "The picture", ".png")
    operands = {name: _operand(f"--{name}", getattr(arguments, name)) for name in "abc"}
    model, contents = float_model(arguments, "arithmetic", "decode")
    data_flags, more = split_flags(more, "--data.")
    image_flags, more = split_flags(more, "--images.")
    refuse_unknown(model, more, arguments)
    kinds = {kind for kind, _ in operands.values()}
    data_given = [*([] if arguments.data is None else ["--data"]), *data_flags]
    for flags, kind in ((data_given, "class"), (image_flags, "images")):
        if flags and kind not in kinds:
            raise UserError(f"{flags[0]} is for an operand `{kind}:...`, which was not set.")
    if kinds & {"class", "images"}:
        refuse_without(model, "latents arithmetic", "encode", real_codes=True)
    classes, codes = None, []
    for name, (kind, value) in operands.items():
        if kind == "seeds":
            codes.append(of_seeds(model, integers(f"--{name} seeds:", value), "arithmetic"))
        elif kind == "codes":
            codes.append(read_codes(value, model))
        elif kind == "images":
            files_only = {"images": value, "data": None, "split": None, "n": None}
            asked = argparse.Namespace(**vars(arguments) | files_only)
            codes.append(encoded_with(model, images_of(asked, image_flags, model, contents)[0], arguments)[0])
        else:
            if classes is None:
                asked = argparse.Namespace(**vars(arguments) | {"images": None, "split": "train", "n": None})
                classes = images_of(asked, data_flags, model, contents)[0]
            codes.append(encoded_with(model, _of_class(classes, value, f"--{name}"), arguments)[0])
    result = arithmetic(*codes)
    # eight neighbors with uniform noise (Radford et al. 2016, figure 7); the result itself is in the middle
    seeds = torch.arange(arguments.seed, arguments.seed + 9)
    noise = (2 * per_seed(torch.rand, seeds, result.shape) - 1).to(result) * arguments.noise
    noise[4] = 0
    shown = [torch.cat([part[:MEMBERS], part.mean(0)[None]]) for part in codes]
    z = torch.cat([*shown, result + noise])
    images = decoded(model, z, same_condition(model, len(z), arguments), arguments.batch_size)
    sheet = _equation(images.split([*map(len, shown), 9]))
    files.write_png(arguments.out, sheet)
    counts = ", ".join(f"{name} {len(part):,}" for name, part in zip("abc", codes, strict=True))
    print(f"a - b + c of {type(model).__name__} (codes: {counts}) -> {arguments.out}")
    return 0


def _operand(flag: str, text: str) -> tuple[str, str]:
    kind, _, value = text.partition(":")
    if kind not in ("seeds", "images", "class", "codes") or not value:
        raise UserError(
            f"{flag} is '{text}'; expected `seeds:1,2,3`, `images:PATH`, `class:NAME` or `codes:FILE`, such as "
            f"`{flag} seeds:1,2,3`."
        )
    return kind, value


def _of_class(images: Inputs, name: str, flag: str) -> Inputs:
    """The images of a class, by name or number."""
    from genbench.core.conditions import class_number
    from genbench.evaluation.images import SomeImages

    known = images.classes
    if images.label is None or not known:
        raise UserError(f"{flag} class:{name} needs data with labels, and {images.images.name} has none. Use `--data`.")
    rows = (images.label == class_number(name, known, f"{flag} class:{name}")).nonzero()[:, 0]
    if not len(rows):
        raise UserError(f"{flag} class:{name}: {images.images.name} has no image of this class.")
    return Inputs(SomeImages(images.images, rows), images.label[rows], known)


def _equation(parts: Sequence[Tensor]) -> Image:
    """The picture of `a - b + c =`: for each operand its members above their mean, then 3×3 results.

    Args:
        parts: images of a, b and c [n + 1, C, H, W], the mean last; and the results [9, C, H, W]
    """
    from PIL import Image, ImageDraw

    from genbench.core.batch import to_uint8
    from genbench.core.image_grid import GAP, arranged

    factor = max(1, round(64 / parts[0].shape[3]))
    space, sign = 8 * GAP, 24  # pixels between the members and the mean; width of a sign in pixels

    def tiles(images: Tensor, columns: int) -> Image.Image:
        made = arranged(to_uint8(images), columns).convert("RGB")
        return made.resize((made.width * factor, made.height * factor), Image.Resampling.NEAREST)

    members, means, result = (
        [tiles(x[:-1], 1) for x in parts[:3]],
        [tiles(x[-1:], 1) for x in parts[:3]],
        tiles(parts[3], 3),
    )
    top = max(picture.height for picture in members) + space  # top of the means without a taller result
    height = max(top + means[0].height, result.height)
    sheet = Image.new("RGB", (3 * (means[0].width + sign) + result.width, height), "white")
    draw, left, row = ImageDraw.Draw(sheet), 0, height - means[0].height  # top of the means
    for number, (above, mean) in enumerate(zip(members, means, strict=True)):
        sheet.paste(above, (left, row - space - above.height))
        sheet.paste(mean, (left, row))
        left += mean.width
        x, y = left + sign // 2, row + mean.height // 2
        for dy in (-3, 3) if number == 2 else (0,):  # =, else -
            draw.rectangle((x - 7, y + dy - 1, x + 7, y + dy), fill="black")
        if number == 1:  # +
            draw.rectangle((x - 1, y - 7, x, y + 7), fill="black")
        left += sign
    sheet.paste(result, (left, height - result.height))
    return sheet
