"""Diffusion in discrete time: schedules, conversions of predictions, and the bound of a one-dimensional Gaussian."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from genbench.core.errors import UserError
from genbench.core.noise import Draws
from genbench.objectives.diffusion import (
    VLB_WEIGHT,
    DiscreteDiffusion,
    alpha_bar,
    discretized_gaussian_nll,
    gaussian_nll,
    parts,
)

# ---- schedules ------------------------------------------------------------------------------------------------------


def test_the_linear_schedule_is_that_of_the_paper():
    product, expected = 1.0, []
    for t in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        expected.append(product)
    np.testing.assert_allclose(alpha_bar("linear", 1000).numpy(), expected, rtol=1e-12)
    assert alpha_bar("linear", 1000)[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)


@pytest.mark.parametrize("total", [100, 250, 4000])
def test_the_linear_schedule_has_nearly_the_same_levels_for_other_numbers_of_steps(total):
    at = torch.arange(1, 10) / 10
    found = alpha_bar("linear", total)[(at * total).long() - 1]
    torch.testing.assert_close(found, alpha_bar("linear", 1000)[(at * 1000).long() - 1], rtol=0, atol=0.01)


def test_the_cosine_schedule_is_equation_17_up_to_the_limit_of_beta():
    found = alpha_bar("cosine", 1000).numpy()
    t = np.arange(1, 1001) / 1000
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(found[:-1], f[:-1], rtol=1e-8)
    assert found[-1] == pytest.approx(0.001 * found[-2])  # β is at most 0.999


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_zero_terminal_snr_scales_the_signal_and_keeps_the_first_step(schedule):
    root, before = alpha_bar(schedule, 1000, zero_terminal_snr=True).sqrt(), alpha_bar(schedule, 1000).sqrt()
    assert root[-1] == 0 and root[0].item() == pytest.approx(before[0].item(), rel=1e-12)
    slope, offset = np.polyfit(before.numpy(), root.numpy(), 1)  # linear in the square root (Lin et al. 2024)
    np.testing.assert_allclose(root.numpy(), slope * before.numpy() + offset, atol=1e-12)
    assert (root[:-1] > root[1:]).all()


# ---- predictions ----------------------------------------------------------------------------------------------------


def exact(diffusion, x, noise):
    """A network that knows image and noise, in its prediction."""

    def net(noisy, time):
        t = (time * diffusion.total).round().long()
        a, s = (table[t].to(noisy.dtype).view(-1, 1) for table in (diffusion.alpha, diffusion.sigma))
        return {"noise": noise, "image": x, "v": a * noise - s * x}[diffusion.prediction]

    return net


class Fixed:
    """In place of a model's draws: known times and noise."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self, draw, *shape):
        value = self.values.pop(0)
        assert value.shape == shape
        return value


@pytest.mark.parametrize("prediction", ["noise", "image", "v"])
def test_every_prediction_gives_the_same_image_and_its_loss_is_zero_where_it_is_right(prediction):
    diffusion = DiscreteDiffusion(1000, "cosine", prediction=prediction)
    x, noise = torch.rand(5, 3).double() * 2 - 1, torch.randn(5, 3).double()
    for t in (0, 1, 500, 990):
        noisy = diffusion.alpha[t] * x + diffusion.sigma[t] * noise
        clean, _ = diffusion.predict(exact(diffusion, x, noise), noisy, t, clip=False)
        torch.testing.assert_close(clean, x, atol=1e-6, rtol=0)
    draw = Fixed(torch.tensor([0.0, 0.2, 0.5, 0.9, 0.9999]), noise)
    terms = diffusion.loss(exact(diffusion, x, noise), x, draw)
    assert terms.keys() == {"mse"} and terms["mse"].max() < 1e-12


