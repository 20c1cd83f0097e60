"""DiT: Peebles & Xie, "Scalable Diffusion Models with Transformers", ICCV 2023, https://arxiv.org/abs/2212.09748, with
adaLN-Zero blocks (section 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from genbench.core.errors import UserError
from genbench.networks.embedding import Embedding, sinusoidal
from genbench.networks.unet_denoiser import attend, zero_


class DiT(nn.Module):
    """Noisy images [B, inputs, H, W], times [B] and conditions -> [B, outputs, H, W].

    The output is zero before training.

    Args:
        inputs, outputs: Channels of the input and the output
        size: Height and width of the images; a multiple of `patch`
        width: Features of each patch
        depth: Number of blocks
        patch: Side of a patch
        heads: Heads of each attention layer
        dropout: Dropout probability in the fully connected layers
        times, scale, classes, words, length: As in `genbench.networks.embedding.Embedding`
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        width: int = 192,
        depth: int = 6,
        patch: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        **embedding: Any,
    ) -> None:
        super().__init__()
        if size % patch:
            raise UserError(
                f"This DiT divides images into patches of {patch}×{patch} pixels, but these have {size} pixels per "
                "side. Set `--data.size` to a multiple, or another `--model.network.patch`."
            )
        if width % heads or width % 4:
            raise UserError(
                f"model.network.width is {width}; it must be a multiple of 4 and of the {heads} heads "
                "(`model.network.heads`)."
            )
        self.patch = patch
        self.embedding = Embedding(width, **embedding)
        self.first = nn.Conv2d(inputs, width, patch, stride=patch)
        self.register_buffer("position", positions(size // patch, width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, bool(embedding.get("words"))) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = zero_(nn.Linear(width, 2 * width))
        self.last = zero_(nn.Linear(width, outputs * patch**2))

    def forward(self, x: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        vector, tokens, mask = self.embedding(time, condition)
        vector = silu(vector)
        h = self.first(x.to(self.first.weight.dtype))  # [B, width, h, w]
        rows = h.shape[2]
        h = h.flatten(2).transpose(1, 2) + self.position.to(h.dtype)  # [B, h·w, width]
        for block in self.blocks:
            h = block(h, vector, tokens, mask)
        scale, shift = self.modulation(vector)[:, None].chunk(2, 2)
        h = self.last(self.norm(h) * (1 + scale) + shift)  # [B, h·w, outputs·p²]
        h = h.unflatten(2, (-1, self.patch, self.patch)).unflatten(1, (rows, rows))  # [B, h, w, outputs, p, p]
        return h.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


class Block(nn.Module):
    """A Transformer block [B, N, width] whose layers are scaled, shifted and gated by the embedding; each gate is zero
    before training. Captions are read by cross-attention, without a gate, as in PixArt (Chen et al. 2023)."""

    def __init__(self, width: int, heads: int, dropout: float, tokens: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False, eps=1e-6) for _ in range(2))
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.modulation = zero_(nn.Linear(width, 6 * width))
        if tokens:
            self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
            self.output_cross = zero_(nn.Linear(width, width))

    def forward(self, x: Tensor, vector: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(vector)[:, None].chunk(6, 2)
        h = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.output(attend(*self.qkv(h).chunk(3, 2), heads=self.heads))
        if tokens is not None:
            found = attend(self.query(x), *self.key_value(tokens).chunk(2, 2), heads=self.heads, mask=mask)
            x = x + self.output_cross(found)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


def positions(side: int, dims: int) -> Tensor:
    """Sinusoidal embeddings of the rows and columns of a grid: [side², dims], half of the dimensions for each."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.cat([sinusoidal(place.flatten(), dims // 2) for place in (row, column)], 1)
