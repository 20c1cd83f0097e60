"""vary: draw variations of images."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from genbench.cli.flags import Arguments, add_model_arguments, import_modules, own_options
from genbench.cli.inputs import (
    Inputs,
    add_image_arguments,
    add_label_argument,
    add_out_arguments,
    blocks,
    encoded,
    images_of,
    labels_for_encoder,
    model_of,
    refuse_existing,
    refuse_not_finite,
    refuse_points,
    refuse_without,
)
from genbench.cli.quiet import quiet
from genbench.core.errors import UserError, counted, refuse_below

if TYPE_CHECKING:
    from torch import Tensor

    from genbench.core.module import GenerativeModule

MOST = 1000  # images whose codes give the standard deviation of each latent dimension


def _parser() -> Arguments:
    parser = Arguments(
        "python -m genbench vary",
        description="Draw variations of images: decoded samples of the model's posterior, or, for models without a "
        "posterior, decoded codes near that of the image. In each row of --out, the first image is the original.",
    )
    add_model_arguments(parser)
    add_image_arguments(parser, n=8)
    add_label_argument(parser)
    parser.add_argument("--variations", type=int, default=8, help="variations of each image (default 8)")
    parser.add_argument(
        "--by", choices=("posterior", "codes"),
        help="where the noise comes from: the posterior (default, if the model has one), or the spread of the codes",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=float,
        help="strength of the noise: in standard deviations of the posterior (default 1), or of the codes of the given "
        "images (default 0.5)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default 0)")
    add_out_arguments(parser, "variations.png", "the grid")
    return parser


def main(verb: str, argv: list[str]) -> int:
    argv = import_modules(argv)
    arguments, more = _parser().parse_known_args(argv)
    quiet()
    wanted, scale = arguments.n, arguments.scale
    refuse_below(1, {"--n": wanted, "--variations": arguments.variations})
    if scale is not None and not (math.isfinite(scale) and scale >= 0):
        raise UserError(f"--scale is {scale}; it must be a number that is at least 0.")
    refuse_existing(arguments.out, arguments.overwrite, "The picture", ".png")

    import torch

    model, contents = model_of(arguments)
    by = _checked(model, arguments.by)
    refuse_points(model, verb)
    arguments.n = max(wanted, MOST)  # the standard deviation needs more images than are shown
    inputs, more = images_of(arguments, more, model, contents)
    own_options(model, more, flags=_parser().flags())  # there are none: an unknown flag is an error
    condition = labels_for_encoder(model, inputs, arguments.label)
    with torch.no_grad():
        return _vary(arguments, model, inputs, condition, by, wanted)


def _checked(model: GenerativeModule, by: str | None) -> str:
    """Where the noise comes from: `posterior` or `codes`.

    Raises:
        UserError: the model lacks a method, or its codes are codebook indices.
    """
    refuse_without(model, "vary", "encode", "decode", real_codes=True)
    posterior = hasattr(model, "posterior")
    if by == "posterior" and not posterior:
        raise UserError(f"{type(model).__name__} has no posterior. Remove `--by posterior`.")
    if not posterior and model.latent_dtype == "int64":
        raise UserError(
            f"The codes of {type(model).__name__} are codebook indices, to which no noise can be added. Use a model "
            "with real codes, such as VAE or ConvAutoencoder."
        )
    return by or ("posterior" if posterior else "codes")


def _vary(
    arguments: argparse.Namespace, model: Any, inputs: Inputs, condition: Tensor | None, by: str, wanted: int
) -> int:
    import torch

    from genbench.analysis import variations
    from genbench.core.batch import from_stored, to_uint8
    from genbench.core.files import write_png
    from genbench.core.image_grid import arranged, enlarged
    from genbench.evaluation.images import choice

    device, size, each = model.device, arguments.batch_size, arguments.variations
    rows = choice(len(inputs), wanted)
    scale = arguments.scale if arguments.scale is not None else 1.0 if by == "posterior" else 0.5
    if by == "codes":
        if len(inputs) < 2:
            raise UserError(
                "--scale counts standard deviations of the codes of the given images, so at least 2 images are needed; "
                "got 1. Add images to --images."
            )
        codes = encoded(model, inputs, condition, size)
        deviation = codes.std(0)
    lines = []
    for block in blocks(len(rows), max(1, size // each), "Varying"):
        part = rows[block]
        x = from_stored(inputs.images.images(part)).to(device, model.dtype)
        labels = None if condition is None else condition[part.to(device)]
        eps = variations.noise(model.latent_shape, len(part), each, arguments.seed, int(block[0]))
        if by == "posterior":
            z = variations.posterior_samples(model, x, eps, scale, labels)
        else:
            z = variations.nearby_codes(codes[part.to(device)], deviation, eps, scale)
        images = variations.decode_each(model, z, labels, size)
        refuse_not_finite(model, images)
        lines.append(torch.cat([x[:, None], images.to(x)], 1).cpu())
    grid = torch.cat(lines)  # [N, 1 + V, C, H, W]
    sheet = enlarged(arranged(to_uint8(grid.flatten(0, 1)), 1 + each))
    write_png(arguments.out, sheet)
    change = (grid[:, 1:] - grid[:, :1]).square().mean().item()
    source = "posterior" if by == "posterior" else f"codes of {counted(len(inputs), 'image')}"
    print(f"{counted(each, 'variation')} of {counted(len(rows), 'image')} of {inputs.images.name} -> {arguments.out}")
    print(f"noise: {scale:g} standard deviations of the {source}; mean squared change of a pixel {change:.4g}")
    return 0
