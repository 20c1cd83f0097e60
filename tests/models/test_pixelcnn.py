"""PixelCNN: its probabilities add up to one, labels change them, and settings that do not fit are refused."""

import itertools
import math

import pytest
import torch

from genbench.core.batch import DataSpec, from_uint8
from genbench.core.capabilities import HasLikelihood, Samples
from genbench.core.errors import UserError
from genbench.models import PixelCNN
from tests.helpers.small import RandomImages, run

BINARY = DataSpec((1, 2, 2), binary=True)
LABELS = DataSpec((1, 2, 2), "label", ("zero", "one", "two"), binary=True)


def all_images():
    """The 16 images of two by two black and white pixels, in [-1, 1]."""
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4))).view(16, 1, 2, 2)


def small(spec=BINARY, **arguments):
    torch.manual_seed(0)
    return PixelCNN(spec, **{"width": 6, "layers": 2, "kernel": 3} | arguments).eval()


@pytest.mark.parametrize("by_class", [False, True])
def test_probabilities_of_all_images_sum_to_one(by_class):
    model = small(LABELS, by_class=by_class).double()
    total = model.log_likelihood(all_images().double()).exp().sum().item()
    assert total == pytest.approx(1, abs=1e-12)
    assert model.likelihood == "exact" and isinstance(model, HasLikelihood) and isinstance(model, Samples)


def test_the_likelihood_is_the_mean_over_classes():
    model, x = small(LABELS, by_class=True), all_images()
    each = torch.stack([model._log_p(model.levels(x), torch.full((16,), k)) for k in range(3)]).exp().mean(0).log()
    torch.testing.assert_close(model.log_likelihood(x), each)


def test_pixels_are_binary_for_binary_data_and_have_256_levels_otherwise():
    gray = small(DataSpec((3, 4, 4)))
    assert (small().values, small().pixels, gray.values, gray.pixels) == (2, "binary", 256, "8-bit")
    x = torch.arange(256).view(4, 1, 8, 8) / 127.5 - 1
    assert torch.equal(gray.levels(x).flatten(), torch.arange(256))
    assert small().sample(torch.arange(3)).unique().tolist() == [-1, 1]
    images = gray.sample(torch.arange(2))
    assert images.shape == (2, 3, 4, 4)
    torch.testing.assert_close(gray.levels(images) / 127.5 - 1, images)


def test_training_memorizes_a_small_set_of_images(monkeypatch):
    module = small(DataSpec((1, 4, 4), binary=True), width=16, optimizer={"lr": 0.01}).train()
    run(module, images=1600)
    images = from_uint8(RandomImages(module.spec).train.everything.image)
    assert -module.eval().log_likelihood(images).mean().item() < 16 * math.log(2) - 1  # forty images can be learned


def test_gray_images_have_no_likelihood_under_a_model_of_black_and_white():
    with pytest.raises(UserError, match=r"black and white pixels, but these images have gray pixels.*--data.binarize"):
        small().log_likelihood(torch.zeros(2, 1, 2, 2))


@pytest.mark.parametrize(
    ("spec", "arguments", "said"),
    [
        (DataSpec((3, 4, 4)), {"width": 8}, "model.width is 8; it must be a multiple of the data's 3 channels"),
        (BINARY, {"kernel": 4}, "model.kernel is 4; it must be odd"),
        (BINARY, {"by_class": True}, "model.by_class is true, but this data has no classes"),
        (BINARY, {"layers": 0}, "model.layers is 0; it must be at least 1"),
    ],
)
def test_invalid_settings_are_rejected(spec, arguments, said):
    with pytest.raises(UserError, match=said):
        small(spec, **arguments)


@pytest.mark.parametrize(("by_class", "condition"), [(True, None), (False, torch.zeros(2, dtype=torch.long))])
def test_a_missing_label_and_a_label_without_classes_are_rejected(by_class, condition):
    with pytest.raises(UserError):
        small(LABELS, by_class=by_class).sample(torch.arange(2), condition=condition)
