"""Autoencoders find what theory says they find, and undo what they were taught to undo."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from genbench.core.batch import Batch, DataSpec, from_uint8
from genbench.core.capabilities import Decodes, Encodes, Reconstructs, Samples
from genbench.core.errors import UserError
from genbench.core.noise import Draws
from genbench.models import Autoencoder, ConvAutoencoder, DenoisingAutoencoder
from genbench.objectives.corruption import corrupt
from tests.helpers.small import run

SPEC = DataSpec((1, 16, 16))
KINDS = [Autoencoder, ConvAutoencoder, DenoisingAutoencoder]


@pytest.mark.parametrize("model", KINDS)
def test_an_autoencoder_encodes_decodes_and_has_nothing_to_sample(model):
    torch.manual_seed(0)
    module = model(SPEC, latent_dim=5).eval()
    x = torch.rand(3, 1, 16, 16) * 2 - 1
    z = module.encode(x)
    assert z.shape == (3, 5) and module.reconstruct(x).shape == x.shape
    assert module.decode(100 * z).abs().max() <= 1
    assert all(isinstance(module, p) for p in (Encodes, Decodes, Reconstructs)) and not isinstance(module, Samples)


@pytest.mark.parametrize("model", KINDS)
def test_a_code_of_no_numbers_is_refused(model):
    with pytest.raises(UserError, match="model.latent_dim is 0; it must be at least 1"):
        model(SPEC, latent_dim=0)


def test_a_list_of_widths_stacks_layers_and_their_mirror_image():
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


def test_training_by_the_real_loop_comes_within_a_percent_of_principal_components():
    module = Autoencoder(DataSpec((1, 4, 4)), latent_dim=4, optimizer={"lr": 0.01})
    trainer = run(module, images=24_000)
    images = from_uint8(trainer.datamodule.train.everything.image).flatten(1).numpy()
    pca = PCA(4).fit(images)
    best = np.square(pca.inverse_transform(pca.transform(images)) - images).mean()
    with torch.no_grad():
        x = torch.from_numpy(images).view(-1, 1, 4, 4)
        found = (module.decoder(module.encoder(x)) - x).square().mean().item()
    assert found == pytest.approx(best, rel=0.01)


# ---- noise ----------------------------------------------------------------------------------------------------------


def draws():
    draw = Draws()
    draw.seed("test")
    return draw


def test_gaussian_noise_has_its_standard_deviation():
    noise = corrupt(torch.zeros(50, 3, 16, 16), "gaussian", 0.3, draws())
    assert noise.std().item() == pytest.approx(0.3, rel=0.02) and abs(noise.mean()) < 0.01


@pytest.mark.parametrize(("corruption", "values"), [("masking", [-1]), ("salt_and_pepper", [-1, 1])])
def test_a_share_of_the_pixels_is_spoilt_in_all_channels_and_the_rest_left_alone(corruption, values):
    x = torch.full((50, 3, 16, 16), 0.25)
    spoilt = corrupt(x, corruption, 0.4, draws())
    changed = spoilt != x
    assert sorted(spoilt[changed].unique().tolist()) == values
    assert torch.equal(changed[:, :1].expand(-1, 3, -1, -1), changed)
    assert changed[:, 0].float().mean().item() == pytest.approx(0.4, abs=0.02)
    if len(values) == 2:
        assert (spoilt[changed] == 1).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_a_share_above_one_is_refused():
    with pytest.raises(UserError, match="model.amount is 1.5, a share of the pixels"):
        DenoisingAutoencoder(SPEC, corruption="masking", amount=1.5)


def test_a_denoiser_is_shown_the_spoilt_image_and_taught_the_whole_one():
    module = DenoisingAutoencoder(SPEC, corruption="masking", amount=0.5, latent_dim=4, network="mlp", hidden=[8])
    seen = []
    module.encoder.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]))
    x = torch.rand(6, 1, 16, 16)
    module.draw.seed("test")
    found = module.validation_step(Batch(x), 0)
    assert (seen[0] == -1).float().mean().item() == pytest.approx(0.5, abs=0.06)
    torch.testing.assert_close(found["spoilt_mse"], (seen[0] - x).square().flatten(1).mean(1))
    torch.testing.assert_close(found["denoised_mse"], (module.reconstruct(seen[0]) - x).square().flatten(1).mean(1))
