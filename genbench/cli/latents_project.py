"""latents project: the codes of given images in a GAN, by optimization."""

from __future__ import annotations

import argparse

from genbench.cli.codes import write_codes
from genbench.cli.flags import add_model_arguments
from genbench.cli.inputs import (
    add_image_arguments,
    add_out_arguments,
    condition_of_images,
    images_of,
    refuse_blocked,
    refuse_not_finite,
    refuse_used,
)
from genbench.cli.latents_shared import (
    add_condition,
    decoded,
    float_model,
    refuse_unknown,
    write_animation,
)
from genbench.core import files
from genbench.core.errors import UserError, counted, refuse_below

SHOWN = 10  # images in the picture and the animation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    add_image_arguments(parser, n=20)
    parser.add_argument("--steps", type=int, default=300, help="steps of Adam (default 300)")
    parser.add_argument("--starts", type=int, default=4, help="starting points of each image (default 4)")
    parser.add_argument("--candidates", type=int, default=512, help="latents to choose the starts from (default 512)")
    parser.add_argument("--lr", type=float, default=0.1, help="first learning rate (default 0.1)")
    parser.add_argument(
        "--prior-weight", type=float, default=0.0, help="weight of the squared norm of the code (default 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first candidate (default 0)")
    add_condition(parser)
    add_out_arguments(parser, "projection", "folder of the results")


def run(arguments: argparse.Namespace, more: list[str]) -> int:
    import torch
    from rich.progress import Progress

    from genbench.analysis.projection import project, total_steps
    from genbench.core.batch import from_stored
    from genbench.core.image_grid import enlarged, grid

    counts = {"--steps": arguments.steps, "--starts": arguments.starts, "--candidates": arguments.candidates}
    refuse_below(1, counts | {"--batch-size": arguments.batch_size})
    if not 0 <= arguments.prior_weight < float("inf"):
        raise UserError(f"--prior-weight is {arguments.prior_weight}; expected a number of at least 0.")
    if not 0 < arguments.lr < float("inf"):
        raise UserError(f"--lr is {arguments.lr}; expected a number above 0.")
    out = arguments.out
    refuse_used(out, arguments.overwrite)
    refuse_blocked(out / name for name in ("codes.npz", "psnr.csv", "projection.png", "path.gif"))
    model, contents = float_model(arguments, "project", "decode", "sample_latents")
    inputs, more = images_of(arguments, more, model, contents)
    refuse_unknown(model, more, arguments)
    condition = condition_of_images(model, inputs, arguments.label, arguments.prompt) if model.conditional else None
    settings = {
        name: getattr(arguments, name) for name in ("steps", "starts", "candidates", "lr", "prior_weight", "seed")
    }
    parts, targets = [], list[torch.Tensor]()
    blocks = torch.arange(len(inputs)).split(arguments.batch_size)
    with Progress(transient=True) as bar:
        task = bar.add_task("Projecting", total=len(blocks) * total_steps(arguments.steps, arguments.starts))
        for rows in blocks:
            images = from_stored(inputs.images.images(rows)).to(model.device)
            given = None if condition is None else condition[rows.to(condition.device)]
            parts.append(project(model, images, given, **settings, advance=lambda: bar.advance(task)))
            refuse_not_finite(model, parts[-1].codes, "codes")
            targets += [images[:SHOWN].cpu()] if len(targets) < SHOWN else []
    codes, psnr = torch.cat([part.codes for part in parts]), torch.cat([part.psnr for part in parts]).cpu()
    shown = min(SHOWN, len(codes))
    target = torch.cat(targets)[:shown]
    path = torch.cat([part.path[:SHOWN] for part in parts[:SHOWN]])[:shown].transpose(0, 1)  # [frames, shown, *latent]
    again = None if condition is None else condition[:shown].repeat(len(path), *[1] * (condition.ndim - 1))
    steps = decoded(model, path.flatten(0, 1), again, arguments.batch_size).unflatten(0, (-1, shown))
    frames = [enlarged(grid(torch.cat([target, step]), shown)) for step in steps]
    names = [inputs.name(row) for row in range(len(inputs))]
    write_codes(out / "codes.npz", codes, model, names)
    table = ([name, f"{value:.3f}"] for name, value in zip(names, psnr.tolist(), strict=True))
    files.write_csv(out / "psnr.csv", ["image", "psnr"], table)
    files.write_png(out / "projection.png", frames[-1])
    write_animation(out / "path.gif", frames, [80] * (len(frames) - 1) + [2000])
    print(
        f"{counted(len(names), 'image')} projected: PSNR median {psnr.median():.1f} dB, lowest {psnr.min():.1f} dB -> "
        f"{out}/codes.npz, psnr.csv, projection.png, path.gif"
    )
    return 0
