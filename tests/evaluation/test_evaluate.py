"""A record depends only on the model, the data and the protocol."""

import math
import os
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

import genbench
from genbench.callbacks import EMA, Checkpoint
from genbench.core.batch import DataSpec, from_uint8
from genbench.core.errors import UserError
from genbench.data import Digits, Shapes
from genbench.evaluation import extractors, paired
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.extractor import Extractor
from genbench.evaluation.images import SplitImages, TensorImages
from genbench.leaderboard.record import Record
from genbench.models import DCGAN, VAE
from tests.helpers.abilities import (
    SMALL,
    Coder,
    Density,
    Giver,
    Independent,
    Namer,
    Obedient,
    Painter,
    Segmenter,
    Uniform,
    Untrained,
    assert_same,
    untimed,
    values,
)
from tests.helpers.processes import two_processes
from tests.helpers.small import run

SUBJECTS = ("dcgan", "vae", "images")
SIZES = (1, 7, 64)


def subject(name, size=16):
    torch.manual_seed(0)
    spec = DataSpec((1, size, size), "label", tuple("0123456789"))
    if name == "images":
        return TensorImages("noise", torch.randint(0, 256, (70, 1, size, size), dtype=torch.uint8))
    return (DCGAN(spec, latent_dim=4, width=4) if name == "dcgan" else VAE(spec, latent_dim=4, width=4)).eval()


def measured(name, size, protocol=SMALL, extractor=None):
    """Evaluate with batches of `size` images."""
    data = Digits(size=16, batch_size=size, eval_batch_size=size)
    extractor = extractor or extractors.build("digitsnet")
    return evaluate(subject(name), data, protocol, extractor=extractor, batch_size=size, name=name)


# ---- batches and processes ------------------------------------------------------------------------------------------


