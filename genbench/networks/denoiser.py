"""Settings of the networks of diffusion and flow models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from torch import nn

from genbench.core.arguments import Bounds, Checked, Depth, Side, Width
from genbench.core.batch import DataSpec
from genbench.core.errors import UserError, did_you_mean
from genbench.networks.dit import DiT
from genbench.networks.point_denoiser import PointDenoiser
from genbench.networks.unet_denoiser import UNetDenoiser

Dropout = Annotated[float, Bounds(at_least=0, below=1)]

VECTORS, IMAGES = "points or latents that are vectors", "images or latents with sides"
USED = {
    "unet": ("width", "patch", "multipliers", "blocks", "attention", "heads", "dropout"),
    "dit": ("width", "depth", "patch", "heads", "dropout"),
    "mlp": ("width", "depth"),
}


class DenoiserSettings(metaclass=Checked):
    """Settings of a network that gets noisy images, times and conditions. A model gets them as its argument `network`.

    Settings without a default here have the default of the kind's class, and are refused for the other kinds.

    Args:
        kind: unet (`UNetDenoiser`), dit (`DiT`), or mlp (`PointDenoiser`), for points. Default: unet for images, mlp
            for points
        width: Channels at the highest resolution, or features of each patch or layer
        multipliers: unet: channels at each resolution, as multiples of `width`
        blocks: unet: residual blocks at each resolution
        attention: unet: sides of the resolutions that have self-attention; other sides are ignored
        depth: dit, mlp: number of blocks or layers
        patch: unet, dit: side of the patches that images are divided into
        heads: unet, dit: heads of each attention layer
        dropout: unet, dit: dropout probability
    """

    _setting = "model.network"

    def __init__(
        self,
        kind: Literal["unet", "dit", "mlp"] | None = None,
        width: Width | None = None,
        multipliers: Sequence[Width] | None = None,
        blocks: Depth | None = None,
        attention: Sequence[Side] | None = None,
        depth: Depth | None = None,
        patch: Side | None = None,
        heads: Width | None = None,
        dropout: Dropout | None = None,
    ) -> None:
        self.kind = kind
        given = {
            "width": width, "multipliers": multipliers, "blocks": blocks, "attention": attention, "depth": depth,
            "patch": patch, "heads": heads, "dropout": dropout,
        }  # fmt: skip
        self.given: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    @classmethod
    def of(cls, settings: dict[str, Any] | None) -> DenoiserSettings:
        """The settings of a dictionary. Raises UserError if one is unknown."""
        known = [name for name in cls.__init__.__annotations__ if name != "return"]
        for name, value in (settings or {}).items():
            if name not in known:
                near = did_you_mean(name, known)
                raise UserError(f"Unknown `model.network.{name}`. Choose from: {', '.join(known)}.{near}")
            is_list = isinstance(value, (list, tuple))
            if value is not None and is_list != (name in ("multipliers", "attention")):
                wanted = "a single value" if is_list else "a list of numbers, such as [1, 2]"
                raise UserError(f"model.network.{name} is {value!r}; it must be {wanted}.")
        return cls(**settings or {})

    def build(
        self,
        shape: tuple[int, ...],
        spec: DataSpec,
        times: int = 1,
        scale: float = 1000.0,
        per_value: int = 1,
        conditional: bool = False,
    ) -> nn.Module:
        """The network for inputs of `shape`, [C, H, W] or [D].

        Args:
            spec: The data, for the classes or captions of a conditional network
            times, scale: Number of times per image, and their factor, see `genbench.networks.embedding.Embedding`
            per_value: Outputs for each value of the input
            conditional: Whether the network takes labels or captions

        Raises:
            UserError: the kind does not support this shape or setting.
        """
        kind = self.kind or ("mlp" if len(shape) == 1 else "unet")
        if kind not in USED:
            raise UserError(
                f"model.network.kind is '{kind}'. Choose from: {', '.join(USED)}.{did_you_mean(kind, USED)}"
            )
        if (kind == "mlp") != (len(shape) == 1):
            raise UserError(
                f"model.network.kind is {kind}, which is for {VECTORS if kind == 'mlp' else IMAGES}, but this model "
                f"has {VECTORS if len(shape) == 1 else IMAGES}. "
                + ("Set `--model.network.kind mlp`." if len(shape) == 1 else "Remove `--model.network.kind`.")
            )
        for name in self.given:
            if name not in USED[kind]:
                raise UserError(
                    f"model.network.{name} is set, but this network is {kind}, for "
                    f"{VECTORS if kind == 'mlp' else IMAGES}, with the settings {', '.join(USED[kind])}. Remove it; if "
                    f"a config sets it, `--model.network.kind {kind}` drops the settings of other kinds."
                )
        embedding: dict[str, Any] = {"times": times, "scale": scale}
        if conditional and spec.target == "caption":
            embedding |= {"words": len(spec.vocabulary), "length": spec.caption_length}
        elif conditional:
            embedding["classes"] = len(spec.classes)
        inputs, outputs = shape[0], per_value * shape[0]
        if kind == "mlp":
            return PointDenoiser(inputs, outputs, **self.given, **embedding)
        build = UNetDenoiser if kind == "unet" else DiT
        return build(inputs, outputs, shape[-1], **self.given, **embedding)
