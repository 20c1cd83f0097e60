"""A model built on another: it takes the other's checkpoint once, and its own then holds all of it.

The part's class name and plain arguments become an argument of the whole, its weights a network of the whole, so that
the whole's checkpoint works with the first file deleted.
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
    """For a model of the codes of a frozen `autoencoder`: it codes and decodes as that one does."""

    autoencoder: GenerativeModule

    def train(self, mode: bool = True) -> Self:
        """The frozen part stays in eval mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def encode(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> codes [B, *latent_shape]."""
        return self.autoencoder.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Codes [B, *latent_shape] -> images [B, C, H, W] in [-1, 1]."""
        return self.autoencoder.decode(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def take(part: Part | None, argument: str, wanted: str) -> tuple[GenerativeModule, dict[str, Any]]:
    """The frozen part, in eval mode, and the description that builds it again.

    Args:
        part: The path of its checkpoint; or that description, which is what a checkpoint of the whole has
        argument: What the argument is called, and `wanted` what it is to be, for errors

    Raises:
        UserError: nothing is given, there is no such checkpoint, or its class is not loaded.
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
                f"{part} is of a {type(module).__name__}, which is built on {wanted} itself. Give the checkpoint of "
                f"{wanted}: `--{argument} PATH`."
            )
        return module, described(module)
    cls = loaded_classes(GenerativeModule).get(part["class"])
    if cls is None:
        raise UserError(f"This model is built on one of class {part['class']}, which is not loaded: import it first.")
    return cls(**part["arguments"]).eval().requires_grad_(False), part


def refuse_other_images(part: GenerativeModule, spec: DataSpec) -> None:
    """Raise UserError where the part was trained on images of another shape, or of other pixels, than the data has."""
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
    """What builds an equal one, without its weights: plain types."""
    return {"class": path_of(type(module)), "arguments": dict(module.hparams)}
