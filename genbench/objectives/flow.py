"""The likelihood of a normalizing flow, in nats."""

from __future__ import annotations

import math

from torch import Tensor, nn

from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.objectives.pixels import LEVELS


def log_density(flow: nn.Module, x: Tensor) -> Tensor:
    """log p(x) = log N(z; 0, I) + log |det dz/dx| with z, log |det| = flow(x), [B, ...] -> [B] nats.

    For images, p is a density per level (2/255 of [-1, 1]), and x is dequantized. Its expectation over uniform noise is
    a lower bound of the log-probability of the 8-bit image (Theis et al. 2016, "A note on the evaluation of generative
    models", section 3.1). For points it is the plain density.
    """
    z, log_det = flow(x)
    log_p = log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
    return log_p - math.log(LEVELS) * z.shape[1] if x.ndim == 4 else log_p


def refuse_misfits(spec: DataSpec, levels: int) -> None:
    """Raise UserError for data that a multi-scale flow cannot model: black and white pixels, or images that cannot be
    halved `levels` times."""
    if len(spec.shape) == 1:
        return
    if spec.binary:
        raise UserError(
            "A normalizing flow models the density of dequantized pixels with 256 levels, but this data has only black "
            "and white pixels. Remove `--data.binarize`."
        )
    if spec.size % 2**levels:
        fitting = next((n for n in range(levels - 1, 0, -1) if spec.size % 2**n == 0), 0)
        fewer = f", or `--model.levels {fitting}`" if fitting else ""
        up = (spec.size // 2**levels + 1) * 2**levels if levels < 16 else 2**levels
        raise UserError(
            f"model.levels is {levels}, so the sides of the images must be multiples of {2**levels}, but the data has "
            f"{spec.size}×{spec.size} pixels. Set `--data.size {up}`{fewer}."
        )
