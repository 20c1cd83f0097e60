"""Validation scores use the whole split, the EMA weights, and separate noise."""

import pytest
import torch
from lightning import Trainer

import genbench
from genbench.callbacks import EMA, Checkpoint, MaxImages, ValidationMetrics
from genbench.core.batch import DataSpec, from_uint8, to_uint8
from genbench.core.errors import UserError
from genbench.core.noise import Draws
from genbench.data import Digits
from genbench.data.loader import MemorySource
from genbench.data.streams import StreamSource
from genbench.evaluation import extractors
from genbench.loggers import Curves
from genbench.metrics.frechet import FrechetDistance
from genbench.models import DCGAN, VAE, Autoencoder
from tests.helpers.conditional import LABELS, Toned
from tests.helpers.registry import own_metrics
from tests.helpers.small import Each, RandomImages, run, validate
from tests.helpers.toy import SPEC, ToyAutoencoder, ToyGAN


def held_out(spec=SPEC):
    return RandomImages(spec).held_out()


def fid(module, samples, images):
    """The Fréchet distance, computed directly with the seeds of the protocol quick."""
    extractor, distance = extractors.build("digitsnet"), FrechetDistance(128)
    with torch.no_grad():
        distance.update(extractor(to_uint8(module.sample(torch.arange(samples) + 2**32)))[0], real=False)
        distance.update(extractor(to_uint8(images))[0], real=True)
    return distance.compute().item()