def test_the_loss_is_the_mean_squared_error_at_the_step_that_was_drawn():
    diffusion = DiscreteDiffusion(1000)
    x, noise, seen = torch.rand(3, 2) * 2 - 1, torch.randn(3, 2), []

    def net(noisy, time):
        seen.append((noisy, time))
        return torch.zeros_like(noisy)

    terms = diffusion.loss(net, x, Fixed(torch.tensor([0.0, 0.25, 0.99999]), noise))
    noisy, time = seen[0]
    torch.testing.assert_close(time, torch.tensor([0.0, 0.25, 0.999]))
    t = torch.tensor([0, 250, 999])
    bar = alpha_bar("linear", 1000)[t][:, None].float()
    torch.testing.assert_close(noisy, bar.sqrt() * x + (1 - bar).sqrt() * noise)  # equation 4
    torch.testing.assert_close(terms["mse"], noise.square().mean(1))


def test_predicted_images_are_clipped_if_asked():
    diffusion = DiscreteDiffusion(1000, prediction="image")
    x = torch.tensor([[-3.0, 0.5]])
    assert diffusion.predict(lambda noisy, time: x, x, 10, clip=True)[0].tolist() == [[-1.0, 0.5]]
    assert diffusion.predict(lambda noisy, time: x, x, 10, clip=False)[0].tolist() == [[-3.0, 0.5]]


@pytest.mark.parametrize(("variance", "position"), [("small", 0.0), ("large", 1.0)])
def test_the_position_of_a_fixed_variance(variance, position):
    diffusion = DiscreteDiffusion(1000, variance=variance)
    assert diffusion.predict(lambda x, time: x, torch.zeros(1, 2), 5, False)[1] == position and diffusion.outputs == 1


def test_learned_variances_lie_between_small_and_large():
    diffusion = DiscreteDiffusion(1000, variance="learned")
    output = torch.tensor([[0.0, 0.0, -1.0, 1.0]])  # two predictions and two variances
    _, position = diffusion.predict(lambda x, time: output, torch.zeros(1, 2), 5, False)
    assert position.tolist() == [[0.0, 1.0]] and diffusion.outputs == 2


def test_the_bound_trains_only_the_variance():
    """Nichol & Dhariwal 2021, section 3.1: its gradient does not reach the mean."""
    diffusion = DiscreteDiffusion(1000, variance="learned")
    mean, variance = (torch.randn(8, 3, 4, 4, requires_grad=True) for _ in range(2))
    draw = Draws()
    draw.seed("test")
    terms = diffusion.loss(lambda x, time: torch.cat([mean, variance], 1), torch.rand(8, 3, 4, 4) * 2 - 1, draw)
    by_mean, by_variance = torch.autograd.grad(terms["vlb"].sum(), (mean, variance), allow_unused=True)
    assert (by_mean is None or not by_mean.any()) and by_variance.any()
    by_mean, by_variance = torch.autograd.grad(terms["mse"].sum(), (mean, variance), allow_unused=True)
    assert by_mean.abs().sum() > 0 and (by_variance is None or not by_variance.any())


def test_noise_prediction_is_rejected_at_zero_terminal_snr():
    with pytest.raises(UserError, match=r"zero_terminal_snr.*Set `--model.prediction v` or `image`"):
        DiscreteDiffusion(1000, zero_terminal_snr=True, prediction="noise")


# ---- the bound ------------------------------------------------------------------------------------------------------

MEAN, STD = 0.3, 0.6


def posterior_mean(diffusion):
    """The optimal network for x ~ N(MEAN, STD²)."""

    def net(noisy, time):
        t = (time * diffusion.total).round().long()
        a, s = (table[t].to(noisy.dtype).view(-1, 1) for table in (diffusion.alpha, diffusion.sigma))
        return MEAN + a * STD**2 / (a**2 * STD**2 + s**2) * (noisy - a * MEAN)

    return net


