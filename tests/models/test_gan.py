"""GAN: points and images, numbers of steps of each network, and every adversarial setting."""

import pytest
import torch
from torch import nn

from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.models import GAN
from tests.helpers.small import run


def test_a_point_may_lie_anywhere_and_a_pixel_within_one():
    points, images = GAN(DataSpec((2,)), hidden=[8]), GAN(DataSpec((1, 6, 6)), hidden=[8])
    for module in (points, images):
        nn.init.constant_(module.generator[0][-1].bias, 5.0)
    assert points.sample(torch.arange(4)).min() > 3
    assert images.sample(torch.arange(4)).abs().max() <= 1


def test_a_condition_is_rejected():
    with pytest.raises(UserError, match="trained without labels"):
        GAN(DataSpec((1, 16, 16), "label", ("zero", "one"))).sample(torch.arange(2), condition=torch.zeros(2).long())


def test_two_generator_steps_to_one_of_the_discriminator():
    module = GAN(DataSpec((1, 16, 16)), hidden=[8], latent_dim=4, adversarial={"generator_steps": 2})
    run(module, images=8 * 3)
    assert module.updates == {"generator": 6, "discriminator": 3}


def test_accumulation_rejects_several_steps_of_one_optimizer_on_a_batch():
    module = GAN(DataSpec((1, 16, 16)), hidden=[8], latent_dim=4, adversarial={"generator_steps": 2}, accumulate=2)
    with pytest.raises(UserError, match=r"'generator' takes several steps on one batch.*adversarial.generator_steps"):
        run(module, images=16)


@pytest.mark.parametrize(
    "adversarial",
    [
        {"objective": "minimax", "smoothing": 0.9},
        {"objective": "least_squares", "instance_noise": 0.1},
        {"objective": "hinge", "spectral_norm": True},
        {"objective": "wasserstein", "gradient_penalty": 10},
        {"objective": "non_saturating", "r1": 1, "augment": ["color", "translation", "cutout"]},
    ],
    ids=lambda adversarial: adversarial["objective"],
)
def test_every_objective_and_penalty_trains_a_model(adversarial):
    module = GAN(DataSpec((1, 16, 16)), hidden=[8], latent_dim=4, adversarial=adversarial)
    # of a linear cost the output's bias has no gradient: real and fake images pull it alike
    weights = [p for p in module.parameters() if p.numel() > 1]
    before = [p.clone() for p in weights]
    run(module, images=16)
    assert all(not torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    assert all(torch.isfinite(p).all() for p in weights)
