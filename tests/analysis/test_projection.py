"""Projection finds codes again, and an image's result does not depend on the others of the batch."""

import os
from pathlib import Path

import pytest
import torch

from genbench.analysis.projection import project, total_steps
from genbench.core.batch import DataSpec, from_uint8, to_uint8
from genbench.core.errors import UserError
from genbench.data import MNIST, Digits
from genbench.metrics.reconstruction import psnr
from genbench.models import DCGAN, ConditionalGAN

needs_mnist = pytest.mark.skipif(
    not (Path(os.environ.get("GENBENCH_DATA", "nowhere")) / "MNIST").is_dir(), reason="needs MNIST in GENBENCH_DATA"
)


def trained(model, data, images):
    """Trained for seconds: not good digits, but with strokes."""
    from lightning import Trainer

    from genbench.callbacks import MaxImages

    run = Trainer(
        accelerator="cpu", devices=1, logger=False, callbacks=[MaxImages(images)], max_epochs=-1,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0,
        limit_val_batches=0,
    )  # fmt: skip
    run.fit(model, datamodule=data)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def gan():
    torch.manual_seed(0)
    optimizer = {"class_path": "torch.optim.Adam", "lr": 0.001, "betas": [0.5, 0.999]}
    data = Digits(size=16)
    return trained(DCGAN(data.spec, latent_dim=32, width=8, optimizer=optimizer), data, 12_000)


def stored(images):
    """As an image file would contain them."""
    return from_uint8(to_uint8(images))


def test_projection_of_generated_images_finds_them_again(gan):
    images = stored(gan.sample(torch.arange(1000, 1020)))
    found = project(gan, images)
    assert found.psnr.median() > 30
    torch.testing.assert_close(gan.decode(found.codes), found.images)
    # the nearest of as many random samples is far from it
    samples = gan.sample(torch.arange(512))
    nearest = torch.stack([psnr(samples, image.expand_as(samples)).max() for image in images])
    assert nearest.median() < 20


@needs_mnist
def test_projection_of_generated_mnist_digits_finds_them_again():
    optimizer = {"class_path": "torch.optim.Adam", "lr": 0.001, "betas": [0.5, 0.999]}
    data = MNIST(subset=2000)
    model = trained(DCGAN(data.spec, latent_dim=64, width=8, optimizer=optimizer), data, 6000)
    found = project(model, stored(model.sample(torch.arange(1000, 1020))))
    assert found.psnr.median() > 30


def test_an_images_result_does_not_depend_on_the_others_of_the_batch(gan):
    images = stored(gan.sample(torch.arange(1000, 1006)))
    settings = {"steps": 60, "candidates": 64}
    together = project(gan, images, **settings)
    order = [3, 0, 5]
    mixed = project(gan, images[order], **settings)
    torch.testing.assert_close(mixed.codes, together.codes[order], rtol=0, atol=1e-4)
    torch.testing.assert_close(mixed.psnr, together.psnr[order], rtol=0, atol=1e-2)
    alone = project(gan, images[3:4], **settings)
    torch.testing.assert_close(alone.codes[0], together.codes[3], rtol=0, atol=1e-4)


def test_a_batch_takes_as_many_steps_as_one_image(gan, monkeypatch):
    images, calls = stored(gan.sample(torch.arange(20))), []
    decode = gan.decode
    monkeypatch.setattr(gan, "decode", lambda z: calls.append(len(z)) or decode(z))
    counts, steps = [], []
    for n in (1, 20):
        calls.clear()
        project(gan, images[:n], steps=20, candidates=64, advance=lambda n=n: steps.append(n))
        counts.append(len(calls))
    assert counts[0] == counts[1]
    assert steps.count(1) == steps.count(20) == total_steps(20, 4)


def test_the_path_ends_at_the_codes_and_gets_nearer(gan):
    images = stored(gan.sample(torch.arange(1000, 1004)))
    found = project(gan, images, steps=50, frames=6)
    assert found.path.shape == (4, 6, 32)
    assert torch.equal(found.path[:, -1], found.codes)
    errors = torch.stack([psnr(gan.decode(z), images) for z in found.path.unbind(1)])
    assert (errors.diff(dim=0) >= -1e-3).all() and (errors[-1] > errors[0] + 3).all()


def test_a_prior_weight_gives_shorter_codes(gan):
    images = stored(gan.sample(torch.arange(1000, 1004)))
    length = [project(gan, images, steps=50, prior_weight=weight).codes.norm(dim=1) for weight in (0.0, 1.0)]
    assert (length[1] < length[0]).all()


def test_a_conditional_generator_gets_the_label_of_each_image():
    spec = DataSpec((1, 16, 16), "label", ("zero", "one", "two"))
    model = ConditionalGAN(spec, latent_dim=8, width=4).eval().requires_grad_(False)
    for layer in model.generator.modules():
        if isinstance(layer, torch.nn.ConvTranspose2d):
            layer.weight.mul_(8)  # untrained, but with contrast
    label = torch.tensor([2, 0, 1, 2])
    images = model.decode(torch.randn(4, 8), condition=label)
    right = project(model, images, label, steps=100)
    wrong = project(model, images, (label + 1) % 3, steps=100)
    assert right.psnr.median() > wrong.psnr.median() + 5


@pytest.mark.parametrize("setting", ["steps", "starts", "candidates", "frames"])
def test_numbers_below_one_are_refused(gan, setting):
    with pytest.raises(UserError, match=f"{setting} is 0; it must be at least 1"):
        project(gan, torch.zeros(1, 1, 16, 16), **{setting: 0})
