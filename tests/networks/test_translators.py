"""The networks of pix2pix and CycleGAN are those of the papers, by their sizes, receptive fields and statistics."""

import pytest
import torch
from torch import nn

from genbench.core.errors import UserError
from genbench.networks.cyclegan import ImagePool, ResidualTranslator
from genbench.networks.pix2pix import PatchGAN, UNetGenerator, refuse_small


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_parameters_are_as_many_as_the_authors_networks_have():
    # as the authors' code prints them, github.com/junyanz/pytorch-CycleGAN-and-pix2pix, issues 1152 and 45
    assert round(count(UNetGenerator(1, 1)) / 1e6, 3) == 54.408
    assert round(count(UNetGenerator(1, 1, depth=6)) / 1e6, 3) == 29.238
    assert round(count(PatchGAN(2)) / 1e6, 3) == 2.765
    assert round(count(PatchGAN(2, layers=2)) / 1e6, 3) == 0.662
    assert count(ResidualTranslator(3, 3)) == 11_388_675


def field(net, x):
    """Height and width of what one output pixel in the middle sees, by its gradient."""
    # a normalization over the image shows a little of everything, and a ReLU may show nothing
    for name, layer in list(net.named_modules()):
        if isinstance(layer, (nn.InstanceNorm2d, nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.Tanh)):
            parent = net.get_submodule(name.rpartition(".")[0])
            parent[int(name.rpartition(".")[2])] = nn.Identity()
    x.requires_grad_()
    made = net(x)
    made[0, :, made.shape[2] // 2, made.shape[3] // 2].sum().backward()
    seen = (x.grad.abs().sum((0, 1)) > 0).nonzero()
    return tuple((seen.max(0).values - seen.min(0).values + 1).tolist())


@pytest.mark.parametrize(("layers", "patch"), [(0, 1), (1, 16), (2, 34), (3, 70)])
def test_a_patch_is_as_large_as_the_paper_says(layers, patch):
    net = PatchGAN(3, width=4, layers=layers, norm="instance").double()
    assert field(net, torch.randn(1, 3, 192, 192).double()) == (patch, patch)


def test_a_generator_sees_all_that_its_depth_or_blocks_reach():
    torch.manual_seed(0)
    net = UNetGenerator(1, 1, width=4, depth=4, dropout=0.0).double()
    # output pixel 32 comes from 1 and 2 of the innermost four, and these from 1 to 62
    assert field(_Fixed(net), torch.randn(1, 1, 64, 64).double()) == (62, 62)
    net = ResidualTranslator(1, 1, width=2, blocks=2).double()
    # output pixel 48 comes from 45 to 51, 22 to 26 at half of the size, 11 to 13 at a quarter and through both blocks 7
    # to 17, these from 13 to 35, from 25 to 71 and from 22 to 74
    assert field(net, torch.randn(1, 1, 96, 96).double()) == (53, 53)


class _Fixed(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x, lambda *shape: torch.rand(1, *shape))


@pytest.mark.parametrize("size", [(32, 32), (64, 32)])
def test_what_comes_out_is_as_large_as_what_goes_in(size):
    x = torch.rand(2, 1, *size)
    assert UNetGenerator(1, 3, width=4, depth=5)(x, lambda *s: torch.rand(2, *s)).shape == (2, 3, *size)
    assert ResidualTranslator(1, 3, width=4, blocks=1)(x).shape == (2, 3, *size)
    assert PatchGAN(1, 4, 1)(x).shape == (2, 1, size[0] // 2 - 2, size[1] // 2 - 2)


def test_dropout_is_the_noise_and_drops_as_many_as_it_says():
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


def test_too_small_an_image_has_no_patch():
    refuse_small(24, 3)
    with pytest.raises(UserError, match="judges images from 24 pixels a side on, and the data has 16"):
        refuse_small(16, 3)
    assert PatchGAN(1, 2, 3)(torch.rand(2, 1, 24, 24)).shape == (2, 1, 1, 1)


def test_a_pool_gives_what_comes_until_it_is_full_and_half_as_often_then():
    pool, draw = ImagePool(50, (1, 1, 1)), torch.Generator().manual_seed(0)
    given = []
    for k in range(4000):
        image = torch.full((1, 1, 1, 1), float(k))
        given.append(pool(image, torch.rand(1, 2, generator=draw)).item())
    ages = torch.arange(4000) - torch.tensor(given)
    assert (ages[:50] == 0).all() and (ages >= 0).all()
    late = ages[500:]
    assert (late == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    # an image that is kept leaves with probability 1/2 · 1/50 at each step: 100 steps on average
    assert late[late > 0].mean().item() == pytest.approx(100, rel=0.1)
    again = {g for g in given if given.count(g) > 1}
    assert again and max(again) < 50  # those that filled it; of the others each is given at most once
    assert len({x.item() for x in pool.images.flatten()}) == 50


def test_a_pool_takes_a_batch_image_by_image_and_an_empty_one_keeps_nothing():
    draw = torch.Generator().manual_seed(1)
    noise, new = torch.rand(30, 2, generator=draw), torch.rand(30, 2, 4, 4)
    whole, single = ImagePool(8, (2, 4, 4)), ImagePool(8, (2, 4, 4))
    together = whole(new, noise)
    apart = torch.cat([single(new[k : k + 1], noise[k : k + 1]) for k in range(30)])
    assert torch.equal(together, apart) and torch.equal(whole.images, single.images)
    assert ImagePool(0, (2, 4, 4))(new, noise) is new
