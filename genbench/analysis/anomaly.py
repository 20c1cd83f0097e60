"""Anomaly scores: how much an image differs from the training images. A higher score is more anomalous."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from genbench.analysis.latents import encode
from genbench.analysis.projection import project
from genbench.analysis.variations import reconstruct
from genbench.core.capabilities import Encodes, takes_condition
from genbench.core.errors import UserError
from genbench.core.noise import mix
from genbench.core.precision import to_float32
from genbench.metrics.reconstruction import mse

By = Literal["reconstruction", "likelihood", "latent", "discriminator", "projection"]

# score -> methods of a model that it needs; a model's default is the first that it supports
METHODS: dict[By, tuple[str, ...]] = {
    "reconstruction": ("reconstruct",),
    "likelihood": ("log_likelihood",),
    "latent": ("encode",),
    "discriminator": ("discriminate",),
    "projection": ("sample_latents", "decode"),
}
BLOCK = 64  # images that share the noise of a likelihood: a constant, so that scores do not depend on the batch size
SMOOTH = 4 / 224  # standard deviation for heat maps, in image sides (Roth et al. 2022, "PatchCore": 4 of 224 pixels)


def supported(model: Any) -> tuple[By, ...]:
    """The scores that a model supports, in the order of preference."""
    return tuple(by for by in get_args(By) if refusal(model, by) is None)


def refusal(model: Any, by: By) -> str | None:
    """Why a model does not support a score, as the end of a sentence; None if it does."""
    missing = [name for name in METHODS[by] if not hasattr(model, name)]
    if missing:
        return f"has no `{'` and no `'.join(missing)}` method"
    if by == "latent" and isinstance(model, Encodes) and model.latent_dtype != "float32":
        return "has integer codes, which have no distances between them"
    if any(takes_condition(getattr(model, name)) for name in METHODS[by]):
        return "needs the class of an image"
    return None


def reconstruction_error(model: Any, x: Tensor) -> Tensor:
    """The mean squared error of the reconstruction of each image, [B, C, H, W] in [-1, 1] -> [B] float64 in squared
    units of [-1, 1].

    Sakurada & Yairi 2014, "Anomaly Detection Using Autoencoders with Nonlinear Dimensionality Reduction".
    """
    return mse(x, reconstruct(model, x.to(model.dtype)))


def heat_map(model: Any, x: Tensor, smooth: float | None = None) -> Tensor:
    """Where an image is reconstructed badly: `error_map` of images and reconstructions, [B, C, H, W] -> [B, H, W]."""
    return error_map(x, reconstruct(model, x.to(model.dtype)), smooth)


def error_map(x: Tensor, expected: Tensor, smooth: float | None = None) -> Tensor:
    """Squared error of each pixel between images and expected images [B, C, H, W], averaged over channels: [B, H, W].

    Args:
        smooth: Standard deviation, in pixels, of the Gaussian that smooths the error; 0 disables it. The error is
            mirrored at the borders. Default: 4 pixels for a side of 224 pixels, but at least 1
    """
    from scipy.ndimage import gaussian_filter

    error = (to_float32(expected) - to_float32(x)).square().mean(1)
    sigma = max(1.0, SMOOTH * x.shape[-1]) if smooth is None else smooth
    if sigma == 0:
        return error
    return torch.from_numpy(gaussian_filter(error.cpu().numpy(), (0, sigma, sigma), mode="reflect")).to(x.device)


def gaussian(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a Gaussian to codes [N, D]: the mean [D] and the precision [D, D], float64.

    The covariance is shrunk toward a multiple of the identity (Ledoit & Wolf 2004), so that it is
    invertible even for few codes or unused latent dimensions.

    Raises:
        UserError: there are fewer than two codes, or all codes are equal.
    """
    from sklearn.covariance import LedoitWolf

    codes = codes.flatten(1).double().cpu()
    if len(codes) < 2 or bool((codes == codes[:1]).all()):
        raise UserError(f"The {len(codes)} codes of the training images are equal, so they have no covariance.")
    found = LedoitWolf().fit(codes.numpy())
    return torch.from_numpy(found.location_), torch.from_numpy(found.precision_)


