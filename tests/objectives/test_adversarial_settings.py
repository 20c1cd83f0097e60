"""Adversarial settings of a config: loss terms, penalties, step counts, and which settings are refused."""

import math

import pytest
import torch
from torch import nn

from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.noise import Draws
from genbench.models import GAN
from genbench.objectives.adversarial_settings import AdversarialSettings
from tests.helpers.small import Turns


def draws() -> Draws:
    draw = Draws()
    draw.seed("test")
    return draw


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"objective": "wgan"}, "minimax, non_saturating, least_squares, hinge, wasserstein"),
        ({"r2": 1}, "Unknown `adversarial.r2`. Choose from: objective"),
        ({"objective": "wasserstein"}, "unbounded without a penalty or constraint"),
        ({"objective": "hinge", "smoothing": 0.9}, "no labels to smooth"),
        ({"smoothing": 1.1}, r"must be in \(0.5, 1\]"),
        ({"r1": -1}, "adversarial.r1 is -1; it must be at least 0"),
        ({"augment": ["rotation"]}, "any of color, translation, cutout, affine"),
        ({"discriminator_steps": 0}, "at least 1"),
        ({"discriminator_steps": 2.5}, "adversarial.discriminator_steps is 2.5; it must be a whole number"),
        ({"r1": "1"}, "adversarial.r1 is '1'; it must be a number"),
        ({"spectral_norm": "false"}, "must be true or false"),
        ({"objective": ["hinge"]}, "must be a word"),
        ({"augment": "color"}, "must be a list of words"),
        ({"noise_images": 0}, "not a number of images"),
        ({"smoothing": None}, "adversarial.smoothing is none"),
        ({"generator_steps": None}, "adversarial.generator_steps is none"),
        ({"discriminator_steps": 2, "generator_steps": 2}, "at least one of them must be 1"),
    ],
)
def test_settings_out_of_bounds_are_rejected(settings, says):
    with pytest.raises(UserError, match=says):
        AdversarialSettings.of(settings)


def test_a_users_settings_replace_a_models():
    settings = AdversarialSettings.of({"objective": "hinge", "discriminator_steps": 5}, {"discriminator_steps": 2})
    assert type(settings.objective).__name__ == "Hinge" and settings.discriminator_steps == 2


def test_the_generator_is_due_after_the_set_number_of_discriminator_steps():
    settings = AdversarialSettings(discriminator_steps=3)
    assert [settings.generator_steps_due(updates) for updates in range(7)] == [0, 0, 1, 0, 0, 1, 0]
    assert AdversarialSettings(generator_steps=2).generator_steps_due(7) == 2


def test_spectral_norm_makes_each_weight_a_matrix_of_norm_one():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Flatten(), nn.Linear(96, 4), nn.Embedding(5, 4))
    AdversarialSettings(spectral_norm=True).constrain(net)
    for _ in range(50):  # one power iteration each
        net[2](net[1](net[0](torch.randn(2, 2, 6, 6))))
    for layer in (net[0], net[2]):
        norm = torch.linalg.svdvals(layer.weight.flatten(1))[0].item()
        assert norm == pytest.approx(1, abs=1e-3)
    plain = nn.Linear(3, 3)
    assert AdversarialSettings().constrain(plain) is plain and type(plain) is nn.Linear


def test_a_gradient_penalty_rejects_a_discriminator_that_mixes_images():
    mixing = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with pytest.raises(UserError, match="norm: layer"):
        AdversarialSettings("wasserstein", gradient_penalty=10).constrain(mixing)
    assert AdversarialSettings(r1=1).constrain(mixing) is mixing


def test_a_penalty_is_of_what_the_discriminator_sees():
    # instance noise of a deviation that is known shifts the place at which the gradient is taken
    seen = []

    class Net(nn.Module):
        def forward(self, x):
            seen.append(x.detach())
            return x.square().flatten(1).sum(1)

    module = GAN(DataSpec((1, 2, 2)), hidden=[8], latent_dim=4, adversarial={"r1": 1.0, "instance_noise": 1.0})
    module.generator[0][-1].requires_grad_(False).weight.zero_()  # generated images are zero, as the real ones are
    module.generator[0][-1].bias.zero_()
    module.discriminator, module.turn, module.draw = Net(), Turns(), draws()
    module.training_step(Batch(torch.zeros(4, 1, 2, 2)), 0)
    assert all(part.abs().sum() > 0 for part in seen) and len(seen) == 4  # real, fake, penalty, generator


def test_instance_noise_has_its_standard_deviation_and_decays_to_zero():
    settings, x = AdversarialSettings(instance_noise=0.5, noise_images=1000), torch.zeros(2000, 1, 2, 2)
    for seen, sigma in ((0, 0.5), (500, 0.25), (1000, 0.0), (3000, 0.0)):
        assert settings.view(draws(), seen)(x).std().item() == pytest.approx(sigma, abs=0.01)
    assert AdversarialSettings(instance_noise=0.5).view(draws(), 10**9)(x).std().item() == pytest.approx(0.5, abs=0.01)


def test_without_augmentation_the_discriminator_sees_the_images_themselves():
    x = torch.randn(3, 1, 4, 4)
    assert AdversarialSettings().view(draws(), 0)(x) is x


def test_balance_has_mean_probabilities_and_accuracies():
    logits = torch.tensor([math.log(3), -math.log(3)])  # D = 3/4 and 1/4
    found = AdversarialSettings().balance(logits, logits - 100)
    assert found["d_real"].item() == pytest.approx(0.5) and found["d_fake"].item() == pytest.approx(0, abs=1e-20)
    assert found["real_accuracy"].item() == 0.5 and found["fake_accuracy"].item() == 1
    assert AdversarialSettings("wasserstein", clip=0.01).balance(logits, logits) == {}
    assert AdversarialSettings("least_squares").balance(torch.tensor([0.8]), torch.tensor([0.4]))["fake_accuracy"] == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_penalties_reject_weights_of_half_precision(dtype):
    x, settings = torch.randn(2, 1, 4, 4, dtype=dtype), AdversarialSettings(r1=1)
    with pytest.raises(UserError, match="bf16-mixed"):
        settings.penalties(nn.Flatten(), x, x, draws())


def test_penalties_are_weighted_and_named():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)).double()
    x, norm = torch.randn(3, 1, 2, 2, dtype=torch.float64), net[1].weight.norm()
    terms = AdversarialSettings("wasserstein", gradient_penalty=10, r1=3).penalties(net, x, -x, draws())
    torch.testing.assert_close(terms["gradient_penalty"], 10 * (norm - 1) ** 2)
    torch.testing.assert_close(terms["r1"], 1.5 * norm**2)
