"""SemiSupervisedGAN: its K + 1 classes, its consistency term, and what it refuses."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from genbench.core.batch import Batch, DataSpec
from genbench.core.capabilities import Classifies, Samples
from genbench.core.errors import UserError
from genbench.models import SemiSupervisedGAN
from genbench.models.semi_supervised_gan import UnitRows, real_logit
from genbench.objectives.augment import AUGMENTATIONS
from tests.helpers.small import RandomImages, Turns, run

SPEC = DataSpec((1, 16, 16), "label", ("zero", "one", "two"))


def test_k_plus_one_classes_are_a_discriminator_of_their_normalizer():
    # with a logit of 0 for class K + 1 the softmax gives 1 - p(K + 1 | x) = Z / (Z + 1)
    logits = 3 * torch.randn(9, 4, dtype=torch.float64)
    softmax = torch.cat([logits, torch.zeros(9, 1, dtype=torch.float64)], 1).softmax(1)
    torch.testing.assert_close(real_logit(logits).sigmoid(), 1 - softmax[:, -1])
    # and the adversarial terms are the cross-entropies of section 5
    expected = cross_entropy(real_logit(logits), torch.ones(9, dtype=torch.float64))
    torch.testing.assert_close(-(1 - softmax[:, -1]).log().mean(), expected)


def test_a_semi_supervised_gan_classifies_and_samples():
    module = SemiSupervisedGAN(SPEC, width=4, latent_dim=4).eval()
    assert isinstance(module, Classifies) and isinstance(module, Samples)
    assert module.classify(torch.randn(5, 1, 16, 16)).shape == (5, 3)


def test_weights_of_any_length_make_the_same_layer_of_the_papers_network():
    layer, x = UnitRows(6, 4), torch.randn(9, 6)
    before = layer(x)
    with torch.no_grad():
        layer.weight *= torch.tensor([[0.1], [1.0], [3.0], [10.0]])
    torch.testing.assert_close(layer(x), before)
    torch.testing.assert_close(
        before, 2**0.5 * x @ (layer.weight / layer.weight.norm(dim=1, keepdim=True)).T + layer.bias
    )


@pytest.fixture
def labeled(monkeypatch):
    monkeypatch.setattr(RandomImages, "targets", {"label": torch.arange(64) % 3})


def test_with_only_labels_the_generator_does_not_train(labeled):
    module = SemiSupervisedGAN(SPEC, network="mlp", hidden=[8], latent_dim=4, unsupervised=0)
    before = [p.clone() for p in module.generator.parameters()]
    run(module, images=16)
    assert module.updates == {"generator": 0, "discriminator": 2}
    assert all(torch.equal(a, b) for a, b in zip(before, module.generator.parameters(), strict=True))


@pytest.mark.parametrize("consistency", [0.0, 1.0])
def test_labeled_images_are_transformed_and_real_ones_once_more_for_consistency(consistency, labeled, monkeypatch):
    # a transform that paints them black, seen by what the network is given
    monkeypatch.setitem(AUGMENTATIONS, "cutout", lambda x, draw: torch.full_like(x, -1))
    settings = {"network": "mlp", "hidden": [8], "latent_dim": 4, "transforms": ["cutout"], "consistency": consistency}
    module = SemiSupervisedGAN(SPEC, **settings)
    inputs = []
    module.discriminator.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    run(module, images=8)
    black = [bool((part == -1).all()) for part in inputs[0].split(8)]  # labeled, real, generated, and transformed
    assert black == [True, False, False, True][: 4 if consistency else 3]


def test_consistency_is_the_cross_entropy_from_an_images_classes_to_those_of_its_transform(monkeypatch):
    monkeypatch.setitem(AUGMENTATIONS, "cutout", lambda x, draw: x.flip(3))
    module = SemiSupervisedGAN(SPEC, network="mlp", hidden=[8], latent_dim=4, transforms=["cutout"], consistency=1.0)
    module.turn = turns = Turns()
    x = torch.randn(8, 1, 16, 16)
    module.eval()
    module.training_step(Batch(x, label=torch.arange(8) % 3), 0)
    wanted, found = module.classify(x).softmax(1), module.classify(x.flip(3)).log_softmax(1)
    torch.testing.assert_close(turns.terms["discriminator"]["consistency"], -(wanted * found).sum(1).mean())


def test_data_without_labels_is_rejected():
    with pytest.raises(UserError, match=r"this data has none.*--data.target label"):
        SemiSupervisedGAN(DataSpec((3, 16, 16), "caption", (), ("<pad>", "a")))


def test_a_size_that_the_networks_cannot_make_is_rejected_with_those_that_they_can():
    with pytest.raises(UserError, match="16, 32, 64, 128, 256 pixels per side, but the data has 28"):
        SemiSupervisedGAN(DataSpec((1, 28, 28), "label", ("zero", "one")))


def test_a_condition_is_rejected():
    with pytest.raises(UserError):
        SemiSupervisedGAN(SPEC, width=4).sample(torch.arange(2), condition=torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("setting", [{"unsupervised": -1}, {"consistency": -0.5}, {"noise": -0.5}])
def test_a_negative_setting_is_rejected_by_name(setting):
    ((name, value),) = setting.items()
    with pytest.raises(UserError, match=f"model.{name} is {value}; it must be at least 0"):
        SemiSupervisedGAN(SPEC, **setting)
