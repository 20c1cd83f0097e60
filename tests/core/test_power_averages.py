"""Exponents, decays, inner products and coefficients of power-function averages, against NumPy and SciPy."""

import numpy as np
import pytest
from scipy.integrate import quad

from genbench.core.power_averages import coefficients, decay, exponent, product


def profile(sigma_rel, t):
    """The weight of the state after τ images, as a function of τ."""
    gamma = exponent(sigma_rel)
    return lambda tau: (gamma + 1) * tau**gamma / t ** (gamma + 1) if tau <= t else 0.0


@pytest.mark.parametrize("sigma_rel", [0.005, 0.05, 0.075, 0.1, 0.2, 0.28])
def test_the_exponent_gives_the_length_as_standard_deviation_of_the_profile(sigma_rel):
    p = profile(sigma_rel, 1.0)
    total, mean, square = (quad(lambda tau, k=k: tau**k * p(tau), 0, 1, epsabs=0, epsrel=1e-10)[0] for k in range(3))
    assert total == pytest.approx(1, rel=1e-9)
    assert (square - mean**2) ** 0.5 == pytest.approx(sigma_rel, rel=1e-6)


def test_the_exponent_is_the_positive_root_of_the_cubic_and_that_of_the_paper():
    assert (exponent(0.05), exponent(0.1)) == (pytest.approx(16.97, abs=0.005), pytest.approx(6.94, abs=0.005))
    for sigma_rel in (0.05, 0.1, 0.25):
        roots = np.roots([1, 7, 16 - sigma_rel**-2, 12 - sigma_rel**-2])
        assert [exponent(sigma_rel)] == pytest.approx([root.real for root in roots if root.real > 0])


def test_the_decay_for_one_image_is_that_of_the_paper_and_longer_steps_are_products_of_it():
    assert decay(6.94, 99, 100) == pytest.approx((1 - 1 / 100) ** 7.94, rel=1e-14)
    assert decay(6.94, 0, 100) == 0  # the initial weights have no weight
    steps = np.prod([decay(6.94, t - 1, t) for t in range(51, 101)])
    assert decay(6.94, 50, 100) == pytest.approx(steps, rel=1e-12)


@pytest.mark.parametrize("a", [(0.05, 1.0), (0.1, 0.7), (0.2, 0.3)])
@pytest.mark.parametrize("b", [(0.05, 1.0), (0.05, 0.65), (0.1, 0.7), (0.25, 1.0)])
def test_inner_products_are_those_of_numerical_integration(a, b):
    p, q = profile(*a), profile(*b)
    numerical, _ = quad(lambda tau: p(tau) * q(tau), 0, min(a[1], b[1]), epsabs=0, epsrel=1e-12)
    assert product(exponent(a[0]), a[1], exponent(b[0]), b[1]) == pytest.approx(numerical, rel=1e-8)


@pytest.mark.parametrize("sigma_rel", [0.06, 0.075, 0.095])
def test_coefficients_are_the_least_squares_solution_with_numerical_inner_products(sigma_rel):
    kept = [(one, at / 6) for at in range(3, 7) for one in (0.05, 0.1)]
    profiles, target = [profile(*one) for one in kept], profile(sigma_rel, 1.0)

    def inner(p, q, end):
        return quad(lambda tau: p(tau) * q(tau), 0, end, epsabs=0, epsrel=1e-12)[0]

    products = [[inner(p, q, min(a, b)) for q, (_, b) in zip(profiles, kept, strict=True)]
                for p, (_, a) in zip(profiles, kept, strict=True)]  # fmt: skip
    with_target = [inner(p, target, a) for p, (_, a) in zip(profiles, kept, strict=True)]
    # minimum of xᵀ A x / 2 - bᵀ x with Σ x = 1: A x + λ = b
    count = len(kept)
    system = np.block([[np.array(products), np.ones((count, 1))], [np.ones((1, count)), np.zeros((1, 1))]])
    expected = np.linalg.solve(system, [*with_target, 1])[:-1]
    assert coefficients(kept, sigma_rel, 1.0) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("count", [2, 20, 200])
def test_the_distance_to_the_profile_falls_with_the_number_of_snapshots(count):
    t = 1_000_000
    kept = [(one, t * k // count) for k in range(1, count + 1) for one in (0.05, 0.1)]
    x, target = coefficients(kept, 0.075, t), (exponent(0.075), t)
    profiles = [(exponent(one), at) for one, at in kept]
    products = np.array([[product(*a, *b) for b in profiles] for a in profiles])
    norm = product(*target, *target)
    square = x @ products @ x - 2 * x @ [product(*one, *target) for one in profiles] + norm
    assert (square / norm) ** 0.5 == pytest.approx({2: 4.8e-2, 20: 2.3e-3, 200: 2.3e-5}[count], rel=0.05)
    assert x.sum() == pytest.approx(1, abs=1e-12)


def test_a_stored_average_is_taken_as_it_is():
    kept = [(0.05, 500), (0.1, 500), (0.05, 1000), (0.1, 1000)]
    assert coefficients(kept, 0.1, 1000).tolist() == [0, 0, 0, 1]
