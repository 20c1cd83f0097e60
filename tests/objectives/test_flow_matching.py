"""Flow matching on straight paths, in one formula each."""

from itertools import permutations

import pytest
import torch
from scipy.stats import kstest, logistic, norm

from genbench.core.noise import Draws
from genbench.objectives.flow_matching import draw_times, loss, pair, paths
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
