"""Corruptions have the amounts and values that they are named after."""

import pytest
import torch

from genbench.core.noise import Draws
from genbench.objectives.corruption import corrupt


def draws():
    draw = Draws()
    draw.seed("test")
    return draw


def test_gaussian_noise_has_its_standard_deviation():
    noise = corrupt(torch.zeros(50, 3, 16, 16), "gaussian", 0.3, draws())
    assert noise.std().item() == pytest.approx(0.3, rel=0.02) and abs(noise.mean()) < 0.01


@pytest.mark.parametrize(("corruption", "values"), [("masking", [-1]), ("salt_and_pepper", [-1, 1])])
def test_a_fraction_of_the_pixels_is_corrupted_in_all_channels_and_the_rest_is_unchanged(corruption, values):
    x = torch.full((50, 3, 16, 16), 0.25)
    corrupted = corrupt(x, corruption, 0.4, draws())
    changed = corrupted != x
    assert sorted(corrupted[changed].unique().tolist()) == values
    assert torch.equal(changed[:, :1].expand(-1, 3, -1, -1), changed)
    assert changed[:, 0].float().mean().item() == pytest.approx(0.4, abs=0.02)
    if len(values) == 2:
        assert (corrupted[changed] == 1).float().mean().item() == pytest.approx(0.5, abs=0.03)
