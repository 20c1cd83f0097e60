"""The effect of each augmentation on an image, and that augmentations are differentiable."""

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from genbench.core.errors import UserError
from genbench.core.noise import Draws
from genbench.objectives.augment import AUGMENTATIONS, affine, augmentations, augmented, color, cutout, translation


def draws() -> Draws:
    draw = Draws()
    draw.seed("test")
    return draw


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shape_stays_gradients_pass_and_images_differ(name):
    x = torch.rand(16, 3, 8, 8, dtype=torch.float64).requires_grad_(True)
    y = AUGMENTATIONS[name](x, draws())
    assert y.shape == x.shape and y.dtype == x.dtype
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert gradient.abs().sum() > 0
    same = torch.rand(1, 3, 8, 8).expand(16, -1, -1, -1)
    found = AUGMENTATIONS[name](same, draws()).flatten(1)
    assert len(found.unique(dim=0)) > 3  # each image is changed in its own way


def test_color_moves_brightness_scales_saturation_and_contrast_and_nothing_else():
    x = torch.rand(200, 3, 4, 4, dtype=torch.float64)
    y = color(x, draws())
    # about its own mean an image is scaled by the contrast, of gray parts exactly
    gray, found = (v.mean(1) for v in (x, y))
    centered, moved = (v - v.mean((1, 2), keepdim=True) for v in (gray, found))
    contrast = (moved * centered).sum((1, 2)) / centered.square().sum((1, 2))
    torch.testing.assert_close(moved, contrast[:, None, None] * centered)
    assert 0.5 <= contrast.min() < 0.6 and 1.4 < contrast.max() <= 1.5
    # what is not gray is scaled by the contrast and by the saturation, from 0 to 2
    tint, seen = ((v - v.mean(1, keepdim=True)).flatten(1) for v in (x, y))
    scale = (seen * tint).sum(1) / tint.square().sum(1)
    torch.testing.assert_close(seen, scale[:, None] * tint)
    saturation = scale / contrast
    assert 0 <= saturation.min() < 0.1 and 1.9 < saturation.max() <= 2
    brightness = found.mean((1, 2)) - gray.mean((1, 2))
    assert -0.5 <= brightness.min() < -0.4 and 0.4 < brightness.max() <= 0.5


def test_translation_moves_by_up_to_an_eighth_either_way_and_fills_with_zeros():
    x = torch.zeros(500, 1, 16, 16)
    x[:, 0, 8, 8] = 1
    y = translation(x, draws())[:, 0]
    places = y.flatten(1).argmax(1)
    down, right = places // 16 - 8, places % 16 - 8
    assert sorted(down.unique().tolist()) == sorted(right.unique().tolist()) == [-2, -1, 0, 1, 2]
    assert torch.equal(y.sum((1, 2)), torch.ones(500))
    assert torch.equal(translation(torch.ones(9, 1, 16, 16), draws()).amin(), torch.zeros(()))  # what came in is zero


def test_cutout_leaves_a_square_of_half_the_side_empty_at_most():
    y = cutout(torch.ones(500, 2, 8, 8), draws())
    assert torch.equal(y[:, 0], y[:, 1]) and set(y.unique().tolist()) == {0.0, 1.0}
    empty = (y[:, 0] == 0).sum((1, 2))
    assert empty.max() == 16 and empty.min() >= 4  # 4×4 inside, a quarter of it at a corner
    assert (y == 0).any(0).all()  # every pixel is cut in some image


def test_affine_equals_scipys_with_the_same_matrix():
    # a smooth image with a constant border, so that all pixels beyond the edges are equal
    x = torch.zeros(1, 1, 20, 20, dtype=torch.float64)
    x[0, 0, 6:13, 8:12] = torch.rand(7, 4, dtype=torch.float64)
    noise = torch.tensor([[1.0, 0.2, 0.9, 0.7, 0.1]], dtype=torch.float64)
    turn, scale, shear, right, down = (2 * noise[0] - 1).tolist()
    turn, scale, shear = turn * np.pi / 8, np.exp(0.15 * scale), 0.15 * shear
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = (rotation @ [[1, shear], [0, 1]])[::-1, ::-1]  # SciPy counts rows first
    middle, moved = np.array([9.5, 9.5]), np.array([down, right]) / 7 * 10
    expected = affine_transform(x[0, 0].numpy(), matrix, middle + moved - matrix @ middle, order=1)
    found = affine(x, lambda *_: noise)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_affine_keeps_a_plain_image_and_most_of_the_ink():
    plain = torch.full((50, 1, 16, 16), -1.0)
    torch.testing.assert_close(affine(plain, draws()), plain)  # what comes in is the edge again
    blob = torch.zeros(200, 1, 32, 32)
    blob[:, :, 12:20, 12:20] = 1
    ink = affine(blob, draws()).sum((1, 2, 3)) / 64
    assert 0.7 < ink.min() < 0.85 and 1.15 < ink.max() < 1.4  # areas of e^±0.3


def test_unknown_names_and_points_are_rejected():
    with pytest.raises(UserError, match="model.transforms is .*any of color, translation, cutout, affine"):
        augmentations(["turn"], "model.transforms")
    with pytest.raises(UserError, match="the data has points"):
        augmented(torch.zeros(3, 2), [affine], draws())
