"""Reconstructions and variations of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genbench.analysis.latents import decode, encode
from genbench.core.capabilities import HasPosterior, Reconstructs, takes_condition
from genbench.core.noise import mix, per_seed


@torch.no_grad()
def reconstruct(model: Any, x: Tensor, condition: Tensor | None = None) -> Tensor:
    """Images [B, C, H, W] -> reconstructions [B, C, H, W]: `reconstruct` of the model, or its decoded codes.

    Args:
        condition: Labels [B], for a model whose encoder and decoder take them; otherwise ignored
    """
    if isinstance(model, Reconstructs):
        return model.reconstruct(x)
    return decode(model, encode(model, x, condition), condition)


def noise(shape: tuple[int, ...], images: int, each: int, seed: int = 0, first: int = 0) -> Tensor:
    """Standard normal noise [images, each, *shape]. The noise of a variation depends only on the seed, the
    number of its image and its own number.

    Args:
        images: Number of images
        each: Variations of each image
        first: Number of the first image
    """
    seeds = torch.tensor([mix("vary", seed, i, j) for i in range(first, first + images) for j in range(each)])
    return per_seed(torch.randn, seeds, shape).unflatten(0, (images, each))


@torch.no_grad()
def posterior_samples(
    model: HasPosterior, x: Tensor, eps: Tensor, scale: float = 1.0, condition: Tensor | None = None
) -> Tensor:
    """Codes mu + scale * sigma * eps of the posterior q(z|x); x [B, C, H, W], eps and result [B, V, *latent_shape].

    Args:
        scale: Factor of the posterior's standard deviation: 1 for samples, 0 for its mean
        condition: Labels [B], for a model whose encoder takes them; otherwise ignored
    """
    mu, logvar = (
        model.posterior(x, condition=condition)  # type: ignore[call-arg]  # where the model's own method takes it
        if takes_condition(model.posterior)
        else model.posterior(x)
    )
    return mu[:, None] + scale * torch.exp(0.5 * logvar)[:, None] * eps.to(mu)


def nearby_codes(codes: Tensor, deviation: Tensor, eps: Tensor, scale: float = 0.5) -> Tensor:
    """Codes plus Gaussian noise: codes [B, *latent_shape], eps and result [B, V, *latent_shape].

    Args:
        deviation: Standard deviation of each latent dimension over a data set, [*latent_shape]
        scale: Standard deviation of the noise, as a multiple of `deviation`
    """
    return codes[:, None] + scale * deviation.to(codes) * eps.to(codes)


@torch.no_grad()
def decode_each(model: Any, codes: Tensor, condition: Tensor | None = None, batch_size: int = 256) -> Tensor:
    """Codes of variations [B, V, *latent_shape], and labels [B] -> images [B, V, C, H, W]."""
    flat = codes.flatten(0, 1).split(batch_size)
    labels = [None] * len(flat)
    if condition is not None:
        labels = condition.repeat_interleave(codes.shape[1]).split(batch_size)
    images = torch.cat([decode(model, z, label) for z, label in zip(flat, labels, strict=True)])
    return images.unflatten(0, codes.shape[:2])
