"""Models that contain a frozen, trained model, whose checkpoint is read once.

The class name and the plain arguments of the frozen part become an argument of the whole model, and the part becomes
one of its networks. So the checkpoint of the whole model does not need the part's file.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from genbench.core import checkpoint_io, files
from genbench.core.batch import DataSpec
from genbench.core.class_paths import loaded_classes, path_of
from genbench.core.errors import UserError, dimensions
from genbench.core.module import GenerativeModule

Part = str | dict[str, Any]
EVERYWHERE = (0.0, 1e6)  # default interval of guidance


class OnCodes:
    """Mixin for models of the latents of a frozen `autoencoder`, which encodes and decodes."""

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
    """The frozen part, in eval mode, and the description from which it can be built again.

    Args:
        part: The path of the part's checkpoint; or its description, which the checkpoint of the whole model contains
        argument: Name of the argument, for errors
        wanted: Kind of model that is expected, for errors

    Raises:
        UserError: `part` is None, the checkpoint does not exist, or its class is not imported.
    """
    if part is None:
        raise UserError(f"Set the checkpoint of {wanted} to build on with `--{argument} PATH`.")
    if isinstance(part, str):
        try:
            path = files.find_checkpoint(part)
        except UserError as error:
            raise UserError(f"{error} Train {wanted} first, or set its checkpoint with `--{argument} PATH`.") from error
        module = checkpoint_io.load(path)
        if isinstance(module, OnCodes):
            raise UserError(
                f"{part} contains a {type(module).__name__}, which is itself built on {wanted}. Set the checkpoint of "
                f"{wanted} with `--{argument} PATH`."
            )
        return module, described(module)
    cls = loaded_classes(GenerativeModule).get(part["class"])
    if cls is None:
        raise UserError(
            f"This model contains a model of class {part['class']}, which is not loaded. Import the class first."
        )
    return cls(**part["arguments"]).eval().requires_grad_(False), part


def refuse_other_images(part: GenerativeModule, spec: DataSpec) -> None:
    """Raise UserError if the shape or kind of pixels that the part was trained on differs from the data's."""
    if part.spec.shape != spec.shape:
        of = [
            f"{'points' if len(each.shape) == 1 else 'images'} of {dimensions(each.shape)}"
            for each in (part.spec, spec)
        ]
        what = "Set `--data.size`" if len(part.spec.shape) == len(spec.shape) == 3 else "Use other data"
        raise UserError(f"This {type(part).__name__} was trained on {of[0]}, but the data has {of[1]}. {what}.")
    if part.spec.binary != spec.binary:
        kinds = ["black-and-white" if each.binary else "gray or color" for each in (part.spec, spec)]
        raise UserError(
            f"This {type(part).__name__} was trained on {kinds[0]} images, but the data has {kinds[1]} images. Set "
            f"`--data.binarize {'static' if part.spec.binary else 'none'}`."
        )


def described(module: GenerativeModule) -> dict[str, Any]:
    """The class and arguments of a model as plain types, without its weights."""
    return {"class": path_of(type(module)), "arguments": dict(module.hparams)}


def argument_of(module: GenerativeModule, name: str) -> Any:
    """The value of an argument that the model was built with."""
    return module.hparams.get(name, inspect.signature(type(module).__init__).parameters[name].default)


def refuse_guidance(
    module: GenerativeModule, guidance: float, guide: str, interval: tuple[float, float] = EVERYWHERE
) -> None:
    """Raise UserError if guidance is asked of a model that it has no effect on, or an option has no effect without it.

    Args:
        interval: The options `guidance_from` and `guidance_to`
    """
    if guidance != 1 and not guide and not module.conditional:
        raise UserError(
            f"guidance is {guidance:g}, but this {type(module).__name__} is unconditional. Train with "
            "`--model.conditional true`, or set the checkpoint of a weaker model with `--guide`."
        )
    if guidance != 1 and not guide and module.condition_dropout == 0:
        raise UserError(
            f"guidance is {guidance:g}, but this {type(module).__name__} was trained with `condition_dropout` 0, so "
            "that it does not know images without condition. Set the checkpoint of a weaker model with `--guide`."
        )
    if guidance == 1 and guide:
        raise UserError("guide has no effect with guidance 1. Set `--guidance` to a larger number, such as 2.")
    if guidance == 1 and interval != EVERYWHERE:
        raise UserError(
            "guidance_from and guidance_to have no effect with guidance 1. Set `--guidance` to a larger number, such "
            "as 2, or remove them."
        )
    if interval[0] > interval[1]:
        raise UserError(f"guidance_from is {interval[0]:g} and guidance_to is {interval[1]:g}; it must not be smaller.")


def _equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same weights."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name].cpu(), b[name].to(a[name].dtype).cpu()) for name in a)


def guide_of(module: GenerativeModule, ckpt: str, network: str, same: Sequence[str] = ()) -> nn.Module | None:
    """The network `network` of the model in a checkpoint, for autoguidance of `module`; None if `ckpt` is empty.

    It is loaded once for each model.

    Args:
        same: Arguments of the models that decide what the network's input and output mean

    Raises:
        UserError: the checkpoint does not exist, or contains another class of model, other data, or a model with other
            values of `same`.
    """
    if not ckpt:
        return None
    guides = module.__dict__.setdefault("_guides", {})  # not a network of `module`
    if ckpt not in guides:
        try:
            guide = checkpoint_io.load(files.find_checkpoint(ckpt))
        except UserError as error:
            raise UserError(f"guide: {error}") from error
        if type(guide) is not type(module) or guide.conditional != module.conditional:
            kinds = [
                f"{'a conditional' if m.conditional else 'an unconditional'} {type(m).__name__}"
                for m in (guide, module)
            ]
            raise UserError(f"guide: {ckpt} contains {kinds[0]}, which cannot guide {kinds[1]}.")
        kinds = [f"{'black-and-white ' * m.spec.binary}data of {dimensions(m.spec.shape)}" for m in (guide, module)]
        if kinds[0] != kinds[1]:
            raise UserError(
                f"guide: {ckpt} was trained on {kinds[0]}, but this model on {kinds[1]}. Use a guide that was trained "
                "on the same data."
            )
        conditions = [(m.spec.classes, m.spec.vocabulary) if m.conditional else () for m in (guide, module)]
        if conditions[0] != conditions[1]:
            raise UserError(f"guide: {ckpt} was trained on other classes or captions than this model.")
        for name in same:
            values = [argument_of(m, name) for m in (guide, module)]
            if values[0] != values[1]:
                raise UserError(
                    f"guide: {ckpt} was trained with {name} {values[0]}, but this model with {values[1]}. Use a guide "
                    "that was trained with the same value."
                )
        if isinstance(module, OnCodes) and not _equal(guide.autoencoder, module.autoencoder):
            raise UserError(
                f"guide: {ckpt} was trained in the latents of a different autoencoder. Use a guide that was trained "
                "with the autoencoder of this model."
            )
        guides[ckpt] = getattr(guide, network).to(module.device, module.dtype)
    return guides[ckpt]
