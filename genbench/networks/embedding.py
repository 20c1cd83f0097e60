"""Embeddings of time, class labels and captions, which condition the networks of diffusion and flow models."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genbench.core.errors import UserError
from genbench.core.precision import to_float32


def sinusoidal(time: Tensor, dims: int) -> Tensor:
    """Times [B] -> [B, dims]: cosines and sines at `dims / 2` frequencies from 1 to almost 1/10000 (Vaswani et al.
    2017, section 3.5)."""
    half = dims // 2
    frequency = torch.exp(-math.log(10000) * torch.arange(half, device=time.device) / half)
    angle = to_float32(time)[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], 1)


class Embedding(nn.Module):
    """Times and an optional condition -> a vector for each image, and the tokens of captions for cross-attention.

    The null condition of classifier-free guidance (Ho & Salimans 2022) is the label K, or a caption of padding alone.

    Args:
        dims: Dimensions of the vectors
        times: Number of times per image
        scale: Factor of the times: 1000 for times in [0, 1] as in Ho et al. 2020, who have 1000 time steps. With a
            smaller factor, the embedding changes less with the time
        classes: Number of classes, K, for class labels; otherwise 0
        words: Size of the vocabulary, for captions; otherwise 0
        length: Tokens of a caption, L
    """

    def __init__(
        self, dims: int, times: int = 1, scale: float = 1000.0, classes: int = 0, words: int = 0, length: int = 0
    ) -> None:
        super().__init__()
        self.scale = scale
        self.sinusoids = max(32, dims // 4) // 2 * 2
        self.times = nn.ModuleList(
            nn.Sequential(nn.Linear(self.sinusoids, dims), nn.SiLU(), nn.Linear(dims, dims)) for _ in range(times)
        )
        self.classes, self.words = classes, words
        if classes:
            self.label = nn.Embedding(classes + 1, dims)
        if words:
            self.caption = CaptionEncoder(words, length, dims)

    def forward(self, time: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Times [B] or [B, times], and labels [B], captions [B, L] or None for the null condition.

        Returns vectors [B, dims]; and for captions also tokens [B, 1 + L, dims] and their mask [B, 1 + L], which is
        False at padding.
        """
        columns = time[:, None] if time.ndim == 1 else time
        dtype = next(self.parameters()).dtype
        vector = sum(
            net(sinusoidal(self.scale * columns[:, k], self.sinusoids).to(dtype)) for k, net in enumerate(self.times)
        )  # [B, dims]
        if self.classes:
            null = torch.full((len(time),), self.classes, device=time.device)
            return vector + self.label(null if condition is None else condition), None, None
        if self.words:
            tokens, mask = self.caption(condition, len(time))
            return vector + tokens[:, 0], tokens, mask
        return vector, None, None


class CaptionEncoder(nn.Module):
    """Captions [B, L] of tokens, padded with 0 -> [B, 1 + L, dims] by a Transformer layer, and a mask [B, 1 + L].

    The first token is learned and not part of the caption: it summarizes the caption.

    Raises:
        UserError: `dims` is not a multiple of `heads`.
    """

    def __init__(self, words: int, length: int, dims: int, heads: int = 4) -> None:
        super().__init__()
        if dims % heads:
            raise UserError(
                f"Captions are embedded in {dims} dimensions, which must be a multiple of the {heads} heads of their "
                f"attention layer. Set `--model.network.width` to a multiple of {heads}."
            )
        self.length = length
        self.word = nn.Embedding(words, dims, padding_idx=0)
        self.position = nn.Parameter(0.02 * torch.randn(1 + length, dims))
        self.layer = nn.TransformerEncoderLayer(
            dims, heads, 2 * dims, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, caption: Tensor | None, batch: int) -> tuple[Tensor, Tensor]:
        if caption is None:
            caption = self.position.new_zeros(batch, self.length, dtype=torch.int64)
        mask = torch.cat([caption.new_ones(batch, 1), caption], 1) != 0  # [B, 1 + L]
        words = torch.cat([self.word.weight.new_zeros(batch, 1, self.word.embedding_dim), self.word(caption)], 1)
        return self.layer(words + self.position, src_key_padding_mask=~mask), mask
