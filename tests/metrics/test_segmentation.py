"""Agreement of masks against scikit-learn."""

import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from genbench.core.errors import UserError
from genbench.metrics.segmentation import Segmentation, confusion, mean_iou, pixel_accuracy


def masks(classes=4, absent=()):
    logits, mask = torch.randn(3, classes, 6, 5), torch.randint(classes, (3, 6, 5))
    for k in absent:
        logits[:, k] = -100
        mask[mask == k] = (k + 1) % classes
    return logits, mask


def test_confusion_equals_scikit_learns():
    logits, mask = masks()
    expected = confusion_matrix(mask.flatten(), logits.argmax(1).flatten(), labels=range(4))
    assert confusion(logits, mask).tolist() == expected.tolist()


@pytest.mark.parametrize("absent", [(), (2,)])
def test_scores_equal_scikit_learns_and_omit_absent_classes(absent):
    logits, mask = masks(absent=absent)
    found, truth, predicted = confusion(logits, mask), mask.flatten(), logits.argmax(1).flatten()
    assert mean_iou(found) == pytest.approx(jaccard_score(truth, predicted, average="macro"))
    assert pixel_accuracy(found) == pytest.approx(accuracy_score(truth, predicted))


def test_a_class_that_is_predicted_and_never_true_counts_as_zero():
    logits = torch.nn.functional.one_hot(torch.tensor([[[0, 1]]]), 3).permute(0, 3, 1, 2).float()
    assert mean_iou(confusion(logits, torch.zeros(1, 1, 2, dtype=torch.long))) == pytest.approx((0.5 + 0) / 2)


def test_the_true_mask_scores_one():
    _, mask = masks()
    logits = torch.nn.functional.one_hot(mask, 4).permute(0, 3, 1, 2)
    assert (mean_iou(confusion(logits, mask)), pixel_accuracy(confusion(logits, mask))) == (1, 1)


def test_masks_with_unknown_classes_and_no_masks_are_errors():
    logits, mask = masks()
    with pytest.raises(UserError, match="for 4 classes must contain 0 to 3; this mask contains"):
        confusion(logits, mask + 252)
    with pytest.raises(UserError, match="at least one image"):
        Segmentation().compute()
