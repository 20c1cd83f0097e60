"""The networks of Radford et al. 2016: shapes, layers, parameters, initial weights."""

from itertools import pairwise

import pytest
import torch
from scipy.stats import kstest
from torch import nn
from torch.nn.functional import conv2d

from genbench.core.errors import UserError
from genbench.networks.conv import dcgan_init, down_net, up_net, widths

SIZES = [16, 32, 64, 128, 256]


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_vectors_become_images_and_images_vectors_at_every_size(size, channels):
    image = up_net(5, channels, size, width=2, output=nn.Tanh())(torch.randn(2, 5))
    assert image.shape == (2, channels, size, size) and image.dtype == torch.float32
    assert image.abs().max() <= 1
    vector = down_net(channels, size, width=2, outputs=7)(image)
    assert vector.shape == (2, 7) and vector.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_numbers_stay_in_the_weights_precision(dtype):
    up, down = up_net(5, 1, 16, 2).to(dtype), down_net(1, 16, 2, 7).to(dtype)
    image = up(torch.randn(2, 5, dtype=dtype))
    assert image.dtype == dtype and down(image).dtype == dtype


@pytest.mark.parametrize("size", [0, 8, 24, 28, 100, 512])
def test_a_size_that_the_nets_cannot_make_is_rejected_with_those_they_can(size):
    for build in (lambda: up_net(5, 1, size, 2), lambda: down_net(1, size, 2, 1)):
        with pytest.raises(UserError, match=f"images of 16, 32, 64, 128, 256 pixels per side, but the data has {size}"):
            build()


def test_channels_double_at_each_halving_up_to_eight_times():
    assert [len(widths(size, 1)) for size in SIZES] == [2, 3, 4, 5, 6]
    assert widths(16, 32) == [32, 64]
    assert widths(256, 32) == [32, 64, 128, 256, 256, 256]


def layers(net):
    """Class, channels, stride and padding of the convolutions, channels of the normalizations, names of the rest."""
    found = []
    for layer in net:
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            assert layer.kernel_size == (4, 4)
            found.append((layer.in_channels, layer.out_channels, layer.stride[0], layer.padding[0]))
        else:
            found.append(layer.num_features if isinstance(layer, nn.BatchNorm2d) else type(layer).__name__)
    return found


def test_the_generator_of_64_pixels_is_the_papers():
    # figure 1 at half its width, as in PyTorch's DCGAN tutorial: normalization everywhere but at the output
    net = up_net(100, 3, 64, width=64, output=nn.Tanh())
    assert layers(net) == [
        "Unflatten",
        (100, 512, 1, 0), 512, "ReLU",
        (512, 256, 2, 1), 256, "ReLU",
        (256, 128, 2, 1), 128, "ReLU",
        (128, 64, 2, 1), 64, "ReLU",
        (64, 3, 2, 1), "Tanh",
    ]  # fmt: skip
    # 16 weights for each pair of channels, two numbers for each normalized one, one bias for each color
    pairs = 100 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 3
    assert parameters(net) == 16 * pairs + 2 * (512 + 256 + 128 + 64) + 3 == 3_576_704 + 3


def test_the_discriminator_of_64_pixels_is_the_papers():
    net = down_net(3, 64, width=64, outputs=1)
    assert layers(net) == [
        (3, 64, 2, 1), "LeakyReLU",
        (64, 128, 2, 1), 128, "LeakyReLU",
        (128, 256, 2, 1), 256, "LeakyReLU",
        (256, 512, 2, 1), 512, "LeakyReLU",
        (512, 1, 1, 0), "Flatten",
    ]  # fmt: skip
    assert {layer.negative_slope for layer in net if isinstance(layer, nn.LeakyReLU)} == {0.2}
    pairs = 3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 1
    assert parameters(net) == 16 * pairs + 2 * (128 + 256 + 512) + 64 + 1 == 2_765_568 + 65


def test_no_bias_stands_before_a_normalization_that_would_remove_it():
    for net in (up_net(5, 3, 64, 4), down_net(3, 64, 4, 1)):
        for layer, following in pairwise(net):
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                assert (layer.bias is None) == isinstance(following, nn.BatchNorm2d)


def test_every_pixel_affects_the_output_and_every_dimension_of_z_every_pixel():
    image = torch.randn(2, 1, 32, 32, requires_grad=True)
    down_net(1, 32, 4, 1).eval()(image).sum().backward()
    assert (image.grad != 0).all()
    z = torch.randn(2, 5, requires_grad=True)
    up_net(5, 1, 32, 4).eval()(z).square().sum().backward()
    assert (z.grad != 0).all()


def test_first_weights_are_normal_with_the_papers_spread():
    net = nn.Sequential(up_net(20, 1, 32, 16), down_net(1, 32, 16, 1))
    dcgan_init(net)
    convolutions = [m.weight for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    scales = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convolutions) == 8 and len(scales) == 5
    for weight in convolutions:
        assert kstest(weight.detach().flatten().numpy(), "norm", (0, 0.02)).pvalue > 0.001
    together = torch.cat([m.weight.detach() for m in scales])
    assert kstest(together.numpy(), "norm", (1, 0.02)).pvalue > 0.01
    assert not any(m.bias.any() for m in scales)


# ---- worked examples of textbooks ----------------------------------------------------------------------------------


def test_a_transposed_convolution_is_a_convolution_of_its_input_with_zeros_between():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    kernel = torch.tensor([[1.0, -1.0], [2.0, 1.0]])[None, None]
    expected = [[1, 2, 2, 4], [-1, 1, -2, 2], [3, 6, 4, 8], [-3, 3, -4, 4]]
    spread = torch.zeros(1, 1, 5, 5)
    spread[..., 1::2, 1::2] = x  # zeros between the numbers, and around them
    assert conv2d(spread, kernel)[0, 0].tolist() == expected
    layer = nn.ConvTranspose2d(1, 1, 2, stride=2, bias=False)
    layer.weight.data = kernel.rot90(2, (2, 3))  # as a convolution, the filter is rotated by 180 degrees
    assert layer(x)[0, 0].tolist() == expected


def test_a_convolution_is_the_sum_of_products_under_its_filter():
    x = torch.arange(1.0, 17.0).view(1, 1, 4, 4)
    layer = nn.Conv2d(1, 1, 3)
    layer.weight.data = torch.tensor([[[[1.0, 1.0, 1.0], [2.0, 0.0, 1.0], [-1.0, -1.0, 0.0]]]])
    layer.bias.data = torch.tensor([3.0])
    assert layer(x)[0, 0].tolist() == [[7, 11], [23, 27]]
