"""The inception score against torch-fidelity, and at its bounds."""

import pytest
import torch
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

from genbench.core.errors import UserError
from genbench.metrics.inception_score import inception_score


@pytest.mark.parametrize(("n", "splits", "seed"), [(200, 10, 2020), (203, 10, 2020), (50, 3, 7), (10, 10, 1)])
def test_it_equals_torch_fidelitys(n, splits, seed):
    logits = 3 * torch.randn(n, 12)
    theirs = isc_features_to_metric(logits, splits, rng_seed=seed)
    expected = theirs[KEY_METRIC_ISC_MEAN], theirs[KEY_METRIC_ISC_STD]
    assert inception_score(logits, splits, seed) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_it_is_1_for_equal_images_and_the_number_of_classes_for_confident_and_uniform_ones():
    assert inception_score(torch.randn(1, 8).expand(40, 8), 4)[0] == pytest.approx(1)
    assert inception_score(100 * torch.eye(8).repeat(5, 1), 1)[0] == pytest.approx(8)


def test_it_is_finite_where_a_class_has_probability_zero():
    assert inception_score(torch.tensor([[0.0, -2000.0]]).repeat(4, 1), 2) == (1, 0)


def test_too_few_or_non_finite_logits_are_errors():
    with pytest.raises(UserError, match="in 10 splits needs at least 10 generated images; got 9"):
        inception_score(torch.randn(9, 4))
    with pytest.raises(UserError, match="finite"):
        inception_score(torch.full((10, 4), torch.nan))
