"""Multistep consistency sampling, step by step."""

import pytest
import torch

from genbench.samplers.consistency import multistep, sigmas


def test_levels_have_equal_ratios_and_one_step_starts_at_the_highest():
    assert sigmas(1, 80.0, 0.821).tolist() == [80]
    assert sigmas(2, 80.0, 0.821).tolist() == pytest.approx([80, 0.821])
    assert sigmas(3, 80.0, 0.8).tolist() == pytest.approx([80, 8, 0.8])


def test_each_step_but_the_first_adds_noise_up_to_its_level():
    seen = []

    def denoise(x, sigma):
        seen.append((x.item(), sigma))
        return x / 2

    draws = iter([3.0, 5.0])
    levels = torch.tensor([80.0, 1.0, 0.5], dtype=torch.float64)
    noise = lambda: torch.full((1,), next(draws), dtype=torch.float64)  # noqa: E731
    x = multistep(denoise, torch.full((1,), 16.0, dtype=torch.float64), levels, noise, sigma_min=0.5)
    second = 8 + 3 * (1 - 0.25) ** 0.5
    assert seen == [(16, 80), (pytest.approx(second), 1), (pytest.approx(second / 2), 0.5)]
    assert x.item() == pytest.approx(second / 4)


def test_with_the_true_consistency_function_of_a_gaussian_any_number_of_steps_keeps_its_distribution():
    """The function maps noise level σ to the lowest one along the probability flow of N(m, s²)."""
    m, s, low, high = 0.4, 0.3, 0.002, 80.0
    draw = torch.Generator().manual_seed(0)
    noise = lambda: torch.randn(100_000, generator=draw, dtype=torch.float64)  # noqa: E731

    def denoise(x, sigma):
        return m + ((s**2 + low**2) / (s**2 + sigma**2)) ** 0.5 * (x - m)

    for steps in (1, 2, 5):
        x = multistep(denoise, m + (s**2 + high**2) ** 0.5 * noise(), sigmas(steps, high, 0.821), noise, low)
        assert x.mean().item() == pytest.approx(m, abs=0.005)
        assert x.std().item() == pytest.approx((s**2 + low**2) ** 0.5, rel=0.01)
