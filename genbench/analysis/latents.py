"""Latent codes of trained models: encoding and decoding, paths, arithmetic, and directions."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from genbench.core.capabilities import takes_condition
from genbench.core.errors import UserError, refuse_below


@torch.no_grad()
def encode(model: Any, x: Tensor, condition: Tensor | None = None) -> Tensor:
    """Images [B, C, H, W] in [-1, 1] -> codes [B, *latent_shape].

    Args:
        condition: Labels [B], for a model whose encoder takes them; otherwise ignored
    """
    return model.encode(x, condition=condition) if takes_condition(model.encode) else model.encode(x)


@torch.no_grad()
def decode(model: Any, z: Tensor, condition: Tensor | None = None) -> Tensor:
    """Codes [B, *latent_shape] -> images [B, C, H, W] in [-1, 1].

    Args:
        condition: Labels [B] or captions [B, L], for a model whose decoder takes them; otherwise ignored
    """
    return decode_with_grad(model, z, condition)


def decode_with_grad(model: Any, z: Tensor, condition: Tensor | None = None) -> Tensor:
    """Like `decode`, with the gradient with respect to the codes."""
    return model.decode(z, condition=condition) if takes_condition(model.decode) else model.decode(z)


def interpolate(a: Tensor, b: Tensor, steps: int, path: Literal["linear", "spherical"] = "linear") -> Tensor:
    """Codes from a to b [N, *latent] -> [N, steps, *latent]. The first is a and the last is b, exactly.

    Args:
        path: A straight line; or spherical interpolation, which keeps the length typical of Gaussian codes (White
            2016, "Sampling Generative Networks", section 2.1; Shoemake 1985). The direction of the code
            turns at a constant speed. The path is a straight line if a and b have the same or opposite directions

    Raises:
        UserError: fewer than 2 steps.
    """
    refuse_below(2, {"steps": steps})
    start, end = a.flatten(1)[:, None], b.flatten(1)[:, None]  # [N, 1, D]
    t = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device)[:, None]  # [steps, 1]
    if path == "spherical":
        # more accurate than the arc cosine for small angles (Kahan 2006, section 12)
        u, v = normalize(start, dim=2), normalize(end, dim=2)
        angle = 2 * torch.atan2((u - v).norm(dim=2, keepdim=True), (u + v).norm(dim=2, keepdim=True))  # [N, 1, 1]
        straight = angle.sin() < 1e-4
        sine = torch.where(straight, 1.0, angle.sin())
        before = torch.where(straight, 1 - t, ((1 - t) * angle).sin() / sine)
        after = torch.where(straight, t, (t * angle).sin() / sine)
    else:
        before, after = 1 - t, t
    codes = before * start + after * end
    codes[:, 0], codes[:, -1] = start[:, 0], end[:, 0]  # without rounding
    return codes.unflatten(2, a.shape[1:])


def arithmetic(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """mean(a) - mean(b) + mean(c) of codes [N, *latent] each -> [*latent] (Radford et al. 2016, section 6.3.2).

    If b and c are equal, the result is exactly the mean of a.
    """
    return a.mean(0) + (c.mean(0) - b.mean(0))


def principal_steps(codes: Tensor, count: int) -> Tensor:
    """Codes [N, *latent] -> their first `count` principal directions, times the standard deviation along each.

    Returns:
        [count, *latent], the direction with the largest variance first

    Raises:
        UserError: there are fewer than `count` + 1 codes, or fewer than `count` dimensions.
    """
    found, _ = _principal(codes.flatten(1).double(), count, "dimensions")
    steps = found.components_ * np.sqrt(found.explained_variance_)[:, None]
    return torch.from_numpy(steps).to(codes).unflatten(1, codes.shape[1:])


def activation_steps(model: Any, z: Tensor, count: int, condition: Tensor | None = None) -> Tensor:
    """Directions in the latent space of a GAN, from principal directions of the activations of its first layer.

    The latents of a GAN have no principal directions, because their dimensions are independent and have the same
    variance. GANSpace (Härkönen et al. 2020, section 2.2, for BigGAN) computes the principal components of the
    activations, and then the linear regression of the latents on the principal coordinates.

    Args:
        z: Latents [N, *latent]
        count: Number of directions
        condition: Labels [N] or captions [N, L], for a conditional decoder

    Returns:
        [count, *latent]: the change of z for one standard deviation along each direction, the direction with the
        largest variance of the activations first

    Raises:
        UserError: as in `principal_steps`; or the decoder has no linear or convolutional layer.
    """
    y = first_activations(model, z, condition)  # [N, F]
    found, x = _principal(y, count, "dimensions of the first layer")
    latents = z.flatten(1).double().cpu().numpy()
    # the coordinates are uncorrelated, so the joint regression is one regression for each of them
    slopes = x.T @ (latents - latents.mean(0)) / np.square(x, dtype=np.float64).sum(0)[:, None]  # [count, D]
    steps = slopes * np.sqrt(found.explained_variance_)[:, None]
    return torch.from_numpy(steps).to(z).unflatten(1, z.shape[1:])


def _principal(data: Tensor, count: int, what: str) -> tuple[Any, Any]:
    """scikit-learn's PCA of [N, D], and the principal coordinates [N, count]."""
    from sklearn.decomposition import PCA

    most = min(data.shape[1], len(data) - 1)
    if not 1 <= count <= most:
        raise UserError(
            f"{count} principal directions of {len(data):,} codes with {data.shape[1]:,} {what}; expected 1 to {most}."
        )
    values = data.cpu().numpy()
    with np.errstate(invalid="ignore"):  # it divides by the total variance, which is 0 for equal codes
        found = PCA(count, random_state=0).fit(values)
    return found, found.transform(values)


