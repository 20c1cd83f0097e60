"""Mean and covariance from a file give the same Fréchet distance as the images, and no other score."""

import pickle

import numpy as np
import pytest
import torch

from genbench.core.errors import UserError
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.images import TensorImages, open_images, open_reference
from genbench.metrics.frechet import feature_moments, frechet_distance
from tests.helpers.abilities import SMALL, Giver, values

D = 6


def images(seed, count=150, size=16):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=draw)


def covariance(seed=0):
    x = np.random.default_rng(seed).normal(size=(40, D))
    return x.mean(0), np.cov(x, rowvar=False)


@pytest.fixture
def reference(tmp_path, extractor):
    """Some images, their features, and the file of their statistics."""
    found = images(1, count=100)
    features = extractor(found)[0].double()
    np.savez(tmp_path / "stats.npz", mu=features.mean(0).numpy(), sigma=np.cov(features.numpy(), rowvar=False))
    return found, features, tmp_path / "stats.npz"


def test_the_distance_is_that_to_the_images_themselves(reference, extractor):
    real, features, path = reference
    fake = TensorImages("fake", images(2)[:70])
    record = evaluate(fake, open_reference(path), SMALL, extractor=extractor)
    beside = evaluate(fake, TensorImages("real", real), SMALL, extractor=extractor)
    expected = frechet_distance(*feature_moments(extractor(fake.all)[0]), *feature_moments(features)).item()
    assert values(record) == {"fid-digitsnet": pytest.approx(expected, rel=1e-5)}
    assert values(beside)["fid-digitsnet"] == pytest.approx(expected, rel=1e-5)


def test_the_record_says_that_statistics_were_compared_with(reference, extractor):
    record = evaluate(TensorImages("fake", images(2)), open_reference(reference[2]), SMALL, extractor=extractor)
    protocol = record.protocol
    known = open_reference(reference[2])
    assert protocol["reference"] == {"kind": "statistics", "images": None, "features": 128, "hash": known.hash}
    assert (protocol["metrics"], protocol["real"], protocol["split"]) == (["fid"], None, "all")
    assert "+metrics=fid" in protocol["name"] and record.data["name"] == "stats.npz"
    assert record.metrics["fid-digitsnet"]["note"] == "compared only with mu and sigma of stats.npz"


