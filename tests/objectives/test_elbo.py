"""The terms of the evidence lower bound are the densities and divergences that they are named after."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, logistic
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from genbench.objectives.elbo import (
    bernoulli_nll,
    gaussian_kl,
    gaussian_nll,
    importance_bound,
    log_prior_ratio,
    logistic_nll,
    reparameterize,
    with_free_bits,
)

HALF = [torch.float16, torch.bfloat16]


def normal(mu, logvar):
    return Independent(Normal(mu, torch.exp(0.5 * logvar)), 1)


def test_gaussian_kl_is_the_divergence_from_the_standard_normal():
    mu, logvar = 2 * torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    expected = kl_divergence(normal(mu, logvar), normal(torch.zeros_like(mu), torch.zeros_like(mu)))
    torch.testing.assert_close(gaussian_kl(mu, logvar).sum(1), expected, rtol=1e-13, atol=0)


def test_gaussian_kl_is_zero_at_the_prior_and_so_is_its_gradient():
    mu, logvar = (torch.zeros(3, 4, requires_grad=True) for _ in range(2))
    kl = gaussian_kl(mu, logvar)
    kl.sum().backward()
    assert kl.sum(1).tolist() == [0, 0, 0]
    assert not mu.grad.any() and not logvar.grad.any()


def test_bernoulli_nll_is_minus_the_log_probability_of_black_and_white_pixels():
    logits = 5 * torch.randn(6, 3, 4, 4, dtype=torch.float64)
    white = torch.rand(6, 3, 4, 4).lt(0.5).double()
    expected = -Independent(Bernoulli(logits=logits), 3).log_prob(white)
    torch.testing.assert_close(bernoulli_nll(logits, 2 * white - 1), expected, rtol=1e-13, atol=0)


def test_a_gray_pixel_costs_what_white_and_black_cost_in_its_proportion():
    logits, gray = torch.randn(6, 1, 4, 4, dtype=torch.float64), torch.rand(6, 1, 4, 4, dtype=torch.float64)
    pixel = Bernoulli(logits=logits)
    expected = gray * pixel.log_prob(torch.ones_like(gray)) + (1 - gray) * pixel.log_prob(torch.zeros_like(gray))
    torch.testing.assert_close(bernoulli_nll(logits, 2 * gray - 1), -expected.sum((1, 2, 3)), rtol=1e-13, atol=0)


def test_bernoulli_nll_is_finite_where_a_probability_rounds_to_zero():
    nll = bernoulli_nll(torch.full((1, 1, 1, 2), -1000.0), torch.tensor([[[[1.0, -1.0]]]]))
    assert nll.item() == 1000


@pytest.mark.parametrize("sigma", [0.05, 1.0, 3.0])
def test_gaussian_nll_is_minus_the_log_density_of_the_pixels(sigma):
    mean, x = (torch.randn(6, 3, 4, 4, dtype=torch.float64) for _ in range(2))
    expected = -Independent(Normal(mean, sigma), 3).log_prob(x)
    torch.testing.assert_close(gaussian_nll(mean, x, sigma), expected, rtol=1e-13, atol=0)


def test_gaussian_nll_is_lowest_where_the_mean_is_the_image():
    x = torch.rand(2, 1, 4, 4)
    lowest = 16 * (math.log(0.1) + 0.5 * math.log(2 * math.pi))
    assert gaussian_nll(x, x, 0.1).tolist() == pytest.approx([lowest] * 2, rel=1e-6)


def levels(n=256):
    return torch.linspace(-1, 1, n, dtype=torch.float64)


@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 2.0])
@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.001, 0.9])
def test_logistic_probabilities_of_all_levels_sum_to_one_and_are_those_of_scipy(mean, log_scale):
    x = levels().view(256, 1)
    log_p = -logistic_nll(torch.full_like(x, mean), torch.full_like(x, log_scale), x)
    edges = np.concatenate([[-np.inf], levels().numpy()[:-1] + 1 / 255, [np.inf]])
    # on the side of the mean where the tail is small, so that no difference of two numbers near 1 is taken
    law = logistic(mean, math.exp(log_scale))
    below, above = edges[:-1], edges[1:]
    expected = np.where(below > mean, law.sf(below) - law.sf(above), law.cdf(above) - law.cdf(below))
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)
    seen = expected > 1e-200
    np.testing.assert_allclose(log_p.numpy()[seen], np.log(expected[seen]), rtol=1e-8, atol=1e-8)


def test_logistic_nll_is_finite_far_from_the_mean_and_has_a_gradient():
    mean, log_scale = torch.tensor([[-1.0], [0.9]], requires_grad=True), torch.full((2, 1), -6.5, requires_grad=True)
    nll = logistic_nll(mean, log_scale, torch.tensor([[0.5], [-0.2]]))
    nll.sum().backward()
    assert nll.isfinite().all() and mean.grad.isfinite().all() and log_scale.grad.isfinite().all()
    assert mean.grad[0] < 0 < mean.grad[1]  # towards the pixel


def test_the_importance_bound_of_one_sample_is_its_ratio_and_of_equal_ratios_any_of_them():
    w = torch.randn(5, 1)
    assert torch.equal(importance_bound(w), w[:, 0])
    torch.testing.assert_close(importance_bound(w.expand(5, 7)), w[:, 0])


def test_the_ratio_of_prior_and_posterior_is_that_of_their_densities():
    mu, logvar, eps = torch.randn(4, 3).double(), torch.randn(4, 3).double(), torch.randn(4, 6, 3).double()
    z = reparameterize(mu[:, None], logvar[:, None], eps)
    prior, posterior = normal(torch.zeros(3).double(), torch.zeros(3).double()), normal(mu[:, None], logvar[:, None])
    torch.testing.assert_close(log_prior_ratio(eps, z, logvar), prior.log_prob(z) - posterior.log_prob(z))


def test_dimensions_below_the_free_bits_cost_that_much_and_have_no_gradient():
    kl = torch.tensor([[0.1, 2.0], [0.3, 4.0]], requires_grad=True)
    cost = with_free_bits(kl, 0.5)
    assert cost.tolist() == [0.5, 3.0]
    cost.sum().backward()
    assert kl.grad.tolist() == [[0, 0.5], [0, 0.5]]


def test_reparameterized_draws_have_the_posteriors_mean_and_variance():
    mu, logvar = torch.tensor([-2.0, 0.5]), torch.tensor([-3.0, 1.0])
    z = reparameterize(mu, logvar, torch.randn(20_000, 2))
    for k in range(2):
        assert kstest(z[:, k].numpy(), "norm", (mu[k].item(), math.exp(logvar[k] / 2))).pvalue > 0.01


def test_reparameterized_draws_have_gradients_to_mean_and_log_variance():
    mu, logvar = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    eps = torch.randn(4, 3, dtype=torch.float64)
    reparameterize(mu, logvar, eps).sum().backward()
    assert torch.equal(mu.grad, torch.ones_like(mu))
    torch.testing.assert_close(logvar.grad, 0.5 * torch.exp(0.5 * logvar) * eps)


TERMS = {
    "kl": lambda a, b: gaussian_kl(a, b),
    "bernoulli": lambda a, b: bernoulli_nll(a, b),
    "gaussian": lambda a, b: gaussian_nll(a, b, 0.1),
    "logistic": lambda a, b: logistic_nll(a, a, b),
}


@pytest.mark.parametrize("term", TERMS)
def test_terms_in_double_precision_stay_in_double_precision(term):
    a, b = torch.rand(2, 3, 5, dtype=torch.float64)
    assert TERMS[term](a, b).dtype == torch.float64


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("term", TERMS)
def test_terms_of_half_precision_networks_are_computed_in_float32(term, half):
    a, b = torch.rand(2, 3, 500).to(half)
    value = TERMS[term](a, b)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, TERMS[term](a.float(), b.float()), rtol=0, atol=0)
