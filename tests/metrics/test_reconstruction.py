"""Similarity of images, compared with scikit-image on uint8 images."""

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from sklearn.datasets import load_digits

from genbench.core.errors import UserError
from genbench.metrics.reconstruction import mse, psnr, ssim


def pairs(channels, size=(20, 17), n=4):
    """uint8 images and noisy copies, [B, C, H, W]."""
    image = torch.from_numpy(load_digits().images[:n]).float().repeat_interleave(4, 1).repeat_interleave(4, 2)
    image = (image * 255 / 16)[:, None, : size[0], : size[1]].repeat(1, channels, 1, 1)
    noisy = image + 30 * torch.randn_like(image)
    return image.round().byte(), noisy.round().clamp(0, 255).byte()


def signed(image):
    return image.float() / 127.5 - 1


@pytest.mark.parametrize("channels", [1, 3])
def test_they_equal_scikit_images(channels):
    a, b = pairs(channels)
    x, y = signed(a), signed(b)
    for i, (one, two) in enumerate(zip(a.numpy(), b.numpy(), strict=True)):
        similarity = structural_similarity(
            one,
            two,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=0,
        )
        assert mse(x, y)[i].item() == pytest.approx(mean_squared_error(one, two) / 127.5**2, rel=1e-6)
        assert psnr(x, y)[i].item() == pytest.approx(peak_signal_noise_ratio(one, two, data_range=255), rel=1e-6)
        assert ssim(x, y)[i].item() == pytest.approx(similarity, abs=1e-6)


def test_equal_images_have_the_most():
    x = signed(pairs(3)[0])
    assert mse(x, x).eq(0).all()
    assert psnr(x, x).tolist() == pytest.approx([20 * np.log10(510)] * len(x))
    assert ssim(x, x).tolist() == pytest.approx([1] * len(x))


def test_more_noise_is_worse_by_every_measure():
    x = signed(pairs(1)[0])
    noise = torch.randn_like(x)
    for measure, sign in ((mse, 1), (psnr, -1), (ssim, -1)):
        values = torch.stack([sign * measure(x, x + sigma * noise) for sigma in (0.05, 0.1, 0.3)])
        assert (values.diff(dim=0) > 0).all()


def test_images_smaller_than_the_window_or_of_different_shapes_are_errors():
    with pytest.raises(UserError, match="at least 11×11 pixels, the size of its window; got 8×12"):
        ssim(torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 8, 12))
    with pytest.raises(UserError, match="the same shape"):
        mse(torch.zeros(2, 1, 8, 8), torch.zeros(1, 1, 8, 8))


def test_the_smallest_image_that_holds_the_window_has_a_similarity():
    a, b = pairs(1, size=(11, 11))
    assert ssim(signed(a), signed(b)).isfinite().all()