def first_activations(model: Any, z: Tensor, condition: Tensor | None = None, batch_size: int = 256) -> Tensor:
    """The output [N, F] of the decoder's first linear or convolutional layer whose input depends on z [N, *latent].

    Raises:
        UserError: there is no such layer.
    """
    kept: list[Tensor] = []

    def keep(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad and not kept:  # a layer of a caption does not depend on z
            kept.append(output.detach().flatten(1))

    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    handles = [layer.register_forward_hook(keep) for layer in model.modules() if isinstance(layer, kinds)]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    parts = []
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        for rows in torch.arange(len(z), device=z.device).split(batch_size):
            kept.clear()
            with torch.enable_grad():
                given = z[rows].detach().requires_grad_()
                decode_with_grad(model, given, None if condition is None else condition[rows])
            if not kept:
                raise UserError(
                    f"The decoder of {type(model).__name__} has no linear or convolutional layer, but principal "
                    "directions are computed from the activations of one."
                )
            parts.append(kept[0])
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trained:
            parameter.requires_grad_()
    return torch.cat(parts)


def traverse(code: Tensor, steps: Tensor, multiples: Tensor) -> Tensor:
    """Move a code [*latent] along each of K steps [K, *latent], by each of S multiples -> [K, S, *latent]."""
    shape = (1, len(multiples), *[1] * code.ndim)
    return code + multiples.view(shape).to(steps) * steps[:, None]


def quantile_grid(side: int) -> Tensor:
    """A square grid of codes [side, side, 2], the quantiles of a standard normal distribution at (i + 1/2) / side.

    The first coordinate increases to the right and the second upward. Each code represents the same probability
    mass (Kingma & Welling 2014, figure 4).

    Example:
        >>> quantile_grid(1)
        tensor([[[0., 0.]]])
    """
    z = torch.special.ndtri((torch.arange(side, dtype=torch.float64) + 0.5) / side).float()
    return torch.stack([z.expand(side, side), z.flip(0)[:, None].expand(side, side)], 2)
