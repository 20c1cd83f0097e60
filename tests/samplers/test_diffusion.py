"""Samplers of diffusion models, with the exact denoisers of a Gaussian and of a mixture."""

import pytest
import torch

from genbench.objectives.diffusion import DiscreteDiffusion
from genbench.samplers.diffusion import ancestral, ddim, dpm_solver_pp, heun, karras_sigmas, posterior
from genbench.samplers.levels import Levels, discrete_levels
from tests.helpers.known import Gaussian, Mixture, Unit, cut, orders

FINE = DiscreteDiffusion(20_000)  # so many that its time is nearly continuous
MIDDLE = torch.linspace(0.02, 0.98, 13, dtype=torch.float64)[:, None]


def on_sigmas(known):
    return lambda x, sigma: known.clean(x, 1.0, sigma)


def on_steps(known, diffusion):
    return lambda x, t: known.clean(x, float(diffusion.alpha[int(t)]), float(diffusion.sigma[int(t)]))


def sigmas(steps):
    return cut(karras_sigmas(steps, 0.05, 20.0))


def fine_steps(steps):
    """Levels of FINE at equal distances, from the noisiest to 1/100 of the time."""
    t = torch.linspace(19_999, 199, steps + 1).round().long()
    return Levels(t.double(), FINE.alpha[t], FINE.sigma[t])


def ends(levels):
    return [(float(levels.alpha[k]), float(levels.sigma[k])) for k in (0, -1)]


DETERMINISTIC = [
    ("Euler", 1, sigmas, on_sigmas, ddim),
    ("Heun", 2, sigmas, on_sigmas, heun),
    ("DPM-Solver++ over sigmas", 2, sigmas, on_sigmas, dpm_solver_pp),
    ("DDIM", 1, fine_steps, lambda known: on_steps(known, FINE), ddim),
    ("DPM-Solver++ over time steps", 2, fine_steps, lambda known: on_steps(known, FINE), dpm_solver_pp),
]
NAMED = pytest.mark.parametrize(
    ("order", "levels", "denoiser", "sampler"),
    [row[1:] for row in DETERMINISTIC],
    ids=[row[0] for row in DETERMINISTIC],
)


@NAMED
def test_the_linear_map_of_a_gaussian_converges_at_the_order_of_the_sampler(order, levels, denoiser, sampler):
    gaussian, errors = Gaussian(), []
    for n in (40, 80, 160):
        chosen, x = levels(n), Unit(0).start
        start, end = ends(chosen)
        found = sampler(denoiser(gaussian), start[1] * x, chosen)
        errors.append((found - gaussian.flow(start[1] * x, start, end)).abs().max().item())
    assert orders(errors) == pytest.approx([order] * 2, abs=0.25)
    assert errors[-1] < (0.02 if order == 1 else 0.001)


@NAMED
def test_points_of_a_mixture_converge_to_its_quantiles_at_the_order_of_the_sampler(order, levels, denoiser, sampler):
    mixture, errors = Mixture(), []
    for n in (80, 160, 320):
        chosen = levels(n)
        start, end = ends(chosen)
        found = sampler(denoiser(mixture), mixture.quantiles(MIDDLE, *start), chosen)
        errors.append((mixture.cdf(found, *end) - MIDDLE).abs().max().item())
    assert orders(errors) == pytest.approx([order] * 2, abs=0.35)
    assert errors[-1] < (0.02 if order == 1 else 0.002)


STEPS = DiscreteDiffusion(1000)


def with_variance(position):
    clean = on_steps(Gaussian(), STEPS)
    return lambda x, t: (clean(x, t), position)


ANY = {  # order of convergence, and the sampler: (x, levels from time step 999, levels from sigma 80, noise) -> points
    "DDPM with small variance": (1, lambda x, t, s, noise: ancestral(with_variance(0.0), x, t, noise)),
    "DDPM with large variance": (1, lambda x, t, s, noise: ancestral(with_variance(1.0), x, t, noise)),
    "DDPM with variances between": (
        1, lambda x, t, s, noise: ancestral(with_variance(torch.full(x.shape, 0.4).double()), x, t, noise)
    ),
    "DDIM with eta 1": (1, lambda x, t, s, noise: ddim(on_steps(Gaussian(), STEPS), x, t, 1.0, noise)),
    "DDIM with eta 0.5": (1, lambda x, t, s, noise: ddim(on_steps(Gaussian(), STEPS), x, t, 0.5, noise)),
    "DDIM": (1, lambda x, t, s, noise: ddim(on_steps(Gaussian(), STEPS), x, t)),
    "Euler": (1, lambda x, t, s, noise: ddim(on_sigmas(Gaussian()), 80 * x, s)),
    "Heun with churn": (
        2, lambda x, t, s, noise: heun(on_sigmas(Gaussian()), 80 * x, s, 40.0, 0.05, 50.0, 1.0, noise)
    ),
    "Heun": (None, lambda x, t, s, noise: heun(on_sigmas(Gaussian()), 80 * x, s)),
    "DPM-Solver++": (None, lambda x, t, s, noise: dpm_solver_pp(on_steps(Gaussian(), STEPS), x, t)),
    "DPM-Solver++ over sigmas": (None, lambda x, t, s, noise: dpm_solver_pp(on_sigmas(Gaussian()), 80 * x, s)),
}  # fmt: skip


