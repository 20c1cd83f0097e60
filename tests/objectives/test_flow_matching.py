"""Flow matching on straight paths, in one formula each."""

import math
from itertools import permutations

import pytest
import torch
from scipy.stats import kstest, logistic, norm

from genbench.core.noise import Draws
from genbench.objectives.flow_matching import draw_times, log_density, loss, noise_to_signal, pair, paths
from tests.helpers.known import Gaussian


def draws():
    draw = Draws()
    draw.seed("flow")
    return draw


def test_paths_are_straight_lines_from_images_to_noise():
    x, noise = torch.randn(3, 1, 2, 2).double(), torch.randn(3, 1, 2, 2).double()
    assert torch.equal(paths(x, noise, torch.zeros(3))[0], x) and torch.equal(paths(x, noise, torch.ones(3))[0], noise)
    t = torch.tensor([0.2, 0.5, 0.9]).double()
    (here, velocity), (there, _) = paths(x, noise, t), paths(x, noise, t + 1e-4)
    torch.testing.assert_close((there - here) / 1e-4, velocity, atol=1e-8, rtol=0)


def test_noise_to_signal_is_at_most_one_million():
    assert [noise_to_signal(t) for t in (0.0, 0.2, 0.5, 1 - 1e-8, 1.0)] == pytest.approx([0, 0.25, 1, 1e6, 1e6])


def test_the_loss_of_the_optimal_velocity_is_the_variance_that_remains():
    """E|noise - x - E[noise - x | point]|² has a closed form for a Gaussian: the conditional variance of noise - x."""
    count, known = 200_000, Gaussian()
    x = known.mean + torch.randn(count, 2).double() @ torch.linalg.cholesky(known.covariance).T
    eye = torch.eye(2).double()
    for t in (0.1, 0.5, 0.9):

        def optimal(point, time, t=t):
            clean = known.clean(point, 1 - t, t)
            return (point - (1 - t) * clean) / t - clean

        found = loss(optimal, x, torch.randn(count, 2).double(), torch.full((count,), t))["mse"]
        total = (1 - t) ** 2 * known.covariance + t**2 * eye
        cross = t * eye - (1 - t) * known.covariance  # covariance of the velocity and the point
        expected = (known.covariance + eye - cross @ torch.linalg.solve(total, cross.T)).trace().item() / 2
        assert found.mean().item() == pytest.approx(expected, abs=4 * found.std().item() / count**0.5)


def test_pairs_have_the_least_sum_of_squared_distances():
    x, noise = torch.randn(6, 1, 2, 2), torch.randn(6, 1, 2, 2)
    found = pair(x, noise)
    cost = lambda chosen: (x - chosen).square().sum().item()  # noqa: E731
    assert cost(found) == pytest.approx(min(cost(noise[list(order)]) for order in permutations(range(6))), rel=1e-6)
    assert torch.equal(found.flatten().sort().values, noise.flatten().sort().values)  # a permutation
    assert cost(found) < cost(noise)


def test_times_are_uniform_or_logit_normal():
    uniform, logit_normal = (draw_times(kind, 20_000, draws()).double() for kind in ("uniform", "logit_normal"))
    assert kstest(uniform.numpy(), "uniform").pvalue > 0.01
    assert kstest(logit_normal.numpy(), lambda t: norm.cdf(logistic.ppf(t))).pvalue > 0.01


def test_half_precision_is_computed_in_float32():
    x = torch.randn(2, 3).half()
    found = loss(lambda point, t: point.half(), x, torch.randn(2, 3).half(), torch.rand(2))["mse"]
    assert found.dtype == torch.float32 and found.shape == (2,)


def exact_velocity(clean):
    """The velocity network of data whose optimal denoiser is clean(x, alpha, sigma)."""

    def net(x, time):
        t = float(time[0])
        if t == 0:
            t = 1e-9
        found = clean(x, 1 - t, t)
        return (x - (1 - t) * found) / t - found

    return net


class Modes:
    """Eight Gaussians of standard deviation `std` on the unit circle, as `Ring`."""

    std = 0.02
    angle = torch.arange(8).double() * torch.pi / 4
    centers = torch.stack([angle.cos(), angle.sin()], 1)

    def log_density(self, x, alpha=1.0, sigma=0.0):
        variance = alpha**2 * self.std**2 + sigma**2
        distances = (x[:, None] - alpha * self.centers).square().sum(2)
        return torch.logsumexp(-distances / (2 * variance), 1) - math.log(8 * 2 * math.pi * variance)

    def clean(self, x, alpha, sigma):
        variance = alpha**2 * self.std**2 + sigma**2
        weight = (-(x[:, None] - alpha * self.centers).square().sum(2) / (2 * variance)).softmax(1)[:, :, None]
        each = self.centers + alpha * self.std**2 / variance * (x[:, None] - alpha * self.centers)
        return (weight * each).sum(1)


def test_the_exact_velocity_of_a_ring_gives_the_exact_density_of_the_mixture():
    modes = Modes()
    torch.manual_seed(0)
    x = modes.centers[torch.randint(8, (40,))] + modes.std * torch.randn(40, 2).double()
    found, error = log_density(exact_velocity(modes.clean), x, tolerance=1e-7)
    torch.testing.assert_close(found, modes.log_density(x), atol=1e-4, rtol=0)
    assert not error.any()


def test_a_tighter_tolerance_gives_a_smaller_error():
    known, x = Gaussian(), torch.randn(20, 2).double()
    expected = torch.distributions.MultivariateNormal(known.mean, known.covariance).log_prob(x)
    errors = [
        (log_density(exact_velocity(known.clean), x, tolerance=tolerance)[0] - expected).abs().max().item()
        for tolerance in (1e-2, 1e-4, 1e-6)
    ]
    assert errors[0] > 10 * errors[1] > 100 * errors[2] and errors[2] < 1e-5


def test_random_vectors_estimate_the_density_without_bias_and_state_their_standard_error():
    known, x = Gaussian(), torch.randn(400, 2).double()
    expected = torch.distributions.MultivariateNormal(known.mean, known.covariance).log_prob(x)
    torch.manual_seed(0)
    found, error = log_density(exact_velocity(known.clean), x, probes=16)
    scaled = (found - expected) / error
    assert abs(scaled.mean().item()) < 4 / 400**0.5 * scaled.std().item()
    # Student's t with 15 degrees of freedom has a standard deviation of 1.07
    assert scaled.std().item() == pytest.approx(1.07, abs=0.12)
    assert log_density(exact_velocity(known.clean), x[:3], probes=1)[1].isnan().all()
