"""The sliced Wasserstein distance, compared with SciPy for each direction, and its mathematical properties."""

import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import wasserstein_distance
from sklearn.datasets import load_digits

from genbench.metrics.sliced_wasserstein import project, sliced_wasserstein


def scipys(a, b):
    return sum(wasserstein_distance(a[:, k], b[:, k]) for k in range(a.shape[1])) / a.shape[1]


def sets(n, m):
    return torch.randn(n, 6, dtype=torch.float64), 0.3 + 1.5 * torch.randn(m, 6, dtype=torch.float64)


@pytest.mark.parametrize(("n", "m"), [(100, 100), (300, 100), (50, 200), (1, 1), (1, 30)])
def test_it_equals_scipys_if_one_size_divides_the_other(n, m):
    a, b = sets(n, m)
    assert sliced_wasserstein(a, b).item() == pytest.approx(scipys(a, b), rel=1e-13)


@pytest.mark.parametrize(("n", "m"), [(1000, 297), (640, 1000)])
def test_it_is_close_to_scipys_at_any_sizes(n, m):
    a, b = sets(n, m)
    assert sliced_wasserstein(a, b).item() == pytest.approx(scipys(a, b), rel=0.01)


def test_it_is_zero_between_equal_sets_in_any_order():
    a = torch.randn(50, 1, 4, 4)
    assert sliced_wasserstein(project(a), project(a[torch.randperm(50)])) == 0


def test_neither_the_order_of_the_images_nor_of_the_sets_matters():
    a, b = sets(40, 60)
    value = sliced_wasserstein(a, b)
    assert sliced_wasserstein(a[torch.randperm(40)], b[torch.randperm(60)]) == value
    assert sliced_wasserstein(b, a) == value


def test_a_shifted_set_is_as_far_as_the_shift_reaches_along_each_direction():
    a, shift = torch.rand(30, 1, 4, 4), torch.randn(1, 4, 4)
    directions = project(torch.eye(16).view(16, 1, 4, 4))  # [16, 512]: pixel k's part of every direction
    expected = (shift.flatten().double() @ directions.double()).abs().mean().item()
    assert sliced_wasserstein(project(a), project(a + shift)).item() == pytest.approx(expected, rel=1e-6)


def test_directions_are_fixed_unit_vectors_in_all_directions():
    directions = project(torch.eye(16))
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(512), rtol=0, atol=1e-6)
    # the mean of 512 uniformly distributed unit vectors has a length of about 1/sqrt(512)
    assert directions.mean(1).norm() < 4 / 512**0.5
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(project(torch.eye(16)), directions)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(project(torch.eye(16), seed=1), directions)
    assert project(torch.eye(16), directions=3).shape == (16, 3)


def test_half_precision_images_are_projected_in_float32():
    assert project(torch.rand(3, 1, 4, 4).bfloat16()).dtype == torch.float32


def test_noise_is_farther_than_blur_and_blur_than_images_held_out():
    images = torch.as_tensor(load_digits().images / 8 - 1).float()[:, None]
    images = images[torch.randperm(len(images))]
    seen, held_out = images[:800], images[800:1600]
    blurred = torch.as_tensor(gaussian_filter(seen.numpy(), (0, 0, 1, 1)))
    noise = torch.rand_like(seen) * 2 - 1
    distances = [sliced_wasserstein(project(x), project(held_out)).item() for x in (held_out, seen, blurred, noise)]
    held, other, blur, far = distances
    assert held == 0 and other < blur / 3 and blur < far / 1.5
