"""vary: rows of an image and its variations."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genbench
from genbench.analysis.variations import noise, posterior_samples
from genbench.core.batch import DataSpec, to_uint8
from genbench.data import Digits
from genbench.evaluation.images import SplitImages, choice
from genbench.models import DCGAN, VAE, VQVAE, Autoencoder, ConditionalVAE
from tests.helpers.small import untrained

SPEC = DataSpec((1, 16, 16), "label", tuple("0123456789"))
DATA = ("--data", "Digits", "--data.size", "16")


def cells(path, columns, side=16, gap=2):
    """The grid as uint8 [rows, columns, side, side]: its enlargement is undone."""
    image = np.asarray(Image.open(path))
    factor = image.shape[1] // (columns * (side + gap) + gap)
    image = image[::factor, ::factor]
    rows = (image.shape[0] - gap) // (side + gap)
    at = [gap + k * (side + gap) for k in range(max(rows, columns))]
    return np.array([[image[y : y + side, x : x + side] for x in at[:columns]] for y in at[:rows]]).astype(int)


def originals(n):
    images = SplitImages(Digits(size=16), "test", 1000)
    return images.images(choice(len(images), n))


@pytest.fixture
def vae(cli):
    return untrained(VAE(SPEC, latent_dim=3, width=4), Path("model.ckpt"))


def test_each_row_begins_with_the_image_and_holds_samples_of_its_posterior(cli, vae):
    status, out, _ = cli("vary", "--ckpt", vae, *DATA, "--n", 3, "--variations", 4, "--seed", 5, "--out", "a.png")
    assert status == 0 and "4 variations of 3 images of Digits test -> a.png" in out
    found, real, model = cells("a.png", 5), originals(3), genbench.load(vae)
    assert np.array_equal(found[:, 0], real[:, 0].numpy())
    z = posterior_samples(model, real.float() / 127.5 - 1, noise((3,), 3, 4, 5))
    expected = to_uint8(model.decode(z.flatten(0, 1))).unflatten(0, (3, 4))[:, :, 0].numpy()
    assert abs(found[:, 1:] - expected).max() <= 1


@pytest.mark.parametrize("by", ["posterior", "codes"])
def test_the_seed_decides_the_variations_and_the_batch_size_does_not(cli, vae, by):
    flags = ("vary", "--ckpt", vae, *DATA, "--n", 3, "--variations", 4, "--by", by)
    for out, more in (("a", ()), ("b", ("--batch-size", 1)), ("c", ("--seed", 1))):
        assert cli(*flags, "--out", f"{out}.png", *more)[0] == 0
    a, b, c = (cells(f"{name}.png", 5) for name in "abc")
    assert abs(a - b).max() <= 1
    assert np.array_equal(a[:, 0], c[:, 0]) and not np.array_equal(a[:, 1:], c[:, 1:])


def test_without_noise_every_variation_is_the_reconstruction(cli):
    ckpt = untrained(Autoencoder(SPEC), Path("model.ckpt"))
    assert cli("vary", "--ckpt", ckpt, *DATA, "--n", 2, "--variations", 3, "--scale", 0, "--out", "a.png")[0] == 0
    found, model = cells("a.png", 4), genbench.load(ckpt)
    expected = to_uint8(model.reconstruct(originals(2).float() / 127.5 - 1))[:, 0].numpy()
    assert all(abs(found[:, k] - expected).max() <= 1 for k in (1, 2, 3))


def test_a_larger_scale_changes_the_images_more(cli):
    ckpt = untrained(Autoencoder(SPEC), Path("model.ckpt"))
    change = []
    for scale in (0.1, 2):
        status, out, _ = cli("vary", "--ckpt", ckpt, *DATA, "--scale", scale, "--out", "a.png", "--overwrite")
        assert status == 0 and f"{scale} standard deviations of the codes of 297 images" in out
        found = cells("a.png", 9)
        change.append(abs(found[:, 1:] - found[:, 1:2]).mean())
    assert change[1] > 3 * change[0]


def test_a_conditional_model_varies_images_with_their_labels(cli):
    ckpt = untrained(ConditionalVAE(SPEC, latent_dim=3, width=4), Path("model.ckpt"))
    assert cli("vary", "--ckpt", ckpt, *DATA, "--n", 2, "--scale", 0, "--out", "a.png")[0] == 0
    model, split = genbench.load(ckpt), SplitImages(Digits(size=16), "test", 1000)
    label, x = split.label[choice(len(split), 2)], originals(2).float() / 127.5 - 1
    expected = to_uint8(model.decode(model.encode(x, condition=label), condition=label))[:, 0].numpy()
    assert abs(cells("a.png", 9)[:, 1] - expected).max() <= 1


@pytest.mark.parametrize(
    ("model", "flags", "words"),
    [
        (lambda: DCGAN(DataSpec((1, 16, 16)), width=4), (), "DCGAN cannot encode images"),
        (lambda: VQVAE(SPEC, width=8), (), "codebook indices"),
        (lambda: Autoencoder(SPEC), ("--by", "posterior"), "Autoencoder has no posterior"),
        (lambda: Autoencoder(DataSpec((2,))), (), "trained on points"),
        (lambda: Autoencoder(SPEC), ("--scale", "-1"), "--scale is -1"),
        (lambda: Autoencoder(SPEC), ("--scale", "nan"), "--scale is nan"),
        (lambda: Autoencoder(SPEC), ("--variations", "0"), "--variations is 0"),
        (lambda: Autoencoder(SPEC), ("--out", "a.gif"), "must end in .png"),
        (lambda: Autoencoder(SPEC), ("--images", "one"), "at least 2 images"),
        (lambda: Autoencoder(SPEC), ("--truncation", "1"), "no option --truncation"),
    ],
)
def test_bad_input_is_a_sentence_and_writes_nothing(cli, model, flags, words):
    Path("one").mkdir()
    Image.new("L", (16, 16)).save("one/a.png")
    ckpt = untrained(model(), Path("model.ckpt"))
    data = () if "--images" in flags else DATA
    status, _, err = cli("vary", "--ckpt", ckpt, *data, *(flags if "--out" in flags else (*flags, "--out", "a.png")))
    assert status == 2 and words in err and "Traceback" not in err
    assert not list(Path().glob("a.*"))


def test_an_existing_picture_is_replaced_only_on_request(cli, vae):
    Path("a.png").write_text("mine")
    status, _, err = cli("vary", "--ckpt", vae, *DATA, "--out", "a.png")
    assert status == 2 and "exists already" in err and Path("a.png").read_text() == "mine"
    assert cli("vary", "--ckpt", vae, *DATA, "--n", 1, "--out", "a.png", "--overwrite")[0] == 0
