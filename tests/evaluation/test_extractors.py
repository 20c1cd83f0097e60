"""Extractors are frozen, hashed and safe to load, and their metadata is correct."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from train_classifier import RECIPES, accuracy, factor_accuracies, labels_of, train

import genbench
from genbench.callbacks import EMA, Checkpoint, ValidationMetrics
from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.data import MNIST, Digits
from genbench.data.loader import EvalLoader
from genbench.evaluation import extractors
from genbench.evaluation.extractor import Extractor, in_channels, state_hash
from genbench.evaluation.extractor_weights import PUBLISHED, fetch_weights, find_weights
from genbench.evaluation.extractors import SHIPPED
from genbench.models import DCGAN
from genbench.networks.classifier import jittered
from tests.helpers.small import run as fit

NAMES = ("mnistnet", "digitsnet", "shapesnet", "captionnet")
MNIST_ROOT = Path(os.environ.get("GENBENCH_DATA", "/nonexistent"))


def about(name):
    with safe_open(SHIPPED / f"{name}.safetensors", "pt") as file:
        return file.metadata()


def named_right(name, data):
    """Accuracy of a shipped classifier on a test split, called in the same way as by scores."""
    extractor, right, recipe = extractors.build(name), 0, RECIPES[name]
    source = data.source("test")
    for rows in torch.arange(len(source)).split(250):
        batch = source.batch(rows)
        right += int((extractor(batch.image)[1].argmax(1) == labels_of(batch, recipe)).sum())
    return right / len(source)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_are_small_and_say_what_they_are(name):
    assert (SHIPPED / f"{name}.safetensors").stat().st_size < 1_000_000
    extractor, said, recipe = extractors.build(name), about(name), RECIPES[name]
    assert (
        extractor.classes == recipe.classes
        and said["seed"] == str(recipe.seed)
        and said["images"] == str(recipe.images)
    )
    # scans of 8×8 are harder to read, and six of the 297 make two per cent
    assert float(said["test_accuracy"]) >= (0.975 if name == "digitsnet" else 0.99)
    features, logits = extractor(torch.zeros(2, 1, 32, 32, dtype=torch.uint8))
    assert features.shape == (2, 1024 if name == "captionnet" else 128) and logits.shape == (2, len(recipe.classes))


def test_the_accuracy_on_digits_is_that_in_the_metadata():
    assert named_right("digitsnet", Digits()) == pytest.approx(float(about("digitsnet")["test_accuracy"]), abs=5e-5)


def test_the_accuracy_on_shapes_is_that_in_the_metadata():
    data = RECIPES["shapesnet"].data(test_images=500)  # the first of its 10,000
    for name in ("shapesnet", "captionnet"):
        assert named_right(name, data) == pytest.approx(float(about(name)["test_accuracy"]), abs=0.01)


def test_the_weights_of_captionnet_say_the_accuracy_of_each_factor():
    said, recipe = about("captionnet"), RECIPES["captionnet"]
    network, data = extractors.build("captionnet").network, {"test_images": 500}
    found = factor_accuracies(network, replace(recipe, options=(data,)))
    assert set(found) == {"size", "color", "shape", "place"}
    for name, value in found.items():
        assert value == pytest.approx(float(said[f"test_accuracy_{name}"]), abs=0.01)
        assert float(said["test_accuracy"]) <= float(said[f"test_accuracy_{name}"])


@pytest.mark.skipif(not (MNIST_ROOT / "MNIST").exists(), reason="GENBENCH_DATA names no folder with MNIST")
def test_the_accuracy_on_mnist_is_that_in_the_metadata():
    right = named_right("mnistnet", MNIST(download=False))
    assert right >= 0.99 and right == pytest.approx(float(about("mnistnet")["test_accuracy"]), abs=1.5e-4)


def test_training_a_classifier_again_gives_the_same_weights():
    a, b = (state_hash(train(RECIPES["digitsnet"], images=512).state_dict()) for _ in range(2))
    assert a == b


def test_training_learns():
    recipe = RECIPES["digitsnet"]
    assert accuracy(train(recipe, images=4096), recipe) > 0.3  # of ten classes


def test_jitter_moves_images_a_little_and_follows_its_generator():
    images = next(iter(EvalLoader(Digits().source("test"), 16))).image
    a, b, c = (jittered(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and a.shape == images.shape
    assert a.min() >= images.min() and a.max() <= images.max()
    assert 0.01 < (a - images).square().mean() < images.var()


# ---- frozen, and as exact as float32 is -----------------------------------------------------------------------------


def test_an_extractor_is_no_module_and_is_frozen(extractor):
    assert not isinstance(extractor, nn.Module) and not extractor.network.training
    assert not any(p.requires_grad for p in extractor.network.parameters())
    holder = nn.Module()
    holder.extractor = extractor
    assert not list(holder.parameters()) and not holder.state_dict()
    features, _ = extractor(torch.zeros(2, 1, 32, 32, dtype=torch.uint8))
    assert not features.requires_grad


def test_no_checkpoint_contains_an_extractor(tmp_path):
    module = DCGAN(DataSpec((1, 16, 16)), latent_dim=4, width=2)
    fit(module, images=16, callbacks=[EMA(), ValidationMetrics(samples=10), Checkpoint()], folder=tmp_path)
    path = tmp_path / "checkpoints" / "last.ckpt"
    contents = torch.load(path, weights_only=True)
    assert contents["state_dict"].keys() == module.state_dict().keys()
    own = sum(p.numel() for p in module.parameters())
    assert sum(p.numel() for p in genbench.load(path).parameters()) == own
    shapes = {tuple(t.shape) for part in (contents["state_dict"], contents["ema"]["state_dict"]) for t in part.values()}
    assert (64, 32, 3, 3) not in shapes  # of digitsnet's third layer
    assert path.stat().st_size < (SHIPPED / "digitsnet.safetensors").stat().st_size


def test_features_are_float32_whatever_surrounds_them(extractor):
    images = torch.randint(0, 256, (5, 1, 32, 32), dtype=torch.uint8)
    plain = extractor(images)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = extractor(images)
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium" and torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
    for a, b in zip(plain, found, strict=True):
        assert a.dtype == torch.float32 and torch.equal(a, b)


def test_settings_are_restored_after_an_error():
    def broken(network, images):
        raise ValueError

    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(ValueError):
            Extractor("x", nn.Linear(1, 1), broken, "none")(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_hash_is_of_the_weights_and_not_of_the_file(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    state = network.state_dict()
    torch.save(dict(reversed(state.items())), tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    same = [state_hash(torch.load(tmp_path / f"{name}.pth")) for name in "ab"]
    same.append(state_hash(network.to(memory_format=torch.channels_last).state_dict()))
    assert set(same) == {state_hash(state)}
    renamed = {f"x{name}": value for name, value in state.items()}
    doubled = {name: value.double() for name, value in state.items()}
    reshaped = state | {"0.weight": state["0.weight"].reshape(4, 3, 9, 1)}
    other = state | {"1.bias": state["1.bias"] + 1e-7}
    assert len({state_hash(s) for s in (state, renamed, doubled, reshaped, other)}) == 5


def test_only_inceptions_scores_have_plain_names(extractor):
    assert extractor.score("fid") == "fid-digitsnet" and extractor.score("precision") == "precision-digitsnet"
    inception = Extractor("inception", nn.Linear(1, 1), extractor.read, "none")
    assert [inception.score(name) for name in ("fid", "kid", "is")] == ["fid", "kid", "is"]


def test_gray_is_repeated_and_color_becomes_luminance():
    gray = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    assert torch.equal(in_channels(gray, 3), gray.repeat(1, 3, 1, 1)) and in_channels(gray, 1) is gray
    assert torch.equal(in_channels(gray.repeat(1, 3, 1, 1), 1), gray)
    white_red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert in_channels(white_red, 1).item() == 76 and in_channels(white_red / 255, 1).item() == pytest.approx(0.299)


@pytest.mark.parametrize(("length", "size"), [(28, 299), (64, 299), (299, 299), (350, 299), (32, 224)])
def test_the_resize_equals_tensorflows_bit_for_bit(length, size):
    x = torch.randint(0, 256, (2, 3, length, length)).float()
    theirs = interpolate_bilinear_2d_like_tensorflow1x(x, size=(size, size), align_corners=False)
    assert torch.equal(extractors.tensorflow_resize(x, size), theirs)


# ---- weights from elsewhere -----------------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No internet access and an empty torch cache. Returns the list of requested URLs."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    urls = []

    def unreachable(url, *_, **__):
        urls.append(url)
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    return urls


@pytest.mark.parametrize("name", ["inception", "dinov2"])
def test_an_error_for_missing_weights_contains_file_url_and_path(tmp_path, offline, name):
    file, source, _ = PUBLISHED[name]
    with pytest.raises(UserError) as error:
        fetch_weights(name, tmp_path)
    for part in (file, source + file, str(tmp_path / "extractors" / file), "--extractor.weights", "vgg-random"):
        assert part in str(error.value)
    assert offline == [source + file] and find_weights(name, tmp_path) is None


def test_an_extractor_without_its_weights_is_an_error(tmp_path, offline):
    with pytest.raises(UserError, match=r"were not found and could not be downloaded \(Name or service not known\)"):
        extractors.build("inception", root=tmp_path)


def test_weights_at_the_data_root_or_in_torchs_cache_are_found(tmp_path, offline):
    file = PUBLISHED["inception"][0]
    places = tmp_path / "torch" / "hub" / "checkpoints" / file, tmp_path / "data" / "extractors" / file
    for place in places:  # the data root goes first
        place.parent.mkdir(parents=True)
        place.write_bytes(b"")
        assert find_weights("inception", tmp_path / "data") == place


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["inception", "torchvision:resnet18"])
@pytest.mark.parametrize("how", ["missing", "cut", "text", "wrong", "list", "code"])
def test_invalid_weights_are_rejected_with_a_short_message(tmp_path, offline, name, how):
    path = tmp_path / "weights.pth"
    content = {"wrong": {"a": torch.ones(2)}, "list": [1], "code": {"a": Trap(tmp_path / "executed")}}
    if how == "text":
        path.write_text("no weights")
    elif how != "missing":
        torch.save(content.get(how, {"a": torch.ones(2)}), path)
    if how == "cut":
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(
        UserError, match=name.rpartition(":")[2] if how != "missing" else "the file does not exist"
    ) as error:
        extractors.build(name, path)
    assert len(str(error.value)) < 1000 and "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists() and not offline


def test_a_classifier_of_torchvision_gives_features_and_logits(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network = resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    extractor = extractors.build("torchvision:resnet18", tmp_path / "weights.pth")
    images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    features, logits = extractor(images)
    assert features.shape == (2, 512) and logits.shape == (2, 1000)
    torch.testing.assert_close(network.eval().fc(features), logits, rtol=1e-4, atol=1e-5)
    assert extractor.score("fid") == "fid-resnet18" and extractor.hash == state_hash(network.state_dict())


def test_an_unknown_torchvision_classifier_is_an_error_with_the_known_names(offline):
    with pytest.raises(UserError, match=r"no classifier 'resnet19'. Choose from: alexnet, .*vgg16"):
        extractors.build("torchvision:resnet19")
    with pytest.raises(UserError, match=r"alexnet were not found .* https://download.pytorch.org/models/alexnet"):
        extractors.build("torchvision:alexnet")


def test_dinov2_without_timm_is_an_error_that_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="needs the package timm: `pip install timm`"):
        extractors.build("dinov2", tmp_path / "weights.pth")


def test_the_random_vgg_is_always_the_same_and_draws_from_no_global_generator():
    before = torch.get_rng_state()
    first = extractors.build("vgg-random").hash
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(5)
    extractor = extractors.build("vgg-random")
    assert extractor.hash == first
    features, logits = extractor(torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8))
    assert features.shape == (2, 64) and logits is None and features.std(0).min() > 0
