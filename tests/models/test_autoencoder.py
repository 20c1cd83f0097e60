"""Autoencoder, and what it has in common with ConvAutoencoder and DenoisingAutoencoder."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from genbench.core.batch import DataSpec, from_uint8
from genbench.core.capabilities import Decodes, Encodes, Reconstructs, Samples
from genbench.core.errors import UserError
from genbench.models import Autoencoder, ConvAutoencoder, DenoisingAutoencoder
from tests.helpers.small import run

SPEC = DataSpec((1, 16, 16))
KINDS = [Autoencoder, ConvAutoencoder, DenoisingAutoencoder]


@pytest.mark.parametrize("model", KINDS)
def test_an_autoencoder_encodes_and_decodes_and_does_not_sample(model):
    torch.manual_seed(0)
    module = model(SPEC, latent_dim=5).eval()
    x = torch.rand(3, 1, 16, 16) * 2 - 1
    z = module.encode(x)
    assert z.shape == (3, 5) and module.reconstruct(x).shape == x.shape
    assert module.decode(100 * z).abs().max() <= 1
    assert all(isinstance(module, p) for p in (Encodes, Decodes, Reconstructs)) and not isinstance(module, Samples)


@pytest.mark.parametrize("model", KINDS)
def test_a_code_of_zero_dimensions_is_rejected(model):
    with pytest.raises(UserError, match="model.latent_dim is 0; it must be at least 1"):
        model(SPEC, latent_dim=0)


def test_the_decoder_has_the_encoders_widths_in_reverse_order():
    module = Autoencoder(DataSpec((1, 4, 4)), latent_dim=3, hidden=[12, 6])
    widths = [[m.in_features for m in net.modules() if hasattr(m, "in_features")] for net in
              (module.encoder, module.decoder)]  # fmt: skip
    assert widths == [[16, 12, 6], [3, 6, 12]]


def test_a_linear_autoencoder_finds_the_principal_subspace_and_its_error():
    torch.manual_seed(0)
    n, pixels, kept = 400, 16, 3
    scales = torch.tensor([1.0, 0.7, 0.5, *[0.1] * 13])
    basis = torch.linalg.qr(torch.randn(pixels, pixels)).Q
    data = torch.randn(n, pixels) * scales @ basis.T * 0.15 + 0.05
    module = Autoencoder(DataSpec((1, 4, 4)), latent_dim=kept)
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=2000, tolerance_grad=1e-12, tolerance_change=1e-14)
    x = data.view(n, 1, 4, 4)

    def closure():
        optimizer.zero_grad()
        loss = (module.decoder(module.encoder(x)) - x).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    pca = PCA(kept).fit(data.numpy())
    best = np.square(pca.inverse_transform(pca.transform(data.numpy())) - data.numpy()).mean()
    assert best <= closure().item() * 1.0001 and closure().item() == pytest.approx(best, rel=0.01)
    spanned = torch.linalg.qr(module.decoder[0][0].weight.detach()).Q.numpy()
    overlap = np.linalg.svd(spanned.T @ pca.components_.T)[1]  # cosines of the angles between both subspaces
    assert overlap.min() > 0.999


def test_trained_by_fit_it_comes_within_a_percent_of_principal_components():
    module = Autoencoder(DataSpec((1, 4, 4)), latent_dim=4, optimizer={"lr": 0.01})
    trainer = run(module, images=24_000)
    images = from_uint8(trainer.datamodule.train.everything.image).flatten(1).numpy()
    pca = PCA(4).fit(images)
    best = np.square(pca.inverse_transform(pca.transform(images)) - images).mean()
    with torch.no_grad():
        x = torch.from_numpy(images).view(-1, 1, 4, 4)
        found = (module.decoder(module.encoder(x)) - x).square().mean().item()
    assert found == pytest.approx(best, rel=0.01)
