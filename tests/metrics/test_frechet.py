"""The Fréchet distance against SciPy, torchmetrics, torch-fidelity, and closed forms."""

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.datasets import load_digits
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from genbench.core.errors import UserError
from genbench.metrics.frechet import FeatureSums, FrechetDistance, feature_moments, frechet_distance

D = 24


def scipys(mu1, sigma1, mu2, sigma2):
    root = scipy.linalg.sqrtm((sigma1 @ sigma2).numpy()).real
    return ((mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace()).item() - 2 * np.trace(root)


def torchmetrics(mu1, sigma1, mu2, sigma2):
    return _compute_fid(mu1, sigma1, mu2, sigma2).item()


def torch_fidelitys(mu1, sigma1, mu2, sigma2):
    one, two = ({"mu": mu.numpy(), "sigma": sigma.numpy()} for mu, sigma in ((mu1, sigma1), (mu2, sigma2)))
    return fid_statistics_to_metric(one, two, False)[KEY_METRIC_FID]


def features(n, decades=0.0, dims=D):
    """Correlated features whose standard deviations span the given number of powers of ten."""
    mix = torch.linalg.qr(torch.randn(dims, dims, dtype=torch.float64)).Q
    scale = torch.logspace(0, -decades, dims, dtype=torch.float64)
    return (torch.randn(n, dims, dtype=torch.float64) * scale) @ mix + torch.rand(dims, dtype=torch.float64)


def from_factors(x, y):
    """|mu1 - mu2|² + Tr sigma1 + Tr sigma2 - 2 |X Yᵀ|_*, of centered and scaled features, without covariance or
    root."""
    (mu1, a), (mu2, b) = ((z.mean(0), (z - z.mean(0)) / (len(z) - 1) ** 0.5) for z in (x, y))
    nuclear = torch.linalg.svdvals(a @ b.T).sum()
    return ((mu1 - mu2).square().sum() + a.square().sum() + b.square().sum() - 2 * nuclear).item()


@pytest.mark.parametrize("reference", [scipys, torchmetrics, torch_fidelitys])
@pytest.mark.parametrize("decades", [0, 2, 4])
def test_it_equals_other_implementations(reference, decades):
    one, two = feature_moments(features(200, decades)), feature_moments(features(150, decades))
    assert frechet_distance(*one, *two).item() == pytest.approx(reference(*one, *two), rel=1e-6)


@pytest.mark.parametrize(
    ("n", "m", "decades"),
    [(200, 150, 0), (200, 150, 7), (10, 15, 0), (15, 10, 0), (200, 10, 1), (10, 200, 1), (2, 2, 0)],
)
def test_it_is_right_for_ill_conditioned_covariances_and_fewer_images_than_dimensions(n, m, decades):
    x, y = features(n, decades), features(m, decades)
    for a, b in ((x, y), (y, x)):
        distance = frechet_distance(*feature_moments(a), *feature_moments(b)).item()
        assert distance == pytest.approx(from_factors(a, b), rel=1e-7)


def test_it_equals_the_closed_form_for_gaussians_whose_covariances_commute():
    basis = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64)).Q
    s1, s2, mu1, mu2 = torch.rand(4, D, dtype=torch.float64) + 0.1
    sigma1, sigma2 = (basis @ torch.diag(s.square()) @ basis.T for s in (s1, s2))
    expected = (mu1 - mu2).square().sum() + (s1 - s2).square().sum()
    torch.testing.assert_close(frechet_distance(mu1, sigma1, mu2, sigma2), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("n", [10, 200])
def test_it_is_zero_between_a_set_and_itself(n):
    one = feature_moments(features(n, 3))
    assert 0 <= frechet_distance(*one, *one).item() < 1e-9


def test_sets_of_one_image_repeated_are_as_far_apart_as_the_images():
    one, two = feature_moments(torch.zeros(5, 3)), feature_moments(torch.full((5, 3), 2.0))
    assert frechet_distance(*one, *two).item() == 12


def test_moments_are_numpys_mean_and_covariance():
    x = features(50)
    expected = x.numpy().mean(0), np.cov(x.numpy(), rowvar=False)
    for mu, sigma in (feature_moments(x), FeatureSums.of(x).moments()):
        np.testing.assert_allclose(mu, expected[0], rtol=1e-12)
        np.testing.assert_allclose(sigma, expected[1], atol=1e-12)


def test_noise_is_farther_than_blur_and_blur_farther_than_held_out_digits():
    digits = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    real, held_out = digits[::2], digits[1::2]
    blurred = torch.nn.functional.avg_pool2d(held_out, 3, 1, 1, count_include_pad=False)
    noisy = held_out + torch.randn_like(held_out)
    near, middle, far = (
        frechet_distance(*feature_moments(real.flatten(1)), *feature_moments(x.flatten(1)))
        for x in (held_out, blurred, noisy)
    )
    assert 10 * near < middle and 2 * middle < far


def test_its_memory_does_not_grow_with_images():
    metric = FrechetDistance(D)
    sizes = []
    for _ in range(3):
        metric.update(features(30), real=True)
        sizes.append(sum(state.numel() for state in metric.metric_state.values()))
    assert len(set(sizes)) == 1 and sizes[0] == 2 * (1 + D + D**2)


def test_too_few_or_non_finite_features_are_errors():
    metric = FrechetDistance(D)
    metric.update(features(5), real=True)
    metric.update(features(1), real=False)
    with pytest.raises(UserError, match="at least 2 generated images; got 1"):
        metric.compute()
    with pytest.raises(UserError, match="NaN"):
        metric.update(torch.full((2, D), torch.nan), real=True)
    with pytest.raises(UserError, match="at least 2"):
        feature_moments(features(1))
    with pytest.raises(UserError, match="NaN"):
        frechet_distance(*feature_moments(features(9)), *feature_moments(features(9) / 0))
