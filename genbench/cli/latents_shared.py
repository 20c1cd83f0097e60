"""What the actions of `latents` have in common: the model, its codes, their images, and the flags."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.cli.inputs import Inputs, model_of, refuse_not_finite, refuse_without
from genbench.core import files
from genbench.core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def float_model(arguments: argparse.Namespace, action: str, *methods: str) -> tuple[Any, dict[str, Any]]:
    """The model and its checkpoint, if it has the methods, latents of real numbers, and images."""
    model, contents = model_of(arguments)
    name = type(model).__name__
    refuse_without(model, f"latents {action}", *methods)
    if model.latent_dtype != "float32":
        raise UserError(
            f"The latents of {name} are discrete (int64), but `latents {action}` needs real numbers. Use a model such "
            "as VAE or DCGAN."
        )
    if len(model.spec.shape) == 1:
        raise UserError(f"This {name} was trained on points, but `latents {action}` draws images. Use other data.")
    condition_for(model, 1, arguments)  # raises UserError for a wrong --label or --prompt, before long work
    return model, contents


def condition_for(model: Any, n: int, arguments: argparse.Namespace) -> Any:
    """The condition [n, ...] on the model's device: `--label` or `--prompt`, else every class in turn; None for an
    unconditional decoder."""
    from genbench.cli.sample import condition_of

    found = condition_of(model, n, arguments.label, arguments.prompt)
    return None if found is None else found.to(model.device)


def same_condition(model: Any, n: int, arguments: argparse.Namespace) -> Any:
    """Like `condition_for`, but the same for all: the first class without `--label`."""
    found = condition_for(model, 1, arguments)
    return None if found is None else found.expand(n, *found.shape[1:])


def labels_of(model: Any, inputs: Inputs, arguments: argparse.Namespace) -> Any:
    """The condition of each input image: `--label` or `--prompt`, else its own label."""
    if arguments.label is None and arguments.prompt is None and model.spec.target == "label":
        label = inputs.label if inputs.classes == tuple(model.spec.classes) else None
        if label is None or bool((label < 0).any()):  # -1 is unknown
            raise UserError(
                f"{type(model).__name__} needs the class of each image, and {inputs.images.name} does not have the "
                "model's classes. Use `--label`, or folders with the names of the classes: "
                f"{', '.join(model.spec.classes)}."
            )
        return label.to(model.device)
    return condition_for(model, len(inputs), arguments)


def encoded(model: Any, inputs: Inputs, arguments: argparse.Namespace) -> tuple[Tensor, Tensor | None]:
    """Codes [N, *latent] of images, and the condition [N, ...] that they were encoded with, if any."""
    import torch

    from genbench.analysis.latents import encode
    from genbench.core.capabilities import takes_condition

    label = labels_of(model, inputs, arguments) if takes_condition(model.encode) else None
    codes, begin = [], 0
    for x in inputs.batches(arguments.batch_size, str(model.device), "Encoding"):
        codes.append(encode(model, x, None if label is None else label[begin : begin + len(x)]))
        refuse_not_finite(model, codes[-1], "codes")
        begin += len(x)
    return torch.cat(codes), label


def of_seeds(model: Any, seeds: Sequence[int], action: str) -> Tensor:
    import torch

    refuse_without(model, f"latents {action}", "sample_latents")
    with torch.no_grad():
        return model.sample_latents(torch.tensor(seeds, device=model.device))


def decoded(model: Any, z: Tensor, condition: Tensor | None, batch_size: int) -> Tensor:
    """Images [N, C, H, W] of codes [N, *latent], on the CPU, with a progress bar."""
    import torch
    from rich.progress import Progress

    from genbench.analysis.latents import decode

    images = []
    with Progress(transient=True) as bar:
        task = bar.add_task("Decoding", total=len(z))
        for rows in torch.arange(len(z), device=z.device).split(batch_size):
            images.append(decode(model, z[rows], None if condition is None else condition[rows]).float().cpu())
            refuse_not_finite(model, images[-1])
            bar.advance(task, len(rows))
    return torch.cat(images)


def integers(flag: str, text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{flag} is '{text}'; expected whole numbers, such as 3,17,42.") from error
    if any(abs(number) >= 2**63 for number in found):
        raise UserError(f"{flag} is '{text}'; expected numbers of at most 63 bits.")
    return found


def refuse_seed(seed: int) -> None:
    if abs(seed) >= 2**62:
        raise UserError(f"--seed is {seed}; expected a number of at most 62 bits.")


def refuse_unknown(model: Any, more: list[str], arguments: argparse.Namespace) -> None:
    """Raise UserError if a flag is left over."""
    from genbench.cli.latents import parser_of
    from genbench.cli.sample import own_options

    own_options(model, more, flags=parser_of(arguments.action).flags())


def refuse_picture(arguments: argparse.Namespace) -> None:
    """Raise UserError, before long work, for an `--out` that is no .png, exists, or cannot be written."""
    out = arguments.out
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out} is not a .png; expected the name of a picture, such as {out.stem or 'out'}.png.")
    if out.exists() and not out.is_file():
        raise UserError(f"--out {out} is {files.kind_of(out)} already. Use a different path.")
    files.refuse_unwritable(out.parent, "The picture")
    if out.exists() and not arguments.overwrite:
        raise UserError(f"--out {out} exists already. Use a different path, or add `--overwrite`.")


def write_animation(path: Path, frames: list[Image], milliseconds: list[int]) -> None:
    """Write a GIF that repeats for ever."""
    files.write(
        path,
        lambda file: frames[0].save(
            file, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0
        ),
    )


def add_condition(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--label", help="class of all images, by name or number, for models trained on labels")
    parser.add_argument("--prompt", help="caption of all images, for models trained on captions")


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=int, default=256, help="images processed at once; changes only the speed")


def add_picture(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--out", type=Path, default=Path(name), help=f"the picture, a .png (default {name})")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --out")


def add_folder(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--out", type=Path, default=Path(name), help=f"folder of the results (default {name})")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that contains files")
