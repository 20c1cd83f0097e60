"""Models built on another, frozen model, whose checkpoint is read once.

The class name and plain arguments of the part become an argument of the whole model, and its weights a network of it,
so the checkpoint of the whole model does not need the first file.
"""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor

from genbench.core import checkpoint_io, files
from genbench.core.batch import DataSpec
from genbench.core.class_paths import loaded_classes, path_of
from genbench.core.errors import UserError, dimensions
from genbench.core.module import GenerativeModule

Part = str | dict[str, Any]


class OnCodes:
    """For a model of the latents of a frozen `autoencoder`, which encodes and decodes for it."""

    autoencoder: GenerativeModule

    def train(self, mode: bool = True) -> Self:
        """The frozen part stays in eval mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def encode(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, *latent_shape]."""
        return self.autoencoder.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """[B, *latent_shape] -> images [B, C, H, W] in [-1, 1]."""
        return self.autoencoder.decode(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def take(part: Part | None, argument: str, wanted: str) -> tuple[GenerativeModule, dict[str, Any]]:
    """The frozen part, in eval mode, and the description that builds it again.

    Args:
        part: The path of its checkpoint, or its description, which a checkpoint of the whole model has
        argument: Name of the argument, for errors
        wanted: Kind of model that is expected, for errors

    Raises:
        UserError: no part is given, there is no such checkpoint, or its class is not imported.
    """
    if part is None:
        raise UserError(f"Give the checkpoint of {wanted} to build on: `--{argument} PATH`.")
    if isinstance(part, str):
        try:
            path = files.find_checkpoint(part)
        except UserError as error:
            raise UserError(f"{error} Train {wanted} first, or name its checkpoint: `--{argument} PATH`.") from error
        module = checkpoint_io.load(path)
        if isinstance(module, OnCodes):
            raise UserError(
                f"{part} has a {type(module).__name__}, which is itself built on {wanted}. Give the checkpoint of "
                f"{wanted}: `--{argument} PATH`."
            )
        return module, described(module)
    cls = loaded_classes(GenerativeModule).get(part["class"])
    if cls is None:
        raise UserError(f"This model is built on one of class {part['class']}, which is not loaded: import it first.")
    return cls(**part["arguments"]).eval().requires_grad_(False), part


def refuse_other_images(part: GenerativeModule, spec: DataSpec) -> None:
    """Raise UserError if the part was trained on images of another shape or other pixels than those of the data."""
    if part.spec.shape != spec.shape:
        of = [dimensions(each.shape) for each in (part.spec, spec)]
        raise UserError(
            f"This {type(part).__name__} was trained on images of {of[0]}, and the data has {of[1]}. Set `--data.size`."
        )
    if part.spec.binary != spec.binary:
        kinds = ["of black and white" if each.binary else "in all levels" for each in (part.spec, spec)]
        raise UserError(
            f"This {type(part).__name__} was trained on images {kinds[0]}, and the data has them {kinds[1]}. Set "
            f"`--data.binarize {'static' if part.spec.binary else 'none'}`."
        )


def described(module: GenerativeModule) -> dict[str, Any]:
    """Class and arguments of the model as plain types, without its weights."""
    return {"class": path_of(type(module)), "arguments": dict(module.hparams)}
