"""Projection of images into the latent space of a generator, by optimization of the code."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genbench.analysis.latents import decode, decode_with_grad
from genbench.core.errors import refuse_below
from genbench.metrics.reconstruction import psnr

FIRST = 0.1  # fraction of the steps after which only the best code of an image is kept
DECODED = 256  # candidates decoded at once


@dataclass
class Projection:
    """
    codes   [B, *latent]
    images  decoded codes [B, C, H, W]
    psnr    [B] in dB, at most 54.2 (`genbench.metrics.reconstruction.psnr`)
    path    codes [B, F, *latent] at F evenly spaced steps of the optimization; the last are `codes`
    """

    codes: Tensor
    images: Tensor
    psnr: Tensor
    path: Tensor


def project(
    model: Any,
    images: Tensor,
    condition: Tensor | None = None,
    *,
    steps: int = 300,
    starts: int = 4,
    candidates: int = 512,
    lr: float = 0.1,
    prior_weight: float = 0.0,
    seed: int = 0,
    frames: int = 30,
    advance: Callable[[], object] = lambda: None,
) -> Projection:
    """Find the code of each image: the z for which the squared error of `decode(z)` over all pixels is smallest.

    Adam with a cosine learning-rate schedule starts from the `starts` candidates nearest to the image. After a tenth of
    the steps, only the best code of each image is kept, and the optimization restarts from it with all
    steps. The result of an image does not depend on the other images of the batch, except for the rounding of
    convolutions.

    Args:
        model: A model that samples latents of float32 and decodes them
        images: [B, C, H, W] in [-1, 1]
        condition: Labels [B] or captions [B, L], for a conditional decoder
        steps: Steps of Adam
        starts: Starting points of each image
        candidates: Latents that are decoded to choose the starting points, with the seeds `seed`, `seed` + 1, ...
        lr: Learning rate of the first step
        prior_weight: Weight of the squared norm of z, which is added to the squared error; 1 corresponds to a
            standard normal prior and pixels with a variance of 1
        frames: Steps in the path
        advance: Called after each of the `total_steps(steps)` steps

    Raises:
        UserError: `steps`, `starts`, `candidates` or `frames` is less than 1.
    """
    refuse_below(1, {"steps": steps, "starts": starts, "candidates": candidates, "frames": frames})
    starts = min(starts, candidates)
    z = _nearest(model, images, condition, candidates, starts, seed)  # [B, starts, *latent]
    shape, rows = z.shape[2:], torch.arange(len(images), device=images.device)

    def error(z: Tensor, rows: Tensor) -> Tensor:
        output = decode_with_grad(model, z, None if condition is None else condition[rows])
        squared = (output - images[rows]).flatten(1).square().sum(1)
        return squared + prior_weight * z.flatten(1).square().sum(1)

    def descend(z: Tensor, rows: Tensor, steps: int, keep: set[int]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Codes [N, *latent] -> the best code of each row, its error, and the best codes so far at the steps `keep`."""
        z = z.detach().clone().requires_grad_()
        adam = torch.optim.Adam([z], lr=lr)
        best, least, kept = z.detach().clone(), torch.full((len(z),), math.inf, device=z.device), []
        for step in range(steps + 1):
            with torch.enable_grad():
                errors = error(z, rows)
                (z.grad,) = torch.autograd.grad(errors.sum(), [z])
            better = errors.detach() < least  # a diverging code keeps its best value
            least = torch.where(better, errors.detach(), least)
            best = torch.where(better.view(-1, *[1] * len(shape)), z.detach(), best)
            if step in keep:
                kept.append(best.clone())
            if step < steps:
                adam.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
                adam.step()
                advance()
        return best, least, kept

    if starts > 1:
        first = max(1, round(FIRST * steps))
        best, least, _ = descend(z.flatten(0, 1), rows.repeat_interleave(starts), first, set())
        z = best.unflatten(0, (-1, starts))[rows, least.view(-1, starts).argmin(1)][:, None]
    keep = {round(step) for step in torch.linspace(0, steps, frames).tolist()}
    codes, _, kept = descend(z[:, 0], rows, steps, keep | {steps})
    output = decode(model, codes, condition)
    return Projection(codes, output, psnr(output, images), torch.stack(kept, 1))


def total_steps(steps: int, starts: int) -> int:
    """How often `project` calls `advance`."""
    return steps + (max(1, round(FIRST * steps)) if starts > 1 else 0)


@torch.no_grad()
def _nearest(model: Any, images: Tensor, condition: Tensor | None, candidates: int, count: int, seed: int) -> Tensor:
    """The latents of the `count` candidates whose images are nearest to each image: [B, count, *latent]."""
    seeds = torch.arange(seed, seed + candidates, device=images.device)
    z = model.sample_latents(seeds)
    if condition is None:
        groups, group = [None], torch.zeros(len(images), dtype=torch.int64, device=images.device)
    else:
        unique, group = condition.unique(dim=0, return_inverse=True)
        groups = list(unique)
    found = torch.empty(len(images), count, dtype=torch.int64, device=images.device)
    for number, given in enumerate(groups):
        rows = (group == number).nonzero()[:, 0]
        distances = []
        for part in z.split(DECODED):
            same = None if given is None else given.expand(len(part), *given.shape)
            output = decode(model, part, same).flatten(1)
            # without matrix multiplication, whose rounding depends on the number of images
            distances.append(torch.cdist(images[rows].flatten(1), output, compute_mode="donot_use_mm_for_euclid_dist"))
        found[rows] = torch.cat(distances, 1).topk(count, largest=False).indices
    return z[found]
