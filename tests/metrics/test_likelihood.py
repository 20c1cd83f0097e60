"""Bits per dimension in cases with known values."""

import math

import pytest
import torch
from torch.distributions import Normal

from genbench.core.errors import UserError
from genbench.metrics.likelihood import Likelihood, bits_per_dim


def test_a_uniform_distribution_over_256_levels_takes_8_bits_and_over_2_levels_1_bit():
    assert bits_per_dim(-12 * math.log(256), 12) == pytest.approx(8)
    assert bits_per_dim(torch.tensor([-12 * math.log(2)] * 3, dtype=torch.float64), 12).tolist() == pytest.approx(
        [1] * 3
    )


def test_a_density_of_pixels_in_minus_one_to_one_becomes_that_of_levels():
    """The density of a Gaussian with standard deviation 20, in levels and in pixels, is compared with its entropy."""
    dims = 2000
    normal = Normal(torch.tensor(128.0, dtype=torch.float64), 20)
    levels = 128 + 20 * torch.randn(dims, dtype=torch.float64)
    pixels = Normal(128 / 127.5 - 1, 20 / 127.5).log_prob(levels / 127.5 - 1).sum()
    in_levels = bits_per_dim(normal.log_prob(levels).sum(), dims)
    torch.testing.assert_close(bits_per_dim(pixels - dims * math.log(127.5), dims), in_levels)
    assert in_levels.item() == pytest.approx(normal.entropy().item() / math.log(2), abs=0.05)


def test_the_metric_is_the_mean_over_images():
    metric = Likelihood(4)
    metric.update(torch.tensor([-1.0, -2.0]))
    metric.update(torch.tensor([-6.0]))
    assert metric.compute() == pytest.approx({"nats": -3, "bits_per_dim": 3 / (4 * math.log(2))})


def test_no_images_or_non_finite_likelihoods_are_errors():
    with pytest.raises(UserError, match="at least 1 held-out"):
        Likelihood(4).compute()
    metric = Likelihood(4)
    metric.update(torch.tensor([-torch.inf, 0.0, -torch.nan]))
    with pytest.raises(UserError, match="The likelihoods of 2 of 3 images are NaN or infinite"):
        metric.compute()
