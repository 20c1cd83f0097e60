"""Drawn shapes match their factors, captions and masks."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from genbench.core.batch import to_tokens
from genbench.core.errors import UserError
from genbench.data import Shapes
from genbench.data.shapes import (
    CAPTION_FACTORS,
    CAPTION_LENGTH,
    CAPTIONS,
    COLORS,
    SHAPES,
    VOCABULARY,
    caption_factors,
    describe,
    draw,
    draw_factors,
)


@pytest.fixture(scope="module")
def factors():
    return draw_factors(200, np.random.default_rng(0))


def outline(shape, radius, x, y, rotation):
    """Corners by school geometry, y downwards: the shape stands upright, then is turned clockwise."""
    if shape == "circle":
        angles, radii = np.linspace(0, 360, 720), np.ones(720)
    elif shape == "square":
        angles, radii = np.array([45, 135, 225, 315]), np.ones(4)
    elif shape == "triangle":
        angles, radii = np.array([0, 120, 240]), np.ones(3)
    elif shape == "star":
        angles, radii = np.arange(10) * 36, np.tile([1, 0.45], 5)
    else:
        tip, notch = np.rad2deg(np.arcsin(0.32)), 0.32 * 2**0.5
        angles = np.concatenate([np.array([-tip, tip, 45]) + turn for turn in (0, 90, 180, 270)])
        radii = np.tile([1, 1, notch], 4)
    turned = np.deg2rad(angles + rotation)
    return list(zip(x + radius * radii * np.sin(turned), y - radius * radii * np.cos(turned), strict=True))


def test_masks_agree_with_an_independent_drawing_of_the_factors(factors):
    size = 128
    _, masks = draw(factors, size)
    for row, mask in zip(factors, masks, strict=True):
        shape, _, radius, x, y, rotation = row.tolist()
        canvas = Image.new("1", (4 * size, 4 * size))
        corners = outline(SHAPES[int(shape)], radius, x, y, rotation)
        ImageDraw.Draw(canvas).polygon([(4 * size * u, 4 * size * v) for u, v in corners], fill=1)
        expected = np.asarray(canvas).reshape(size, 4, size, 4).mean((1, 3)) > 0.5
        found = mask > 0
        assert (found & expected).sum() / (found | expected).sum() > 0.94, row
        assert set(np.unique(mask)) == {0, 1 + int(shape)}


def test_the_area_and_the_center_of_a_mask_match_geometry(factors):
    size = 256
    _, masks = draw(factors, size)
    width = 0.32
    areas = {
        "circle": np.pi,
        "square": 2,
        "triangle": 3 * 3**0.5 / 4,
        "star": 5 * 0.45 * np.sin(np.pi / 5),
        "cross": 8 * width * (1 - width**2) ** 0.5 - 4 * width**2,
    }
    for row, mask in zip(factors, masks, strict=True):
        shape, _, radius, x, y, _ = row.tolist()
        down, right = np.nonzero(mask)
        assert len(down) / size**2 == pytest.approx(areas[SHAPES[int(shape)]] * radius**2, rel=0.03)
        assert ((right + 0.5).mean() / size, (down + 0.5).mean() / size) == pytest.approx((x, y), abs=0.01)


def test_shapes_lie_inside_the_image_and_have_their_color(factors):
    images, masks = draw(factors, 64)
    assert not masks[:, [0, -1]].any()
    assert not masks[:, :, [0, -1]].any()
    for row, image, mask in zip(factors, images, masks, strict=True):
        colors, counts = np.unique(image[mask > 0], axis=0, return_counts=True)
        assert tuple(colors[counts.argmax()]) == list(COLORS.values())[int(row[1])]


def test_edges_are_smooth(factors):
    images, masks = draw(factors, 32)
    share = images[..., 0][masks == 0]
    assert len(np.unique(share)) > 20


def test_captions_match_the_factors(factors):
    for row in factors:
        shape, color, size, x, y, _ = row.tolist()
        words = describe(row).split()
        assert SHAPES[int(shape)] in words
        assert list(COLORS)[int(color)] in words
        assert ("large" in words) == (size > 0.21)
        assert ("left" in words, "right" in words) == (x < 0.4, x > 0.6)
        assert ("top" in words, "bottom" in words) == (y < 0.4, y > 0.6)
        assert ("centre" in words) == (0.4 < x < 0.6 and 0.4 < y < 0.6)
    assert describe(np.array([0, 1, 0.28, 0.33, 0.33, 0])) == "a large red circle at the top left"
    assert describe(np.array([3, 0, 0.15, 0.5, 0.5, 0])) == "a small blue star in the centre"


def test_all_captions_are_listed_once_with_their_factors():
    drawn = {describe(row) for row in draw_factors(20_000, np.random.default_rng(0))}
    assert len(CAPTIONS) == 540 and set(CAPTIONS) == drawn
    for caption in CAPTIONS:
        values = caption_factors(caption)
        assert all(values[name] in CAPTION_FACTORS[name] for name in CAPTION_FACTORS)
        assert caption == "a {size} {color} {shape} {place}".format(**values)


def test_tokens_spell_the_caption_and_zero_is_padding(factors):
    for row in factors:
        spelled = to_tokens(describe(row), VOCABULARY, CAPTION_LENGTH)
        assert len(spelled) == 8
        assert " ".join(VOCABULARY[token] for token in spelled if token) == describe(row)
    assert VOCABULARY[0] == "<pad>"
    assert to_tokens("a red star", VOCABULARY, CAPTION_LENGTH)[3:] == [0] * 5
    with pytest.raises(UserError, match=r"The word `pink` is in no caption of this data set. Choose from: a, small"):
        to_tokens("a pink star", VOCABULARY, CAPTION_LENGTH)


def test_a_batch_carries_label_caption_mask_and_factors():
    data = Shapes(train_images=20, batch_size=5)
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (5, 3, 32, 32)
    assert (batch.mask.shape, batch.mask.dtype) == ((5, 32, 32), torch.int64)
    assert batch.label.tolist() == batch.factors[:, 0].tolist()
    assert batch.label.tolist() == (batch.mask.flatten(1).amax(1) - 1).tolist()
    for row, caption in zip(batch.factors.numpy(), batch.caption.tolist(), strict=True):
        assert to_tokens(describe(row), VOCABULARY, CAPTION_LENGTH) == caption


@pytest.mark.parametrize("difficulty", [{}, {"texture": 1.0, "noise": 0.1, "occlusion": 0.3}])
def test_the_same_seed_gives_the_same_images_and_a_different_seed_different_images(difficulty):
    one, same, other = (Shapes(train_images=30, seed=seed, **difficulty).source("train") for seed in (0, 0, 1))
    assert torch.equal(one.everything.image, same.everything.image)
    assert not torch.equal(one.everything.image, other.everything.image)


def test_an_image_is_the_same_when_read_alone_in_a_batch_from_memory_or_streamed():
    hard = {"texture": 0.7, "noise": 0.1, "occlusion": 0.3, "train_images": 300}
    memory, stream = (Shapes(memory=memory, **hard).source("train") for memory in ("yes", "no"))
    for rows in ([299], [5, 299, 0]):
        one, other = memory.batch(torch.tensor(rows)), stream.batch(torch.tensor(rows))
        for name in ("image", "mask", "caption", "factors", "label"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_train_validation_and_test_share_no_image():
    data = Shapes(train_images=500, val_images=500, test_images=500)
    drawn = [{tuple(row) for row in data.split(stage).factors.tolist()} for stage in ("train", "val", "test")]
    assert len(set.union(*drawn)) == 1500


def test_texture_changes_the_background_but_not_the_mask(factors):
    (plain, mask), (waved, same) = (draw(factors, 32, texture=t, seeds=np.arange(200)) for t in (0.0, 0.8))
    assert np.array_equal(mask, same)
    inside = np.stack([plain, waved])[:, mask > 0].astype(int)
    assert (inside[0] == inside[1]).all(-1).mean() > 0.6  # all but the smooth edge
    assert waved[mask == 0].std() > 3 * plain[mask == 0].std()


def test_noise_has_the_given_standard_deviation(factors):
    (plain, _), (noisy, _) = (draw(factors, 32, noise=n, seeds=np.arange(200)) for n in (0.0, 0.02))
    orange = np.flatnonzero(factors[:, 1] == list(COLORS).index("green"))  # far from black and white
    inside = draw(factors[orange], 32)[1] > 0
    difference = noisy[orange][inside].astype(float) - plain[orange][inside]
    assert difference.std() / 255 == pytest.approx(0.02, rel=0.1)
    assert abs(difference.mean()) < 0.2


def test_the_bar_hides_part_of_the_shape_in_image_and_mask(factors):
    (_, whole), (images, seen) = (draw(factors, 64, occlusion=o, seeds=np.arange(200)) for o in (0.0, 0.3))
    assert (seen[seen > 0] == whole[seen > 0]).all()
    hidden = 1 - (seen > 0).sum((1, 2)) / (whole > 0).sum((1, 2))
    assert hidden.min() > 0.05
    assert 0.2 < hidden.mean() < 0.6
    bar = images[(whole > 0) & (seen == 0)].astype(int)
    assert np.median(abs(bar - (122, 124, 128)).max(-1)) == 0


def test_colors_differ_in_gray_images():
    data = Shapes(channels=1, train_images=300)
    everything = data.source("train").everything
    assert everything.image.shape == (300, 1, 32, 32)
    lightness = everything.image.flatten(1).amax(1).int()  # the background is darker than any shape
    shades = [set(lightness[everything.factors[:, 1] == color].tolist()) for color in range(len(COLORS))]
    assert all(max(darker) + 15 < min(lighter) for darker, lighter in itertools.pairwise(shades))


@pytest.mark.parametrize("size", [16, 256])
def test_any_size_from_16_to_256(size):
    data = Shapes(size=size, train_images=6)
    assert data.spec.shape == (3, size, size)
    assert data.source("train").everything.image.shape == (6, 3, size, size)
    for outside in (15, 257):
        with pytest.raises(UserError, match=f"data.size is {outside}"):
            Shapes(size=outside)


def test_the_spec_has_the_given_target():
    assert Shapes().spec.classes == SHAPES
    assert Shapes(target="mask").spec.classes == ("background", *SHAPES)
    assert Shapes(target="caption").spec.vocabulary == VOCABULARY
    assert Shapes(target="none").spec.classes == ()
    for target in ("label", "caption", "mask", "none"):
        assert Shapes(target=target).spec.target == target


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match=r"data.texture is 2; it must lie between 0 and 1"):
        Shapes(texture=2)
    with pytest.raises(UserError, match=r"data.train_images is 0"):
        Shapes(train_images=0)
    with pytest.raises(UserError, match=r"data.hflip does not work with Shapes: captions"):
        Shapes(hflip=True)
