"""Images are resized and converted to the requested colors, and are enlarged only on request."""

import numpy as np
import pytest
from PIL import Image

from genbench.core.errors import UserError
from genbench.data import CIFAR10, MNIST
from genbench.data.image_files import Fit


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(256, size=(5, 28, 28, 3), dtype=np.uint8)


def name(k):
    return f"picture{k}.png"


def test_padding_centers_the_image_on_black(noise):
    fitted = Fit(32, 3, "pad")(noise, name)
    assert fitted.shape == (5, 3, 32, 32)
    assert np.array_equal(fitted[:, :, 2:30, 2:30].transpose(0, 2, 3, 1), noise)
    assert fitted.sum() == noise.sum(dtype=int)


def test_padding_scales_down_large_images_and_keeps_all_of_them():
    wide = Image.new("L", (100, 50), 200)
    fitted = Fit(20, 1, "pad").one(wide, "wide")[0]
    assert (fitted[5:15] == 200).all()
    assert fitted.sum() == 200 * 10 * 20


def test_cropping_takes_the_center_of_the_longer_side():
    stripes = np.zeros((10, 30, 3), dtype=np.uint8)
    stripes[:, 10:20] = 255
    assert (Fit(10, 3).one(Image.fromarray(stripes), "stripes") == 255).all()
    assert (Fit(5, 3).one(Image.fromarray(stripes), "stripes") > 235).all()  # the filter sees a little of the sides


def test_stretching_keeps_both_ends():
    halves = np.zeros((40, 80), dtype=np.uint8)
    halves[:, 40:] = 255
    fitted = Fit(20, 1, "stretch").one(Image.fromarray(halves), "halves")[0]
    assert (fitted[:, :8] < 5).all()
    assert (fitted[:, 12:] > 250).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("how", ["crop", "pad", "stretch", "none"])
@pytest.mark.parametrize("size", [20, 28, 32])
@pytest.mark.parametrize("gray", [True, False])
def test_arrays_give_the_same_result_as_single_images(noise, channels, how, size, gray):
    pictures = noise[..., 0] if gray else noise
    fit = Fit(size, channels, how)
    try:
        expected = np.stack([fit.one(Image.fromarray(picture), "it") for picture in pictures])
    except UserError:
        with pytest.raises(UserError):
            fit(pictures, name)
        return
    assert np.array_equal(fit(pictures, name), expected)


def test_the_error_for_a_small_image_has_its_name_and_a_fix(noise):
    with pytest.raises(UserError, match=r"picture0.png is 28×28, smaller than data.size .64.") as error:
        Fit(64, 3)(noise, name)
    for way_out in ("--data.enlarge true", "--data.resize_mode pad", "--data.size 28"):
        assert way_out in str(error.value)
    with pytest.raises(UserError, match="data.resize_mode is `none`"):
        Fit(64, 3, "none")(noise, name)


def test_an_image_with_one_short_side_is_also_rejected():
    with pytest.raises(UserError, match=r"40×20, smaller than data.size .32."):
        Fit(32, 3).one(Image.new("RGB", (40, 20)), "banner.png")


def test_images_are_enlarged_if_requested(noise):
    assert Fit(64, 3, enlarge=True)(noise, name).shape == (5, 3, 64, 64)
    enlarged = Fit(64, 1, "pad", enlarge=True).one(Image.new("L", (16, 8), 255), "banner")
    assert enlarged.sum() == 255 * 64 * 32


def test_padding_is_the_default_only_up_to_the_native_size():
    assert MNIST().spec.shape == (1, 32, 32)
    assert MNIST(size=28).spec.shape == (1, 28, 28)
    with pytest.raises(UserError, match=r"MNIST has images of 32×32, but data.size is 64"):
        MNIST(size=64)
    assert MNIST(size=64, resize_mode="pad").size == 64
    assert MNIST(size=64, enlarge=True).size == 64


def test_colors_are_converted_to_the_given_channels():
    assert MNIST(channels=3).spec.shape == (3, 32, 32)
    assert CIFAR10(channels=1).spec.shape == (1, 32, 32)
