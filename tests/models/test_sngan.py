"""SNGAN: what it refuses."""

import pytest
import torch

from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.models import SNGAN


def test_sizes_other_than_32_pixels_are_rejected():
    with pytest.raises(UserError, match=r"32 pixels per side, but the data has 64. Set `--data.size 32`"):
        SNGAN(DataSpec((3, 64, 64)))


def test_a_condition_is_rejected():
    model = SNGAN(DataSpec((1, 32, 32), "label", ("zero", "one")), width=4)
    with pytest.raises(UserError, match="trained without labels"):
        model.sample(torch.arange(2), condition=torch.zeros(2).long())
