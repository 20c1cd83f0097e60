"""MeanFlow's loss: flow matching at zero interval, its derivative, and closed-form average velocities."""

import math

import pytest
import torch

from genbench.core.batch import DataSpec
from genbench.networks.denoiser import DenoiserSettings
from genbench.objectives import flow_matching, mean_flow

NETWORKS = {
    "unet": ((2, 8, 8), {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "heads": 2}),
    "dit": ((2, 8, 8), {"kind": "dit", "width": 16, "depth": 2, "heads": 2}),
    "mlp": ((2,), {"width": 16, "depth": 2}),
}


def network(kind):
    """A network with two times in float64 whose output is not zero, and the shape of its images."""
    shape, settings = NETWORKS[kind]
    net = DenoiserSettings.of(settings).build(shape, DataSpec(shape), times=2).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net, shape


def draws(shape, count=6):
    x, noise = (torch.randn(count, *shape, dtype=torch.float64) for _ in range(2))
    r, t = torch.rand(2, count, dtype=torch.float64).sort(0).values
    return x, noise, r, t


def from_point(m):
    """The average velocity of the paths from the point m to noise: they are straight, so it is constant on each."""
    return lambda z, times, condition: (z - m) / times[:, :1]


def of_gaussian(mean, std):
    """The average velocity for data N(mean, std²) in each dimension, from the flow map between two times."""

    def moments(t):
        return (1 - t) * mean, ((1 - t) ** 2 * std**2 + t**2).sqrt()

    def u(z, times, condition=None):
        t, interval = times.split(1, 1)
        r = t - interval
        (mean_t, std_t), (mean_r, std_r) = moments(t), moments(r)
        return (z - mean_r - std_r / std_t * (z - mean_t)) / (t - r)

    return u


@pytest.mark.parametrize("kind", NETWORKS)
def test_at_zero_interval_the_error_is_that_of_flow_matching(kind):
    net, shape = network(kind)
    x, noise, _, t = draws(shape)
    net, t = net.float(), t.float()
    error = mean_flow.squared_error(net, x.float(), noise.float(), t, t)
    same = flow_matching.loss(lambda z, t: net(z, mean_flow.network_times(t, t)), x.float(), noise.float(), t)
    assert torch.equal(error, same["mse"])


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_derivative_along_the_path_agrees_with_finite_differences(kind):
    net, shape = network(kind)
    x, noise, r, t = draws(shape)
    z, v = flow_matching.paths(x, noise, t)
    h = 1e-6

    def u(step):
        moved = t + step
        return net(z + step * v, mean_flow.network_times(r, moved))

    with torch.no_grad():
        expected = (u(h) - u(-h)) / (2 * h)
    found = mean_flow.derivative(net, z, r, t, v)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_the_true_average_velocity_of_a_single_point_has_no_error():
    x, noise, r, t = draws((3,))
    error = mean_flow.squared_error(from_point(x[:1]), x[:1].expand(6, -1), noise, r, t)
    assert error.max() < 1e-20


def test_the_average_velocity_of_a_gaussian_satisfies_the_mean_flow_identity():
    """Equation 6: u + (t - r)·du/dt is the velocity of the probability flow, E[noise - x | z]."""
    mean, std = 0.7, 0.3
    z, _, r, t = draws((3,))
    at = t[:, None]
    covariance = at - (1 - at) * std**2  # of noise - x and z
    v = -mean + covariance / ((1 - at) ** 2 * std**2 + at**2) * (z - (1 - at) * mean)
    u = of_gaussian(mean, std)
    slope = mean_flow.derivative(u, z, r, t, v)
    torch.testing.assert_close(u(z, mean_flow.network_times(r, t)) + (t - r)[:, None] * slope, v)


def test_the_target_has_no_gradient_and_is_computed_only_for_two_different_times():
    shape, settings = NETWORKS["mlp"]
    net, _ = network("mlp")
    x, noise, r, t = draws(shape)
    r[::2] = t[::2]
    error = mean_flow.squared_error(net, x, noise, r, t)
    z, v = flow_matching.paths(x, noise, t)
    slope = mean_flow.derivative(net, z, r, t, v)
    u = net(z, mean_flow.network_times(r, t))
    expected = (u - (v - (t - r)[:, None] * slope)).square().mean(1)
    torch.testing.assert_close(error, expected)
    ours = torch.autograd.grad(error.sum(), list(net.parameters()))
    theirs = torch.autograd.grad(expected.sum(), list(net.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    sizes = []
    watched = lambda z, times, condition: sizes.append(len(z)) or net(z, times)  # noqa: E731
    mean_flow.squared_error(watched, x, noise, r, t)
    assert sizes == [3, 6]


def test_the_weight_has_no_gradient_and_equals_the_formula():
    error = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    found = mean_flow.weighted(error, 0.75, 0.01)
    expected = 1 / (error.detach() + 0.01) ** 0.75
    torch.testing.assert_close(found, error.detach() * expected)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), error)[0], expected)
    assert torch.equal(mean_flow.weighted(error, 0.0), error)


def test_times_are_ordered_and_differ_for_the_given_share():
    def draw(kind, count):
        return kind(count)

    r, t = mean_flow.draw_intervals(100_000, 0.25, -0.4, 1.0, draw)
    assert bool((r <= t).all()) and bool((t < 1).all()) and bool((r > 0).all())
    assert (r < t).float().mean().item() == pytest.approx(0.25, abs=0.01)
    # the larger of two normal numbers has the mean 1/√π
    assert torch.logit(t).mean().item() == pytest.approx(-0.4 + math.pi**-0.5, abs=0.02)
    assert torch.logit(r[r < t]).mean().item() == pytest.approx(-0.4 - math.pi**-0.5, abs=0.03)
    r, t = mean_flow.draw_intervals(100, 0.0, -0.4, 1.0, draw)
    assert torch.equal(r, t)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_under_mixed_precision_the_derivative_is_that_of_float32(kind, dtype):
    net, shape = network(kind)
    net = net.float()
    x, noise, r, t = (each.float() for each in draws(shape))
    z, v = flow_matching.paths(x, noise, t)
    plain = mean_flow.derivative(net, z, r, t, v)
    with torch.autocast("cpu", dtype):
        assert torch.equal(mean_flow.derivative(net, z, r, t, v), plain)
        error = mean_flow.squared_error(net, x, noise, r, t)
    assert error.dtype == torch.float32
    error.mean().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in net.parameters())


def test_the_derivative_uses_the_uncompiled_forward():
    net, shape = network("mlp")
    x, noise, r, t = draws(shape)
    z, v = flow_matching.paths(x, noise, t)
    plain = mean_flow.derivative(net, z, r, t, v)
    net._compiled_call_impl = lambda *_: pytest.fail("compiled forward")
    assert torch.equal(mean_flow.derivative(net, z, r, t, v), plain)
