"""What the page computes, without the page."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.batch import DataSpec, from_uint8, to_uint8
from genbench.core.errors import UserError
from genbench.data import Digits, Shapes
from genbench.evaluation.images import SplitImages, TensorImages
from genbench.models import (
    DCGAN,
    VAE,
    VQVAE,
    Autoencoder,
    ConditionalVAE,
    CycleGAN,
    PixelCNN,
    SegmentationUNet,
    SemiSupervisedGAN,
    TextConditionalGAN,
    UNet,
)
from genbench.play import actions, uploads
from genbench.play.actions import Loaded, Seen

GRAY = DataSpec((1, 16, 16), "label", tuple("0123456789"))


def ready(model):
    return model.eval().requires_grad_(False)


def loaded(model, images=None, **trained_on):
    def found():
        if images is None:
            raise UserError("the images are not here.")
        return images

    return Loaded("model", "", ready(model), trained_on, found)


def pixels(image):
    return np.asarray(image)


@pytest.fixture
def vae():
    return ready(VAE(GRAY, width=4, latent_dim=6))


def test_samples_are_those_of_the_seeds_in_a_grid_enlarged_by_a_whole_factor(vae):
    shown = pixels(actions.samples(vae, 5, 4))
    factor = shown.shape[0] // (2 * 16 + 3 * 2)
    plain = shown[::factor, ::factor]
    expected = to_uint8(vae.sample(torch.arange(5, 9))).numpy()
    assert shown.shape == (38 * factor,) * 2 and np.array_equal(plain.repeat(factor, 0).repeat(factor, 1), shown)
    assert np.array_equal(plain[2:18, 2:18], expected[0, 0]) and np.array_equal(plain[20:36, 20:36], expected[3, 0])


def test_options_of_sample_are_passed_on(vae):
    mean, drawn = (actions.samples(vae, 0, 1, mean=mean) for mean in (True, False))
    assert not np.array_equal(pixels(mean), pixels(drawn))
    assert set(np.unique(pixels(drawn))) <= {0, 255}  # a Bernoulli decoder draws black or white
    assert actions.option_values(vae.log_likelihood, {"importance_samples": 3.0}) == {"importance_samples": 3}
    with pytest.raises(UserError, match=r"importance_samples is 2.5; expected a whole number"):
        actions.option_values(vae.log_likelihood, {"importance_samples": 2.5})


@pytest.mark.parametrize("value", [None, -1, 1.5, 2**31, math.nan, math.inf])
def test_a_seed_that_is_none_is_a_sentence(value):
    with pytest.raises(UserError, match="The seed is .*; expected a whole number from 0 to 2,147,483,647"):
        actions.whole(value, "The seed")


def test_a_class_is_drawn_alone_or_all_in_turn():
    model = ready(ConditionalVAE(GRAY, width=4, latent_dim=4))
    assert actions.condition_of(model, 12).tolist() == [*range(10), 0, 1]
    assert actions.condition_of(model, 3, "7").tolist() == [7, 7, 7]
    with pytest.raises(UserError, match="no class 'dog'. Its classes: 0, 1"):
        actions.condition_of(model, 3, "dog")


def test_a_prompt_is_checked_against_the_vocabulary():
    model = ready(TextConditionalGAN(Shapes(size=32, target="caption").spec, width=4, latent_dim=4))
    prompt = "a large red circle at the top left"
    tokens = actions.condition_of(model, 2, prompt=prompt)
    assert [model.spec.vocabulary[k] for k in tokens[1].tolist() if k] == prompt.split()
    found = pixels(actions.samples(model, 0, 1, prompt=prompt))
    expected = to_uint8(model.sample(torch.tensor([0]), condition=tokens[:1]))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found[:: found.shape[0] // 32, :: found.shape[0] // 32], expected)
    with pytest.raises(UserError, match="The word `dog` is in no caption of this data set. Choose from: "):
        actions.samples(model, 0, 1, prompt="a red dog")
    with pytest.raises(UserError, match="Write a prompt with words from: "):
        actions.samples(model, 0, 1, prompt=" ")


def test_a_slider_moves_its_dimension_by_standard_deviations_of_the_prior(vae):
    z = actions.start(vae, 3)
    assert torch.equal(z, vae.sample_latents(torch.tensor([3])))
    assert actions.spread(vae, z).sub(1).abs().max() < 0.15  # a standard normal prior; 512 draws
    wanted = z.clone()
    wanted[0, 1] += 2 * actions.spread(vae, z)[1]
    expected = to_uint8(vae.decode(wanted))[0, 0].numpy()
    found = pixels(actions.moved(vae, z, [0, 2, 0]))
    assert np.array_equal(found[:: found.shape[0] // 16, :: found.shape[0] // 16], expected)
    still = pixels(actions.moved(vae, z, [0] * 20))  # more sliders than dimensions
    assert np.array_equal(still[:: still.shape[0] // 16, :: still.shape[0] // 16], to_uint8(vae.decode(z))[0, 0])


def test_a_code_starts_from_an_image_or_says_that_it_needs_one():
    model, x = ready(Autoencoder(GRAY, latent_dim=3)), torch.rand(1, 1, 16, 16) * 2 - 1
    assert torch.equal(actions.start(model, 0, x), model.encode(x))
    with pytest.raises(UserError, match="does not sample codes. Upload an image"):
        actions.start(model, 0)


def test_interpolation_begins_and_ends_with_the_images_of_the_seeds(vae):
    shown = pixels(actions.interpolation(vae, 4, 9, n=6))
    factor = shown.shape[1] // (3 * 16 + 4 * 2)
    plain = shown[::factor, ::factor]
    first, last = to_uint8(vae.decode(vae.sample_latents(torch.tensor([4, 9])))).numpy()[:, 0].astype(int)
    assert abs(plain[2:18, 2:18] - first).max() <= 1 and abs(plain[20:36, 38:54] - last).max() <= 1  # rounding


def test_arithmetic_with_b_equal_to_c_returns_a(vae):
    shown = dict(actions.arithmetic(vae, 1, 2, 2))
    assert list(shown) == ["a", "b", "c", "a − b + c"]
    assert abs(pixels(shown["a"]).astype(int) - pixels(shown["a − b + c"])).max() <= 1
    other = dict(actions.arithmetic(vae, 1, 2, 3))
    assert abs(pixels(other["a"]).astype(int) - pixels(other["a − b + c"])).max() > 1


@pytest.mark.parametrize("binary", [True, False])
def test_an_image_gets_all_that_the_model_can_do(binary):
    spec = DataSpec((1, 16, 16), "label", tuple("0123456789"), binary=binary)
    shown = loaded(VAE(spec, width=4, latent_dim=6))
    x = (torch.rand(1, 1, 16, 16) > 0.5) * 2.0 - 1 if binary else torch.rand(1, 1, 16, 16) * 2 - 1
    images, texts, classes = actions.what_it_does(shown, Seen(x, "as it is"))
    assert [caption for caption, _ in images] == ["input of the model", "reconstruction", "code, 6 numbers"]
    error = (shown.model.reconstruct(x) - x).pow(2).mean().item()
    assert texts[:2] == ["as it is", f"Mean squared error of the reconstruction, for pixels in [-1, 1]: {error:.4g}"]
    assert texts[2].startswith("Lower bound of the log-likelihood: -" if binary else "No log-likelihood: A Bernoulli")
    assert texts[3] == "No nearest training images: the images are not here." and classes == {}


def test_classes_come_with_their_probabilities_and_a_discriminator_with_its_logit():
    shown = loaded(SemiSupervisedGAN(DataSpec((1, 32, 32), "label", tuple("0123456789")), width=4, latent_dim=4))
    x = torch.rand(1, 1, 32, 32) * 2 - 1
    _, texts, classes = actions.what_it_does(shown, Seen(x, ""))
    logits = shown.model.classify(x)[0]
    p = (logits[:10].exp() / logits[:10].exp().sum()).sort(descending=True)
    assert list(classes) == [str(k) for k in p.indices[:5].tolist()]
    assert list(classes.values()) == pytest.approx(p.values[:5].tolist(), abs=1e-6)
    logit = float(shown.model.discriminate(x))
    assert texts[-1] == f"Discriminator's logit, higher for images that it considers real: {logit:.4g}"


def test_images_are_translated_and_segmented():
    x = torch.rand(1, 1, 16, 16) * 2 - 1
    shown = loaded(UNet(DataSpec((3, 16, 16), "image", source=(1, 16, 16)), width=2, depth=2))
    images = dict(actions.what_it_does(shown, Seen(x, ""))[0])
    expected = to_uint8(shown.model.translate(x, to="B"))[0].permute(1, 2, 0).numpy()
    found = pixels(images["translation to B"])
    assert np.array_equal(found[:: found.shape[0] // 16, :: found.shape[0] // 16], expected)
    both = loaded(
        CycleGAN(DataSpec((3, 16, 16), "domain", source=(1, 16, 16)), width=4, blocks=1, patch_layers=1, identity=0)
    )
    assert {"translation to A", "translation to B"} <= {name for name, _ in actions.what_it_does(both, Seen(x, ""))[0]}
    spec = DataSpec((1, 16, 16), "mask", ("nothing", "<b>shape</b>"))
    shown = loaded(SegmentationUNet(spec, width=2, depth=2))
    caption, mask = actions.what_it_does(shown, Seen(x, ""))[0][1]
    share = shown.model.segment(x).argmax(1).float().mean()  # of class 1, which is red
    assert (pixels(mask) == (230, 75, 60)).all(2).mean() == pytest.approx(share.item())
    assert caption.startswith("segmentation: ")


@pytest.mark.parametrize("model", [VAE, VQVAE])
def test_the_nearest_training_image_of_a_training_image_is_itself(model):
    stored = SplitImages(Digits(size=16), "train")
    shown = loaded(model(GRAY, width=8), stored)
    x = from_uint8(stored.images(torch.tensor([11])))
    near, labels = actions.neighbors(shown, shown.model.encode(x))
    codes = shown.model.encode(from_uint8(stored.images(torch.arange(len(stored))))).flatten(1).double().numpy()
    away = (codes != codes[11]).sum(1) if model is VQVAE else np.linalg.norm(codes - codes[11], axis=1)
    nearest = np.argsort(away, kind="stable")[:8]
    assert torch.equal(near, stored.images(torch.from_numpy(nearest)))
    assert torch.equal(labels, stored.label[torch.from_numpy(nearest)])
    if model is VAE:
        assert nearest[0] == 11


def test_neighbors_are_searched_among_2000_images_with_their_own_labels():
    images = torch.zeros(2500, 1, 8, 8, dtype=torch.uint8)  # the first two pixels are the number of the image
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(2500) // 250, torch.arange(2500) % 250
    whole = TensorImages("many", images)
    whole.label = torch.arange(2500) % 10
    shown = loaded(Autoencoder(DataSpec((1, 8, 8), "label", tuple("0123456789")), latent_dim=2), whole)
    stored, codes, labels = shown.reference()
    assert len(stored) == len(codes) == len(labels) == 2000
    rows = stored[:, 0, 0, 0].long() * 250 + stored[:, 0, 0, 1]
    assert len(rows.unique()) == 2000 and torch.equal(labels, rows % 10)
    assert shown.reference()[1] is codes  # kept


def test_tabs_follow_from_abilities():
    can = {
        name: [getattr(actions, f"{test}")(ready(model)) for test in
               ("has_sliders", "has_latent_paths", "takes_images", "takes_drawings")]
        for name, model in {
            "VAE": VAE(GRAY, width=4), "DCGAN": DCGAN(DataSpec((1, 32, 32)), width=4), "VQVAE": VQVAE(GRAY, width=8),
            "Autoencoder": Autoencoder(GRAY), "PixelCNN": PixelCNN(DataSpec((1, 8, 8)), width=4, layers=1),
        }.items()
    }  # fmt: skip
    assert can == {
        "VAE": [True, True, True, True], "DCGAN": [True, True, True, False], "VQVAE": [False, False, True, True],
        "Autoencoder": [True, False, True, True], "PixelCNN": [False, False, True, False],
    }  # fmt: skip


def test_bars_are_up_for_positive_and_down_for_negative_numbers():
    shown = pixels(actions.bars(torch.tensor([1.0, -0.5, 0.0]))).astype(int)
    blue, orange = ((shown == color).all(2) for color in ((60, 120, 200), (225, 130, 50)))
    heights = [blue.any(1).sum(), orange.any(1).sum()]
    assert heights[0] == pytest.approx(2 * heights[1], abs=2) and blue.any(1).argmax() < orange.any(1).argmax()
    assert math.isclose(blue.any(1).argmax(), 4)


def test_an_image_is_resized_as_in_training(tmp_path):
    shown = loaded(VAE(GRAY, width=4), **{"class": "genbench.data.vision.MNIST", "arguments": {}})
    Image.new("RGB", (100, 50), "white").save(tmp_path / "wide.png")
    seen = uploads.seen_by(shown, uploads.read(tmp_path / "wide.png"), "wide.png")
    assert seen.note == "100×50 RGB converted as in training to 16×16 gray (pad)."
    assert (seen.x[0, 0] == 1).sum() == 16 * 8 and (seen.x[0, 0, :4] == -1).all()  # the whole image, on black
    shown.trained_on = {"class": "genbench.data.digits.Digits", "arguments": {"resize_mode": "crop"}}
    seen = uploads.seen_by(shown, uploads.read(tmp_path / "wide.png"), "wide.png")
    assert (seen.x == 1).all() and seen.note.endswith("(crop).")


def test_an_image_is_made_black_or_white_for_a_model_of_such_images():
    spec = DataSpec((1, 16, 16), binary=True)
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    seen = uploads.seen_by(loaded(VAE(spec, width=4)), gray, "gray.png")
    assert torch.equal(seen.x[0, 0], torch.where(torch.arange(256).reshape(16, 16) < 128, -1.0, 1.0))
    assert "made black or white" in seen.note
