"""The scores that an evaluation will compute are known before it runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.errors import UserError
from genbench.data import Digits, ImageFolder, Ring, Shapes, UnpairedFolder
from genbench.evaluation import extractors
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.evaluator import Held
from genbench.evaluation.evaluators import expected
from genbench.evaluation.protocol import Protocol
from genbench.metrics.scales import GROUPS
from genbench.models import (
    DCGAN,
    GAN,
    VAE,
    ConditionalGAN,
    CycleGAN,
    PixelCNN,
    SegmentationUNet,
    SemiSupervisedGAN,
    TextConditionalGAN,
    UNet,
)

SMALL = Protocol(
    "small", split="val", real=12, generated=12, kid_subsets=2, kid_subset_size=4, is_splits=2, neighbors_k=2, train=20
)


def held(data):
    found = data.source("val")
    label = found.target("label", torch.arange(len(found)))
    paired = found.target("source", torch.arange(len(found))) is not None
    return Held(len(found), len(found.source) if hasattr(found, "source") else 0, label, paired)


def digits(**more):
    return Digits(size=16, subset=40, val_size=12, **more)


def shapes(**more):
    return Shapes(size=16, train_images=20, val_images=12, test_images=2, **more)


def folder(path, **images):
    rng = np.random.default_rng(0)
    for name, count in images.items():
        (path / name).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path / name / f"{k}.png")
    return path


GANS = {"latent_dim": 2, "width": 2}
CASES = {
    "gan": (digits, lambda spec: DCGAN(spec, **GANS)),
    "likelihood": (digits, lambda spec: VAE(spec, decoder="gaussian", **GANS)),
    "labels": (digits, lambda spec: ConditionalGAN(spec, **GANS)),
    "classifier": (digits, lambda spec: SemiSupervisedGAN(spec, network="mlp", hidden=[8], latent_dim=2)),
    "captions": (lambda: shapes(target="caption"), lambda spec: TextConditionalGAN(spec, text_dim=2, **GANS)),
    "masks": (lambda: shapes(target="mask"), lambda spec: SegmentationUNet(spec, width=2, depth=1)),
    "task": (lambda: shapes(target="none", task="denoise"), lambda spec: UNet(spec, width=2, depth=1)),
    "domains": (
        lambda: shapes(target="domain"),
        lambda spec: CycleGAN(spec, width=2, blocks=1, discriminator_width=2, patch_layers=1),
    ),
    "points": (
        lambda: Ring(train_images=20, val_images=12, test_images=2),
        lambda spec: GAN(spec, latent_dim=2, hidden=[4]),
    ),
    "other pixels": (lambda: digits(binarize="static"), lambda spec: VAE(spec, decoder="logistic", **GANS)),
}


def agree(model, data, protocol):
    extractor = extractors.build(data.extractor if data.extractor != "inception" else "digitsnet")
    expected_scores = expected(model.eval(), data, protocol, extractor, held(data))
    found = evaluate(model, data, protocol, extractor=extractor).metrics
    by_the_samples = ("class_entropy-ring", "mode_kl-ring")  # blank if no sample is good
    assert {name: why is None for name, why in expected_scores.items() if name not in by_the_samples} == {
        name: entry["value"] is not None for name, entry in found.items() if name not in by_the_samples
    }
    return expected_scores


@pytest.mark.parametrize("case", CASES)
def test_the_expected_scores_are_the_computed_scores(case):
    build, make = CASES[case]
    data = build()
    agree(make(data.spec), data, SMALL)


@pytest.mark.parametrize("changes", [{"real": 1}, {"generated": 1}, {"kid_subset_size": 13}, {"neighbors_k": 12}])
def test_scores_that_need_more_images_are_expected_to_be_blank(changes):
    data = digits()
    few = replace(SMALL, metrics=("fid", "kid", "neighbors", "reconstruction"), **changes)
    expected_scores = agree(VAE(data.spec, **GANS), data, few)
    assert any(why is not None and "it needs at least" in why for why in expected_scores.values())


def test_unpaired_domains_are_compared_as_sets(tmp_path):
    path = folder(tmp_path, trainA=14, trainB=60, testA=2, testB=2)
    data = UnpairedFolder(str(path), size=16)
    model = CycleGAN(data.spec, width=2, blocks=1, discriminator_width=2, patch_layers=1)
    expected_scores = agree(model, data, SMALL)  # a tenth: 1 image of A and 6 of B
    assert expected_scores["cycle_l1"] is None
    assert expected_scores["translation_fid-digitsnet"] == "it needs at least 2 images; got 1"


def test_missing_conditions_are_an_error_before_sampling(tmp_path):
    data = ImageFolder(str(folder(tmp_path, **{"train/a": 9, "train/b": 9, "test": 4})), size=16)
    model = ConditionalGAN(data.spec, **GANS)
    extractor = extractors.build("digitsnet")
    with pytest.raises(UserError, match="needs labels as conditions, but the images of the split test have no labels"):
        expected(model, data, replace(SMALL, split="test"), extractor, Held(4))


def test_a_protocol_without_metrics_for_the_model_is_an_error_before_sampling():
    data = digits()
    with pytest.raises(UserError, match="No metric of the protocol small applies to DCGAN"):
        expected(DCGAN(data.spec, **GANS), data, replace(SMALL, metrics=("segmentation",)), None, held(data))
    with pytest.raises(UserError, match="for binary pixels, but Digits has gray pixels"):
        expected(VAE(data.spec, **GANS), data, replace(SMALL, pixels="binary"), None, held(data))


def test_an_exact_likelihood_is_of_the_pixels_that_the_model_was_trained_on():
    data = Digits(size=8, resize_mode="crop", val_size=12, binarize="static", enlarge=True)
    model = PixelCNN(data.spec, width=2, layers=1, kernel=3)
    for metrics in (("likelihood",), tuple(g for g in GROUPS if g == "likelihood")):
        agree(model, data, replace(SMALL, metrics=metrics))