def exact_bound(diffusion, x, position):
    """E_q of the bound for one value x, from the definition: sums of KL divergences of torch.distributions, with an
    analytic expectation over x_t, which is normal. The network is `posterior_mean`."""
    bar = [1.0, *diffusion.alpha_bar.tolist()]  # bar[t]: after t steps
    total = -kl_divergence(Normal(bar[-1] ** 0.5 * x, (1 - bar[-1]) ** 0.5), Normal(0.0, 1.0)).item()
    betas = [1 - b / a for a, b in pairwise(bar)]
    smalls = [beta * (1 - bar[t]) / (1 - bar[t + 1]) for t, beta in enumerate(betas)]
    smalls[0] = smalls[1]
    for t in range(len(betas), 0, -1):
        a, s2 = bar[t] ** 0.5, 1 - bar[t]
        gain = a * STD**2 / (a**2 * STD**2 + s2)
        # clean = MEAN + gain (a x + s noise - a MEAN): its error has mean and variance
        off, spread = MEAN + gain * a * (x - MEAN) - x, gain**2 * s2
        small, large = smalls[t - 1], betas[t - 1]
        model = large**position * small ** (1 - position)
        if t == 1:  # -log N(x; clean, variance), in expectation
            total += -0.5 * math.log(2 * math.pi * model) - 0.5 * (off**2 + spread) / model
            continue
        by_clean = bar[t - 1] ** 0.5 * large / s2
        kl = kl_divergence(Normal(0.0, small**0.5), Normal(0.0, model**0.5)).item()
        total -= kl + 0.5 * by_clean**2 * (off**2 + spread) / model
    return total


@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_bound_of_a_gaussian_is_its_exact_value(variance):
    diffusion = DiscreteDiffusion(200, prediction="image", variance=variance, discrete=False)
    x = torch.tensor([-0.5, 0.3, 1.2]).double()
    found = diffusion.bound(posterior_mean(diffusion), x.repeat(4000)[:, None], time_steps=200).view(4000, 3)
    expected = torch.tensor([exact_bound(diffusion, v, float(variance == "large")) for v in x.tolist()]).double()
    error = found.std(0) / 4000**0.5
    assert ((found.mean(0) - expected).abs() < 4 * error).all() and error.max() < 0.05


def test_the_mean_bound_approaches_the_mean_likelihood_from_below():
    """Minus the entropy. The bound is quadratic in x, so its mean over the data is that of two points."""
    gaps = []
    for total in (250, 500, 1000):
        diffusion = DiscreteDiffusion(total, prediction="image", variance="large", discrete=False)
        mean = sum(exact_bound(diffusion, x, 1.0) for x in (MEAN - STD, MEAN + STD)) / 2
        gaps.append(-Normal(MEAN, STD).entropy().item() - mean)
    assert 0 < gaps[2] < gaps[1] < gaps[0] and gaps[2] < 0.02


@pytest.mark.parametrize("times", [1, 7, 40])
def test_an_estimate_from_some_time_steps_has_the_mean_of_the_whole_bound(times):
    diffusion = DiscreteDiffusion(50, prediction="image", variance="large", discrete=False)
    x = torch.full((40_000, 1), 0.7).double()
    found = diffusion.bound(posterior_mean(diffusion), x, times)
    assert (found.mean() - exact_bound(diffusion, 0.7, 1.0)).abs() < 4 * found.std() / 200


def test_parts_cover_all_steps_once_and_the_first_is_step_zero_alone():
    for total in (50, 1000, 4000):
        for count in (1, 2, 3, 10, 50):
            found = parts(total, count)
            assert len(found) == count + 1 and (found[0], found[-1]) == (0, total)
            assert all(a < b for a, b in pairwise(found)) and (count == 1 or found[1] == 1)
    assert parts(50, 50) == list(range(51))


@pytest.mark.parametrize(
    ("times", "said"),
    [(0, "time_steps is 0; it must be at least 1"), (51, "time_steps is 51; this model has 50, so it must be at most")],
)
def test_invalid_numbers_of_times_are_rejected(times, said):
    with pytest.raises(UserError, match=said):
        DiscreteDiffusion(50).bound(lambda x, time: x, torch.zeros(2, 1), times)


