"""The terms of the evidence lower bound are the densities and divergences that they are named after."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from genbench.objectives.elbo import bernoulli_nll, gaussian_kl, gaussian_nll, reparameterize

HALF = [torch.float16, torch.bfloat16]


def normal(mu, logvar):
    return Independent(Normal(mu, torch.exp(0.5 * logvar)), 1)


def test_gaussian_kl_is_the_divergence_from_the_standard_normal():
    mu, logvar = 2 * torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    expected = kl_divergence(normal(mu, logvar), normal(torch.zeros_like(mu), torch.zeros_like(mu)))
    torch.testing.assert_close(gaussian_kl(mu, logvar), expected, rtol=1e-13, atol=0)


def test_gaussian_kl_is_zero_at_the_prior_and_so_is_its_gradient():
    mu, logvar = (torch.zeros(3, 4, requires_grad=True) for _ in range(2))
    kl = gaussian_kl(mu, logvar)
    kl.sum().backward()
    assert kl.tolist() == [0, 0, 0]
    assert not mu.grad.any() and not logvar.grad.any()


def test_bernoulli_nll_is_minus_the_log_probability_of_black_and_white_pixels():
    logits = 5 * torch.randn(6, 3, 4, 4, dtype=torch.float64)
    white = torch.rand(6, 3, 4, 4).lt(0.5).double()
    expected = -Independent(Bernoulli(logits=logits), 3).log_prob(white)
    torch.testing.assert_close(bernoulli_nll(logits, 2 * white - 1), expected, rtol=1e-13, atol=0)


def test_a_grey_pixel_costs_what_white_and_black_cost_in_its_proportion():
    logits, share = torch.randn(6, 1, 4, 4, dtype=torch.float64), torch.rand(6, 1, 4, 4, dtype=torch.float64)
    pixel = Bernoulli(logits=logits)
    expected = share * pixel.log_prob(torch.ones_like(share)) + (1 - share) * pixel.log_prob(torch.zeros_like(share))
    torch.testing.assert_close(bernoulli_nll(logits, 2 * share - 1), -expected.sum((1, 2, 3)), rtol=1e-13, atol=0)


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
}


@pytest.mark.parametrize("term", TERMS)
def test_terms_in_double_precision_stay_in_it(term):
    a, b = torch.rand(2, 3, 5, dtype=torch.float64)
    assert TERMS[term](a, b).dtype == torch.float64


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("term", TERMS)
def test_terms_of_half_precision_networks_are_computed_in_float32(term, half):
    a, b = torch.rand(2, 3, 500).to(half)
    value = TERMS[term](a, b)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, TERMS[term](a.float(), b.float()), rtol=0, atol=0)
