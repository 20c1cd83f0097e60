"""Noise levels: which time steps a sampler visits."""

import pytest
import torch

from genbench.core.errors import UserError
from genbench.objectives.diffusion import alpha_bar
from genbench.samplers.diffusion import karras_sigmas
from genbench.samplers.flow import flow_times
from genbench.samplers.levels import discrete_levels, time_steps


def test_trailing_steps_are_the_last_of_equal_parts_and_visit_the_noisiest_for_every_number_of_steps():
    for n in range(1, 1001):
        found = time_steps(1000, n)
        assert len(found) == n and found[0] == 999 and found[-1] >= 0
        parts = (torch.arange(n, 0, -1).double() * 1000 / n).numpy()  # ends of the parts
        assert abs(found.numpy() + 1 - parts).max() <= 0.5  # rounded to a whole step
        assert (found[:-1] > found[1:]).all()


def test_leading_steps_end_at_step_zero_and_miss_the_noisiest():
    for n in range(1, 1000):
        found = time_steps(1000, n, "leading")
        assert len(found) == n and found[-1] == 0 and found[0] < 999
    assert time_steps(1000, 50, "leading")[0] == 980
    assert torch.equal(time_steps(1000, 1000, "leading"), time_steps(1000, 1000))


def test_linspace_steps_go_from_the_noisiest_to_step_zero():
    for n in range(2, 1001):
        found = time_steps(1000, n, "linspace")
        assert len(found) == n and (found[0], found[-1]) == (999, 0) and (found[:-1] > found[1:]).all()
    assert time_steps(1000, 1, "linspace").tolist() == [999]
    assert time_steps(1000, 4, "linspace").tolist() == [999, 666, 333, 0]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (0, "steps is 0; it must be at least 1"),
        (-3, "steps is -3; it must be at least 1"),
        (2.5, "steps is 2.5; it must be a whole number"),
        (101, "steps is 101; this model has 100 time steps, so it must be at most 100"),
    ],
)
def test_invalid_numbers_of_steps_are_rejected(steps, said):
    with pytest.raises(UserError, match=said):
        time_steps(100, steps)
    if steps != 101:
        with pytest.raises(UserError, match=said):
            karras_sigmas(steps)
        with pytest.raises(UserError, match=said):
            flow_times(steps)


def test_an_unknown_spacing_and_reversed_sigmas_are_rejected():
    with pytest.raises(UserError, match=r"spacing is 'leaping'. Choose from: trailing, leading, linspace"):
        time_steps(100, 10, "leaping")
    with pytest.raises(UserError, match=r"sigma_min is 80; it must be below sigma_max, 0.002"):
        karras_sigmas(10, 80.0, 0.002)


def test_levels_are_those_of_the_steps_and_end_at_clean_images():
    bar = alpha_bar("linear", 1000)
    levels = discrete_levels(bar.sqrt(), (1 - bar).sqrt(), 10)
    assert len(levels) == 10 and levels.time.tolist() == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99, -1]
    assert (levels.alpha[-1], levels.sigma[-1]) == (1, 0)
    torch.testing.assert_close(levels.alpha[:-1] ** 2, bar[levels.time[:-1].long()])
    torch.testing.assert_close(levels.alpha**2 + levels.sigma**2, torch.ones(11).double())


def test_karras_sigmas_are_equation_5_of_the_paper():
    found = karras_sigmas(18).sigma
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    torch.testing.assert_close(found, torch.tensor([*expected, 0]).double())
    assert karras_sigmas(1).sigma.tolist() == pytest.approx([80, 0])
    assert found.dtype == torch.float64


def test_shifted_times_have_an_odds_ratio_of_the_shift():
    t, shifted = flow_times(10), flow_times(10, 3.0)
    torch.testing.assert_close(t, torch.linspace(1, 0, 11).double())
    assert (shifted[0], shifted[-1]) == (1, 0)
    odds = (shifted / (1 - shifted) / (t / (1 - t)))[1:-1]  # noise to signal is multiplied by the shift
    torch.testing.assert_close(odds, torch.full((9,), 3.0).double())
