"""The codes of a VQ-VAE are integers. A prior contains its VQ-VAE, and rejects other models and data."""

from dataclasses import replace

import pytest
import torch

import genbench
from genbench.callbacks import Checkpoint
from genbench.core.batch import DataSpec
from genbench.core.capabilities import Decodes, Encodes, Reconstructs, Samples
from genbench.core.errors import UserError
from genbench.core.units import Images
from genbench.models import VQVAE, Autoencoder, VQPrior
from tests.helpers.small import run, same_weights

SPEC = DataSpec((1, 8, 8), "label", ("zero", "one"))
SMALL = {"num_embeddings": 6, "embedding_dim": 3, "width": 8, "blocks": 1}


def small(spec=SPEC, **arguments):
    torch.manual_seed(0)
    return VQVAE(spec, **SMALL | arguments)


@pytest.fixture
def trained(tmp_path):
    """The checkpoint of a VQ-VAE."""
    run(small(), images=64, callbacks=[Checkpoint(every_images=Images(32))], folder=tmp_path)
    return next(tmp_path.rglob("last.ckpt"))


def test_codes_are_codebook_indices_on_a_quarter_of_the_images_side():
    model, x = small().eval(), torch.rand(3, 1, 8, 8) * 2 - 1
    z = model.encode(x)
    assert z.shape == (3, *model.latent_shape) == (3, 2, 2) and z.dtype == torch.int64
    assert z.min() >= 0 and z.max() < model.latent_values == 6
    assert torch.equal(model.reconstruct(x), model.decode(z)) and model.decode(z).shape == x.shape
    assert all(isinstance(model, p) for p in (Encodes, Decodes, Reconstructs)) and not isinstance(model, Samples)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_training_moves_the_codebook_and_logs_how_it_is_used(codebook):
    model = small(codebook=codebook)
    before = model.quantizer.vectors.detach().clone()
    run(model, images=40)
    assert not torch.equal(model.quantizer.vectors.detach(), before)
    terms = model.read_terms()
    assert 1 <= terms["train/perplexity"] <= 6.001 and 0 < terms["train/codebook_usage"] <= 1
    assert ("train/codebook" in terms) == (codebook == "gradient")


def test_dead_codes_are_restarted_at_the_set_interval(monkeypatch):
    model, calls = small(restart_dead_codes=16), []
    monkeypatch.setattr(model.quantizer, "restart_dead_codes", lambda z, which, least: calls.append(model.images_seen))
    run(model, images=48)
    assert calls == [16, 32, 48]


@pytest.mark.parametrize(
    ("spec", "arguments", "said"),
    [
        (SPEC, {"decay": 1.0}, r"model.decay is 1.0; it must be in \[0, 1\)"),
        (SPEC, {"num_embeddings": 0}, "model.num_embeddings is 0; it must be at least 1"),
        (DataSpec((1, 10, 10)), {}, "multiples of 4, but the data has 10 pixels per side"),
    ],
)
def test_invalid_settings_are_rejected(spec, arguments, said):
    with pytest.raises(UserError, match=said):
        small(spec, **arguments)


# ---- the prior ------------------------------------------------------------------------------------------------------


def prior(part, **arguments):
    torch.manual_seed(1)
    return VQPrior(SPEC, **{"autoencoder": part, "width": 6, "layers": 2, "kernel": 3} | arguments)


@pytest.mark.parametrize("by_class", [False, True])
def test_a_priors_checkpoint_contains_its_autoencoder(trained, tmp_path, by_class):
    part = genbench.load(trained)
    model = prior(str(trained), by_class=by_class)
    assert same_weights(model.autoencoder, part)
    if by_class:
        from tests.helpers.small import RandomImages

        RandomImages.targets = {"label": torch.arange(64) % 2}
    try:
        run(model, images=32, callbacks=[Checkpoint(every_images=Images(32))], folder=tmp_path / "prior")
    finally:
        if by_class:
            RandomImages.targets = {}
    trained.unlink()
    loaded = genbench.load(next((tmp_path / "prior").rglob("last.ckpt")))
    assert same_weights(loaded.autoencoder, part)  # all parameters of the autoencoder are frozen
    seeds, label = torch.arange(3), torch.tensor([0, 1, 0]) if by_class else None
    images = loaded.sample(seeds, condition=label)
    assert images.shape == (3, 1, 8, 8) and torch.equal(images, model.eval().sample(seeds, condition=label))
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(loaded.reconstruct(x), part.reconstruct(x))


def test_the_frozen_part_stays_in_eval_mode_and_takes_no_gradient(trained):
    model = prior(str(trained)).train()
    assert model.training and not model.autoencoder.training
    assert not any(p.requires_grad for p in model.autoencoder.parameters())
    assert {id(p) for p in model.parameters_of("train")} == {id(p) for p in model.net.parameters()}


def test_a_prior_refuses_other_models_and_data(trained, tmp_path):
    with pytest.raises(UserError, match=r"Set the checkpoint of a VQVAE to build on with `--model.autoencoder PATH`"):
        prior(None)
    with pytest.raises(UserError, match="There is no checkpoint at nowhere.ckpt"):
        prior("nowhere.ckpt")
    with pytest.raises(UserError, match="was trained on images of 8×8×1; the data has 16×16×1|8×8×1, but the data"):
        VQPrior(DataSpec((1, 16, 16)), autoencoder=str(trained))
    with pytest.raises(UserError, match="was trained on gray or color images, but the data has black-and-white images"):
        VQPrior(replace(SPEC, binary=True), autoencoder=str(trained))
    built = VQPrior(SPEC, autoencoder=str(trained), width=4, layers=1)
    run(built, images=8, callbacks=[Checkpoint(every_images=Images(8))], folder=tmp_path / "built")
    assert VQPrior(SPEC, autoencoder=str(trained.parents[1])).autoencoder.spec == SPEC  # the folder of a run will do
    with pytest.raises(UserError, match="contains a VQPrior, which is itself built on a VQVAE. Set the"):
        prior(str(tmp_path / "built"))
    other = Autoencoder(SPEC, latent_dim=3)
    run(other, images=8, callbacks=[Checkpoint(every_images=Images(8))], folder=tmp_path / "other")
    with pytest.raises(UserError, match="codes are grids of integers, which Autoencoder does not have"):
        prior(str(next((tmp_path / "other").rglob("last.ckpt"))))