def worker(rank, folder):
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for name in SUBJECTS:
        for size in SIZES:
            os.environ["GENBENCH_CACHE"] = f"{folder}/{name}{size}"
            record = measured(name, size)
            found[name, size] = untimed(record), record.environment["world_size"]
    # a single block, so that the second process has none; then an evaluation with a filled cache
    found["short"] = untimed(measured("images", 7, SMALL.changed(real=10, generated=9, train=10, block=16)))
    found["again"] = untimed(measured("vae", 64))
    try:
        evaluate(Untrained(DataSpec((1, 16, 16))), Digits(), SMALL, extractor=extractors.build("digitsnet"))
    except UserError as error:
        found["error"] = str(error)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    two_processes("tests.evaluation.test_evaluate", folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    return {name: untimed(measured(name, 64)) for name in SUBJECTS}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_size_of_batches_changes_nothing(alone, empty_cache, extractor, name, size):
    assert_same(alone[name], untimed(measured(name, size, extractor=extractor)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SUBJECTS)
def test_two_processes_give_the_same_record_as_one(pair, alone, name, size):
    for found in pair:
        record, world = found[name, size]
        assert world == 2
        assert_same(alone[name], record)


def test_records_agree_with_an_idle_process_and_with_a_filled_cache(pair, alone, extractor):
    short = untimed(measured("images", 7, SMALL.changed(real=10, generated=9, train=10, block=16), extractor))
    for found in pair:
        assert_same(short, found["short"])
        assert_same(alone["vae"], found["again"])


def test_an_error_is_the_same_in_every_process(pair):
    assert all("No metric of the protocol" in found["error"] for found in pair)


def test_the_scores_of_a_vae(alone):
    scores = alone["vae"]["metrics"]
    names = {"fid", "kid", "is", "precision", "recall", "density", "coverage", "modes", "class_entropy",
             "nearest_train", "nearest_train_ratio", "authenticity", "reconstruction_fid"}  # fmt: skip
    assert {f"{name}-digitsnet" for name in names} | {"mse", "psnr", "ssim", "code_bits"} <= scores.keys()
    assert not {"fid", "kid", "is", "precision"} & scores.keys()
    assert scores["code_bits"]["value"] == 4 * 32
    assert scores["fid-digitsnet"]["n"] == 70 and scores["mse"]["n"] == 100 and scores["recall-digitsnet"]["n"] == 64
    Record.from_dict(alone["vae"] | {"cost": {}, "environment": {}, "created": "2026-01-01"})


# ---- known orderings ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ordered(extractor):
    """Scores of 290 images each, against all 297 of the test split."""
    data = Digits()
    real = data.source("val").everything.image, data.source("train").everything.image
    held_out = torch.cat([real[0], SplitImages(data, "train", 2000).images(torch.arange(140))])
    small = avg_pool2d(held_out.float(), 8)
    sets = {
        "held out": held_out,
        "blurred": interpolate(small, (32, 32), mode="bilinear").to(torch.uint8),
        "noise": torch.randint(0, 256, held_out.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        "collapsed": held_out[:3].repeat_interleave(97, 0)[:290],
        "copies": real[1][100:390],
    }
    protocol = SMALL.changed(real=10_000, generated=290, kid_subset_size=200, neighbors_images=290, train=10_000)
    return {
        name: values(evaluate(TensorImages(name, images), data, protocol, extractor=extractor))
        for name, images in sets.items()
    }


@pytest.mark.parametrize("score", ["fid-digitsnet", "kid-digitsnet"])
def test_noise_is_worse_than_blur_and_blur_worse_than_real_images(ordered, score):
    assert ordered["held out"][score] < ordered["blurred"][score] < ordered["noise"][score]


def test_collapsed_samples_lose_recall_and_coverage(ordered):
    good, bad = ordered["held out"], ordered["collapsed"]
    for name in ("recall-digitsnet", "coverage-digitsnet"):
        assert bad[name] < 0.2 < 0.6 < good[name]
    assert bad["modes-digitsnet"] <= 3 < good["modes-digitsnet"] == 10


def test_copied_training_images_are_detected(ordered):
    copies, good = ordered["copies"], ordered["noise"]
    assert copies["authenticity-digitsnet"] < 0.02 and copies["nearest_train-digitsnet"] < 1e-4
    assert copies["nearest_train_ratio-digitsnet"] < 0.01
    assert good["authenticity-digitsnet"] > 0.5


def test_the_baseline_uses_different_real_images(extractor, ordered):
    protocol = SMALL.changed(real=10_000, generated=290)
    baseline = evaluate(None, Digits(), protocol, extractor=extractor)
    assert baseline.kind == "baseline" and baseline.model == {"name": "real images"}
    few = evaluate(None, Digits(), SMALL.changed(generated=10_000, metrics=("fid",)), extractor=extractor)
    assert few.model == {
        "name": "1,350 real images"
    }  # the baseline uses all images, and its name contains their number
    assert values(baseline)["fid-digitsnet"] < ordered["blurred"]["fid-digitsnet"]
    assert not any("authenticity" in name for name in baseline.metrics)  # they are the training images
    assert baseline.metrics["class_accuracy-digitsnet"]["value"] > 0.97
    with pytest.raises(UserError, match="A baseline needs a data set with a second split"):
        evaluate(None, TensorImages("x", torch.zeros(9, 1, 32, 32, dtype=torch.uint8)), protocol, extractor=extractor)


def test_a_loaded_model_knows_its_checkpoint_and_which_of_its_weights_it_has(extractor, tmp_path):
    spec = DataSpec((1, 16, 16))
    trained = DCGAN(spec, latent_dim=4, width=2)
    run(trained, images=16, callbacks=[EMA(), Checkpoint()], folder=tmp_path, limit_val_batches=0)
    protocol = SMALL.changed(metrics=("fid",))
    averaged, raw = (
        evaluate(genbench.load(tmp_path / "checkpoints/last.ckpt", raw=raw), Digits(), protocol, extractor=extractor)
        for raw in (False, True)
    )
    for record, weights in ((averaged, "ema"), (raw, "raw")):
        assert (record.run["checkpoint"], record.run["images_seen"], record.run["weights"]) == ("last", 16, weights)
    assert averaged.protocol["key"] != raw.protocol["key"] and raw.protocol["name"].endswith("+weights=raw")
    inside = evaluate(trained, Digits(), protocol, extractor=extractor)
    assert inside.run["checkpoint"] == "in memory" and inside.identity != averaged.identity


# ---- precision, and what is left as it was --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dcgan", "vae"])
def test_a_model_in_bfloat16_is_measured_in_float32(extractor, empty_cache, monkeypatch, name):
    seen, call = [], type(extractor).__call__

    def watched(self, images):
        features, logits = call(self, images)
        seen.append((images.clone(), features.clone(), features.dtype))
        return features, logits

    monkeypatch.setattr(type(extractor), "__call__", watched)
    model, records = subject(name).to(torch.bfloat16), []
    for surrounding in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        with surrounding:
            records.append(untimed(evaluate(model, Digits(size=16), SMALL, extractor=extractor)))
    assert_same(*records)
    monkeypatch.undo()
    for images, features, dtype in seen:
        assert dtype == torch.float32 and torch.equal(extractor(images)[0], features)


def test_a_model_under_autocast_is_measured_in_float32(extractor):
    plain = untimed(measured("vae", 64, extractor=extractor))
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(plain, untimed(measured("vae", 64, extractor=extractor)))


def test_model_random_generators_and_settings_are_restored(extractor):
    model = subject("vae").train()
    model.decoder.eval()  # a frozen part
    flags = {name: module.training for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    torch.set_float32_matmul_precision("medium")
    try:
        record = evaluate(model, Digits(size=16), SMALL, extractor=extractor)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert torch.is_grad_enabled() and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert_same(untimed(record), untimed(evaluate(model.eval(), Digits(size=16), SMALL, extractor=extractor)))


def test_model_random_generators_and_settings_are_restored_after_an_error(extractor):
    class Broken(Untrained):
        def sample(self, seeds, *, condition=None):
            torch.rand(3)
            raise ValueError("broken")

    model, random = Broken(DataSpec((1, 16, 16))).train(), torch.get_rng_state()
    with pytest.raises(ValueError, match="broken"):
        evaluate(model, Digits(), SMALL, extractor=extractor)
    assert model.training and torch.equal(torch.get_rng_state(), random) and torch.is_grad_enabled()


# ---- what is compared -----------------------------------------------------------------------------------------------


def test_all_models_of_a_data_set_are_compared_with_the_same_pixels(extractor):
    quick = SMALL.changed(metrics=("fid",))
    sets = [
        Digits(),
        Digits(size=16, subset=40, batch_size=8, hflip=True),
        Digits(size=64, eval_batch_size=3, channels=3),
        Digits(split_seed=0, download=False, memory="no", workers=0, per_class=3, enlarge=True),
    ]
    found = []
    for data in sets:
        images = torch.zeros(70, *data.spec.shape, dtype=torch.uint8)
        record = evaluate(TensorImages("black", images), data, quick, extractor=extractor)
        found.append((record.protocol["reference"], record.protocol["key"], record.data, values(record)))
    assert all(other == found[0] for other in found[1:])
    assert found[0][0]["shape"] == [1, 32, 32] and found[0][0]["images"] == 100
    other = evaluate(
        TensorImages("black", images), Digits(val_size=7), quick.changed(split="train"), extractor=extractor
    )
    assert other.protocol["key"] != found[0][1]


def test_samples_of_a_different_size_or_color_are_converted_to_those_of_the_reference(extractor):
    images = Digits().source("test").everything.image[:70]
    quick = SMALL.changed(metrics=("fid",))
    same = evaluate(TensorImages("x", images), Digits(), quick, extractor=extractor)
    color = evaluate(TensorImages("x", images.repeat(1, 3, 1, 1)), Digits(), quick, extractor=extractor)
    assert_same(values(same), values(color))
    given = Giver(DataSpec((1, 32, 32))).give(from_uint8(images))
    assert_same(values(same), values(evaluate(given, Digits(), quick, extractor=extractor)))


def test_the_data_sets_extractor_is_used_unless_the_protocol_sets_one():
    record = evaluate(subject("images"), Digits(), SMALL.changed(metrics=("fid",)))
    assert record.protocol["extractor"]["name"] == "digitsnet" and "fid-digitsnet" in record.metrics
    other = evaluate(subject("images"), Digits(), SMALL.changed(metrics=("fid",), extractor="mnistnet"))
    assert "fid-mnistnet" in other.metrics and other.protocol["name"].endswith("extractor=mnistnet+metrics=fid")
    assert other.protocol["key"] != record.protocol["key"]


def test_too_many_images_are_reduced_to_a_random_choice(extractor):
    everything = Digits().source("train").everything
    images = everything.image[everything.label.argsort(stable=True)]  # as a folder of classes is sorted
    record = evaluate(TensorImages("x", images), Digits(), SMALL.changed(metrics=("classes",)), extractor=extractor)
    assert record.metrics["modes-digitsnet"]["value"] == 10 and record.metrics["modes-digitsnet"]["n"] == 70
    few = evaluate(TensorImages("x", images[:70]), TensorImages("y", images), SMALL, extractor=extractor)
    assert few.protocol["reference"]["images"] == 100


class Sorted(Digits):
    """Data sorted by class, like a folder of class folders."""

    def split(self, stage):
        split = super().split(stage)
        order = split.label.argsort(stable=True)
        pictures, split.label = split.pictures, split.label[order]
        split.pictures = lambda rows: pictures(order.numpy()[rows])
        return split


def test_data_sorted_by_class_is_evaluated_on_all_classes(extractor):
    model = Obedient(Digits().spec)
    protocol = SMALL.changed(real=290, generated=60, neighbors_images=60)
    found = values(evaluate(model, Sorted(), protocol, extractor=extractor))
    assert len(torch.cat(model.conditions)[:60].unique()) == 10
    assert found["precision-digitsnet"] > 0.5 and found["recall-digitsnet"] > 0.5


def test_a_different_number_of_images_gives_a_different_protocol(extractor):
    quick = SMALL.changed(metrics=("fid",))
    all_of_them = evaluate(subject("images"), Digits(), quick, extractor=extractor)
    fewer = evaluate(TensorImages("x", subject("images").all[:50]), Digits(), quick, extractor=extractor)
    assert all_of_them.protocol["name"] == "small+metrics=fid"
    assert fewer.protocol["name"] == "small+metrics=fid+generated=50"
    assert fewer.protocol["key"] != all_of_them.protocol["key"]


# ---- too little -----------------------------------------------------------------------------------------------------


def test_a_score_that_needs_more_images_is_blank_and_says_how_many(extractor):
    images = SplitImages(Digits(), "train", 500).images(torch.arange(500))
    found = evaluate(TensorImages("x", images), Digits(), "fid10k-test", extractor=extractor).metrics
    assert found["kid-digitsnet"]["value"] is None
    assert "needs at least 1000 generated images; got 500" in found["kid-digitsnet"]["note"]
    for name in ("fid", "is", "precision", "modes", "authenticity"):
        assert found[f"{name}-digitsnet"]["value"] is not None, name


def test_three_images_get_every_score_that_three_images_allow(extractor):
    images = SplitImages(Digits(), "train", 3)
    found = evaluate(images, Digits(), SMALL.changed(is_splits=10), extractor=extractor).metrics
    blank = {name for name, entry in found.items() if entry["value"] is None}
    assert blank == {f"{n}-digitsnet" for n in ("kid", "is", "precision", "recall", "density", "coverage")}
    assert all("needs at least" in found[name]["note"] for name in blank)


def test_few_images_of_a_class_leave_its_distance_blank_and_nothing_else(extractor):
    found = evaluate(
        Obedient(Digits().spec), Digits(), SMALL.changed(real=12, generated=12), extractor=extractor
    ).metrics
    assert found["class_fid-digitsnet"]["value"] is None and "of each class" in found["class_fid-digitsnet"]["note"]
    for name in ("class_accuracy", "modes", "class_entropy"):
        assert found[f"{name}-digitsnet"]["value"] is not None


def test_one_image_on_both_sides_does_not_crash(extractor):
    found = evaluate(Coder(Digits().spec), SplitImages(Digits(), "test", 1), SMALL, extractor=extractor).metrics
    assert found["reconstruction_fid-digitsnet"]["value"] is None and found["mse"]["value"] < 1e-4
    assert not any(name in found for name in ("mse-digitsnet", "lpips-digitsnet"))


# ---- abilities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amiss", [0, 1])
def test_a_conditional_model_is_sampled_with_the_references_labels(extractor, amiss):
    model = Obedient(Digits().spec, amiss=amiss)
    record = evaluate(model, Digits(), SMALL.changed(generated=130), extractor=extractor)
    conditions = torch.cat(model.conditions)[:130]
    labels = SplitImages(Digits(), "test", 100).label
    assert torch.equal(conditions, torch.cat([labels, labels[:30]]))  # in turn
    scores = values(record)
    assert scores["class_accuracy-digitsnet"] == pytest.approx(1 - amiss, abs=0.05)
    assert scores["class_fid-digitsnet"] > 0


def test_wrong_classes_worsen_the_class_scores(extractor):
    right, wrong = (
        values(evaluate(Obedient(Digits().spec, amiss=k), Digits(), SMALL.changed(generated=100), extractor=extractor))
        for k in (0, 1)
    )
    assert wrong["class_fid-digitsnet"] > 2 * right["class_fid-digitsnet"]


def test_a_class_distance_needs_labels_but_not_the_extractors_classes(extractor):
    blind = Extractor("blind", extractor.network, lambda net, x: (extractor.read(net, x)[0], None), "none")
    scores = values(evaluate(Obedient(Digits().spec), Digits(), SMALL.changed(generated=100), extractor=blind))
    assert scores["class_fid-blind"] > 0 and not any("accuracy" in name or "modes" in name for name in scores)


def test_an_unconditional_model_has_no_scores_of_labels(alone):
    assert not any(
        name.startswith("class_accuracy") or name.startswith("class_fid") for name in alone["vae"]["metrics"]
    )


def test_a_conditional_model_on_data_without_labels_is_an_error(extractor):
    images = TensorImages("my images", torch.zeros(20, 1, 32, 32, dtype=torch.uint8))
    with pytest.raises(UserError, match="Obedient needs a label for each sample, but my images has none"):
        evaluate(Obedient(Digits().spec), images, SMALL, extractor=extractor)


def test_likelihoods_equal_the_closed_form(extractor):
    data = Digits()
    levels = SplitImages(data, "test", 100).images(torch.arange(100)).double()
    exact = torch.log((levels + 1) / (256 * 257 / 2)).flatten(1).sum(1).mean().item()
    found = evaluate(Independent(data.spec), data, SMALL, extractor=extractor).metrics
    assert found["nats"]["value"] == pytest.approx(exact, rel=1e-6) and found["nats"]["bound"] == "exact"
    assert found["bits_per_dim"]["value"] == pytest.approx(-exact / 1024 / math.log(2), rel=1e-6)
    found = evaluate(Uniform(data.spec), data, SMALL, extractor=extractor).metrics
    assert found["bits_per_dim"]["value"] == pytest.approx(8, rel=1e-6)
    assert found["bits_per_dim"]["bound"] == "lower bound" and found["nats"]["n"] == 100
    assert found["nats"]["track"] == "likelihood" and found.keys() == {"nats", "bits_per_dim"}


def test_a_likelihood_over_different_pixels_than_the_protocols_is_blank(extractor):
    data = Digits()
    for model, why in ((Density(data.spec), "for density pixels"), (Uniform(DataSpec((1, 16, 16))), "16×16×1")):
        found = evaluate(model, data, SMALL, extractor=extractor).metrics
        for name in ("nats", "bits_per_dim"):
            assert found[name]["value"] is None and why in found[name]["note"]
    assert "use `--data.size 16` for images of the model's size" in found["nats"]["note"]
    found = evaluate(Density(data.spec), data, SMALL.changed(pixels="density"), extractor=extractor)
    assert found.metrics["bits_per_dim"]["value"] == pytest.approx(8, rel=1e-6)
    assert found.protocol["name"] == "small+pixels=density"


def test_a_likelihood_at_a_different_size_has_the_size_in_its_name(extractor):
    data = Digits(size=16)
    found = evaluate(Uniform(data.spec), data, SMALL, extractor=extractor).metrics
    assert found.keys() == {"nats-16x16x1", "bits_per_dim-16x16x1"}
    assert found["nats-16x16x1"]["value"] == pytest.approx(-256 * math.log(256), rel=1e-6)
    assert found["bits_per_dim-16x16x1"]["value"] == pytest.approx(8, rel=1e-6)
    assert found["nats-16x16x1"]["track"] == "likelihood"


class Impossible(Uniform):
    def log_likelihood(self, x):
        return torch.where(torch.arange(len(x)) == 3, -math.inf, -1.0)


def test_a_likelihood_that_is_not_finite_is_blank_with_a_note(extractor):
    found = evaluate(Impossible(Digits().spec), Digits(), SMALL, extractor=extractor).metrics["nats"]
    assert found["value"] is None and "of 100 images are NaN or infinite" in found["note"]


class Coin(Uniform):
    """Each pixel is black or white with equal probability. The number of importance samples is stored."""

    pixels = "binary"

    def log_likelihood(self, x, *, importance_samples: int = 16):
        self.importance_samples = importance_samples
        return torch.full((len(x),), -math.prod(x.shape[1:]) * math.log(2))


def test_a_likelihood_of_binary_images_is_labeled_binary_and_uses_the_set_number_of_samples(extractor):
    data = Digits(binarize="static")
    model = Coin(data.spec)
    found = evaluate(model, data, SMALL, extractor=extractor, sampling={"importance_samples": 5})
    assert found.metrics["bits_per_dim"]["value"] == pytest.approx(1, rel=1e-6) and model.importance_samples == 5
    assert found.protocol["pixels"] == "binary" and found.run["sampling"] == {"importance_samples": 5}
    gray = evaluate(Uniform(Digits().spec), Digits(), SMALL, extractor=extractor)
    assert gray.protocol["pixels"] == "8-bit" and gray.protocol["key"] != found.protocol["key"]


def test_a_likelihood_over_binary_pixels_is_not_computed_on_gray_pixels(extractor):
    found = evaluate(Coin(Digits().spec), Digits(), SMALL, extractor=extractor).metrics["nats"]
    assert found["value"] is None and "for binary pixels" in found["note"] and "has 8-bit pixels" in found["note"]
    assert "--data.binarize static" in found["note"]
    with pytest.raises(UserError, match=r"is for binary pixels.*--data.binarize static"):
        evaluate(Coin(Digits().spec), Digits(), SMALL.changed(pixels="binary"), extractor=extractor)


def test_the_accuracy_of_a_classifier_is_the_fraction_of_correct_images(extractor):
    data = Digits()
    for wrong, right in ((0, 1.0), (3, 1 - len(range(0, 297, 3)) / 297)):
        record = evaluate(Namer(data.spec).learn(data, wrong), data, SMALL.changed(real=297), extractor=extractor)
        entry = record.metrics["accuracy"]  # computed from the model's predictions, so its name contains no extractor
        assert entry["value"] == pytest.approx(right) and entry["n"] == 297
        assert entry["track"] == "classification" and entry["better"] == "higher"


def test_an_accuracy_needs_labels_and_the_same_number_of_classes(extractor):
    def note(spec, data):
        entry = evaluate(Namer(spec), data, SMALL, extractor=extractor).metrics["accuracy"]
        assert entry["value"] is None
        return entry["note"]

    images = TensorImages("my images", torch.zeros(20, 1, 32, 32, dtype=torch.uint8))
    assert note(Digits().spec, images) == "my images has no labels"
    few = DataSpec((1, 32, 32), "label", ("zero", "one"))
    assert note(few, Digits()) == "the model has 2 classes, but Digits test has 10"


def test_the_caption_accuracy_compares_with_the_requested_shape_and_color(empty_cache):
    data = Shapes(target="caption", train_images=10, val_images=10, test_images=60)
    extractor = extractors.build("shapesnet")
    protocol = SMALL.changed(real=60, generated=60, metrics=("classes",))
    for amiss in (0, 1):
        record = evaluate(Painter(data.spec).learn(data, amiss), data, protocol, extractor=extractor)
        label, color = data.source("test").everything.factors[:, :2].int().T
        right = ((label == label.roll(-amiss)) & (color == color.roll(-amiss))).double().mean().item()
        entry = record.metrics["caption_accuracy-shapesnet"]
        assert entry["value"] == pytest.approx(right, abs=0.05) and entry["n"] == 60
        assert entry["track"] == "generation" and not any("class_accuracy" in name for name in record.metrics)


def test_captions_that_name_no_class_of_the_extractor_leave_the_score_blank(extractor):
    data = Shapes(target="caption", train_images=10, val_images=10, test_images=30)
    protocol = SMALL.changed(real=30, generated=30, metrics=("classes",))
    entry = evaluate(Painter(data.spec).learn(data), data, protocol, extractor=extractor).metrics
    assert entry["caption_accuracy-digitsnet"]["value"] is None
    assert "names none" in entry["caption_accuracy-digitsnet"]["note"]


def test_segmentation_is_scored_by_the_true_masks(extractor):
    data = Shapes(size=16, train_images=10, val_images=10, test_images=30)
    found = values(evaluate(Segmenter(data.spec).learn(data.reference()), data, SMALL, extractor=extractor))
    assert found == {"mean_iou": 1.0, "dice": 1.0, "pixel_accuracy": 1.0}
    wrong = values(evaluate(Segmenter(data.spec).learn(data.reference(), wrong=2), data, SMALL, extractor=extractor))
    masks = data.reference().source("test").everything.mask
    missed = (masks[::2] > 0).sum().item() / masks.numel()
    assert wrong["pixel_accuracy"] == pytest.approx(1 - missed) and 0.3 < wrong["mean_iou"] < 0.8


def test_a_code_is_counted_in_bits(extractor):
    found = values(evaluate(Coder(Digits().spec), Digits(), SMALL, extractor=extractor))
    assert found["code_bits"] == 4 * 4 * 9
    assert found["mse"] < 1e-4 and found["ssim"] > 0.999 and found["reconstruction_fid-digitsnet"] < 1e-3


def test_lpips_is_the_mean_over_images_if_its_weights_are_available(extractor, monkeypatch):
    def distance(made, true):  # replaces torchmetrics' network
        return 1 + (made - true).abs().flatten(1).mean(1)

    monkeypatch.setattr(paired, "lpips_network", lambda device: distance)
    found = values(evaluate(Coder(Digits().spec), Digits(), SMALL, extractor=extractor))
    assert found["lpips"] == pytest.approx(1, abs=0.01)


def test_images_too_small_for_ssim_and_lpips_leave_them_blank(extractor):
    images = TensorImages("tiny", torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8))
    found = evaluate(Coder(DataSpec((1, 8, 8))), images, SMALL, extractor=extractor).metrics
    assert found["ssim"]["value"] is None and "11×11" in found["ssim"]["note"] and found["mse"]["value"] < 1e-4
    assert found["lpips"]["value"] is None and "16×16" in found["lpips"]["note"]


# ---- models that break the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixel", "message"),
    [
        (math.nan, "`sample` of Giver returned NaN or infinite pixels"),
        (math.inf, "`sample` of Giver returned NaN or infinite pixels"),
        (255.0, r"returned values from 0 to 255; expected \[-1, 1\]"),
        (-1.5, "returned values from -1.5 to 0"),
    ],
)
def test_samples_that_are_not_images_are_rejected(extractor, pixel, message):
    images = torch.zeros(8, 1, 16, 16)
    images[5, 0, 3, 3] = pixel
    with pytest.raises(UserError, match=message):
        evaluate(Giver(DataSpec((1, 16, 16))).give(images), Digits(), SMALL, extractor=extractor)


def test_rounding_slightly_beyond_the_range_is_accepted(extractor):
    images = torch.full((8, 1, 16, 16), 1.002)
    evaluate(Giver(DataSpec((1, 16, 16))).give(images), Digits(), SMALL.changed(metrics=("fid",)), extractor=extractor)


def test_features_that_are_not_finite_are_rejected():
    broken = Extractor("broken", nn.Linear(1, 1), lambda net, x: (torch.full((len(x), 2), math.nan), None), "")
    with pytest.raises(UserError, match="extractor 'broken' returned features that are not finite"):
        evaluate(subject("images"), Digits(), SMALL, extractor=broken)


def test_a_model_without_any_metric_of_the_protocol_is_an_error(extractor):
    with pytest.raises(UserError, match="small.metrics=fid applies to Uniform on this data. Its metrics are fid"):
        evaluate(Uniform(Digits().spec), Digits(), SMALL.changed(metrics=("fid",)), extractor=extractor)
