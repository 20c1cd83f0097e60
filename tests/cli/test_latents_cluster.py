"""latents cluster: groups of images, their pictures, and their agreement with the classes."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genbench
from genbench.analysis.clustering import agreement, cluster
from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.data import Digits
from genbench.models import DCGAN, VQVAE, Autoencoder
from tests.helpers.small import untrained

SPEC = DataSpec((1, 16, 16), "label", tuple("0123456789"))
DATA = ("--data", "Digits", "--data.size", "16")


@pytest.fixture
def clustered(cli):
    """Runs `latents cluster`; returns (exit status, standard output, standard error)."""
    return partial(cli, "latents", "cluster")


@pytest.fixture
def autoencoder(cli):
    return untrained(Autoencoder(SPEC), Path("model.ckpt"))


def table(path="clusters/assignments.csv"):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", ["kmeans", "mixture"])
def test_clusters_of_codes_have_assignments_scores_and_pictures(clustered, autoencoder, method):
    flags = ("--method", method, *(("--covariance", "diag") if method == "mixture" else ()))
    status, out, _ = clustered("--ckpt", autoencoder, *DATA, "--seed", 3, *flags)
    rows, split = table(), Digits(size=16).source("test")
    numbers = torch.tensor([int(row["file"]) for row in rows])
    codes = genbench.load(autoencoder).encode(split.batch(numbers).image.float() / 127.5 - 1)
    expected = cluster(codes, 10, method, covariance="diag", seed=3)
    found = torch.tensor([int(row["cluster"]) for row in rows])
    scores = agreement(found, split.target("label", numbers))
    assert status == 0 and torch.equal(found, expected.cluster)
    assert f"NMI {scores['nmi']:.4f}, ARI {scores['ari']:.4f}" in out
    assert f"accuracy by best assignment {scores['accuracy']:.4f}" in out
    name, values = ("distance", expected.distance) if method == "kmeans" else ("probability", expected.probability)
    assert torch.allclose(torch.tensor([float(row[name]) for row in rows]), values, atol=1e-3)
    pictures = {f"cluster-{k}.png" for k in range(10)}
    assert {p.name for p in Path("clusters").iterdir()} == pictures | {"assignments.csv", "clusters.png"}


def test_a_picture_shows_the_images_nearest_to_the_center_first(clustered, autoencoder):
    assert clustered("--ckpt", autoencoder, *DATA, "--k", 4)[0] == 0
    members = [row for row in table() if row["cluster"] == "2"]
    nearest = min(members, key=lambda row: float(row["distance"]))
    image = Digits(size=16).source("test").batch(torch.tensor([int(nearest["file"])])).image[0, 0].numpy()
    picture = np.asarray(Image.open("clusters/cluster-2.png"))
    factor = picture.shape[1] // (8 * 18 + 2)
    assert np.array_equal(picture[::factor, ::factor][2:18, 2:18], image)


def test_the_overview_says_how_many_images_each_cluster_has(clustered, autoencoder, monkeypatch):
    drawn = []
    monkeypatch.setattr("genbench.core.image_grid.titled", lambda grid, _, rows: drawn.extend(rows) or grid)
    assert clustered("--ckpt", autoencoder, *DATA, "--k", 3)[0] == 0
    counts = [sum(row["cluster"] == str(k) for row in table()) for k in range(3)]
    assert sum(counts) == 297 and drawn == [f"cluster {k} ({count} images)" for k, count in enumerate(counts)]


def test_overwriting_removes_the_pictures_of_the_earlier_call_and_no_other_file(clustered, autoencoder):
    command = ("--ckpt", autoencoder, *DATA, "--n", 60, "--k")
    assert clustered(*command, 11)[0] == 0
    mine = {"cluster-2024.png", "cluster-3.png", "cluster-11.png", "cluster-a.png", "cluster-٣.png"}
    for name in mine:
        Path("clusters", name).write_bytes(b"mine")
    assert clustered(*command, 10, "--overwrite")[0] == 0
    mine.remove("cluster-3.png")  # a result of this call
    written = {"assignments.csv", "clusters.png", *(f"cluster-{k}.png" for k in range(10))}
    assert {path.name for path in Path("clusters").iterdir()} == written | mine
    assert clustered(*command, 3, "--overwrite")[0] == 0
    written = {"assignments.csv", "clusters.png", *(f"cluster-{k}.png" for k in range(3))}
    assert {path.name for path in Path("clusters").iterdir()} == written | mine
    assert all(Path("clusters", name).read_bytes() == b"mine" for name in mine)


def test_an_interruption_keeps_the_results_of_the_earlier_call(clustered, autoencoder, monkeypatch):
    command = ("--ckpt", autoencoder, *DATA, "--n", 60)
    assert clustered(*command, "--k", 5)[0] == 0
    before = {path.name: path.read_bytes() for path in Path("clusters").iterdir()}

    def interrupted(*arguments):
        raise UserError("interrupted")

    monkeypatch.setattr("genbench.cli.latents_cluster._write_pictures", interrupted)
    assert clustered(*command, "--k", 3, "--overwrite")[0] == 2
    assert {path.name: path.read_bytes() for path in Path("clusters").iterdir()} == before


@pytest.mark.parametrize("name", ["assignments.csv", "clusters.png", "cluster-2.png"])
def test_a_folder_with_the_name_of_a_result_is_refused_before_anything_is_written(clustered, autoencoder, name):
    Path("clusters", name).mkdir(parents=True)
    status, _, err = clustered("--ckpt", autoencoder, *DATA, "--k", 3, "--overwrite")
    assert status == 2 and f"clusters/{name} is a folder, but a result has this name." in err
    assert [path.name for path in Path("clusters").iterdir()] == [name]


def test_pixels_are_the_baseline_of_any_model(clustered):
    ckpt = untrained(DCGAN(DataSpec((1, 16, 16)), width=4), Path("model.ckpt"))
    status, out, _ = clustered("--ckpt", ckpt, *DATA, "--on", "pixels")
    accuracy = float(out.rpartition("best assignment ")[2])
    assert status == 0 and "pixels (256 numbers)" in out and accuracy > 0.6  # scikit-learn's own example gets 0.79


def test_images_without_labels_need_k_and_get_no_scores(clustered):
    ckpt = untrained(Autoencoder(DataSpec((1, 16, 16))), Path("model.ckpt"))
    Path("in").mkdir()
    for k in range(6):
        Image.new("L", (16, 16), 40 * k).save(f"in/{k},.png")
    status, _, err = clustered("--ckpt", ckpt, "--images", "in")
    assert status == 2 and "Set the number of clusters with `--k`" in err and not Path("clusters").exists()
    status, out, _ = clustered("--ckpt", ckpt, "--images", "in", "--k", 2)
    assert status == 0 and "the images have no labels" in out
    assert [row["file"] for row in table()] == [f"{k},.png" for k in range(6)]
    assert {row["label"] for row in table()} == {""}


def test_points_have_no_pictures(clustered):
    ckpt = untrained(Autoencoder(DataSpec((2,)), latent_dim=2), Path("model.ckpt"))
    status, out, _ = clustered("--ckpt", ckpt, "--data", "Ring", "--n", 50, "--k", 3)
    assert status == 0 and [p.name for p in Path("clusters").iterdir()] == ["assignments.csv"]


@pytest.mark.parametrize(
    ("model", "flags", "words"),
    [
        (
            lambda: DCGAN(DataSpec((1, 16, 16)), width=4),
            (),
            "can: Autoencoder, ConditionalVAE, ConvAutoencoder, DenoisingAutoencoder, Glow, LatentDiffusion, "
            "LatentMixture, RealNVP, VAE.\n",
        ),
        (lambda: VQVAE(SPEC, width=8), (), "or `--on pixels`"),
        (lambda: Autoencoder(SPEC), ("--k", "30", "--n", "20"), "--k is 30, but --n allows only 20 images"),
        (lambda: Autoencoder(SPEC), ("--k", "298"), "--k is 298, but there are only 297 images"),
        (lambda: Autoencoder(SPEC), ("--n", "8"), "There are 10 classes, so 10 clusters, but there are only 8 images"),
        (lambda: Autoencoder(SPEC), ("--k", "0"), "--k is 0"),
        (lambda: Autoencoder(SPEC), ("--out", "used"), "contains files already"),
        (lambda: Autoencoder(SPEC), ("--clusters", "3"), "no option --clusters"),
        (lambda: Autoencoder(SPEC), ("--covariance", "diag"), "--covariance is for `--method mixture`"),
    ],
)
def test_bad_input_is_a_sentence_and_writes_nothing(clustered, model, flags, words):
    Path("used").mkdir()
    Path("used/file").write_text("")
    ckpt = untrained(model(), Path("model.ckpt"))
    status, _, err = clustered("--ckpt", ckpt, *DATA, *flags)
    assert status == 2 and words in err and "Traceback" not in err
    assert not Path("clusters").exists() and len(list(Path("used").iterdir())) == 1


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_scikit_learn_does_not_take_is_refused_before_anything_is_read(cli, seed):
    status, _, err = cli("latents", "cluster", "--ckpt", "nowhere", f"--seed={seed}")
    assert status == 2 and f"--seed is {seed}; it must be from 0 to 4294967295." in err


def test_overwriting_leaves_no_picture_of_a_cluster_that_no_longer_exists(clustered, autoencoder):
    assert clustered("--ckpt", autoencoder, *DATA, "--k", 12)[0] == 0
    Path("clusters/cluster-of-mine.png").write_bytes(b"mine")
    assert clustered("--ckpt", autoencoder, *DATA, "--k", 2, "--overwrite")[0] == 0
    names = sorted(path.name for path in Path("clusters").glob("cluster-*.png"))
    assert names == ["cluster-0.png", "cluster-1.png", "cluster-of-mine.png"]
