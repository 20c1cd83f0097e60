"""Consistency training: the identity at the lowest noise level, and each part of the loss against the paper."""

import math

import pytest
import torch
from scipy.stats import norm
from torch import nn

from genbench.core.batch import DataSpec
from genbench.networks.denoiser import DenoiserSettings
from genbench.objectives.consistency import Consistency, intervals, pseudo_huber
from genbench.samplers.diffusion import karras_sigmas


def network(dropout=0.0):
    """A U-Net whose output is not zero."""
    settings = {"width": 8, "multipliers": [1], "blocks": 1, "attention": [], "dropout": dropout}
    net = DenoiserSettings.of(settings).build((1, 8, 8), DataSpec((1, 8, 8)))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


def fixed(uniform, noise):
    """Draws that return these numbers."""
    return lambda kind, *shape: uniform if kind is torch.rand else noise


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma_min", [0.002, 0.1, 1 / 3])
def test_at_the_lowest_noise_level_the_model_is_exactly_the_identity(dtype, sigma_min):
    net, consistency = network().to(dtype), Consistency(sigma_min=sigma_min)
    x = torch.randn(4, 1, 8, 8, dtype=dtype)
    lowest = consistency.levels(10)[0].to(dtype).expand(4)
    assert torch.equal(consistency.denoise(net, x, lowest), x)
    above = consistency.denoise(net, x, 1.5 * lowest)
    assert (above - x).abs().max() > 1e-4


def test_the_denoiser_equals_the_formula_of_the_paper():
    x, sigma = torch.randn(3, 2, dtype=torch.float64), torch.tensor([0.002, 0.7, 80.0], dtype=torch.float64)
    found = Consistency().denoise(lambda x, time: 3 * x + time[:, None], x, sigma)
    for k, s in enumerate(sigma.tolist()):
        skip = 0.25 / ((s - 0.002) ** 2 + 0.25)
        out = 0.5 * (s - 0.002) / math.sqrt(0.25 + s**2)
        expected = skip * x[k] + out * (3 * x[k] / math.sqrt(s**2 + 0.25) + math.log(s) / 4)
        torch.testing.assert_close(found[k], expected)


@pytest.mark.parametrize("count", [10, 1280])
def test_noise_levels_are_those_of_edm_and_contain_both_ends_exactly(count):
    levels = Consistency().levels(count)
    assert len(levels) == count + 1 and levels[0].item() == 0.002 and levels[-1].item() == 80
    torch.testing.assert_close(levels, karras_sigmas(count + 1).sigma[:-1].flip(0))
    assert bool((levels.diff() > 0).all())


@pytest.mark.parametrize("count", [10, 1280])
def test_intervals_are_drawn_with_the_probability_of_a_log_normal_noise_level(count):
    consistency = Consistency(log_mean=-1.1, log_std=2.0)
    levels = consistency.levels(count)
    expected = torch.from_numpy(norm(-1.1, 2.0).cdf(levels.log().numpy())).diff()
    torch.testing.assert_close(consistency.shares(levels), expected / expected.sum(), rtol=1e-9, atol=1e-12)


def test_the_drawn_interval_is_that_in_which_a_uniform_number_lies():
    consistency, seen = Consistency(), []
    shares = consistency.shares(consistency.levels(10))
    ends = torch.cat([torch.zeros(1, dtype=torch.float64), shares.cumsum(0)])
    uniform = torch.cat([(ends[:-1] + ends[1:]) / 2, torch.tensor([0.0, 1.0])])
    x = torch.zeros(12, 1, dtype=torch.float64)
    consistency.loss(lambda x, time: seen.append((4 * time).exp()) or x, x, 10, fixed(uniform, x))
    high, low = seen
    torch.testing.assert_close(low, consistency.levels(10)[[*range(10), 0, 9]])
    torch.testing.assert_close(high, consistency.levels(10)[[*range(1, 11), 1, 10]])


