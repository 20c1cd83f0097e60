"""A small fully connected network for diffusion and flow models of points."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from genbench.networks.embedding import Embedding
from genbench.networks.unet_denoiser import zero_

FREQUENCIES = (math.pi / 2, math.pi, 2 * math.pi)  # for points of about unit variance


class PointDenoiser(nn.Module):
    """Noisy points [B, D], times [B] and conditions -> [B, outputs]. The output is zero before training.

    The first layer also gets sines and cosines of the coordinates, with which small networks learn details that are
    fine compared to the whole set of points (Tancik et al. 2020, "Fourier Features Let Networks Learn High Frequency
    Functions in Low Dimensional Domains"). Of a caption, the network gets only the summary that is part of the
    embedding, not the tokens.

    Args:
        inputs, outputs: Numbers of each point of the input and the output
        width: Features of each hidden layer
        depth: Number of residual layers
        times, scale, classes, words, length: As in `genbench.networks.embedding.Embedding`
    """

    def __init__(self, inputs: int, outputs: int, width: int = 128, depth: int = 3, **embedding: Any) -> None:
        super().__init__()
        self.embedding = Embedding(width, **embedding)
        self.first = nn.Linear(inputs * (1 + 2 * len(FREQUENCIES)), width)
        self.layers = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Linear(2 * width, width)) for _ in range(depth))
        self.last = nn.Sequential(nn.SiLU(), zero_(nn.Linear(width, outputs)))

    def forward(self, x: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        vector, _, _ = self.embedding(time, condition)
        angles = [frequency * x for frequency in FREQUENCIES]
        h = torch.cat([x, *(angle.sin() for angle in angles), *(angle.cos() for angle in angles)], 1)
        h = self.first(h.to(self.first.weight.dtype))
        for layer in self.layers:
            h = h + layer(torch.cat([h, vector], 1))
        return self.last(h)
