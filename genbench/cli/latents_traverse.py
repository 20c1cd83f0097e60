"""latents traverse: one dimension or principal direction of the latent space after another, as a grid."""

from __future__ import annotations

import argparse

from genbench.cli.flags import add_model_arguments
from genbench.cli.inputs import add_image_arguments, add_out_arguments, condition_of, images_of, refuse_existing
from genbench.cli.latents_shared import (
    add_condition,
    decoded,
    encoded_with,
    float_model,
    integers,
    of_seeds,
    refuse_image_flags,
    refuse_unknown,
    same_condition,
)
from genbench.core import files
from genbench.core.errors import UserError, counted, refuse_below

LISTED = 10  # rows whose change is printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--directions", choices=("dimensions", "pca"), default="dimensions",
        help="dimensions of the code (default), or principal directions: those of the codes of real images, or, for a "
        "model without an encoder, those of the activations of the first layer (GANSpace)",
    )  # fmt: skip
    parser.add_argument("--dimensions", help="these dimensions, such as 0,5,7 (default: the first of --count)")
    parser.add_argument("--count", type=int, help="number of directions (default 10, or all if there are fewer)")
    parser.add_argument("--extent", type=float, default=3.0, help="standard deviations to each side (default 3)")
    parser.add_argument("--steps", type=int, default=7, help="images of each direction (default 7)")
    parser.add_argument("--seed", type=int, help="seed of the code in the middle (default 0)")
    add_image_arguments(parser, n=10_000)
    add_condition(parser)
    add_out_arguments(parser, "traversal.png", "the picture, a .png")


def run(arguments: argparse.Namespace, more: list[str]) -> int:
    import math

    import torch

    from genbench.analysis.latents import activation_steps, principal_steps, traverse
    from genbench.core.image_grid import enlarged, grid

    refuse_below(1, {"--count": arguments.count, "--batch-size": arguments.batch_size})
    refuse_below(2, {"--steps": arguments.steps, "--n": arguments.n})
    if not (math.isfinite(arguments.extent) and arguments.extent > 0):
        raise UserError(f"--extent is {arguments.extent}; expected a number of standard deviations above 0.")
    pca = arguments.directions == "pca"
    if arguments.dimensions is not None and (pca or arguments.count is not None):
        raise UserError("--dimensions cannot be combined with `--directions pca` or --count. Remove one of them.")
    refuse_existing(arguments.out, arguments.overwrite, "The picture", ".png")
    model, contents = float_model(arguments, "traverse", "decode")
    shape = tuple(model.latent_shape)
    size, samples = math.prod(shape), hasattr(model, "sample_latents")
    if arguments.seed is not None and not samples:
        raise UserError(
            f"--seed has no effect: {type(model).__name__} has no prior to sample from, so the mean code of the images "
            "is in the middle. Remove it."
        )
    chosen = None
    if arguments.dimensions is not None:
        chosen = integers("--dimensions", arguments.dimensions)
        if wrong := [k for k in chosen if not 0 <= k < size]:
            raise UserError(f"--dimensions has {wrong[0]}, but the codes have the dimensions 0 to {size - 1}.")
    real = hasattr(model, "encode") and (pca or not samples)
    count = arguments.count or min(10, size)
    if count > size:
        raise UserError(f"--count is {count}, but the codes have {size} dimensions.")
    if real:
        inputs, more = images_of(arguments, more, model, contents)
        refuse_unknown(model, more, arguments)
        codes = encoded_with(model, inputs, arguments)[0]
        if len(codes) < 2:
            raise UserError(f"{inputs.images.name} has one image; standard deviations need at least two.")
    else:
        selected = argparse.Namespace(**vars(arguments) | {"n": None})  # --n is the number of samples
        refuse_image_flags(selected, more, "these directions follow from sampled latents, not from images")
        refuse_unknown(model, more, arguments)
        codes = of_seeds(model, range(arguments.n), "traverse")
    if pca and arguments.count is None:  # few codes have few principal directions
        count = min(count, len(codes) - 1)
    if not pca:
        rows = list(range(count)) if chosen is None else chosen
        deviation = codes.flatten(1).std(0)
        steps = torch.diag(deviation)[rows].unflatten(1, shape)
        names = [f"dimension {k}" for k in rows]
    else:
        if real:
            steps = principal_steps(codes, count)
        else:
            condition = condition_of(model, len(codes), arguments.label, arguments.prompt)
            steps = activation_steps(model, codes, count, condition)
        names = [f"direction {k + 1}" for k in range(count)]
    middle = of_seeds(model, [arguments.seed or 0], "traverse")[0] if samples else codes.mean(0)
    multiples = torch.linspace(-arguments.extent, arguments.extent, arguments.steps)
    moved = traverse(middle, steps, multiples).flatten(0, 1)
    images = decoded(model, moved, same_condition(model, len(moved), arguments), arguments.batch_size)
    sheet = enlarged(grid(images, arguments.steps))
    files.write_png(arguments.out, sheet)
    rows_of = images.unflatten(0, (len(steps), arguments.steps))
    change = (rows_of[:, -1] - rows_of[:, 0]).abs().flatten(1).mean(1) / 2  # of the range of the pixels
    listed = [f"{name} {100 * value:.1f}%" for name, value in zip(names, change.tolist(), strict=True)]
    if len(listed) > LISTED:
        listed[LISTED - 1 : -1] = ["..."]
    print(f"mean change of a pixel between the ends of a row: {', '.join(listed)}")
    print(
        f"{counted(len(steps), 'row')} from -{arguments.extent:g} to {arguments.extent:g} standard deviations -> "
        f"{arguments.out}"
    )
    return 0
