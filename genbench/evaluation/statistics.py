"""Mean and covariance of features, as saved by FID code. They can be used instead of reference images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genbench.core.errors import UserError
from genbench.data.array_file import ArrayFile

# relative to the largest value: allows for rounding in a covariance of 2,048 features computed in float32
TOLERANCE = 1e-4


@dataclass
class Statistics:
    """
    name       name of the file
    mu, sigma  mean [D] and covariance [D, D], float64
    shape      shape of the images that are compared with the statistics; these images are not resized
    hash       hash (16 hex digits) of mu and sigma
    """

    name: str
    mu: Tensor
    sigma: Tensor
    shape: tuple[int, ...] = ()

    @property
    def hash(self) -> str:
        digest = hashlib.sha256(self.mu.numpy().tobytes())
        digest.update(self.sigma.numpy().tobytes())
        return digest.hexdigest()[:16]


def read_statistics(file: ArrayFile) -> Statistics:
    """Read `mu` [D] or [1, D] and `sigma` [D, D] of an .npz, as saved by pytorch-fid, EDM, ADM and others.

    Raises:
        UserError: the arrays are not a mean and a covariance.
    """
    members = file.statistics()
    assert members is not None, "the caller has checked this"
    mean, covariance = (np.asarray(member.array()) for member in members)
    wrong = (
        f"{file.path} has mu {list(mean.shape)} ({mean.dtype}) and sigma {list(covariance.shape)} ({covariance.dtype})"
    )
    if mean.ndim == 2 and len(mean) == 1:
        mean = mean[0]
    kinds = {mean.dtype.kind, covariance.dtype.kind}
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or kinds - set("fiu"):
        raise UserError(f"{wrong}; expected a mean [D] and a covariance [D, D] of numbers.")
    mu, sigma = (torch.from_numpy(np.array(x, dtype=np.float64, order="C")) for x in (mean, covariance))
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise UserError(f"mu or sigma in {file.path} contains NaN or infinity. Compute the statistics again.")
    largest = sigma.abs().max()
    if (sigma - sigma.T).abs().max() > TOLERANCE * largest:
        raise UserError(f"sigma in {file.path} is not a covariance: it is not symmetric.")
    sigma = (sigma + sigma.T) / 2
    least = torch.linalg.eigvalsh(sigma)[0].item()
    if least < -TOLERANCE * largest:
        raise UserError(f"sigma in {file.path} is not a covariance: it has a negative eigenvalue, {least:.3g}.")
    return Statistics(str(file.path), mu, sigma)