def test_probabilities_of_the_256_levels_sum_to_one():
    levels = (torch.arange(256).double() / 127.5 - 1)[:, None]
    mean, log_variance = torch.tensor([-2.0, -0.99, 0.0, 0.3, 1.5]).double(), torch.tensor([-9, -3, 0, -7, -2]).double()
    probability = (-discretized_gaussian_nll(levels, mean, log_variance)).exp()
    torch.testing.assert_close(probability.sum(0), torch.ones(5).double(), atol=1e-9, rtol=0)
    middle = Normal(0.3, math.exp(-3.5))
    expected = middle.cdf(torch.tensor(0.3 + 2 / 255 + 1 / 255)) - middle.cdf(torch.tensor(0.3 + 1 / 255))
    found = discretized_gaussian_nll(torch.tensor(0.3 + 2 / 255), torch.tensor(0.3), torch.tensor(-7.0))
    assert (-found).exp().item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("deviations", [-9.0, -5.5, 0.0, 5.5, 9.0])
def test_improbable_levels_have_accurate_probabilities_on_both_sides_of_the_mean(level, deviations):
    x, log_variance = torch.tensor(level / 127.5 - 1), torch.tensor(-9.0)
    std = math.exp(-4.5)
    mean = x - deviations * std
    low, high = ((x.double() - mean.double() + side / 255).item() / std for side in (-1, 1))
    low, high = -math.inf if level == 0 else low, math.inf if level == 255 else high
    if low > 0:
        low, high = -high, -low  # SciPy's probabilities are accurate in the lower tail
    expected = -math.log(norm.cdf(high) - norm.cdf(low))
    assert discretized_gaussian_nll(x, mean, log_variance).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("level", [-1.0, 1 / 255, 1.0])
def test_gradients_of_improbable_levels_are_those_of_a_gaussian_or_zero(level):
    """Far from the mean, d log P / d mean is about the distance in standard deviations, divided by the deviation."""
    x = torch.tensor(level)
    for deviations, expected in ((30.0, 30.0), (-80.0, -80.0), (1e4, 0.0), (-1e4, 0.0)):
        if level in (-1, 1) and deviations * level > 0:
            continue  # in the open bin
        mean = torch.tensor(level + deviations, requires_grad=True)
        discretized_gaussian_nll(x, mean, torch.tensor(0.0)).backward()
        assert mean.grad.item() == pytest.approx(expected, rel=2e-3)


def test_the_density_is_that_of_torch():
    x, mean, log_variance = (torch.randn(9).double() for _ in range(3))
    expected = -Normal(mean, (0.5 * log_variance).exp()).log_prob(x)
    torch.testing.assert_close(gaussian_nll(x, mean, log_variance), expected)


def test_an_untrained_images_bound_is_finite_and_worse_than_uniform_pixels():
    diffusion = DiscreteDiffusion(50, variance="learned")
    x = torch.randint(0, 256, (4, 1, 8, 8)) / 127.5 - 1
    found = diffusion.bound(lambda x, time: torch.cat([0 * x, 0 * x], 1), x, 50)
    assert found.shape == (4,) and found.isfinite().all() and (found < -64 * math.log(256)).all()


def test_the_weight_of_the_bound_is_that_of_the_paper():
    diffusion = DiscreteDiffusion(50, variance="learned", discrete=False)
    x, noise = torch.randn(4, 2), torch.randn(4, 2)
    net = lambda noisy, time: torch.cat([noisy, 0 * noisy], 1)  # noqa: E731
    t = torch.tensor([0, 10, 30, 49])
    terms = diffusion.loss(net, x, Fixed((t + 0.5) / 50, noise))
    noisy = diffusion.alpha[t].float()[:, None] * x + diffusion.sigma[t].float()[:, None] * noise
    nats = diffusion._term(diffusion._clean(noisy, noisy, t), torch.full((4, 2), 0.5), x, noisy, t)
    torch.testing.assert_close(terms["vlb"], VLB_WEIGHT * 50 * nats / math.log(2) / 2)  # T times a term, bits per value
