"""Every metric class equals its function, for any batch size and number of processes, and has the scale of its name."""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from genbench.metrics.classes import (
    ClassAccuracy,
    ClassFrechetDistance,
    ClassStatistics,
    class_accuracy,
    class_frechet_distance,
    class_statistics,
)
from genbench.metrics.frechet import FrechetDistance, feature_moments, frechet_distance
from genbench.metrics.inception_score import InceptionScore, inception_score
from genbench.metrics.kernel import KernelDistance, kernel_distance
from genbench.metrics.likelihood import Likelihood, bits_per_dim
from genbench.metrics.memorization import Memorization, memorization
from genbench.metrics.mixture import MixtureStatistics, mixture_statistics
from genbench.metrics.neighbors import NeighborScores, neighbor_scores
from genbench.metrics.reconstruction import LPIPS, PSNR, SSIM, CycleConsistency, MeanSquaredError, mse, psnr, ssim
from genbench.metrics.scales import SCALES
from genbench.metrics.score import Score
from genbench.metrics.segmentation import Segmentation, confusion, dice, mean_iou, pixel_accuracy

N, D, K = 66, 6, 4


@dataclass
class Case:
    build: type
    sets: list[tuple[tuple, dict]]  # tensors that are passed to `update` in batches, with additional arguments
    value: object  # the function, called with all data at once
    arguments: dict = field(default_factory=dict)


def case(name: str) -> Case:
    torch.manual_seed(1)
    fake, real, other = torch.randn(3, N, D)
    fake_labels, real_labels = torch.arange(N) % 3, torch.arange(N) % 3
    logits = torch.randn(N, K)
    x, y = 2 * torch.rand(2, N, 1, 11, 12) - 1
    maps, masks = torch.randn(N, K, 3, 3), torch.randint(K, (N, 3, 3))
    both = [((fake,), {"real": False}), ((real,), {"real": True})]
    match name:
        case "fid":
            value = frechet_distance(*feature_moments(real), *feature_moments(fake))
            return Case(FrechetDistance, both, value, {"dims": D})
        case "kid":
            return Case(KernelDistance, both, kernel_distance(fake, real, 5, 20), {"subsets": 5, "subset_size": 20})
        case "is":
            return Case(InceptionScore, [((logits,), {})], inception_score(logits, 3), {"splits": 3})
        case "neighbors":
            return Case(NeighborScores, both, neighbor_scores(real, fake))
        case "memorization":
            sets = [((z,), {"which": which}) for z, which in ((fake, "fake"), (real, "train"), (other, "held_out"))]
            return Case(Memorization, sets, memorization(fake, real, other))
        case "class statistics":
            return Case(ClassStatistics, [((logits,), {})], class_statistics(logits))
        case "mixture statistics":
            value = mixture_statistics(fake, real[:K], 1.0)
            return Case(MixtureStatistics, [((fake,), {})], value, {"modes": real[:K], "std": 1.0})
        case "class accuracy":
            return Case(ClassAccuracy, [((logits, fake_labels), {})], class_accuracy(logits, fake_labels))
        case "class fid":
            sets = [((fake, fake_labels), {"real": False}), ((real, real_labels), {"real": True})]
            return Case(ClassFrechetDistance, sets, class_frechet_distance(fake, fake_labels, real, real_labels))
        case "mse":
            return Case(MeanSquaredError, [((x, y), {})], mse(x, y).mean())
        case "psnr":
            return Case(PSNR, [((x, y), {})], psnr(x, y).mean())
        case "ssim":
            return Case(SSIM, [((x, y), {})], ssim(x, y).mean())
        case "cycle":
            return Case(CycleConsistency, [((x, y), {})], (x - y).abs().mean())
        case "lpips":
            return Case(LPIPS, [((x, y), {})], mse(x, y).mean() / 2, {"network": lambda a, b: mse(a, b)[:, None] / 2})
        case "likelihood":
            nats = logits[:, 0]
            value = {"nats": nats.mean().item(), "bits_per_dim": bits_per_dim(nats, 5).mean().item()}
            return Case(Likelihood, [((nats,), {})], value, {"dims": 5})
        case "segmentation":
            found = confusion(maps, masks)
            value = {"mean_iou": mean_iou(found), "dice": dice(found), "pixel_accuracy": pixel_accuracy(found)}
            return Case(Segmentation, [((maps, masks), {})], value)


