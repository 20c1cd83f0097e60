"""Features are extracted once, in fixed blocks, and a cache returns them unchanged or not at all."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load, save_file

from genbench.data import Digits
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.features import Extraction, Features, blocks, cached, extract
from genbench.evaluation.images import TensorImages
from genbench.metrics.frechet import FeatureSums, feature_moments
from tests.helpers.abilities import SMALL, assert_same, untimed

PROTOCOL = SMALL.changed(metrics=("fid", "kid", "neighbors", "memorization"))


def noise(count=40):
    draw = torch.Generator().manual_seed(0)
    return TensorImages("noise", torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=draw))


def measure(extractor, protocol=PROTOCOL, data=None):
    return evaluate(noise(), data or Digits(), protocol, extractor=extractor)


def files(folder):
    return sorted(folder.glob("*.safetensors"))


def test_blocks_are_of_one_size_and_the_last_is_padded():
    found = list(blocks(10, 4))
    assert [number for number, _, _ in found] == [0, 1, 2]
    assert [rows.tolist() for _, rows, _ in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 9, 9]]
    assert [real for _, _, real in found] == [4, 4, 2]


@pytest.mark.parametrize("keep", [False, True])
def test_moments_and_rows_are_those_of_the_images_without_the_padding(extractor, keep):
    images = noise()
    found = extract(
        extractor, images.images, 40, 16, keep=keep, device=torch.device("cpu"), progress=lambda x, title: x, title="",
    )  # fmt: skip
    features, logits = extractor(images.all)
    mu, sigma = feature_moments(features)
    assert found.sums.count == 40
    its_mu, its_sigma = found.sums.moments()
    torch.testing.assert_close(its_mu, mu, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(its_sigma, sigma, rtol=1e-5, atol=1e-6)
    assert its_mu.dtype == its_sigma.dtype == torch.float64
    if keep:
        torch.testing.assert_close(found.features, features, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.logits, logits, rtol=1e-5, atol=1e-5)
    else:
        assert found.features is None and found.logits is None


def test_without_single_features_memory_does_not_grow_with_the_number_of_images(extractor):
    extraction = Extraction(extractor, keep=False)
    for number in range(3):
        extraction.add(number, noise(8).all, 8)
    assert extraction._sums.count == 24
    assert extraction._sums.total.shape == (128,) and extraction._sums.outer.shape == (128, 128)
    assert not extraction._features and not extraction._logits


def test_a_second_evaluation_extracts_nothing_but_the_samples(extractor, calls, empty_cache):
    first = untimed(measure(extractor))
    assert sum(calls) == 3 * 16 + 7 * 16 + 10 * 16  # 40 images, 100 of reference, 150 of training, in blocks
    calls.clear()
    assert_same(first, untimed(measure(extractor)))
    assert sum(calls) == 3 * 16


def damage(path, how):
    data = bytearray(path.read_bytes())
    match how:
        case "cut off":
            path.write_bytes(data[: len(data) // 2])
        case "a flipped byte":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case "a flipped byte in the head":
            data[12] ^= 64
            path.write_bytes(data)
        case "empty":
            path.write_bytes(b"")
        case "foreign":
            save_file({"weight": torch.ones(3)}, path)
        case "of other images":
            about = {"made_of": json.dumps({"pixels": "others"}), "count": "100", "checksum": "0"}
            save_file(load(path.read_bytes()) | {"mu": torch.zeros(128, dtype=torch.float64)}, path, about)
        case "a folder":
            path.unlink()
            path.mkdir()


@pytest.mark.parametrize(
    "how",
    ["cut off", "a flipped byte", "a flipped byte in the head", "empty", "foreign", "of other images", "a folder"],
)
def test_a_damaged_file_is_written_again(extractor, calls, empty_cache, how):
    first = untimed(measure(extractor))
    kept = {path: load(path.read_bytes()) for path in files(empty_cache)}  # `load_file` would be a view of the file
    for path in kept:
        damage(path, how)
    calls.clear()
    assert_same(first, untimed(measure(extractor)))
    assert sum(calls) == 3 * 16 + 7 * 16 + 10 * 16
    if how != "a folder":  # the cache cannot be written, which costs time but changes no result
        for path, state in kept.items():
            anew = load(path.read_bytes())
            assert anew.keys() == state.keys() and all(torch.equal(anew[name], state[name]) for name in state)


def test_a_file_with_the_wrong_name_is_written_again(extractor, calls, empty_cache):
    first = untimed(measure(extractor))
    a, b = files(empty_cache)
    swapped = b.read_bytes(), a.read_bytes()
    a.write_bytes(swapped[0])
    b.write_bytes(swapped[1])
    calls.clear()
    assert_same(first, untimed(measure(extractor)))
    assert sum(calls) == 3 * 16 + 7 * 16 + 10 * 16


def test_a_cache_that_cannot_be_written_does_not_stop_the_evaluation(extractor, calls, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "a"))
    first = untimed(measure(extractor))
    (tmp_path / "b").write_text("a file where a folder should be")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "b"))
    assert_same(first, untimed(measure(extractor)))
    assert (tmp_path / "b").read_text() == "a file where a folder should be"


def test_everything_that_features_depend_on_changes_the_file_name(extractor, empty_cache):
    protocol = PROTOCOL.changed(metrics=("fid",))
    measure(extractor, protocol)
    assert len(files(empty_cache)) == 1
    measure(extractor, protocol.changed(block=17))
    assert len(files(empty_cache)) == 2
    measure(dataclasses.replace(extractor, hash="0" * 16), protocol)
    assert len(files(empty_cache)) == 3
    measure(extractor, protocol.changed(real=99))
    assert len(files(empty_cache)) == 4
    measure(extractor, protocol.changed(metrics=("fid", "kid")))  # needs the features of each image
    assert len(files(empty_cache)) == 5
    measure(extractor, protocol.changed(generated=20, score_seed=1, kid_subsets=3))
    assert len(files(empty_cache)) == 5


def test_features_read_from_the_cache_equal_the_computed_features(empty_cache):
    made = Features(FeatureSums.of(torch.rand(3, 2)), torch.rand(3, 2), torch.rand(3, 4))
    for _ in range(2):
        found = cached({"a": 1}, lambda: made)
        assert found.sums.count == 3
        assert all(torch.equal(v, made.state()[k]) for k, v in found.state().items())
        made_again = cached({"a": 1}, lambda: pytest.fail("made again"))
        assert torch.equal(made_again.features, made.features)
    bare = cached({"a": 2}, lambda: Features(made.sums))
    assert bare.features is None and cached({"a": 2}, lambda: pytest.fail("made again")).logits is None