def test_different_statistics_give_a_different_key(reference, extractor, tmp_path):
    found = np.load(reference[2])
    np.savez_compressed(tmp_path / "same.npz", **found)
    np.savez(tmp_path / "other.npz", mu=found["mu"] + 1e-3, sigma=found["sigma"])
    keys = [
        evaluate(TensorImages("fake", images(2)), open_reference(path), SMALL, extractor=extractor).protocol["key"]
        for path in (reference[2], tmp_path / "same.npz", tmp_path / "other.npz")
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_models_samples_are_compared_with_statistics(reference, extractor):
    from genbench.data import Digits

    samples = images(3, 70, 32).float() / 127.5 - 1
    found = values(
        evaluate(Giver(Digits().spec).give(samples), open_reference(reference[2]), SMALL, extractor=extractor)
    )
    expected = frechet_distance(
        *feature_moments(extractor(images(3, 70, 32))[0]), *feature_moments(reference[1])
    ).item()
    assert found == {"fid-digitsnet": pytest.approx(expected, rel=1e-4)}


def test_images_are_read_from_a_file_with_both_unless_a_flag_selects_statistics(tmp_path):
    mu, sigma = covariance()
    np.savez(tmp_path / "adm.npz", arr_0=images(1).permute(0, 2, 3, 1).numpy(), mu=mu, sigma=sigma, mu_s=mu)
    with pytest.warns(UserWarning, match="adm.npz contains both images and feature statistics .* `--reference.key mu`"):
        found = open_reference(tmp_path / "adm.npz")
    assert len(found) == 150 and torch.equal(found.images(torch.arange(150)), images(1))
    assert torch.equal(open_reference(tmp_path / "adm.npz", key="mu").mu, torch.from_numpy(mu))
    assert len(open_reference(tmp_path / "adm.npz", key="arr_0")) == 150
    assert len(open_images(tmp_path / "adm.npz")) == 150


@pytest.mark.parametrize(("mean", "square"), [("mu", "sigma"), ("m", "s")])
@pytest.mark.parametrize("shape", [(D,), (1, D)])
def test_statistics_have_one_of_two_pairs_of_names_and_the_mean_may_be_a_row(tmp_path, mean, square, shape):
    mu, sigma = covariance()
    np.savez(tmp_path / "s.npz", **{mean: mu.reshape(shape), square: sigma})
    for found in (open_reference(tmp_path / "s.npz"), open_reference(tmp_path / "s.npz", key=mean)):
        assert torch.equal(found.mu, torch.from_numpy(mu)) and np.allclose(found.sigma.numpy(), sigma, rtol=1e-12)


@pytest.mark.parametrize("names", [("mean", "cov"), ("mu", "cov"), ("mu_clip", "sigma_clip")])
def test_statistics_with_unknown_names_are_an_error_with_the_known_names(tmp_path, names):
    np.savez(tmp_path / "s.npz", **dict(zip(names, covariance(), strict=True)))
    said = rf"s.npz contains {names[0]} \(float64 \[6\]\), {names[1]} .* `mu` and `sigma`, or `m` and `s`, for the mean"
    with pytest.raises(UserError, match=said):
        open_reference(tmp_path / "s.npz")


def test_a_pickle_of_statistics_is_rejected_with_how_to_convert_it(tmp_path):
    mu, sigma = covariance()
    (tmp_path / "edm2.pkl").write_bytes(pickle.dumps({"fid": {"mu": mu, "sigma": sigma}}))
    said = "edm2.pkl is a pickle, a format that genbench cannot read.*numpy.savez.*or with `mu=..., sigma=...` if it"
    with pytest.raises(UserError, match=said):
        open_reference(tmp_path / "edm2.pkl")


def lopsided(sigma):
    sigma[0, 1] += 1
    return sigma


def holed(sigma):
    sigma[1, 1] = np.nan
    return sigma


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mu, sigma: (mu, lopsided(sigma)), "sigma in .*s.npz is not a covariance: it is not symmetric"),
        (lambda mu, sigma: (mu, sigma - 3 * np.eye(D)), "it has a negative eigenvalue, -2"),
        (lambda mu, sigma: (mu, holed(sigma)), "mu or sigma in .*s.npz contains NaN or infinity"),
        (lambda mu, sigma: (mu * np.inf, sigma), "contains NaN or infinity"),
        (
            lambda mu, sigma: (mu[:-1], sigma),
            r"mu \[5\] .* sigma \[6, 6\] .*; expected a mean \[D\] and a covariance \[D, D\]",
        ),
        (lambda mu, sigma: (mu, sigma.diagonal()), r"sigma \[6\]"),
        (lambda mu, sigma: (mu.astype("U"), sigma), "a covariance .* of numbers"),
        (lambda mu, sigma: (np.array([mu, None], dtype=object), sigma), "mu.npy in .* is a pickle"),
    ],
)
def test_arrays_that_are_not_a_mean_and_a_covariance_are_rejected(tmp_path, change, message):
    mu, sigma = change(*covariance())
    np.savez(tmp_path / "s.npz", mu=mu, sigma=sigma)
    with pytest.raises(UserError, match=message):
        open_reference(tmp_path / "s.npz")


def test_rounding_in_float32_is_accepted(tmp_path):
    mu, _ = covariance()
    # rank 3: the other eigenvalues are rounding errors
    few = np.random.default_rng(0).normal(size=(4, D)).astype(np.float32)
    np.savez(tmp_path / "s.npz", mu=mu.astype(">f4"), sigma=np.cov(few, rowvar=False).astype(np.float32))
    assert open_reference(tmp_path / "s.npz").mu.tolist() == mu.astype(np.float32).tolist()


def test_statistics_of_different_features_are_rejected_before_sampling(tmp_path, extractor):
    mu, sigma = covariance()
    np.savez(tmp_path / "s.npz", mu=mu, sigma=sigma)
    reference = open_reference(tmp_path / "s.npz")
    with pytest.raises(UserError, match="statistics of 6 features, but the extractor 'digitsnet' has 128"):
        evaluate(TensorImages("fake", images(2)), reference, SMALL, extractor=extractor)
    with pytest.raises(UserError, match="only the metric group `fid` can use, but the protocol .* computes kid"):
        evaluate(TensorImages("fake", images(2)), reference, SMALL.changed(metrics=("kid",)), extractor=extractor)
    with pytest.raises(UserError, match="A baseline needs a data set"):
        evaluate(None, reference, SMALL, extractor=extractor)
    with pytest.raises(UserError, match="no array of images.* mean and covariance of features"):
        open_images(tmp_path / "s.npz")
