"""What the actions of `latents` have in common: the model, its codes, their images, and the flags."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.cli.flags import own_options
from genbench.cli.inputs import (
    Inputs,
    add_label_argument,
    blocks,
    condition_of,
    condition_of_images,
    encoded,
    model_of,
    refuse_not_finite,
    refuse_points,
    refuse_without,
)
from genbench.core import files
from genbench.core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def float_model(arguments: argparse.Namespace, action: str, *methods: str) -> tuple[Any, dict[str, Any]]:
    """The model and its checkpoint. Raise UserError without the methods, real-valued latents, or images."""
    model, contents = model_of(arguments)
    name = type(model).__name__
    refuse_without(model, f"latents {action}", *methods, real_codes=True)
    if model.latent_dtype != "float32":
        raise UserError(
            f"The latents of {name} are discrete (int64), but `latents {action}` needs real numbers. Use a model such "
            "as VAE or DCGAN."
        )
    refuse_points(model, f"latents {action}")
    condition_of(model, 1, arguments.label, arguments.prompt)  # raises an error of a flag before long work
    return model, contents


def same_condition(model: Any, n: int, arguments: argparse.Namespace) -> Any:
    """Like `condition_of`, but the same for all: the first class without `--label`."""
    found = condition_of(model, 1, arguments.label, arguments.prompt)
    return None if found is None else found.expand(n, *found.shape[1:])


def encoded_with(model: Any, inputs: Inputs, arguments: argparse.Namespace) -> tuple[Tensor, Tensor | None]:
    """Codes [N, *latent] of images, and the condition [N, ...] that they were encoded with, if any."""
    from genbench.core.capabilities import takes_condition

    condition = None
    if takes_condition(model.encode):
        condition = condition_of_images(model, inputs, arguments.label, arguments.prompt)
    return encoded(model, inputs, condition, arguments.batch_size), condition


def of_seeds(model: Any, seeds: Sequence[int], action: str) -> Tensor:
    import torch

    refuse_without(model, f"latents {action}", "sample_latents", real_codes=True)
    with torch.no_grad():
        return model.sample_latents(torch.tensor(seeds, device=model.device))


def decoded(model: Any, z: Tensor, condition: Tensor | None, batch_size: int) -> Tensor:
    """Images [N, C, H, W] of codes [N, *latent], on the CPU, with a progress bar."""
    import torch

    from genbench.analysis.latents import decode

    images = []
    for rows in blocks(len(z), batch_size, "Decoding"):
        rows = rows.to(z.device)
        images.append(decode(model, z[rows], None if condition is None else condition[rows]).float().cpu())
        refuse_not_finite(model, images[-1])
    return torch.cat(images)


def integers(flag: str, text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{flag} is '{text}'; expected whole numbers, such as 3,17,42.") from error
    if any(abs(number) >= 2**63 for number in found):
        raise UserError(f"{flag} is '{text}'; expected numbers of at most 63 bits.")
    return found


def refuse_unknown(model: Any, more: list[str], arguments: argparse.Namespace) -> None:
    """Raise UserError if a flag is unknown."""
    from genbench.cli.latents import parser_of

    own_options(model, more, flags=parser_of(arguments.action).flags())


def write_animation(path: Path, frames: list[Image], milliseconds: list[int]) -> None:
    """Write a GIF that loops forever."""
    files.write(
        path,
        lambda file: frames[0].save(
            file, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0
        ),
    )


def refuse_image_flags(arguments: argparse.Namespace, more: list[str], why: str) -> None:
    """Raise UserError for a flag that selects images, which are not used; `why` ends the sentence."""
    names = [f"--{name}" for name in ("images", "data", "split", "n") if getattr(arguments, name) is not None]
    names += [flag.partition("=")[0] for flag in more if flag.startswith(("--images.", "--data."))]
    if names:
        raise UserError(f"{names[0]} has no effect: {why}. Remove it.")


def add_condition(parser: argparse.ArgumentParser) -> None:
    add_label_argument(parser)
    parser.add_argument("--prompt", help="caption of all images, for models trained on captions")