@pytest.mark.parametrize("name", ANY)
def test_every_sampler_recovers_mean_and_covariance_of_a_gaussian(name):
    """Without Monte Carlo: the result is linear in the noise of all steps, and the whole linear map is computed. Where
    the order is None, the error is that of starting from noise alone: 0.004 of the mean for sigma 80."""
    order, sampler = ANY[name]
    errors = []
    for steps in (100, 200):
        unit = Unit(steps)
        levels = discrete_levels(STEPS.alpha, STEPS.sigma, steps)
        mean, covariance = unit.moments(sampler(unit.start, levels, karras_sigmas(steps), unit))
        off = [(mean - Gaussian.mean).abs().max(), (covariance - Gaussian.covariance).abs().max()]
        errors.append(max(off).item())
    assert errors[-1] < (0.05 if order == 1 else 0.008 if order == 2 else 0.004)
    if order:
        assert orders(errors) == pytest.approx([order], abs=0.2)


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
def test_all_samplers_start_from_a_step_without_signal(steps):
    """At zero terminal SNR, alpha is 0 at the first level. The result is that of a level with very little signal."""
    zero = DiscreteDiffusion(1000, "cosine", zero_terminal_snr=True, prediction="v")
    assert zero.alpha[-1] == 0 and zero.alpha[-2] > 0
    levels = discrete_levels(zero.alpha, zero.sigma, steps)
    little = Levels(levels.time, torch.cat([torch.full((1,), 1e-9).double(), levels.alpha[1:]]), levels.sigma)
    x, draws = Unit(0).start, torch.randn(steps, 3, 2, dtype=torch.float64)

    def clean(x, t):
        return Gaussian().clean(x, float(zero.alpha[int(t)]), float(zero.sigma[int(t)]))

    def of(levels):
        noise = [lambda drawn=iter(draws): next(drawn) for _ in range(3)]
        return torch.stack([
            ancestral(lambda x, t: (clean(x, t), 0.3), x, levels, noise[0]),
            ddim(clean, x, levels), ddim(clean, x, levels, 1.0, noise[1]), ddim(clean, x, levels, 0.3, noise[2]),
        ])  # fmt: skip

    found = of(levels)
    assert found.isfinite().all()
    torch.testing.assert_close(found, of(little), atol=1e-6, rtol=0)
    solved = dpm_solver_pp(clean, x, levels)  # its second step is of first order, as if a step without signal were none
    off = (solved - Gaussian().flow(x, (0.0, 1.0), (1.0, 0.0))).abs().max().item()
    assert off < {1: 1.1, 2: 0.8, 10: 0.2, 50: 0.02}[steps]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_noise_of_ddim_keeps_the_variance_of_every_level(eta):
    """Song et al. 2021, equation 7: q(x_s | x_t, x_0) has the marginals of the forward process for every eta."""
    x0 = 0.7
    for k in range(1, 1000, 37):
        a, s, a_next, s_next = (
            float(v) for v in (STEPS.alpha[k], STEPS.sigma[k], STEPS.alpha[k - 1], STEPS.sigma[k - 1])
        )
        levels = Levels(*(torch.tensor(v, dtype=torch.float64) for v in ((k, k - 1), (a, a_next), (s, s_next))))
        noise = Unit(1, 1)
        x = a * x0 + s * noise.start  # x_t is linear in the noise
        mean, variance = noise.moments(ddim(lambda x, t: torch.full_like(x, x0), x, levels, eta, noise))
        assert mean.item() == pytest.approx(a_next * x0, abs=1e-12)
        assert variance.item() == pytest.approx(s_next**2, abs=1e-12)


def test_the_posterior_is_that_of_two_gaussians():
    """Bayes' rule: precisions and precision-weighted means of q(x_t | x_s) and q(x_s | x_0) add up."""
    a, s, a_next, s_next = 0.6, 0.8, 0.9, (1 - 0.81) ** 0.5
    of_x, of_clean, small, large = posterior(a, s, a_next, s_next)
    ratio = a / a_next
    assert large == pytest.approx(1 - ratio**2)  # β
    precision = 1 / s_next**2 + ratio**2 / large
    assert small == pytest.approx(1 / precision)
    assert of_clean == pytest.approx(a_next / s_next**2 / precision)
    assert of_x == pytest.approx(ratio / large / precision)


def test_churn_adds_noise_only_within_its_range_and_at_most_by_a_factor():
    levels, seen = karras_sigmas(10), []

    def denoise(x, sigma):
        seen.append(sigma)
        return x

    heun(denoise, torch.zeros(23, 2).double(), levels, churn=1000.0, churn_from=0.1, churn_to=10.0, noise=Unit(10))
    first = seen[0::2]  # the second evaluation of a step is at the next level
    expected = [float(s) * (2**0.5 if 0.1 <= s <= 10 else 1) for s in levels.sigma[:-1]]
    assert first == pytest.approx(expected)
    assert len(seen) == 19  # two evaluations for each step but the last