def test_the_loss_equals_the_formula_of_the_paper():
    consistency = Consistency()
    x, noise = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    net = lambda x, time: torch.tanh(x) + time[:, None]  # noqa: E731
    found = consistency.loss(net, x, 10, fixed(torch.tensor([0.5, 0.9], dtype=torch.float64), noise))
    levels, shares = consistency.levels(10), consistency.shares(consistency.levels(10))
    for k, u in enumerate((0.5, 0.9)):
        i = next(i for i in range(10) if shares[: i + 1].sum() >= u)
        low, high = levels[i], levels[i + 1]
        outputs = [consistency.denoise(net, (x + s * noise)[k : k + 1], s[None])[0] for s in (high, low)]
        c = 0.00054 * math.sqrt(3)
        distance = math.sqrt((outputs[0] - outputs[1]).square().sum() + c**2) - c
        assert found[k].item() == pytest.approx(distance / (high - low).item(), rel=1e-9)


def test_the_distance_is_the_pseudo_huber_metric():
    a = torch.tensor([[[3.0, 0.0]], [[1.0, 1.0]]], dtype=torch.float64)
    b = torch.tensor([[[0.0, 4.0]], [[1.0, 1.0]]], dtype=torch.float64)
    c = 0.00054 * math.sqrt(2)
    found = pseudo_huber(a, b)
    assert found[0].item() == pytest.approx(math.sqrt(25 + c**2) - c, rel=1e-12) and found[1] == 0


def test_the_true_consistency_function_of_a_single_point_has_no_loss(monkeypatch):
    consistency, m = Consistency(), torch.randn(3, dtype=torch.float64)
    monkeypatch.setattr(consistency, "denoise", lambda net, x, sigma: m + 0.002 / sigma[:, None] * (x - m))
    draw = lambda kind, *shape: kind(*shape, dtype=torch.float64)  # noqa: E731
    assert consistency.loss(None, m.expand(100, -1), 40, draw).abs().max() < 1e-9


def test_only_the_output_at_the_higher_noise_level_has_a_gradient():
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    graphs = []

    def net(x, time):
        graphs.append(torch.is_grad_enabled())
        return weight * x

    x = torch.randn(4, 3, dtype=torch.float64)
    draw = lambda kind, *shape: kind(*shape, dtype=torch.float64)  # noqa: E731
    Consistency().loss(net, x, 10, draw).sum().backward()
    assert graphs == [True, False] and weight.grad != 0


def test_both_outputs_have_the_same_dropout_mask_and_the_next_step_has_another():
    dropout, masks = nn.Dropout(0.5), []

    def net(x, time):
        masks.append(dropout(torch.ones_like(x)))
        return masks[-1]

    for _ in range(2):
        Consistency().loss(net, torch.randn(4, 50), 10, lambda kind, *shape: kind(*shape))
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_parameter_has_a_gradient_under_mixed_precision(dtype):
    net = network()
    with torch.autocast("cpu", dtype):
        loss = Consistency().loss(net, torch.randn(4, 1, 8, 8), 10, lambda kind, *shape: kind(*shape))
    assert loss.dtype == torch.float32
    loss.mean().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in net.parameters())


@pytest.mark.parametrize(
    "first, last, expected",
    [
        (10, 1280, {0: 10, 49_999: 10, 50_000: 20, 100_000: 40, 349_999: 640, 350_000: 1280, 400_000: 1280}),
        (10, 640, {0: 10, 57_141: 10, 57_142: 20, 342_852: 640, 399_999: 640}),
        (10, 10, {0: 10, 399_999: 10, 500_000: 10}),
        (2, 150, {0: 2, 399_999: 150, 400_000: 150}),
    ],
)
def test_the_number_of_intervals_doubles_at_equal_distances_up_to_the_last(first, last, expected):
    assert {images: intervals(images, 400_000, first, last) for images in expected} == expected
