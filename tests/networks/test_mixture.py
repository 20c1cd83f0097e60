"""A mixture of Gaussians against SciPy's densities and scikit-learn's fit."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture as EM

from genbench.networks.mixture import GaussianMixture


def some(components=3, dim=2, seed=0):
    """A mixture with everything at random."""
    draw = torch.Generator().manual_seed(seed)
    mixture = GaussianMixture(components, dim).double()
    with torch.no_grad():
        for p in mixture.parameters():
            p.copy_(torch.randn(p.shape, generator=draw, dtype=torch.float64) * 0.7)
        mixture.shift.copy_(torch.randn(dim, generator=draw))
        mixture.scale.copy_(torch.rand(dim, generator=draw) + 0.5)
    return mixture


def moments(mixture):
    """Weights, means and covariances in the vectors' own space."""
    scale = mixture.scale.diag()
    inverse = mixture.factors() @ mixture.factors().mT
    covariance = scale @ torch.linalg.inv(inverse) @ scale
    mean = mixture.shift + mixture.scale * mixture.mean
    return (x.detach().numpy() for x in (mixture.weight.softmax(0), mean, covariance))


def test_the_density_equals_scipys():
    mixture = some()
    z = np.random.default_rng(0).normal(size=(20, 2)) * 3
    each = [np.log(w) + multivariate_normal(m, c).logpdf(z) for w, m, c in zip(*moments(mixture), strict=True)]
    assert mixture.log_prob(torch.tensor(z)).detach().numpy() == pytest.approx(logsumexp(each, axis=0), rel=1e-9)


def test_draws_have_the_mixtures_moments_and_depend_on_their_own_seed():
    mixture = some()
    z = mixture.draw(torch.arange(20_000)).detach()
    weight, mean, covariance = moments(mixture)
    whole = weight @ mean
    second = sum(w * (c + np.outer(m, m)) for w, m, c in zip(weight, mean, covariance, strict=True))
    spread = second - np.outer(whole, whole)
    assert np.abs(z.mean(0).numpy() - whole).max() < 4 * np.sqrt(spread.max() / 20_000)
    assert np.cov(z.numpy().T) == pytest.approx(spread, rel=0.1, abs=0.1 * spread.max())
    assert torch.equal(mixture.draw(torch.tensor([7, 3])).detach(), z[[7, 3]])


def test_gradient_descent_fits_as_well_as_expectation_maximization():
    z = some(seed=2).draw(torch.arange(2000)).detach()
    torch.manual_seed(0)
    mixture = GaussianMixture(3, 2).double()
    mixture.begin(z)
    optimizer = torch.optim.Adam(mixture.parameters(), lr=0.03)
    for _ in range(400):
        optimizer.zero_grad()
        nll = -mixture.log_prob(z).mean()
        nll.backward()
        optimizer.step()
    theirs = EM(3, n_init=5, random_state=0).fit(z.numpy()).score(z.numpy())
    assert -nll.item() > theirs - 0.02


def test_it_is_initialized_at_the_first_vectors_only():
    mixture = GaussianMixture(2, 3)
    z = torch.randn(500, 3) * torch.tensor([1.0, 10.0, 0.0]) + 5
    mixture.begin(z)
    torch.testing.assert_close(mixture.shift, z.mean(0))
    torch.testing.assert_close(mixture.scale, z.std(0, correction=0).clamp(min=1e-6))
    mixture.begin(z + 1)
    torch.testing.assert_close(mixture.shift, z.mean(0))