def test_the_reconstruction_error_is_the_mean_over_every_image_of_the_split():
    module, x = ToyAutoencoder(SPEC).eval(), held_out()
    assert len(x) == 24  # blocks of 10, 10 and 4 images: their means must be weighted by size
    expected = (from_uint8(to_uint8(module.reconstruct(x))) - x).double().square().mean().item()
    assert validate(module, [ValidationMetrics()])["val/mse"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("samples", [10, 15, 24, 100])
def test_samples_are_compared_with_all_images_of_the_split(samples):
    module, x = ToyGAN(SPEC).eval(), held_out()
    expected = fid(module, samples, x)
    assert validate(module, [ValidationMetrics(samples=samples)]) == {
        "val/fid-digitsnet": pytest.approx(expected, rel=1e-4)
    }


def test_the_models_own_scores_are_averaged_over_the_split():
    torch.manual_seed(0)
    vae, sums = VAE(SPEC, latent_dim=2, network="mlp", hidden=[8]).eval(), torch.zeros(2, dtype=torch.float64)
    draw = Draws()
    for block, x in enumerate(held_out().split(10)):
        draw.seed("validation", block)
        with torch.no_grad():
            mu, logvar = vae.posterior(x)
            logits = vae.decoder(mu + torch.exp(logvar / 2) * draw(torch.randn, len(x), 2))
            pixel = torch.distributions.Bernoulli(logits=logits)
            white = (x + 1) / 2
            expected = white * pixel.log_prob(torch.ones_like(x)) + (1 - white) * pixel.log_prob(torch.zeros_like(x))
            code = torch.distributions.Normal(mu, torch.exp(logvar / 2))
            kl = torch.distributions.kl_divergence(code, torch.distributions.Normal(0.0, 1.0))
        sums += torch.tensor([expected.double().sum(), kl.double().sum()])
    scores = validate(vae, [ValidationMetrics(samples=10)])
    of_the_protocol = {"fid-digitsnet", "mse", "psnr", "reconstruction_fid-digitsnet", "code_bits"}
    assert scores.keys() == {f"val/{name}" for name in {"elbo", "reconstruction", "kl"} | of_the_protocol}
    log_probability, divergence = (sums / 24).tolist()
    assert scores["val/reconstruction"] == pytest.approx(-log_probability, rel=1e-5)
    assert scores["val/kl"] == pytest.approx(divergence, rel=1e-5)
    assert scores["val/elbo"] == pytest.approx(log_probability - divergence, rel=1e-5)


def test_a_classifier_is_scored_by_its_accuracy_on_the_labels_of_the_split(monkeypatch):
    class Guesser(ToyAutoencoder):
        def classify(self, x):
            return self.encoder(x)

    torch.manual_seed(0)
    module, labels = Guesser(SPEC).eval(), torch.arange(64) % 4
    assert "val/accuracy" not in validate(module, [ValidationMetrics()])  # no labels
    monkeypatch.setattr(RandomImages, "targets", {"label": labels})
    with torch.no_grad():
        right = (module.encoder(held_out()).argmax(1) == labels[40:]).double().mean().item()
    assert 0 < right < 1
    assert validate(module, [ValidationMetrics()])["val/accuracy"] == pytest.approx(right)


def test_a_conditional_model_is_sampled_with_the_labels_of_the_split(monkeypatch):
    conditions = []

    class Asked(Toned):
        def sample(self, seeds, *, condition=None):
            conditions.append(condition)
            return super().sample(seeds, condition=condition)

    labels = torch.arange(64) % 3
    monkeypatch.setattr(RandomImages, "targets", {"label": labels})
    assert "val/fid-digitsnet" in validate(Asked(LABELS), [ValidationMetrics(samples=24)])
    assert torch.equal(torch.cat(conditions)[:24], labels[40:])


def test_a_run_is_validated_at_its_interval_and_at_its_end(tmp_path):
    seen = Each("on_validation_epoch_end", lambda trainer, module: module.images_seen)
    curves = Curves(tmp_path)
    run(ToyAutoencoder(SPEC), images=72, callbacks=[EMA(), ValidationMetrics(every_images=20), seen], logger=[curves])
    assert seen.values == [24, 40, 64, 72]
    assert [int(row["images_seen"]) for row in curves.rows() if row["val/mse"]] == seen.values


def test_the_scores_of_a_run_are_those_of_its_averaged_weights(tmp_path):
    quality = ValidationMetrics(every_images=1000, samples=24)
    spec = DataSpec((1, 16, 16))
    module = DCGAN(spec, latent_dim=4, width=2, optimizer={"lr": 0.01})
    run(module, images=80, callbacks=[EMA(halflife=200, rampup=0), quality, Checkpoint()], folder=tmp_path)
    path = tmp_path / "checkpoints" / "last.ckpt"
    averaged, raw = (fid(genbench.load(path, raw=raw), 24, held_out(spec)) for raw in (False, True))
    assert quality.scores["val/fid-digitsnet"] == pytest.approx(averaged, rel=1e-4)
    assert abs(raw - averaged) > 1e-3 * averaged


def test_scoring_does_not_touch_the_training():
    weights = []
    for quality in ([], [ValidationMetrics(every_images=16, samples=10)]):
        torch.manual_seed(0)
        module = VAE(DataSpec((1, 16, 16)), latent_dim=2, width=2)
        run(module, images=80, callbacks=[EMA(), *quality], limit_val_batches=1.0 if quality else 0)
        weights.append(module.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_best_checkpoint_is_not_chosen_on_the_test_split():
    with pytest.raises(UserError, match="fid10k-test, which uses the test split"):
        ValidationMetrics(protocol="fid10k-test")
    with pytest.raises(UserError, match="samples is 1; a distance between distributions needs at least 2"):
        ValidationMetrics(samples=1)


def test_without_weights_a_random_network_is_used_and_a_note_is_printed(monkeypatch, capsys):
    def absent(name, weights=None, root=None, build=extractors.build):
        if name == "inception":
            raise UserError("The weights of the extractor 'inception' are not at hand.")
        return build("digitsnet")  # instead of the random VGG16, which takes seconds to build

    monkeypatch.setattr(extractors, "build", absent)
    monkeypatch.setattr(RandomImages, "extractor", "inception")
    assert validate(ToyGAN(SPEC), [ValidationMetrics(samples=10)]).keys() == {"val/fid-digitsnet"}
    said = capsys.readouterr().err
    assert "'inception' are not at hand" in said and "random VGG16" in said
    with pytest.raises(UserError, match="not at hand"):
        validate(ToyGAN(SPEC), [ValidationMetrics(samples=10, extractor="inception")])


@pytest.mark.parametrize(
    ("make", "each"),
    [(lambda s: DCGAN(s, latent_dim=2, width=2), 0), (lambda s: Autoencoder(s, hidden=[4], latent_dim=2), 1)],
    ids=["gan", "autoencoder"],
)
def test_validation_reads_each_image_once_and_only_if_the_model_scores_it(make, each, monkeypatch, tmp_path):
    """Counted after the first validation, when the hash of the images and their features are known."""
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    data, read = Digits(val_size=200, eval_batch_size=50), [0]
    batch = MemorySource.batch

    def counted(self, indices):
        read[0] += len(indices) * (len(self) == 200)
        return batch(self, indices)

    monkeypatch.setattr(MemorySource, "batch", counted)
    counts = Each("on_validation_end", lambda trainer, module: read[0])
    callbacks = [ValidationMetrics(every_images=64, samples=10), counts, MaxImages(192)]
    trainer = Trainer(
        callbacks=callbacks, accelerator="cpu", devices=1, logger=False, max_epochs=-1, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, inference_mode=False,
    )  # fmt: skip
    trainer.fit(make(data.spec), datamodule=data)
    first, second, third = counts.values
    one_block = 50  # Lightning's loop always reads one batch
    assert second - first == third - second == one_block + each * 200


@pytest.mark.parametrize("fits", [True, False], ids=["the images of the protocol fit", "no images fit"])
def test_validation_decodes_each_image_once_for_a_model_with_its_own_validation_step(fits, monkeypatch, tmp_path):
    """The split of 200 images does not fit in memory; the protocol compares with 100 of them."""
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    (tmp_path / "small.yaml").write_text("split: val\nmetrics: [fid, reconstruction]\nreal: 100\ngenerated: 10\n")
    monkeypatch.setattr("genbench.data.base.free_memory", lambda: (150 if fits else 50) * 32 * 32 * 4)
    data, read = Digits(val_size=200, eval_batch_size=50, workers=0), torch.zeros(2000, dtype=torch.int64)
    pictures, held_out = StreamSource.pictures, set(data.streams("val")[0].rows.tolist())

    def counted(self, indices):
        read.index_add_(0, self.rows[indices], torch.ones(len(indices), dtype=torch.int64))
        return pictures(self, indices)

    monkeypatch.setattr(StreamSource, "pictures", counted)
    counts = Each("on_validation_end", lambda trainer, module: read[sorted(held_out)])
    callbacks = [ValidationMetrics(64, protocol=str(tmp_path / "small.yaml")), counts, MaxImages(192)]
    trainer = Trainer(
        callbacks=callbacks, accelerator="cpu", devices=1, logger=False, max_epochs=-1, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, inference_mode=False,
    )  # fmt: skip
    trainer.fit(VAE(data.spec, latent_dim=2, network="mlp", hidden=[8]), datamodule=data)
    first, second, third = counts.values
    again = torch.zeros(200, dtype=torch.int64) if fits else (second - first) - 1
    assert torch.equal(second - first, 1 + again) and torch.equal(third - second, 1 + again)
    assert fits or again.sum() == 100


def test_a_metric_of_the_users_that_fails_in_validation_is_reported_once(tmp_path, recwarn):
    (tmp_path / "mine.yaml").write_text("split: val\nmetrics: [fid, own_nan, own_brightness]\ngenerated: 10\n")
    with own_metrics():
        callback = ValidationMetrics(every_images=8, protocol=str(tmp_path / "mine.yaml"))
        run(ToyGAN(SPEC), 24, [callback])
    assert callback.scores["val/own_brightness"] >= 0 and "val/own_nan" not in callback.scores
    messages = [str(warning.message) for warning in recwarn if "own_nan" in str(warning.message)]
    assert messages == ["Validation gives no own_nan: `compute` returned nan"]
