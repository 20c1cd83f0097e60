"""Scores of points on a mixture of Gaussians, in cases with known values, and compared with SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy, multivariate_normal

from genbench.core.errors import UserError
from genbench.metrics.mixture import mixture_statistics

MODES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
STD = 0.05


def test_each_mode_exactly_is_perfect():
    scores = mixture_statistics(MODES.repeat(7, 1), MODES, STD)
    assert scores == pytest.approx({"good_samples": 1, "modes": 4, "class_entropy": math.log(4), "mode_kl": 0})
    assert scores["mode_kl"] >= 0


def test_a_single_mode_is_a_collapse():
    points = MODES[2] + STD * torch.randn(50, 2).clamp(-2, 2)
    scores = mixture_statistics(points, MODES, STD)
    assert scores == pytest.approx({"good_samples": 1, "modes": 1, "class_entropy": 0, "mode_kl": math.log(4)})


def test_a_point_is_good_up_to_three_deviations_and_outliers_find_no_mode():
    near, far = MODES[:1] + torch.tensor([[2.99 * STD, 0]]), MODES[1:2] + torch.tensor([[0, 3.01 * STD]])
    between, away = torch.tensor([[0.5, 0.5]]), torch.tensor([[100.0, -3]])
    scores = mixture_statistics(torch.cat([near, far, between, away]), MODES, STD)
    assert scores["good_samples"] == 1 / 4 and scores["modes"] == 1


def test_without_a_good_point_evenness_is_unknown():
    scores = mixture_statistics(torch.full((5, 2), 9.0), MODES, STD)
    assert scores == {"good_samples": 0, "modes": 0, "class_entropy": None, "mode_kl": None}


def test_scores_equal_scipys_on_uneven_points():
    points = MODES[torch.tensor([0] * 60 + [1] * 30 + [3] * 10)] + 1.5 * STD * torch.randn(100, 2)
    density = np.stack([multivariate_normal(m, STD**2).logpdf(points) for m in MODES.numpy()], 1)
    best = density.max(1) >= multivariate_normal(np.zeros(2), STD**2).logpdf([3 * STD, 0])
    counts = np.bincount(density.argmax(1)[best], minlength=4)
    scores = mixture_statistics(points, MODES, STD)
    assert scores == pytest.approx(
        {"good_samples": best.mean(), "modes": (counts > 0).sum(), "class_entropy": entropy(counts),
         "mode_kl": entropy(counts, np.ones(4))}
    )  # fmt: skip
    assert 0.5 < scores["good_samples"] < 1 and scores["modes"] == 3


@pytest.mark.parametrize(
    ("points", "message"), [(torch.zeros(0, 2), "at least 1"), (torch.tensor([[0, torch.nan]]), "finite")]
)
def test_no_points_and_non_finite_points_are_rejected(points, message):
    with pytest.raises(UserError, match=message):
        mixture_statistics(points, MODES, STD)
