"""The Dice loss is one minus the Dice coefficient."""

import pytest
import torch
from sklearn.metrics import f1_score

from genbench.metrics.segmentation import confusion, dice
from genbench.objectives.segmentation import dice_loss


def test_the_loss_of_a_perfect_mask_is_0_and_of_a_wrong_one_1():
    mask = torch.randint(3, (2, 8, 8))
    sure = torch.nn.functional.one_hot(mask, 3).movedim(-1, 1) * 100.0
    assert dice_loss(sure, mask).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(sure.roll(1, 1), mask, smooth=0).item() == pytest.approx(1, abs=1e-6)


def test_for_one_hot_predictions_it_is_one_minus_scikit_learns_macro_f1():
    truth, found = torch.randint(3, (2, 8, 8)), torch.randint(3, (2, 8, 8))
    sure = torch.nn.functional.one_hot(found, 3).movedim(-1, 1) * 100.0
    expected = f1_score(truth.flatten(), found.flatten(), average="macro")
    assert 1 - dice_loss(sure, truth, smooth=0).item() == pytest.approx(expected, abs=1e-6)
    assert dice(confusion(sure, truth)) == pytest.approx(expected, abs=1e-9)


def test_a_class_that_is_neither_present_nor_predicted_has_no_loss():
    mask = torch.zeros(1, 4, 4, dtype=torch.int64)
    logits = torch.tensor([100.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert dice_loss(logits, mask).item() == pytest.approx(0, abs=1e-6)
