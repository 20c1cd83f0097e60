"""latents manifold: a two-dimensional latent space, decoded at Gaussian quantiles."""

from __future__ import annotations

import argparse

from genbench.cli.flags import add_model_arguments
from genbench.cli.inputs import add_batch_size, add_out_arguments, refuse_existing
from genbench.cli.latents_shared import (
    add_condition,
    decoded,
    float_model,
    refuse_unknown,
    same_condition,
)
from genbench.core import files
from genbench.core.errors import UserError, counted, refuse_below


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--side", type=int, default=20, help="images of a row and of a column (default 20)")
    add_condition(parser)
    add_batch_size(parser)
    add_out_arguments(parser, "manifold.png", "the picture, a .png")


def run(arguments: argparse.Namespace, more: list[str]) -> int:
    import torch

    from genbench.analysis.latents import quantile_grid
    from genbench.core.image_grid import enlarged, grid

    refuse_below(1, {"--side": arguments.side, "--batch-size": arguments.batch_size})
    refuse_existing(arguments.out, arguments.overwrite, "The picture", ".png")
    model, _ = float_model(arguments, "manifold", "decode", "sample_latents")
    refuse_unknown(model, more, arguments)
    shape, side = tuple(model.latent_shape), arguments.side
    if shape != (2,):
        codes = counted(*shape, "dimension") if len(shape) == 1 else f"the shape {'×'.join(map(str, shape))}"
        raise UserError(
            f"This {type(model).__name__} has codes of {codes}, but `latents manifold` needs 2 dimensions. Train "
            "with `--model.latent_dim 2`, or use `latents traverse`."
        )
    z = quantile_grid(side).flatten(0, 1).to(model.device)
    prior = "uniform" if getattr(model, "prior", None) == "uniform" else "standard normal"
    if prior == "uniform":  # on [-1, 1]
        z = 2 * torch.special.ndtr(z) - 1
    images = decoded(model, z, same_condition(model, side * side, arguments), arguments.batch_size)
    sheet = enlarged(grid(images, side, gap=0))
    files.write_png(arguments.out, sheet)
    print(f"{side}×{side} images at the quantiles of a {prior} distribution -> {arguments.out}")
    return 0
