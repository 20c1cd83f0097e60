"""The U-Net of diffusion models: Ho et al. 2020, https://arxiv.org/abs/2006.11239, appendix B, with the scale and shift
of Nichol & Dhariwal 2021 and cross-attention to captions as in Rombach et al. 2022."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle, scaled_dot_product_attention, silu

from genbench.core.errors import UserError
from genbench.networks.embedding import Embedding


class UNetDenoiser(nn.Module):
    """Noisy images [B, inputs, H, W], times [B] and conditions -> [B, outputs, H, W].

    The output is zero before training.

    Args:
        inputs, outputs: Channels of the input and the output
        size: Height and width of the images; a multiple of `stride`
        width: Channels at the highest resolution
        patch: Side of the patches whose pixels are the channels of the highest resolution (Luhman & Luhman 2022,
            https://arxiv.org/abs/2207.04316). 2 makes a network of the same width about 4 times as fast
        multipliers: Channels at each resolution, as multiples of `width`; the side is halved between two resolutions
        blocks: Residual blocks at each resolution
        attention: Sides of the resolutions that have self-attention
        heads: Heads of each attention layer
        dropout: Dropout probability in the residual blocks
        times, scale, classes, words, length: As in `genbench.networks.embedding.Embedding`
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        width: int = 64,
        patch: int = 1,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (8,),
        heads: int = 4,
        dropout: float = 0.0,
        **embedding: Any,
    ) -> None:
        super().__init__()
        if not multipliers:
            raise UserError("model.network.multipliers is empty; it must contain at least one number, such as [1, 2].")
        self.patch, self.stride = patch, patch * 2 ** (len(multipliers) - 1)
        if size % self.stride:
            patches = f"has patches of {patch}×{patch} pixels and " if patch > 1 else ""
            raise UserError(
                f"This U-Net {patches}halves the side {len(multipliers) - 1} times, so images need sides that are "
                f"multiples of {self.stride}, but these have {size} pixels per side. Set `--data.size`, or fewer "
                "`--model.network.multipliers`."
            )
        size, inputs, outputs = size // patch, inputs * patch**2, outputs * patch**2
        dims, tokens = 4 * width, bool(embedding.get("words"))
        self.embedding = Embedding(dims, **embedding)
        self.first = nn.Conv2d(inputs, width, 3, padding=1)

        def attend(side: int, channels: int) -> nn.Module | None:
            return Attention(channels, heads, dims if tokens else 0) if side in attention else None

        channels, skips = width, [width]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for k, multiplier in enumerate(multipliers):
            side = size // 2**k
            for _ in range(blocks):
                self.down.append(Stage(channels, width * multiplier, dims, dropout, attend(side, width * multiplier)))
                channels = width * multiplier
                skips.append(channels)
            if k < len(multipliers) - 1:
                self.down.append(Down(channels))
                skips.append(channels)
        self.middle = nn.ModuleList([
            Stage(channels, channels, dims, dropout, Attention(channels, heads, dims if tokens else 0)),
            Stage(channels, channels, dims, dropout),
        ])  # fmt: skip
        for k, multiplier in reversed(list(enumerate(multipliers))):
            side = size // 2**k
            for _ in range(blocks + 1):
                self.up.append(
                    Stage(channels + skips.pop(), width * multiplier, dims, dropout, attend(side, width * multiplier))
                )
                channels = width * multiplier
            if k:
                self.up.append(Up(channels))
        self.norm, self.last = normalization(width * multipliers[0]), nn.Conv2d(channels, outputs, 3, padding=1)
        zero_(self.last)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        vector, tokens, mask = self.embedding(time, condition)
        vector = silu(vector)
        x = x.to(self.first.weight.dtype)  # models compute in float32 outside of their networks
        x = pixel_unshuffle(x, self.patch)  # [B, inputs·patch², H/patch, W/patch]
        h = self.first(x.contiguous(memory_format=torch.channels_last))
        seen = [h]
        for layer in self.down:
            h = layer(h, vector, tokens, mask)
            seen.append(h)
        for layer in self.middle:
            h = layer(h, vector, tokens, mask)
        for layer in self.up:
            h = layer(h if isinstance(layer, Up) else torch.cat([h, seen.pop()], 1), vector, tokens, mask)
        return pixel_shuffle(self.last(silu(self.norm(h))), self.patch)


