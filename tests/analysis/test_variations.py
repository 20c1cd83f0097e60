"""Reconstructions and variations, on models whose codes are known."""

import pytest
import torch

from genbench.analysis import variations
from genbench.core.batch import DataSpec
from genbench.models import VAE, Autoencoder, ConditionalVAE

SPEC = DataSpec((1, 16, 16), "label", ("a", "b"))


class Linear:
    """A code is the mean of each half of the image; the posterior's standard deviation is 0.5."""

    latent_shape, latent_dtype = (2,), "float32"

    def encode(self, x):
        return x.flatten(1).unflatten(1, (2, -1)).mean(2)

    def posterior(self, x):
        mu = self.encode(x)
        return mu, torch.full_like(mu, 0.25).log()

    def decode(self, z):
        return z[:, :, None].expand(-1, -1, 8).reshape(-1, 1, 4, 4)


def test_a_reconstruction_is_the_decoded_code():
    model = Autoencoder(SPEC).eval()
    x = torch.rand(3, 1, 16, 16)
    assert torch.equal(variations.reconstruct(model, x), model.decode(model.encode(x)))
    halves = torch.cat([torch.full((1, 1, 2, 4), -0.5), torch.full((1, 1, 2, 4), 0.25)], 2)
    assert torch.equal(variations.reconstruct(Linear(), halves), halves)


def test_a_conditional_model_reconstructs_with_the_labels_of_the_images():
    model = ConditionalVAE(SPEC, latent_dim=3, width=4).eval()
    x, label = torch.rand(2, 1, 16, 16), torch.tensor([0, 1])
    with torch.no_grad():
        expected = model.decode(model.encode(x, condition=label), condition=label)
    assert torch.equal(variations.reconstruct(model, x, label), expected)
    assert not torch.equal(variations.reconstruct(model, x, label.flip(0)), expected)


def test_the_noise_of_a_variation_depends_on_its_own_number_alone():
    whole = variations.noise((3,), 5, 4, seed=7)
    assert whole.shape == (5, 4, 3)
    assert torch.equal(variations.noise((3,), 2, 6, seed=7, first=3)[:, :4], whole[3:])
    assert not torch.equal(variations.noise((3,), 5, 4, seed=8), whole)
    assert len(whole.flatten(0, 1).unique(dim=0)) == 20


def test_the_noise_is_standard_normal():
    eps = variations.noise((50,), 20, 20).flatten()
    assert abs(eps.mean().item()) < 5 / len(eps) ** 0.5 and abs(eps.std().item() - 1) < 0.02


def test_posterior_samples_have_the_mean_and_deviation_of_the_posterior():
    x = torch.rand(2, 1, 4, 4)
    eps = variations.noise((2,), 2, 4000)
    z = variations.posterior_samples(Linear(), x, eps)
    assert torch.allclose(z.mean(1), Linear().encode(x), atol=0.04)
    assert torch.allclose(z.std(1), torch.full((2, 2), 0.5), atol=0.02)
    assert torch.equal(variations.posterior_samples(Linear(), x, eps, scale=0), z * 0 + Linear().encode(x)[:, None])


def test_nearby_codes_spread_by_a_multiple_of_the_deviation_of_each_dimension():
    codes, deviation = torch.tensor([[1.0, -2.0]]), torch.tensor([0.1, 3.0])
    z = variations.nearby_codes(codes, deviation, variations.noise((2,), 1, 4000), scale=0.5)
    assert torch.allclose(z.std(1), 0.5 * deviation[None], rtol=0.05)
    assert torch.equal(variations.nearby_codes(codes, deviation, torch.zeros(1, 3, 2), 0.5), codes.expand(1, 3, 2))


@pytest.mark.parametrize("size", [1, 4, 100])
def test_every_code_is_decoded_with_the_label_of_its_image_in_any_batches(size):
    model = ConditionalVAE(SPEC, latent_dim=3, width=4).eval()
    z, label = torch.randn(2, 3, 3), torch.tensor([1, 0])
    found = variations.decode_each(model, z, label, size)
    with torch.no_grad():
        expected = torch.stack([model.decode(z[k], condition=label[k].expand(3)) for k in range(2)])
    assert torch.allclose(found, expected, atol=1e-6)


def test_posterior_samples_of_a_vae_use_its_posterior():
    model = VAE(SPEC, latent_dim=3, width=4).eval()
    x, eps = torch.rand(2, 1, 16, 16), torch.randn(2, 5, 3)
    with torch.no_grad():
        mu, logvar = model.posterior(x)
    expected = mu[:, None] + (logvar / 2).exp()[:, None] * eps
    assert torch.allclose(variations.posterior_samples(model, x, eps), expected)
