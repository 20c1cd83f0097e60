"""LatentMixture: sampling, its checkpoint, and what it refuses."""

import pytest
import torch

import genbench
from genbench.callbacks import Checkpoint
from genbench.core.batch import DataSpec
from genbench.core.capabilities import Decodes, Samples
from genbench.core.errors import UserError
from genbench.core.units import Images
from genbench.models import VQVAE, Autoencoder, LatentMixture
from tests.helpers.small import run

SPEC = DataSpec((1, 8, 8))


def test_a_mixture_samples_and_its_checkpoint_contains_the_autoencoder(tmp_path):
    part = Autoencoder(SPEC, latent_dim=3)
    assert not isinstance(part, Samples) and isinstance(part, Decodes)
    run(part, images=32, callbacks=[Checkpoint(every_images=Images(32))], folder=tmp_path / "part")
    first = next((tmp_path / "part").rglob("last.ckpt"))
    model = LatentMixture(SPEC, autoencoder=str(first), components=2, optimizer={"class_path": "Adam", "lr": 0.01})
    run(model, images=64, callbacks=[Checkpoint(every_images=Images(64))], folder=tmp_path / "whole")
    first.unlink()
    loaded = genbench.load(next((tmp_path / "whole").rglob("last.ckpt")))
    images = loaded.sample(torch.arange(4))
    assert images.shape == (4, 1, 8, 8) and torch.equal(images, model.eval().sample(torch.arange(4)))
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(loaded.reconstruct(x), part.eval().reconstruct(x))
    assert loaded.mixture.begun and not any(p.requires_grad for p in loaded.autoencoder.parameters())


def test_a_mixture_rejects_other_models(tmp_path):
    part = VQVAE(SPEC, num_embeddings=4, embedding_dim=3, width=8, blocks=1)
    run(part, images=8, callbacks=[Checkpoint(every_images=Images(8))], folder=tmp_path)
    with pytest.raises(UserError, match="codes are vectors, which VQVAE does not have"):
        LatentMixture(SPEC, autoencoder=str(next(tmp_path.rglob("last.ckpt"))))
    with pytest.raises(UserError, match="Set the checkpoint of an autoencoder to build on"):
        LatentMixture(SPEC)
