"""latents interpolate: paths between seeds or images, as a grid and an animation."""

from __future__ import annotations

import argparse
from typing import Literal

from genbench.cli.codes import read_codes
from genbench.cli.flags import add_model_arguments
from genbench.cli.inputs import (
    add_image_arguments,
    add_out_arguments,
    condition_of,
    images_of,
    refuse_blocked,
    refuse_used,
    refuse_without,
)
from genbench.cli.latents_shared import (
    add_condition,
    decoded,
    encoded_with,
    float_model,
    integers,
    of_seeds,
    refuse_image_flags,
    refuse_unknown,
    write_animation,
)
from genbench.core import files
from genbench.core.errors import UserError, counted, refuse_below

DEFAULT_SEEDS = "0,1,2,3"
IMAGES = 4  # of a data set or folder, without --n


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--seeds", help=f"paths between these seeds, such as 3,17,42 (default {DEFAULT_SEEDS})")
    parser.add_argument("--codes", metavar="FILE", help="paths between these codes, from `latents project`, or a .npy")
    add_image_arguments(parser, n=IMAGES)
    parser.set_defaults(n=None)  # so that a --n that has no effect is an error
    parser.add_argument("--steps", type=int, default=10, help="images of each path, including both ends (default 10)")
    parser.add_argument(
        "--path", choices=("linear", "spherical"),
        help="straight, or along a sphere, which suits a Gaussian prior (default: spherical between seeds of a model "
        "without an encoder, else linear)",
    )  # fmt: skip
    add_condition(parser)
    add_out_arguments(parser, "interpolation", "folder of the results")


def run(arguments: argparse.Namespace, more: list[str]) -> int:
    import torch

    from genbench.analysis.latents import interpolate
    from genbench.core.image_grid import enlarged, grid

    refuse_below(2, {"--steps": arguments.steps})
    refuse_below(1, {"--batch-size": arguments.batch_size})
    given = {
        "--seeds": arguments.seeds,
        "--codes": arguments.codes,
        "--images": arguments.images,
        "--data": arguments.data,
        "--split": arguments.split,
    }
    chosen = [flag for flag, value in given.items() if value is not None]
    codes_given = {"--seeds", "--codes"} & set(chosen)
    if len(chosen) > 1 and codes_given:
        raise UserError(f"{' and '.join(chosen)} cannot be combined. Use one of them for the ends of the paths.")
    seeds = None if arguments.seeds is None else integers("--seeds", arguments.seeds)
    refuse_used(arguments.out, arguments.overwrite)
    refuse_blocked(arguments.out / name for name in ("grid.png", "animation.gif"))
    model, contents = float_model(arguments, "interpolate", "decode")
    if not chosen and hasattr(model, "sample_latents"):
        seeds = integers("--seeds", DEFAULT_SEEDS)
    label = None
    if seeds is not None or arguments.codes is not None:
        between = "codes" if seeds is None else "seeds" if arguments.seeds else f"the seeds {DEFAULT_SEEDS}"
        refuse_image_flags(arguments, more, f"the paths are between {between}, not images")
    if seeds is not None:
        z = of_seeds(model, seeds, "interpolate")
        what = f"seeds {', '.join(map(str, seeds))}"
    elif arguments.codes is not None:
        z, what = read_codes(arguments.codes, model), arguments.codes
    else:
        refuse_without(model, "latents interpolate", "encode", real_codes=True)
        arguments.n = IMAGES if arguments.n is None else arguments.n
        inputs, more = images_of(arguments, more, model, contents)
        z, label = encoded_with(model, inputs, arguments)
        what = f"images of {inputs.images.name}"
    refuse_unknown(model, more, arguments)
    if len(z) < 2:
        raise UserError("A path needs two ends, but only one was given. Use `--seeds 3,17`, or at least two images.")
    suits = seeds is not None and not hasattr(model, "encode") and getattr(model, "prior", "normal") != "uniform"
    path: Literal["linear", "spherical"] = arguments.path or ("spherical" if suits else "linear")
    rows, steps = len(z) - 1, arguments.steps
    codes = interpolate(z[:-1], z[1:], steps, path)  # [rows, steps, *latent]
    if label is None:
        condition = condition_of(model, rows, arguments.label, arguments.prompt)
        condition = None if condition is None else condition.repeat_interleave(steps, 0)
    else:  # each half of a path has the class of its end, so that both ends are exact
        last_half = torch.arange(steps, device=label.device) * 2 >= steps  # [steps]
        condition = torch.where(last_half, label[1:, None], label[:-1, None]).flatten()
    images = decoded(model, codes.flatten(0, 1), condition, arguments.batch_size)
    sheet = enlarged(grid(images, steps))
    forward = [k for k in range(len(images)) if k % steps or not k or condition is not None]  # each end once
    order = forward + forward[-2:0:-1]  # then backward, so that the animation has no jump
    ends = {k for k in forward if k % steps in (0, steps - 1)}
    frames = [enlarged(grid(images[k : k + 1]), 256) for k in order]
    out = arguments.out
    files.write_png(out / "grid.png", sheet)
    write_animation(out / "animation.gif", frames, [400 if k in ends else 80 for k in order])
    print(f"{counted(rows, 'path')} of {steps} images ({path}) between {what} -> {out}/grid.png, {out}/animation.gif")
    return 0
