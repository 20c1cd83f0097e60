"""latents: what a model's latent space contains. `map` and `cluster` are in files of their own."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.cli.codes import read_codes, write_codes
from genbench.cli.flags import Arguments, add_model_arguments, import_modules
from genbench.cli.inputs import Inputs, add_image_arguments, images_of, model_of, refuse_used, refuse_without
from genbench.cli.quiet import quiet
from genbench.core import files
from genbench.core.errors import UserError, refuse_below

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from genbench.core.module import GenerativeModule

ACTIONS = {
    "interpolate": "paths between seeds or images, as a grid and an animation",
    "arithmetic": "a - b + c, of seeds, images or mean codes of classes",
    "traverse": "one dimension or principal direction after another, as a grid",
    "manifold": "a two-dimensional latent space, decoded at the quantiles of its prior",
    "map": "codes of images in two dimensions, colored by label",
    "cluster": "clusters of the codes of images, and how well they agree with the labels",
    "project": "the codes of given images in a GAN, by optimization",
}
ELSEWHERE = {"map": "genbench.cli.latents_map", "cluster": "genbench.cli.latents_cluster"}
MEMBERS = 3  # images of an operand that `arithmetic` shows, as in figure 7 of Radford et al. 2016
SHOWN = 10  # images that `project` shows
DEFAULT_SEEDS = "0,1,2,3"


def _parser(action: str | None = None) -> Arguments:
    """The parser. Only the flags of `action` are added, since other files may import large packages."""
    parser = Arguments("python -m genbench latents", description="Use the latent space of a trained model.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, about in ACTIONS.items():
        sub = actions.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        if name == action:
            (importlib.import_module(ELSEWHERE[name]).add_arguments if name in ELSEWHERE else ADD[name])(sub)
    return parser


def main(verb: str, argv: list[str]) -> int:
    argv = import_modules(argv)
    action = next((argument for argument in argv if argument in ACTIONS), None)
    arguments, more = _parser(action).parse_known_args(argv)
    quiet()
    if action in ELSEWHERE:
        return int(importlib.import_module(ELSEWHERE[action]).run(arguments, more))
    return RUN[arguments.action](arguments, more)


def _add_interpolate(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--seeds", help=f"paths between these seeds, such as 3,17,42 (default {DEFAULT_SEEDS})")
    parser.add_argument("--codes", metavar="FILE", help="paths between these codes, from `latents project`, or a .npy")
    add_image_arguments(parser, n=4)
    parser.add_argument("--steps", type=int, default=10, help="images of each path, with both ends (default 10)")
    parser.add_argument(
        "--path", choices=("linear", "spherical"),
        help="straight, or along a sphere, which suits a Gaussian prior (default: spherical between seeds of a model "
        "without an encoder, else linear)",
    )  # fmt: skip
    _add_condition(parser)
    _add_folder(parser, "interpolation")


def _add_arithmetic(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    for name in "abc":
        parser.add_argument(
            f"--{name}", required=True, metavar="OPERAND",
            help="seeds:1,2,3 | images:PATH (file, folder or array) | class:NAME (training images) | codes:FILE",
        )  # fmt: skip
    parser.add_argument("--data", metavar="NAME", help="data set of class:NAME (default: the training data)")
    parser.add_argument("--noise", type=float, default=0.25, help="uniform noise of the neighbors (default 0.25)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default 0)")
    _add_condition(parser)
    _add_batch_size(parser)
    _add_picture(parser, "arithmetic.png")


def _add_traverse(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--directions", choices=("dimensions", "pca"), default="dimensions",
        help="dimensions of the code; or principal directions: of the codes of real images, or without an encoder of "
        "the first layer's activations (GANSpace) (default dimensions)",
    )  # fmt: skip
    parser.add_argument("--dimensions", help="these dimensions, such as 0,5,7 (default: the first of --count)")
    parser.add_argument("--count", type=int, help="number of directions (default 10, or all if there are fewer)")
    parser.add_argument("--extent", type=float, default=3.0, help="standard deviations to each side (default 3)")
    parser.add_argument("--steps", type=int, default=7, help="images of each direction (default 7)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the code in the middle (default 0)")
    add_image_arguments(parser, n=10_000)
    _add_condition(parser)
    _add_picture(parser, "traversal.png")


def _add_manifold(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--side", type=int, default=20, help="images of a row and of a column (default 20)")
    _add_condition(parser)
    _add_batch_size(parser)
    _add_picture(parser, "manifold.png")


def _add_project(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    add_image_arguments(parser, n=20)
    parser.add_argument("--steps", type=int, default=300, help="steps of Adam (default 300)")
    parser.add_argument("--starts", type=int, default=4, help="starting points of each image (default 4)")
    parser.add_argument("--candidates", type=int, default=512, help="latents to choose them from (default 512)")
    parser.add_argument("--lr", type=float, default=0.1, help="first learning rate (default 0.1)")
    parser.add_argument(
        "--prior-weight", type=float, default=0.0, help="weight of the squared length of the code (default 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first candidate (default 0)")
    _add_condition(parser)
    _add_folder(parser, "projection")


def _add_condition(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--label", help="class of all images, by name or number, for models trained on labels")
    parser.add_argument("--prompt", help="caption of all images, for models trained on captions")


def _add_batch_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=int, default=256, help="images processed at once; changes only the speed")


def _add_picture(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--out", type=Path, default=Path(name), help=f"the picture, a .png (default {name})")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --out")


def _add_folder(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--out", type=Path, default=Path(name), help=f"folder of the results (default {name})")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that contains files")


# ---- the actions ----------------------------------------------------------------------------------------------------


def _interpolate(arguments: argparse.Namespace, more: list[str]) -> int:
    import torch

    from genbench.analysis.latents import interpolate
    from genbench.core.image_grid import enlarged, grid

    refuse_below(2, {"--steps": arguments.steps})
    refuse_below(1, {"--batch-size": arguments.batch_size})
    given = {
        "--seeds": arguments.seeds,
        "--codes": arguments.codes,
        "--images": arguments.images or arguments.data or arguments.split,
    }
    chosen = [flag for flag, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} cannot be combined. Use one of them for the ends of the paths.")
    seeds = None if arguments.seeds is None else _integers("--seeds", arguments.seeds)
    refuse_used(arguments.out, arguments.overwrite)
    model, contents = _model(arguments, "interpolate", "decode")
    if not chosen and hasattr(model, "sample_latents"):
        seeds = _integers("--seeds", DEFAULT_SEEDS)
    label = None
    if seeds is not None:
        z = _of_seeds(model, seeds, "interpolate", arguments)
        what = f"seeds {', '.join(map(str, seeds))}"
    elif arguments.codes is not None:
        z, what = read_codes(arguments.codes, model), arguments.codes
    else:
        refuse_without(model, "latents interpolate", "encode")
        inputs, more = images_of(arguments, more, model, contents)
        z, label = _encoded(model, inputs, arguments)
        what = inputs.images.name
    _refuse_unknown(model, more, arguments)
    if len(z) < 2:
        raise UserError("A path needs two ends, but only one was given. Use `--seeds 3,17`, or at least two images.")
    suits = seeds is not None and not hasattr(model, "encode") and getattr(model, "prior", "normal") != "uniform"
    path = arguments.path or ("spherical" if suits else "linear")
    rows, steps = len(z) - 1, arguments.steps
    codes = interpolate(z[:-1], z[1:], steps, path)  # [rows, steps, *latent]
    if label is None or arguments.label is not None:
        condition = _condition(model, rows, arguments)
    else:
        condition = label[:-1]  # each path has the class of its first image
    condition = None if condition is None else condition.repeat_interleave(steps, 0)
    images = _decoded(model, codes.flatten(0, 1), condition, arguments.batch_size)
    sheet = enlarged(grid(images, steps))
    forward = [k for k in range(len(images)) if k % steps or not k or condition is not None]  # each end once
    order = forward + forward[-2:0:-1]  # and back, so that the animation has no jump
    ends = {k for k in forward if k % steps in (0, steps - 1)}
    frames = [enlarged(grid(images[k : k + 1]), 256) for k in order]
    out = arguments.out
    files.write(out / "grid.png", lambda file: sheet.save(file, "PNG"))
    _write_animation(out / "animation.gif", frames, [400 if k in ends else 80 for k in order])
    many = "1 path" if rows == 1 else f"{rows} paths"
    print(f"{many} of {steps} images ({path}) between {what} -> {out}/grid.png, {out}/animation.gif")
    return 0


def _arithmetic(arguments: argparse.Namespace, more: list[str]) -> int:
    import torch

    from genbench.analysis.latents import arithmetic
    from genbench.cli.evaluate_data import split_flags
    from genbench.core.noise import per_seed

    refuse_below(0, {"--noise": arguments.noise})
    refuse_below(1, {"--batch-size": arguments.batch_size})
    _refuse_picture(arguments)
    operands = {name: _operand(f"--{name}", getattr(arguments, name)) for name in "abc"}
    model, contents = _model(arguments, "arithmetic", "decode")
    data_flags, more = split_flags(more, "--data.")
    image_flags, more = split_flags(more, "--images.")
    _refuse_unknown(model, more, arguments)
    kinds = {kind for kind, _ in operands.values()}
    for flags, kind in ((data_flags, "class"), (image_flags, "images")):
        if flags and kind not in kinds:
            raise UserError(f"{flags[0]} is for an operand `{kind}:...`, which was not set.")
    if kinds & {"class", "images"}:
        refuse_without(model, "latents arithmetic", "encode")
    condition = _condition(model, 1, arguments)
    classes, codes = None, []
    for name, (kind, value) in operands.items():
        if kind == "seeds":
            codes.append(_of_seeds(model, _integers(f"--{name} seeds:", value), "arithmetic", arguments))
        elif kind == "codes":
            codes.append(read_codes(value, model))
        elif kind == "images":
            files_only = {"images": value, "data": None, "split": None, "n": None}
            asked = argparse.Namespace(**vars(arguments) | files_only)
            codes.append(_encoded(model, images_of(asked, image_flags, model, contents)[0], arguments)[0])
        else:
            if classes is None:
                asked = argparse.Namespace(**vars(arguments) | {"images": None, "split": "train", "n": None})
                classes = images_of(asked, data_flags, model, contents)[0]
            codes.append(_encoded(model, _of_class(classes, value, f"--{name}"), arguments)[0])
    result = arithmetic(*codes)
    # eight neighbors with uniform noise (Radford et al. 2016, figure 7); the result itself is in the middle
    seeds = torch.arange(arguments.seed, arguments.seed + 9)
    noise = (2 * per_seed(torch.rand, seeds, result.shape) - 1).to(result) * arguments.noise
    noise[4] = 0
    shown = [torch.cat([part[:MEMBERS], part.mean(0)[None]]) for part in codes]
    z = torch.cat([*shown, result + noise])
    everywhere = None if condition is None else condition.expand(len(z), *condition.shape[1:])
    images = _decoded(model, z, everywhere, arguments.batch_size)
    sheet = _equation(images.split([*map(len, shown), 9]))
    files.write(arguments.out, lambda file: sheet.save(file, "PNG"))
    counts = ", ".join(f"{name} {len(part):,}" for name, part in zip("abc", codes, strict=True))
    print(f"a - b + c of {type(model).__name__} (codes: {counts}) -> {arguments.out}")
    return 0


def _traverse(arguments: argparse.Namespace, more: list[str]) -> int:
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
    _refuse_picture(arguments)
    model, contents = _model(arguments, "traverse", "decode")
    shape = tuple(model.latent_shape)  # type: ignore[attr-defined]
    size, samples = math.prod(shape), hasattr(model, "sample_latents")
    chosen = None
    if arguments.dimensions is not None:
        chosen = _integers("--dimensions", arguments.dimensions)
        if wrong := [k for k in chosen if not 0 <= k < size]:
            raise UserError(f"--dimensions has {wrong[0]}, but the codes have the dimensions 0 to {size - 1}.")
    real = hasattr(model, "encode") and (pca or not samples)
    if not real:
        _refuse_images(arguments, more)
        refuse_without(model, "latents traverse", "sample_latents")
    codes = None
    if real:
        inputs, more = images_of(arguments, more, model, contents)
        _refuse_unknown(model, more, arguments)
        codes = _encoded(model, inputs, arguments)[0]
    else:
        _refuse_unknown(model, more, arguments)
        codes = _of_seeds(model, range(arguments.n), "traverse", arguments)
    condition = _condition(model, 1, arguments)
    count = arguments.count or min(10, size)
    if not pca:
        rows = list(range(count)) if chosen is None else chosen
        if chosen is None and count > size:
            raise UserError(f"--count is {count}, but the codes have {size} dimensions.")
        deviation = codes.flatten(1).std(0)
        steps = torch.diag(deviation)[rows].unflatten(1, shape)
        names = [f"dimension {k}" for k in rows]
    else:
        if real:
            steps = principal_steps(codes, count, arguments.seed)
        else:
            steps = activation_steps(model, codes, count, _condition(model, len(codes), arguments), arguments.seed)
        names = [f"direction {k + 1}" for k in range(count)]
    middle = _of_seeds(model, [arguments.seed], "traverse", arguments)[0] if samples else codes.mean(0)
    multiples = torch.linspace(-arguments.extent, arguments.extent, arguments.steps)
    moved = traverse(middle, steps, multiples).flatten(0, 1)
    everywhere = None if condition is None else condition.expand(len(moved), *condition.shape[1:])
    images = _decoded(model, moved, everywhere, arguments.batch_size)
    sheet = enlarged(grid(images, arguments.steps))
    files.write(arguments.out, lambda file: sheet.save(file, "PNG"))
    rows_of = images.unflatten(0, (len(steps), arguments.steps))
    change = (rows_of[:, -1] - rows_of[:, 0]).abs().flatten(1).mean(1) / 2  # of the range of the pixels
    listed = ", ".join(f"{name} {100 * value:.1f}%" for name, value in zip(names, change.tolist(), strict=True))
    print(f"mean change of a pixel between the ends of a row: {listed}")
    print(
        f"{len(steps)} rows from -{arguments.extent:g} to {arguments.extent:g} standard deviations -> {arguments.out}"
    )
    return 0


def _manifold(arguments: argparse.Namespace, more: list[str]) -> int:
    from genbench.analysis.latents import quantile_grid
    from genbench.core.image_grid import enlarged, grid

    refuse_below(1, {"--side": arguments.side, "--batch-size": arguments.batch_size})
    _refuse_picture(arguments)
    model, _ = _model(arguments, "manifold", "decode", "sample_latents")
    _refuse_unknown(model, more, arguments)
    shape, side = tuple(model.latent_shape), arguments.side  # type: ignore[attr-defined]
    if shape != (2,):
        raise UserError(
            f"The codes of this {type(model).__name__} have the shape {'×'.join(map(str, shape))}, but `latents "
            "manifold` needs 2 dimensions. Train with `--model.latent_dim 2`, or use `latents traverse`."
        )
    z = quantile_grid(side).flatten(0, 1).to(model.device)
    if getattr(model, "prior", "normal") == "uniform":  # on [-1, 1]
        z = 2 * z.double().mul(0.5**0.5).erf().add(1).div(2).float() - 1
    images = _decoded(model, z, _condition(model, side * side, arguments, one=True), arguments.batch_size)
    sheet = enlarged(grid(images, side, gap=0))
    files.write(arguments.out, lambda file: sheet.save(file, "PNG"))
    print(f"{side}×{side} images at the quantiles of the prior -> {arguments.out}")
    return 0


def _project(arguments: argparse.Namespace, more: list[str]) -> int:
    import torch
    from rich.progress import Progress

    from genbench.analysis.projection import project, total_steps
    from genbench.core.batch import from_stored
    from genbench.core.image_grid import enlarged, grid

    counts = {"--steps": arguments.steps, "--starts": arguments.starts, "--candidates": arguments.candidates}
    refuse_below(1, counts | {"--batch-size": arguments.batch_size})
    refuse_below(0, {"--prior-weight": arguments.prior_weight})
    if not 0 < arguments.lr < float("inf"):
        raise UserError(f"--lr is {arguments.lr}; expected a number above 0.")
    out = arguments.out
    refuse_used(out, arguments.overwrite)
    model, contents = _model(arguments, "project", "decode", "sample_latents")
    inputs, more = images_of(arguments, more, model, contents)
    _refuse_unknown(model, more, arguments)
    condition = _labels(model, inputs, arguments) if model.conditional else None
    settings = {name: getattr(arguments, name) for name in ("steps", "starts", "candidates", "lr", "prior_weight", "seed")}
    parts, targets = [], []
    blocks = torch.arange(len(inputs)).split(arguments.batch_size)
    with Progress(transient=True) as bar:
        task = bar.add_task("Projecting", total=len(blocks) * total_steps(arguments.steps, arguments.starts))
        for rows in blocks:
            images = from_stored(inputs.images.images(rows)).to(model.device)
            given = None if condition is None else condition[rows.to(condition.device)]
            parts.append(project(model, images, given, **settings, advance=lambda: bar.advance(task)))
            targets.append(images[:SHOWN].cpu())
    codes, psnr = torch.cat([part.codes for part in parts]), torch.cat([part.psnr for part in parts]).cpu()
    shown = min(SHOWN, len(parts[0].codes))
    target, path = targets[0][:shown], parts[0].path[:shown].transpose(0, 1)  # [frames, shown, *latent]
    again = None if condition is None else condition[:shown].repeat(len(path), *[1] * (condition.ndim - 1))
    steps = _decoded(model, path.flatten(0, 1), again, arguments.batch_size).unflatten(0, (-1, shown))
    frames = [enlarged(grid(torch.cat([target, step]), shown)) for step in steps]
    names = [inputs.name(row) for row in range(len(inputs))]
    write_codes(out / "codes.npz", codes, model, names)
    table = _csv([("image", "psnr"), *((name, f"{value:.3f}") for name, value in zip(names, psnr.tolist(), strict=True))])
    files.write(out / "psnr.csv", lambda file: file.write(table))
    files.write(out / "projection.png", lambda file: frames[-1].save(file, "PNG"))
    _write_animation(out / "path.gif", frames, [80] * (len(frames) - 1) + [2000])
    print(
        f"{len(names)} images projected: PSNR median {psnr.median():.1f} dB, lowest {psnr.min():.1f} dB -> "
        f"{out}/codes.npz, psnr.csv, projection.png, path.gif"
    )
    return 0


ADD = {
    "interpolate": _add_interpolate,
    "arithmetic": _add_arithmetic,
    "traverse": _add_traverse,
    "manifold": _add_manifold,
    "project": _add_project,
}
RUN = {
    "interpolate": _interpolate,
    "arithmetic": _arithmetic,
    "traverse": _traverse,
    "manifold": _manifold,
    "project": _project,
}

# ---- what they share ------------------------------------------------------------------------------------------------


def _model(arguments: argparse.Namespace, action: str, *methods: str) -> tuple[GenerativeModule, dict[str, Any]]:
    """The model and its checkpoint, if it has the methods, latents of real numbers, and images."""
    model, contents = model_of(arguments)
    name = type(model).__name__
    refuse_without(model, f"latents {action}", *methods)
    if model.latent_dtype != "float32":  # type: ignore[attr-defined]
        raise UserError(
            f"The latents of {name} are discrete (int64), but `latents {action}` needs real numbers. Use a model such "
            "as VAE or DCGAN."
        )
    if len(model.spec.shape) == 1:
        raise UserError(f"This {name} was trained on points, but `latents {action}` draws images. Use other data.")
    _condition(model, 1, arguments)  # raises UserError for a wrong --label or --prompt, before long work
    return model, contents


def _condition(model: GenerativeModule, n: int, arguments: argparse.Namespace, one: bool = False) -> Any:
    """The condition of n images on the model's device: `--label` or `--prompt`, else every class in turn, or with `one`
    the first class; None for an unconditional decoder."""
    from genbench.cli.sample import condition_of

    if one:
        found = _condition(model, 1, arguments)
        return None if found is None else found.expand(n, *found.shape[1:])
    found = condition_of(model, n, arguments.label, arguments.prompt)
    return None if found is None else found.to(model.device)


def _labels(model: GenerativeModule, inputs: Inputs, arguments: argparse.Namespace) -> Any:
    """The condition of each input image: `--label` or `--prompt`, else its own label."""
    if arguments.label is None and arguments.prompt is None and model.spec.target == "label":
        known = inputs.label is not None and inputs.classes == tuple(model.spec.classes)
        if not known or bool((inputs.label < 0).any()):  # type: ignore[operator]
            raise UserError(
                f"{type(model).__name__} needs the class of each image, and {inputs.images.name} does not have the "
                "model's classes. Use `--label`, or folders with the names of the classes: "
                f"{', '.join(model.spec.classes)}."
            )
        return inputs.label.to(model.device)  # type: ignore[union-attr]
    return _condition(model, len(inputs), arguments)


def _encoded(model: GenerativeModule, inputs: Inputs, arguments: argparse.Namespace) -> tuple[Tensor, Tensor | None]:
    """Codes [N, *latent] of images, and the condition [N, ...] that they were encoded with, if any."""
    import torch

    from genbench.analysis.latents import encode
    from genbench.core.capabilities import takes_condition

    label = _labels(model, inputs, arguments) if takes_condition(model.encode) else None  # type: ignore[attr-defined]
    codes, begin = [], 0
    for x in inputs.batches(arguments.batch_size, str(model.device), "Encoding"):
        codes.append(encode(model, x, None if label is None else label[begin : begin + len(x)]))
        begin += len(x)
    return torch.cat(codes), label


def _of_seeds(model: GenerativeModule, seeds: Sequence[int], action: str, arguments: argparse.Namespace) -> Tensor:
    import torch

    refuse_without(model, f"latents {action}", "sample_latents")
    with torch.no_grad():
        return model.sample_latents(torch.tensor(seeds, device=model.device))  # type: ignore[attr-defined,operator]


def _of_class(images: Inputs, name: str, flag: str) -> Inputs:
    """The images of a class, by name or number."""
    from genbench.evaluation.images import SomeImages

    known = images.classes
    if images.label is None or not known:
        raise UserError(f"{flag} class:{name} needs data with labels, and {images.images.name} has none. Use `--data`.")
    if name not in known and not (name.isdecimal() and len(name) < 10 and int(name) < len(known)):
        raise UserError(f"{flag} class:{name}: unknown class. Choose from: {', '.join(known)}.")
    number = known.index(name) if name in known else int(name)
    rows = (images.label == number).nonzero()[:, 0]
    if not len(rows):
        raise UserError(f"{flag} class:{name}: {images.images.name} has no image of this class.")
    return Inputs(SomeImages(images.images, rows), images.label[rows], known)


def _decoded(model: GenerativeModule, z: Tensor, condition: Tensor | None, batch_size: int) -> Tensor:
    """Images [N, C, H, W] of codes [N, *latent], on the CPU, with a progress bar."""
    import torch
    from rich.progress import Progress

    from genbench.analysis.latents import decode

    images = []
    with Progress(transient=True) as bar:
        task = bar.add_task("Decoding", total=len(z))
        for rows in torch.arange(len(z), device=z.device).split(batch_size):
            images.append(decode(model, z[rows], None if condition is None else condition[rows]).float().cpu())
            bar.advance(task, len(rows))
    return torch.cat(images)


def _operand(flag: str, text: str) -> tuple[str, str]:
    kind, _, value = text.partition(":")
    if kind not in ("seeds", "images", "class", "codes") or not value:
        raise UserError(
            f"{flag} is '{text}'; expected `seeds:1,2,3`, `images:PATH`, `class:NAME` or `codes:FILE`, such as "
            f"`{flag} seeds:1,2,3`."
        )
    return kind, value


def _integers(flag: str, text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{flag} is '{text}'; expected whole numbers, such as 3,17,42.") from error
    if any(abs(number) >= 2**63 for number in found):
        raise UserError(f"{flag} is '{text}'; expected numbers of at most 63 bits.")
    return found


def _refuse_images(arguments: argparse.Namespace, more: list[str]) -> None:
    """Raise UserError if images were given that the command does not use."""
    for flag in ("images", "data", "split"):
        if getattr(arguments, flag) is not None:
            raise UserError(
                f"--{flag} has no effect: these directions follow from sampled latents, not from images. Remove it."
            )


def _refuse_unknown(model: GenerativeModule, more: list[str], arguments: argparse.Namespace) -> None:
    """Raise UserError if a flag is left over."""
    from genbench.cli.sample import own_options

    own_options(model, more, flags=_parser(arguments.action).flags())


def _refuse_picture(arguments: argparse.Namespace) -> None:
    """Raise UserError, before long work, for an `--out` that is no .png, exists, or cannot be written."""
    out = arguments.out
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out} is not a .png; expected the name of a picture, such as {out.stem or 'out'}.png.")
    if out.exists() and not out.is_file():
        raise UserError(f"--out {out} is {files.kind_of(out)} already. Use a different path.")
    files.refuse_unwritable(out.parent, "The picture")
    if out.exists() and not arguments.overwrite:
        raise UserError(f"--out {out} exists already. Use a different path, or add `--overwrite`.")


def _write_animation(path: Path, frames: list[Image], milliseconds: list[int]) -> None:
    """Write a GIF that repeats for ever."""
    files.write(
        path,
        lambda file: frames[0].save(
            file, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0
        ),
    )


def _csv(rows: list[tuple[str, ...]]) -> bytes:
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _equation(parts: Sequence[Tensor]) -> Image:
    """The picture of `a - b + c =`: for each operand its members above their mean, then 3×3 results.

    Args:
        parts: images of a, b and c [n + 1, C, H, W], the mean last; and the results [9, C, H, W]
    """
    from PIL import Image, ImageDraw

    from genbench.core.image_grid import GAP, arranged
    from genbench.core.batch import to_uint8

    factor = max(1, round(64 / parts[0].shape[3]))
    space, sign = 8 * GAP, 24  # pixels between the members and the mean, and of the space for a sign

    def tiles(images: Tensor, columns: int) -> Image.Image:
        made = arranged(to_uint8(images), columns).convert("RGB")
        return made.resize((made.width * factor, made.height * factor), Image.Resampling.NEAREST)

    members, means, result = [tiles(x[:-1], 1) for x in parts[:3]], [tiles(x[-1:], 1) for x in parts[:3]], tiles(parts[3], 3)
    top = max(picture.height for picture in members) + space  # of the means
    height = max(top + means[0].height, result.height)
    sheet = Image.new("RGB", (3 * (means[0].width + sign) + result.width, height), "white")
    draw, left, row = ImageDraw.Draw(sheet), 0, height - means[0].height  # where the means begin
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