def mahalanobis(codes: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """sqrt((z - mean)ᵀ precision (z - mean)), the distance of codes to those of the training images: [N, D] -> [N].

    Denouden et al. 2018, "Improving Reconstruction Autoencoder Out-of-distribution Detection with Mahalanobis
    Distance". The codes of a VAE are its posterior means.

    Args:
        codes: [N, *latent_shape]
        mean: [D]
        precision: [D, D], the inverse of the covariance

    Raises:
        UserError: the codes have a different number of dimensions.
    """
    z = codes.flatten(1).double().cpu()
    if z.shape[1] != len(mean):
        raise UserError(f"The codes have {z.shape[1]} dimensions, but those of the training images have {len(mean)}.")
    difference = z - mean
    return torch.einsum("nd,de,ne->n", difference, precision, difference).clamp(min=0).sqrt()


def scores(
    model: Any,
    images: Tensor | Iterable[Tensor],
    by: By | None = None,
    *,
    training: Tensor | Iterable[Tensor] | None = None,
    seed: int = 0,
    **options: Any,
) -> Tensor:
    """Score images, [N, C, H, W] in [-1, 1] or batches of them -> float64 [N]. A higher score is more anomalous.

    - reconstruction: `reconstruction_error`
    - likelihood: -log p(x) in nats
    - latent: `mahalanobis` distance of the code to the codes of `training`
    - discriminator: the negative logit of being real
    - projection: mean squared error of the nearest image that the generator can draw, which is found by optimization
      (Schlegl et al. 2017, "AnoGAN", who use the absolute error and add a distance of the discriminator's features)

    Args:
        by: The score, one of the list above. Default: the first that the model supports
        training: Training images, for `latent`
        seed: Seed of the noise of a likelihood and of the start of a projection
        options: Options of `log_likelihood` or of `genbench.analysis.projection.project`

    Raises:
        UserError: the model does not support the score, or `training` is missing.
    """
    able = supported(model)
    by = by or next(iter(able), None)
    if by is None or (why := refusal(model, by)) is not None:
        name = type(model).__name__
        given = f"has no anomaly score: it needs one of the methods {', '.join(sum(METHODS.values(), ()))}"
        if by is not None:
            given = f"cannot be scored by {by}: it {why}. It can be scored by: {', '.join(able) or 'nothing'}"
        raise UserError(f"{name} {given}.")
    if by == "latent":
        if training is None:
            raise UserError("The latent distance needs training images: pass `training`.")
        normal = gaussian(torch.cat([encode(model, x.to(model.dtype)).cpu() for x in _batches(training)]))
    found = []
    blocks = _batches(images) if by != "likelihood" else _blocks(_batches(images), BLOCK)
    with torch.no_grad():
        for number, x in zip(count(), blocks, strict=False):
            x = x.to(model.dtype)
            if by == "reconstruction":
                each = reconstruction_error(model, x)
            elif by == "likelihood":
                with torch.random.fork_rng([x.device] if x.is_cuda else []):
                    torch.manual_seed(mix(seed, "likelihood", number))
                    each = -model.log_likelihood(x, **options)
            elif by == "latent":
                each = mahalanobis(encode(model, x), *normal)
            elif by == "discriminator":
                each = -to_float32(model.discriminate(x))
            else:
                each = mse(x, project(model, x, seed=seed, **options).images)
            found.append(each.double().cpu())
    if not found:
        raise UserError("There are no images to score.")
    return torch.cat(found)


def _batches(images: Tensor | Iterable[Tensor]) -> Iterable[Tensor]:
    return images.split(256) if isinstance(images, Tensor) else images


def _blocks(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same images in batches of `size`; the last may be smaller."""
    rest: Tensor | None = None
    for x in batches:
        rest = x if rest is None else torch.cat([rest, x])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if rest is not None and len(rest):
        yield rest


def auroc(values: Tensor, anomalous: Tensor) -> float:
    """Area under the ROC curve: the probability that an anomalous image has a higher score than a normal one, where
    equal scores count half.

    Args:
        values: Scores [N], higher for anomalies
        anomalous: bool [N]

    Raises:
        UserError: all images are normal, or all are anomalous.
    """
    from sklearn.metrics import roc_auc_score

    _refuse_one_kind(anomalous)
    return float(roc_auc_score(anomalous.numpy(), values.double().numpy()))


def average_precision(values: Tensor, anomalous: Tensor) -> float:
    """Average precision of finding the anomalous images: Σ (R_k - R_(k-1)) P_k over decreasing thresholds.

    Its value for random scores is the fraction of anomalous images. The arguments and errors are those of `auroc`.
    """
    from sklearn.metrics import average_precision_score

    _refuse_one_kind(anomalous)
    return float(average_precision_score(anomalous.numpy(), values.double().numpy()))


def _refuse_one_kind(anomalous: Tensor) -> None:
    if not len(anomalous) or bool((anomalous == anomalous[0]).all()):
        kind = "anomalous" if len(anomalous) and anomalous[0] else "normal"
        raise UserError(
            f"All {len(anomalous):,} images are {kind}. AUROC and average precision compare normal with anomalous "
            "images, so both kinds are needed."
        )