class Stage(nn.Module):
    """A residual block whose features are scaled and shifted by the embedding, and attention after it, if there is any:
    [B, inputs, H, W] -> [B, outputs, H, W]."""

    def __init__(
        self, inputs: int, outputs: int, dims: int, dropout: float, attention: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.norm1, self.conv1 = normalization(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(dims, 2 * outputs)
        self.norm2, self.dropout = normalization(outputs), nn.Dropout(dropout)
        self.conv2 = zero_(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = attention

    def forward(self, x: Tensor, vector: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        scale, shift = self.modulation(vector)[:, :, None, None].chunk(2, 1)  # [B, outputs, 1, 1]
        h = self.conv1(silu(self.norm1(x)))
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        h = self.skip(x) + self.conv2(self.dropout(silu(h)))
        return h if self.attention is None else self.attention(h, tokens, mask)


class Down(nn.Module):
    """[B, C, H, W] -> [B, C, H/2, W/2]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        return self.conv(x)


class Up(nn.Module):
    """[B, C, H, W] -> [B, C, 2H, 2W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))


class Attention(nn.Module):
    """Self-attention over all positions [B, C, H, W], and cross-attention to tokens [B, L, dims] if `dims` is not 0."""

    def __init__(self, channels: int, heads: int, dims: int = 0) -> None:
        super().__init__()
        if channels % heads:
            raise UserError(
                f"Attention over {channels} channels cannot be divided into {heads} heads. Set "
                "`--model.network.width` to a multiple of `--model.network.heads`."
            )
        self.heads = heads
        self.norm, self.qkv = normalization(channels), nn.Linear(channels, 3 * channels)
        self.output = zero_(nn.Linear(channels, channels))
        if dims:
            self.norm_cross, self.query = normalization(channels), nn.Linear(channels, channels)
            self.key_value = nn.Linear(dims, 2 * channels)
            self.output_cross = zero_(nn.Linear(channels, channels))

    def forward(self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        x = x + _image(self.output(attend(*self.qkv(_sequence(self.norm(x))).chunk(3, 2), heads=self.heads)), x)
        if tokens is None:
            return x
        query = self.query(_sequence(self.norm_cross(x)))
        found = attend(query, *self.key_value(tokens).chunk(2, 2), heads=self.heads, mask=mask)
        return x + _image(self.output_cross(found), x)


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: int, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention: queries [B, N, C], keys and values [B, L, C] -> [B, N, C]. `mask` [B, L] is False at keys
    that are left out."""
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (query, key, value))  # [B, heads, N, C/heads]
    chosen = None if mask is None else mask[:, None, None, :]
    return scaled_dot_product_attention(q, k, v, chosen).transpose(1, 2).flatten(2)


def normalization(channels: int) -> nn.GroupNorm:
    """Group normalization with 32 groups, or the largest smaller power of two that divides the channels into groups of
    at least 4, as in the networks of Karras et al. 2022. Groups of one channel would remove its mean."""
    groups = 32
    while groups > 1 and (channels % groups or channels < 4 * groups):
        groups //= 2
    return nn.GroupNorm(groups, channels)


def zero_(layer: nn.Module) -> nn.Module:
    """Set all parameters to zero. With such a last layer, a residual branch is the identity before training."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _sequence(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H·W, C]."""
    return x.flatten(2).transpose(1, 2)


def _image(x: Tensor, like: Tensor) -> Tensor:
    """[B, H·W, C] -> [B, C, H, W]."""
    return x.transpose(1, 2).unflatten(2, like.shape[2:])
