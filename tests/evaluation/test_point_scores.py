"""Evaluation of points: the points are the features, modes are counted, and a plot is written."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.errors import UserError
from genbench.core.image_grid import POINTS
from genbench.data import Digits, Grid, Ring
from genbench.evaluation import extractors
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.galleries import Gallery
from genbench.evaluation.images import TensorImages, open_images
from genbench.metrics.frechet import feature_moments, frechet_distance
from genbench.testing.contracts import CONTRACT_TESTS
from genbench.testing.recipe import Recipe
from tests.helpers.abilities import SMALL, Coder, Density, Giver, values

RING = {"val_images": 300, "train_images": 300, "test_images": 300}


def test_real_points_cover_all_modes_and_collapsed_points_cover_one():
    data = Ring(**RING)
    even = torch.tensor(Ring.modes).repeat(30, 1)
    good = values(evaluate(Giver(data.spec).give(even), data, SMALL))
    assert good["modes-ring"] == 8 and good["good_samples-ring"] == 1
    assert good["mode_kl-ring"] < 0.01 and good["is-ring"] > 7.5
    bad = values(evaluate(Giver(data.spec).give(even[:1]), data, SMALL))
    assert (
        bad["modes-ring"] == 1
        and bad["mode_kl-ring"] == pytest.approx(np.log(8))
        and bad["is-ring"] == pytest.approx(1)
    )
    assert bad["fid-ring"] > 100 * good["fid-ring"]
    lost = evaluate(Giver(data.spec).give(even + 5), data, SMALL).metrics  # points may leave [-1, 1]
    assert lost["modes-ring"]["value"] == 0 == lost["good_samples-ring"]["value"]
    assert lost["mode_kl-ring"]["value"] is None


def test_the_distance_is_that_of_the_points_themselves():
    data, samples = Grid(**RING), torch.randn(70, 2)
    record = evaluate(Giver(data.spec).give(samples), data, SMALL.changed(real=300, metrics=("fid",)))
    real = data.source("test").everything.image
    expected = frechet_distance(*feature_moments(samples), *feature_moments(real)).item()
    assert values(record) == {"fid-grid": pytest.approx(expected)}
    assert record.protocol["reference"]["shape"] == [2] and record.data["name"] == "Grid"


def test_samples_do_not_depend_on_the_block_nor_a_files_points_on_its_kind(tmp_path):
    points = Ring(**RING).source("val").everything.image[:70]
    np.save(tmp_path / "a.npy", points.numpy())
    np.savez(tmp_path / "a.npz", images=points.numpy())
    data, protocol = Ring(**RING), SMALL.changed(metrics=("fid", "classes"))
    expected = values(evaluate(Giver(data.spec).give(points), data, protocol))
    for subject in (TensorImages("x", points), open_images(tmp_path / "a.npy"), open_images(tmp_path / "a.npz")):
        assert values(evaluate(subject, data, protocol)) == pytest.approx(expected)


def test_reconstructions_and_likelihoods_of_points():
    data = Ring(**RING)
    found = values(evaluate(Coder(data.spec), data, SMALL.changed(metrics=("reconstruction",))))
    assert found["mse"] == 0 and found["reconstruction_fid-ring"] == pytest.approx(0, abs=1e-6)
    assert not {"psnr", "ssim", "lpips"} & found.keys()
    nats = values(evaluate(Density(data.spec), data, SMALL.changed(metrics=("likelihood",))))["nats"]
    assert nats == pytest.approx(-2 * np.log(256))  # a density, for any `pixels` of the protocol


@pytest.mark.parametrize(
    ("model", "data", "name", "message"),
    [
        (
            torch.zeros(4, 1, 32, 32),
            Ring(**RING),
            None,
            "Cannot compare images with points of 2 numbers",
        ),
        (torch.zeros(4, 3), Ring(**RING), None, "Cannot compare points of 3 numbers with points of 2"),
        (torch.zeros(4, 2), Digits(), None, "Cannot compare points of 2 numbers with images"),
        (torch.zeros(4, 2), Ring(**RING), "digitsnet", "'digitsnet' takes images, but the data are points"),
        (torch.zeros(4, 1, 32, 32), Digits(), "ring", "'ring' takes points, but the data are images"),
    ],
)
def test_images_and_points_are_not_mixed(model, data, name, message):
    extractor = extractors.build(name) if name else None
    with pytest.raises(UserError, match=message):
        evaluate(Giver(data.spec).give(model), data, SMALL, extractor=extractor)


def test_an_evaluation_leaves_a_plot_of_samples_before_real_points(tmp_path):
    data, pictures = Ring(**RING), Gallery()
    points = torch.tensor(Ring.modes)[:3].repeat(100, 1)
    evaluate(Giver(data.spec).give(points), data, SMALL.changed(generated=300), pictures=pictures)
    assert pictures.found["samples"].shape == (min(300, POINTS), 2) and pictures.found.keys() == {"samples"}
    pictures.write(tmp_path)
    image = np.asarray(Image.open(tmp_path / "samples.png")).astype(int)
    assert image.shape == (480, 480, 3)
    blue = (image[:, :, 2] - image[:, :, 0] > 80).sum()
    gray = ((np.ptp(image, axis=2) == 0) & (abs(image[:, :, 0] - 191) < 5)).sum()
    assert blue > 20 and gray > 100  # the plot shows three modes with samples, and the other modes without


def test_a_config_of_points_passes_every_contract_test(tmp_path):
    config = {
        "model": {"class_path": "genbench.models.GAN", "init_args": {"latent_dim": 4, "hidden": [16]}},
        "data": {"class_path": "genbench.data.Ring"},
    }
    path = tmp_path / "ring.yaml"
    path.write_text(json.dumps(config))
    for contract_test in CONTRACT_TESTS:
        contract_test(Recipe(path), tmp_path / contract_test.__name__)
