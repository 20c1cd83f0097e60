"""Samplers of flow models, with the exact velocity of a Gaussian and of a mixture."""

import pytest
import torch

from genbench.samplers.flow import euler, flow_times, midpoint
from tests.helpers.known import Gaussian, Mixture, Unit, orders


def velocity(known):
    def at(x, t):
        clean = known.clean(x, 1 - t, t)
        return (x - (1 - t) * clean) / t - clean

    return at


@pytest.mark.parametrize("sampler", [euler, midpoint])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_every_sampler_recovers_the_linear_map_of_a_gaussian(sampler, shift):
    gaussian, x = Gaussian(), Unit(0).start
    found = sampler(velocity(gaussian), x, flow_times(500, shift))
    expected = gaussian.flow(x, (0.0, 1.0), (1.0, 0.0))
    assert (found - expected).abs().max() < (0.01 if sampler is euler else 5e-5)
    mean, covariance = Unit.moments(found)
    torch.testing.assert_close(mean, Gaussian.mean, atol=0.01, rtol=0)
    torch.testing.assert_close(covariance, Gaussian.covariance, atol=0.01, rtol=0)


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (midpoint, 2)])
def test_points_of_a_mixture_converge_to_its_quantiles_at_the_order_of_the_sampler(sampler, order):
    """On a Gaussian the midpoint method converges faster than it does in general."""
    mixture, u, errors = Mixture(), torch.linspace(0.02, 0.98, 13).double()[:, None], []
    x = mixture.quantiles(u, 0.0, 1.0)
    for n in (50, 100, 200, 400):
        errors.append((mixture.cdf(sampler(velocity(mixture), x, flow_times(n))) - u).abs().max().item())
    assert orders(errors)[-2:] == pytest.approx([order] * 2, abs=0.25)
    assert errors[-1] < (0.01 if order == 1 else 1e-4)
