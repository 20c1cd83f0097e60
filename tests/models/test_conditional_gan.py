"""ConditionalGAN: how each discriminator uses the label, and what is refused."""

import pytest
import torch

from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.models import ConditionalGAN
from genbench.models.conditional_gan import Auxiliary, Concatenation, Projection

SPEC = DataSpec((1, 16, 16), "label", ("zero", "one", "two"))


@pytest.mark.parametrize("kind", [Concatenation, Projection])
def test_the_label_changes_the_logits(kind):
    net = kind(1, 16, 4, 3, "batch").eval()
    x = torch.randn(5, 1, 16, 16)
    a, b = (net(x, torch.full((5,), k))[0] for k in (0, 1))
    assert a.shape == (5, 1) and not torch.allclose(a, b)


def test_the_auxiliary_discriminator_ignores_the_label_and_predicts_it():
    net = Auxiliary(1, 16, 4, 3, "batch").eval()
    x = torch.randn(5, 1, 16, 16)
    (a, predicted), (b, _) = (net(x, torch.full((5,), k)) for k in (0, 1))
    assert torch.equal(a, b) and predicted.shape == (5, 3)


def test_projection_is_the_papers_sum_of_a_linear_head_and_an_inner_product():
    net = Projection(1, 16, 4, 3, "none").eval()
    x, label = torch.randn(5, 1, 16, 16), torch.tensor([0, 2, 1, 1, 0])
    phi = net.squeeze(net.body(x))
    expected = phi @ net.output.weight.T + net.output.bias + (phi * net.embedding.weight[label]).sum(1, keepdim=True)
    torch.testing.assert_close(net(x, label)[0], expected)


def test_samples_of_one_seed_differ_by_label():
    module = ConditionalGAN(SPEC, width=4, latent_dim=4).eval()
    seeds = torch.tensor([7, 7, 7])
    images = module.sample(seeds, condition=torch.arange(3))
    assert len(images.flatten(1).unique(dim=0)) == 3


def test_data_without_labels_is_rejected():
    with pytest.raises(UserError, match=r"this data has none.*--data.target label"):
        ConditionalGAN(DataSpec((3, 16, 16), "caption", (), ("<pad>", "a")))


def test_a_size_that_the_networks_cannot_make_is_rejected_with_those_that_they_can():
    with pytest.raises(UserError, match="16, 32, 64, 128, 256 pixels per side, but the data has 28"):
        ConditionalGAN(DataSpec((1, 28, 28), "label", ("zero", "one")))


def test_a_sample_without_a_label_is_refused():
    with pytest.raises(UserError, match="Pass one"):
        ConditionalGAN(SPEC, width=4).sample(torch.arange(2))


def test_a_negative_class_weight_is_rejected():
    with pytest.raises(UserError, match="model.class_weight is -1; it must be at least 0"):
        ConditionalGAN(SPEC, class_weight=-1)
