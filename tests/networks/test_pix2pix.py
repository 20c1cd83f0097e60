"""The networks of pix2pix have the sizes, receptive fields and dropout of the paper."""

import pytest
import torch
from torch import nn

from genbench.core.errors import UserError
from genbench.networks.pix2pix import PatchGAN, UNetGenerator, refuse_small
from tests.helpers.networks import count, receptive_field


def test_parameters_are_as_many_as_the_authors_networks_have():
    # as the authors' code prints them, github.com/junyanz/pytorch-CycleGAN-and-pix2pix, issues 1152 and 45
    assert round(count(UNetGenerator(1, 1)) / 1e6, 3) == 54.408
    assert round(count(UNetGenerator(1, 1, depth=6)) / 1e6, 3) == 29.238
    assert round(count(PatchGAN(2)) / 1e6, 3) == 2.765
    assert round(count(PatchGAN(2, layers=2)) / 1e6, 3) == 0.662


@pytest.mark.parametrize(("layers", "patch"), [(0, 1), (1, 16), (2, 34), (3, 70)])
def test_a_patch_is_as_large_as_the_paper_says(layers, patch):
    net = PatchGAN(3, width=4, layers=layers, norm="instance").double()
    assert receptive_field(net, torch.randn(1, 3, 192, 192).double()) == (patch, patch)


def test_the_receptive_field_of_the_generator_follows_from_its_depth():
    torch.manual_seed(0)
    net = UNetGenerator(1, 1, width=4, depth=4, dropout=0.0).double()
    # output pixel 32 comes from 1 and 2 of the innermost four, and these from 1 to 62
    assert receptive_field(_Fixed(net), torch.randn(1, 1, 64, 64).double()) == (62, 62)


class _Fixed(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x, lambda *shape: torch.rand(1, *shape))


@pytest.mark.parametrize("size", [(32, 32), (64, 32)])
def test_the_output_has_the_inputs_size(size):
    x = torch.rand(2, 1, *size)
    assert UNetGenerator(1, 3, width=4, depth=5)(x, lambda *s: torch.rand(2, *s)).shape == (2, 3, *size)
    assert PatchGAN(1, 4, 1)(x).shape == (2, 1, size[0] // 2 - 2, size[1] // 2 - 2)


def test_dropout_is_the_noise_and_drops_the_given_fraction():
    torch.manual_seed(0)
    net, x = UNetGenerator(1, 1, width=8, depth=3).eval(), torch.rand(1, 1, 32, 32)

    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        return net(x, lambda *s: torch.rand(1, *s, generator=generator))

    same = [drawn(seed) for seed in (1, 1, 2)]
    assert torch.equal(same[0], same[1]) and (same[0] - same[2]).abs().max() > 1e-4
    dropped = []
    net.up[0].register_forward_hook(lambda module, given, made: torch.ones_like(made))
    net.up[1].register_forward_pre_hook(lambda module, given: dropped.append(given[0][:, -16:]))
    net(torch.rand(64, 1, 32, 32), lambda *s: torch.rand(64, *s))
    kept = dropped[0]
    assert set(kept.unique().tolist()) == {0.0, 2.0} and kept.mean().item() == pytest.approx(1, abs=0.05)


def test_images_smaller_than_a_patch_are_rejected():
    refuse_small(24, 3)
    with pytest.raises(UserError, match="needs images of at least 24 pixels per side, but the data has 16"):
        refuse_small(16, 3)
    assert PatchGAN(1, 2, 3)(torch.rand(2, 1, 24, 24)).shape == (2, 1, 1, 1)
