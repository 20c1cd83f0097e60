"""Anomaly scores equal closed forms, SciPy and scikit-learn; heat maps are high where an image was changed."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import average_precision_score, roc_auc_score

from genbench.analysis import anomaly
from genbench.core.batch import Batch, DataSpec, from_stored
from genbench.core.errors import UserError
from genbench.data import MNIST
from genbench.models import DCGAN, VAE, VQVAE, Autoencoder, ConditionalVAE, ConvAutoencoder, PixelCNN

ROOT = Path(os.environ.get("GENBENCH_DATA", "/nonexistent"))
GRAY = DataSpec((1, 16, 16))


class Blank:
    """Reconstructs every image as black, and encodes it as its first pixels."""

    dtype, latent_dtype, latent_shape = torch.float32, "float32", (3,)

    def reconstruct(self, x):
        return torch.full_like(x, -1)

    def encode(self, x):
        return x.flatten(1)[:, :3]

    def discriminate(self, x):
        return x.flatten(1).mean(1)


def images(n=10, size=8, channels=1):
    return torch.rand(n, channels, size, size) * 2 - 1


# ---- scores -----------------------------------------------------------------------------------------------------


def test_the_reconstruction_error_is_the_mean_squared_error_of_each_image():
    x = images(5, channels=3)
    wanted = ((x.numpy().astype(np.float64) + 1) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(anomaly.reconstruction_error(Blank(), x).numpy(), wanted, rtol=1e-6)
    np.testing.assert_allclose(anomaly.scores(Blank(), x, "reconstruction").numpy(), wanted, rtol=1e-6)


def test_the_mahalanobis_distance_equals_scipys_with_the_covariance_of_scikit_learn():
    training, z = torch.randn(40, 6) @ torch.randn(6, 6) + 3, torch.randn(9, 6) * 5
    covariance, _ = ledoit_wolf(training.double().numpy())
    mean, inverse = training.double().mean(0).numpy(), np.linalg.inv(covariance)
    wanted = [scipy_mahalanobis(each, mean, inverse) for each in z.double().numpy()]
    np.testing.assert_allclose(anomaly.mahalanobis(z, *anomaly.gaussian(training)).numpy(), wanted, rtol=1e-9)


def test_the_distance_of_many_white_codes_is_the_euclidean_one():
    training = torch.randn(200_000, 2)
    found = anomaly.mahalanobis(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), *anomaly.gaussian(training))
    assert found[0] == pytest.approx(5, rel=0.01) and found[1] == pytest.approx(0, abs=0.01)


def test_codes_with_unused_dimensions_have_finite_distances():
    training = torch.cat([torch.randn(50, 2), torch.zeros(50, 30)], 1)
    assert anomaly.mahalanobis(training, *anomaly.gaussian(training)).isfinite().all()


def test_the_latent_score_is_the_distance_to_the_codes_of_the_training_images():
    x, training = images(), images(30)
    wanted = anomaly.mahalanobis(x.flatten(1)[:, :3], *anomaly.gaussian(training.flatten(1)[:, :3]))
    assert torch.equal(anomaly.scores(Blank(), x, "latent", training=training.split(7)), wanted)


def test_the_discriminator_score_is_its_negative_logit():
    x = images()
    assert torch.allclose(anomaly.scores(Blank(), x, "discriminator"), -x.flatten(1).mean(1).double())


def test_the_likelihood_score_of_an_exact_model_is_the_negative_log_likelihood():
    model = PixelCNN(DataSpec((1, 8, 8), binary=True), width=4, layers=1).eval()
    x = images().sign()
    with torch.no_grad():
        wanted = -model.log_likelihood(x).double()
    torch.testing.assert_close(anomaly.scores(model, x, "likelihood"), wanted, rtol=1e-5, atol=1e-5)


def test_the_scores_of_a_likelihood_with_noise_depend_on_the_seed_and_not_on_the_batch_size():
    model, x = VAE(GRAY, width=4, latent_dim=2, decoder="gaussian", sigma=0.3).eval(), images(150, 16)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = anomaly.scores(model, x, "likelihood", seed=1)
    assert torch.equal(torch.get_rng_state(), state)  # the generator of the user stays as it was
    assert torch.equal(anomaly.scores(model, x.split(13), "likelihood", seed=1), one)
    assert not torch.equal(anomaly.scores(model, x, "likelihood", seed=2), one)


def test_the_projection_score_is_the_error_of_the_nearest_image(monkeypatch):
    def project(model, x, *, seed, steps=300):
        assert (seed, steps) == (4, 7)
        return SimpleNamespace(images=torch.zeros_like(x))

    monkeypatch.setattr(anomaly, "project", project)
    model, x = DCGAN(GRAY, width=4, latent_dim=2).eval(), images(3, 16)
    found = anomaly.scores(model, x, "projection", seed=4, steps=7)
    torch.testing.assert_close(found, x.square().flatten(1).mean(1).double())


def test_the_default_is_the_first_score_that_a_model_supports():
    order = {
        ConvAutoencoder(GRAY, width=4): ("reconstruction", "latent"),
        VAE(GRAY, width=4): ("reconstruction", "likelihood", "latent", "projection"),
        DCGAN(GRAY, width=4): ("discriminator", "projection"),
        PixelCNN(DataSpec((1, 8, 8), binary=True), width=4, layers=1): ("likelihood",),
        VQVAE(GRAY, width=4): ("reconstruction",),  # integer codes
        ConditionalVAE(DataSpec((1, 16, 16), "label", ("a", "b")), width=4): ("likelihood",),  # encodes with a label
    }
    for model, wanted in order.items():
        assert anomaly.supported(model) == wanted, type(model).__name__
    x = images()
    assert torch.equal(anomaly.scores(Blank(), x), anomaly.scores(Blank(), x, "reconstruction"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: anomaly.scores(object(), images()), "object has no anomaly score: it needs one of the methods recon"),
        (
            lambda: anomaly.scores(Blank(), images(), "likelihood"),
            "Blank cannot be scored by likelihood: it has no `log_likelihood` method. It can be scored by: reconst",
        ),
        (lambda: anomaly.scores(Blank(), images(), "latent"), "needs training images: pass `training`"),
        (lambda: anomaly.scores(Blank(), []), "There are no images to score"),
        (lambda: anomaly.gaussian(torch.ones(5, 2)), "The 5 codes of the training images are equal"),
        (lambda: anomaly.gaussian(torch.ones(1, 2)), "The 1 codes"),
        (
            lambda: anomaly.mahalanobis(torch.ones(1, 3), *anomaly.gaussian(torch.randn(9, 2))),
            "have 3 dimensions, but those of the training images have 2",
        ),
        (lambda: anomaly.auroc(torch.ones(4), torch.zeros(4, dtype=torch.bool)), "All 4 images are normal"),
        (lambda: anomaly.average_precision(torch.ones(4), torch.ones(4, dtype=torch.bool)), "All 4 images are anom"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_a_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()


# ---- heat maps --------------------------------------------------------------------------------------------------


def test_a_heat_map_is_the_smoothed_squared_error():
    x = images(3, 12, 3)
    error = ((x + 1) ** 2).mean(1).numpy()
    np.testing.assert_allclose(anomaly.heat_map(Blank(), x, smooth=0).numpy(), error, rtol=1e-6)
    wanted = np.stack([gaussian_filter(each, 1.5, mode="reflect") for each in error])
    np.testing.assert_allclose(anomaly.heat_map(Blank(), x, smooth=1.5).numpy(), wanted, rtol=1e-5)
    default = np.stack([gaussian_filter(each, 1.0, mode="reflect") for each in error])
    np.testing.assert_allclose(anomaly.heat_map(Blank(), x).numpy(), default, rtol=1e-5)


def test_smoothing_keeps_the_mean_of_a_heat_map():
    x = images(3, 12)
    smooth, plain = anomaly.heat_map(Blank(), x, smooth=3), anomaly.heat_map(Blank(), x, smooth=0)
    torch.testing.assert_close(smooth.mean((1, 2)), plain.mean((1, 2)), rtol=1e-4, atol=0)


def test_a_heat_map_is_high_where_a_patch_was_pasted():
    """A trained autoencoder: 32 gradients with random directions, of which it has seen hundreds."""
    torch.manual_seed(0)
    place = torch.linspace(-0.5, 0.5, 16)

    def gradients(n):
        a, b = torch.randn(2, n, 1, 1, 1)
        return (a * place[None, None, :, None] + b * place[None, None, None]).clamp(-1, 1)

    model = Autoencoder(GRAY, latent_dim=4)
    adam = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(300):
        x = gradients(64)
        loss = (model.decoder(model.encoder(x)) - x).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    x = gradients(32)
    x[:, :, 4:8, 9:13] = -x[:, :, 4:8, 9:13].sign() * 0.9
    heat = anomaly.heat_map(model.eval(), x)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[4:8, 9:13] = True
    assert (heat[:, inside].mean(1) > 5 * heat[:, ~inside].mean(1)).all()
    highest = heat.flatten(1).argmax(1)
    assert inside.flatten()[highest].float().mean() > 0.9


@pytest.mark.skipif(not (ROOT / "MNIST").exists(), reason="GENBENCH_DATA names no folder with MNIST")
def test_an_autoencoder_of_one_digit_of_mnist_finds_the_others():
    """One-class detection with one digit as normal, as in Ruff et al. 2018, "Deep One-Class Classification"."""
    data = MNIST(only_classes=3, val_size=100)
    model = Autoencoder(data.spec, latent_dim=16, hidden=(64,))
    adam = torch.optim.Adam(model.parameters(), 0.002)
    batches = iter(data.train_dataloader())
    for _ in range(400):
        x = next(batches).image
        loss = (model.decoder(model.encoder(x)) - x).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    source = MNIST().source("test")
    rows = torch.arange(0, 10_000, 5)
    batch = Batch(from_stored(source.batch(rows).image), source.target("label", rows))
    assert anomaly.auroc(anomaly.scores(model.eval(), batch.image), batch.label != 3) > 0.8


# ---- AUROC and average precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_auroc_and_average_precision_equal_scikit_learns_and_their_definitions(seed):
    draw = torch.Generator().manual_seed(seed)
    anomalous = torch.rand(200, generator=draw) < 0.3
    values = (torch.randn(200, generator=draw) + anomalous).mul(4).round()  # with ties
    assert anomaly.auroc(values, anomalous) == pytest.approx(roc_auc_score(anomalous, values), abs=1e-12)
    wanted = average_precision_score(anomalous, values)
    assert anomaly.average_precision(values, anomalous) == pytest.approx(wanted, abs=1e-12)
    # Mann & Whitney: the fraction of pairs in the right order
    difference = values[anomalous][:, None] - values[~anomalous]
    pairs = (difference > 0).double() + 0.5 * (difference == 0)
    assert anomaly.auroc(values, anomalous) == pytest.approx(float(pairs.mean()), abs=1e-12)
    total, recall = 0.0, 0.0
    for limit in values.unique().flip(0):
        above = values >= limit
        precision, new = float(anomalous[above].double().mean()), float(above[anomalous].double().mean())
        total, recall = total + (new - recall) * precision, new
    assert anomaly.average_precision(values, anomalous) == pytest.approx(total, abs=1e-12)


def test_auroc_of_known_orders():
    anomalous = torch.tensor([False, False, True, True])
    assert anomaly.auroc(torch.tensor([1.0, 2.0, 3.0, 4.0]), anomalous) == 1
    assert anomaly.auroc(torch.tensor([4.0, 3.0, 2.0, 1.0]), anomalous) == 0
    assert anomaly.auroc(torch.ones(4), anomalous) == 0.5
    assert anomaly.average_precision(torch.ones(4), anomalous) == 0.5  # the fraction of anomalous images


def test_auroc_of_two_gaussians_is_the_closed_form():
    draw = torch.Generator().manual_seed(0)
    values, anomalous = torch.randn(40_000, generator=draw), torch.arange(40_000) % 2 == 0
    values += 1.0 * anomalous
    closed = float(torch.special.ndtr(torch.tensor(1 / 2**0.5)))  # P(N(1, 1) > N(0, 1)) = Φ(1/√2)
    assert anomaly.auroc(values, anomalous) == pytest.approx(closed, abs=0.01)
