"""ConditionalVAE: its probabilities add up to one, and labels change its samples."""

import itertools

import pytest
import torch

from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.models import ConditionalVAE

LABELS = DataSpec((1, 2, 2), "label", ("zero", "one", "two"), binary=True)


def conditional(**arguments):
    torch.manual_seed(0)
    return ConditionalVAE(LABELS, **{"latent_dim": 1, "network": "mlp", "hidden": [8]} | arguments).eval()


def test_probabilities_of_all_images_sum_to_one():
    model = conditional()
    images = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4))).view(16, 1, 2, 2)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()  # the posterior equals the prior, so few importance samples are enough
        total = model.log_likelihood(images, importance_samples=3000).exp().sum().item()
    assert total == pytest.approx(1, abs=0.01)


def test_label_and_noise_both_change_a_sample():
    model, zero, one = conditional(), torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)
    a, b = (model.sample(torch.arange(2), condition=label) for label in (zero, one))
    assert (a != b).any() and (a[0] != a[1]).any()


def test_samples_without_a_label_and_data_without_labels_are_refused():
    with pytest.raises(UserError, match="Pass one label per image"):
        conditional().sample(torch.arange(2))
    with pytest.raises(UserError, match="this data has none"):
        ConditionalVAE(DataSpec((1, 2, 2), binary=True))
