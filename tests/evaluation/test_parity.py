"""FID, KID and IS of image sets equal torch-fidelity's, with the same Inception."""

import copy
import hashlib
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from torch.nn.functional import interpolate
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from genbench.evaluation import extractor_weights, extractors
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.extractor import full_precision, in_channels
from genbench.evaluation.images import open_images
from genbench.evaluation.protocol import Protocol
from tests.helpers.random_inception import write_weights

PROTOCOL = Protocol("parity", metrics=("fid", "kid", "is"), block=8, kid_subsets=6, kid_subset_size=8, is_splits=3)
NAMES = {"fid": ("frechet_inception_distance", None)} | {
    short: tuple(f"{long}_{part}" for part in ("mean", "std"))
    for short, long in (("kid", "kernel_inception_distance"), ("is", "inception_score"))
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("inception") / "weights.pth")


@pytest.fixture(scope="module")
def inception(weights):
    """The Inception with the plain name, as if its weights were the published weights."""
    file, source, _ = extractor_weights.PUBLISHED["inception"]
    prefix = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    with patch.dict(extractor_weights.PUBLISHED, inception=(file, source, prefix)):
        return extractors.build("inception", weights)


def test_scores_with_unpublished_weights_do_not_have_plain_names(weights):
    extractor = extractors.build("inception", weights)
    assert extractor.name == f"inception-{extractor.hash[:8]}" and extractor.score("fid") == f"fid-{extractor.name}"


class InColor(Dataset):
    """Images uint8 [3, H, W] for torch-fidelity's Inception, with gray repeated to three channels."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.images[row].expand(3, -1, -1)


def drawn(count, channels, size, dark=1.0):
    draw = torch.Generator().manual_seed(size + count)
    coarse = torch.randint(0, 256, (count, channels, 7, 7), generator=draw).float() * dark
    return interpolate(coarse, (size, size), mode="bilinear").round().to(torch.uint8)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 64), (1, 299)])
def test_scores_are_torch_fidelitys(tmp_path, weights, inception, channels, size):
    fake, real = drawn(14, channels, size, dark=0.8), drawn(10, channels, size)
    (tmp_path / "fake").mkdir()
    for k, image in enumerate(fake.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image.squeeze()).save(tmp_path / "fake" / f"{k:03d}.png")
    np.savez(tmp_path / "real.npz", real.permute(0, 2, 3, 1).numpy())
    ours = open_images(tmp_path / "fake"), open_images(tmp_path / "real.npz")
    record = evaluate(*ours, PROTOCOL, extractor=inception)
    # torch-fidelity computes the inception score of input1
    with full_precision(torch.device("cpu")):  # as `evaluate`, whatever an earlier test has set
        theirs = torch_fidelity.calculate_metrics(
            input1=InColor(fake), input2=InColor(real), cuda=False, fid=True, kid=True, isc=True, kid_subsets=6,
            kid_subset_size=8, isc_splits=3, rng_seed=2020, batch_size=6, save_cpu_ram=True, verbose=False,
            cache=False, feature_extractor_weights_path=str(weights),
        )  # fmt: skip
    assert record.metrics.keys() == {"fid", "kid", "is"}
    for name, (mean, deviation) in NAMES.items():
        entry = record.metrics[name]
        assert entry["value"] == pytest.approx(theirs[mean], rel=1e-5, abs=1e-6), name
        if deviation:
            # each value that the deviation is of may be off by the tolerance of the mean
            off = max(1e-6, 1e-5 * abs(theirs[mean]))
            assert entry["std"] == pytest.approx(theirs[deviation], rel=1e-5, abs=off), name
        assert entry["n"] == 14 and entry["note"] is None


def test_a_different_resize_gives_different_features(inception):
    """A common resize instead of TensorFlow's changes the features."""
    images = drawn(4, 3, 28)
    right = inception(images)[0]
    enlarged = interpolate(images.float(), (299, 299), mode="bilinear", align_corners=False).round().to(torch.uint8)
    error = (inception(enlarged)[0] - right).norm() / right.norm()
    assert error > 1e-3


def test_features_are_as_close_to_float64_features_as_torch_fidelitys(weights, inception):
    """Memory format and fusion change the rounding in float32, so both are compared with float64."""
    images = in_channels(drawn(3, 1, 32), 3)
    plain = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(weights))
    exact = copy.deepcopy(plain).double()  # its own option for float64 is one for float32, in 0.4.0
    exact.feature_extractor_internal_dtype = torch.float64
    with torch.no_grad():
        for ours, theirs, truth in zip(inception(images), plain(images), exact(images), strict=True):
            errors = [((x.double() - truth).norm() / truth.norm()).item() for x in (ours, theirs)]
            assert max(errors) < 3e-6 and errors[0] < 3 * errors[1]
