"""The generator of CycleGAN has the paper's size and receptive field; its image pool has the paper's statistics."""

import pytest
import torch

from genbench.networks.cyclegan import ImagePool, ResidualTranslator
from tests.helpers.networks import count, receptive_field


def test_parameters_are_as_many_as_the_authors_generator_has():
    # as the authors' code prints them, github.com/junyanz/pytorch-CycleGAN-and-pix2pix, issues 1152 and 45
    assert count(ResidualTranslator(3, 3)) == 11_388_675


def test_the_receptive_field_of_the_generator_follows_from_its_blocks():
    torch.manual_seed(0)
    net = ResidualTranslator(1, 1, width=2, blocks=2).double()
    # output pixel 48 comes from 45 to 51, 22 to 26 at half of the size, 11 to 13 at a quarter and through both blocks 7
    # to 17, these from 13 to 35, from 25 to 71 and from 22 to 74
    assert receptive_field(net, torch.randn(1, 1, 96, 96).double()) == (53, 53)


@pytest.mark.parametrize("size", [(32, 32), (64, 32)])
def test_the_output_has_the_inputs_size(size):
    assert ResidualTranslator(1, 3, width=4, blocks=1)(torch.rand(2, 1, *size)).shape == (2, 3, *size)


def test_a_pool_returns_new_images_until_it_is_full_and_then_half_of_the_time():
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


def test_a_pool_handles_a_batch_image_by_image_and_one_of_size_0_stores_nothing():
    draw = torch.Generator().manual_seed(1)
    noise, new = torch.rand(30, 2, generator=draw), torch.rand(30, 2, 4, 4)
    whole, single = ImagePool(8, (2, 4, 4)), ImagePool(8, (2, 4, 4))
    together = whole(new, noise)
    apart = torch.cat([single(new[k : k + 1], noise[k : k + 1]) for k in range(30)])
    assert torch.equal(together, apart) and torch.equal(whole.images, single.images)
    assert ImagePool(0, (2, 4, 4))(new, noise) is new