NAMES = [
    "fid",
    "kid",
    "is",
    "neighbors",
    "memorization",
    "class statistics",
    "mixture statistics",
    "class accuracy",
    "class fid",
    "mse",
    "psnr",
    "ssim",
    "cycle",
    "lpips",
    "likelihood",
    "segmentation",
]


def fed(case: Case, size: int, rows: slice = slice(None), **sync) -> Score:
    metric = case.build(**case.arguments, **sync)
    for tensors, said in case.sets:
        for batch in zip(*(z[rows].split(size) for z in tensors), strict=True):
            metric.update(*batch, **said)
    return metric


def close(value):
    return pytest.approx(value if isinstance(value, dict | tuple) else float(value), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("name", NAMES)
def test_the_class_equals_the_function_for_any_batch_size(name, size):
    of = case(name)
    assert fed(of, size).compute() == close(of.value)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_agree_with_one(name):
    """The processes hold parts of different sizes. `dist_sync_fn` replaces gathering; it is called once per state."""
    of = case(name)
    shares = slice(None, 40), slice(40, None)
    states = list(fed(of, 7, shares[1]).metric_state.values())
    theirs = iter([torch.cat(state) if isinstance(state, list) else state for state in states])
    sync = {"distributed_available_fn": lambda: True, "dist_sync_fn": lambda mine, group: [mine, next(theirs)]}
    assert fed(of, 7, shares[0], **sync).compute() == close(of.value)


@pytest.mark.parametrize("name", NAMES)
def test_computed_scores_lie_in_the_range_of_their_scale(name):
    of = case(name)
    value = fed(of, 64).compute()
    if not isinstance(value, dict):
        assert len(of.build.scores) == 1
        value = {of.build.scores[0]: value[0] if isinstance(value, tuple) else float(value)}
    assert tuple(value) == of.build.scores
    for score, number in value.items():
        assert SCALES[score].low <= number <= SCALES[score].high


@pytest.mark.parametrize("name", NAMES)
def test_the_global_random_generators_are_not_used(name):
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    torch.manual_seed(1)
    seeded = torch.get_rng_state()
    of = case(name)
    torch.manual_seed(1)
    fed(of, 64).compute()
    assert torch.equal(torch.get_rng_state(), seeded)
    assert (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]


@pytest.mark.parametrize("name", NAMES)
def test_a_reset_removes_earlier_updates(name):
    of = case(name)
    metric = fed(of, 64)
    metric.compute()
    metric.reset()
    for tensors, said in of.sets:
        metric.update(*tensors, **said)
    assert metric.compute() == close(of.value)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_of_a_trainer_does_not_affect_the_sums(name):
    of = case(name)
    metric = fed(of, 64).half().bfloat16()
    assert metric.compute() == close(of.value)


def test_direction_and_bounds_are_those_of_the_scale():
    assert FrechetDistance.higher_is_better is False and ClassAccuracy.higher_is_better is True
    assert (FrechetDistance.plot_lower_bound, FrechetDistance.plot_upper_bound) == (0, None)
    assert (ClassAccuracy.plot_lower_bound, ClassAccuracy.plot_upper_bound) == (0, 1)
    assert KernelDistance.plot_lower_bound is None and InceptionScore.plot_lower_bound == 1


def test_metrics_with_scores_of_different_directions_have_no_direction():
    assert Likelihood.higher_is_better is None
    assert NeighborScores.higher_is_better is True and Segmentation.higher_is_better is True
    assert (Segmentation.plot_lower_bound, Segmentation.plot_upper_bound) == (0, 1)
