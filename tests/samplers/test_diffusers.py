"""The samplers beside those of diffusers: the same network, the same initial noise, float32.

Where diffusers differs, the name of the test says how, and the value here follows from a formula. All differences were
seen in diffusers 0.42.1.
"""

import numpy as np
import pytest
import torch

from genbench.objectives.diffusion import DiscreteDiffusion
from genbench.objectives.edm import Preconditioning
from genbench.samplers import diffusion, flow
from genbench.samplers.levels import discrete_levels, time_steps

schedulers = pytest.importorskip("diffusers.schedulers")

STEPS = pytest.mark.parametrize("steps", [10, 50])
SPACING = pytest.mark.parametrize("spacing", ["leading", "trailing"])
PREDICTION = pytest.mark.parametrize(
    ("prediction", "theirs"), [("noise", "epsilon"), ("v", "v_prediction"), ("image", "sample")]
)
LINEAR = {"num_train_timesteps": 1000, "beta_schedule": "linear"}
TRAILING = LINEAR | {"timestep_spacing": "trailing", "clip_sample": False}
X = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(1))
MIX = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(2))


def images(x, time):
    """Images in [-1, 1] as a function of noisy images [B, 2, 4, 4] and times [B]."""
    return torch.tanh(0.7 * x + MIX[0] * time.view(-1, 1, 1, 1) + MIX[1] * x.roll(1, 2))


def like(scheduler, **settings):
    """Our model with the noise levels of a scheduler, which diffusers computes in float32: see the last test."""
    model = DiscreteDiffusion(1000, **settings)
    torch.testing.assert_close(model.alpha_bar, scheduler.alphas_cumprod.double(), atol=2e-7, rtol=2e-4)
    model.alpha_bar = scheduler.alphas_cumprod.double()
    model.alpha, model.sigma = model.alpha_bar.sqrt(), (1 - model.alpha_bar).sqrt()
    return model


def network(prediction, model, scale=1.0):
    """A network that predicts `images`, times `scale`, as a model with discrete time does."""

    def net(x, time):
        t = (time * 1000).round().long()
        alpha, sigma = (table[t].float().view(-1, 1, 1, 1) for table in (model.alpha, model.sigma))
        clean = scale * images(x, time)
        noise = (x - alpha * clean) / sigma
        return {"image": clean, "noise": noise, "v": alpha * noise - sigma * clean}[prediction]

    return net


def theirs_from(scheduler, x, outputs, **step):
    """Sample with a scheduler; `outputs(x, t)` is the network at its time step."""
    for t in scheduler.timesteps:
        into = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(outputs(into, t), t, x, **step).prev_sample
    return x


def on_steps(net):
    return lambda x, t: net(x, torch.full((len(x),), float(t) / 1000))


def assert_equal(ours, theirs):
    assert ours.dtype == theirs.dtype == torch.float32
    assert (ours - theirs).abs().max() <= 1e-5, (ours - theirs).abs().max()


@STEPS
@SPACING
@PREDICTION
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim(steps, spacing, prediction, theirs, eta):
    scheduler = schedulers.DDIMScheduler(
        **LINEAR, prediction_type=theirs, timestep_spacing=spacing, clip_sample=False, set_alpha_to_one=True
    )
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == time_steps(1000, steps, spacing).tolist()
    model = like(scheduler, prediction=prediction)
    net = network(prediction, model)
    levels = discrete_levels(model.alpha, model.sigma, steps, spacing)
    noise = torch.Generator().manual_seed(3)
    found = diffusion.ddim(
        lambda x, t: model.predict(net, x, int(t), False)[0],
        X,
        levels,
        eta,
        lambda: torch.randn(X.shape, generator=noise),
    )
    assert_equal(found, theirs_from(scheduler, X, on_steps(net), eta=eta, generator=torch.Generator().manual_seed(3)))


@STEPS
def test_ddim_with_clipped_images_if_diffusers_computes_the_noise_from_them_too(steps):
    """By default diffusers goes on in the direction of the noise of the images before they were clipped."""
    scheduler = schedulers.DDIMScheduler(**LINEAR, timestep_spacing="trailing", clip_sample=True)
    scheduler.set_timesteps(steps)
    model = like(scheduler)
    net = network("noise", model, 1.5)
    levels = discrete_levels(model.alpha, model.sigma, steps)
    found = diffusion.ddim(lambda x, t: model.predict(net, x, int(t), True)[0], X, levels)
    assert_equal(found, theirs_from(scheduler, X, on_steps(net), use_clipped_model_output=True))
    assert (found - theirs_from(scheduler, X, on_steps(net))).abs().max() > 0.01


@STEPS
@SPACING
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_ddpm_except_for_noise_that_diffusers_adds_after_the_last_step_of_trailing(steps, spacing, variance):
    """With fixed large variances diffusers adds noise at every step but time step 0. With trailing spacing the last
    step is not time step 0 but, for 10 steps, 99: the images keep noise of its level."""
    kind = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}[variance]
    scheduler = schedulers.DDPMScheduler(**LINEAR, variance_type=kind, timestep_spacing=spacing, clip_sample=False)
    scheduler.set_timesteps(steps)
    model = like(scheduler, variance=variance)
    net = network("noise", model)
    levels = discrete_levels(model.alpha, model.sigma, steps, spacing)

    def output(x, time):  # the second half is the variance, between small and large
        return torch.cat([net(x, time), images(x, time).roll(1, 3)], 1) if variance == "learned" else net(x, time)

    last = {}

    def predict(x, t):
        clean, last["position"] = model.predict(output, x, int(t), False)
        return clean, last["position"]

    noise = torch.Generator().manual_seed(3)
    found = diffusion.ancestral(predict, X, levels, lambda: torch.randn(X.shape, generator=noise))
    if spacing == "trailing":  # diffusers' noise after the last step, whose small variance is 1e-20
        sigma = model.sigma[time_steps(1000, steps)[-1]].float()
        found = found + sigma ** last["position"] * 1e-10 ** (1 - last["position"]) * torch.randn(
            X.shape, generator=noise
        )
    assert_equal(found, theirs_from(scheduler, X, on_steps(output), generator=torch.Generator().manual_seed(3)))


@STEPS
@SPACING
def test_dpm_solver_at_the_same_time_steps(steps, spacing):
    """diffusers leaves the last of n + 1 time steps out where its spacing is leading, so the steps are given to it."""
    scheduler = schedulers.DPMSolverMultistepScheduler(**LINEAR)
    scheduler.set_timesteps(timesteps=time_steps(1000, steps, spacing).tolist())
    model = like(scheduler)
    net = network("noise", model)
    levels = discrete_levels(model.alpha, model.sigma, steps, spacing)
    found = diffusion.dpm_solver_pp(lambda x, t: model.predict(net, x, int(t), False)[0], X, levels)
    assert_equal(found, theirs_from(scheduler, X, on_steps(net)))


@STEPS
@pytest.mark.parametrize(
    ("sampler", "name"), [("ddim", "EDMEulerScheduler"), ("dpm_solver_pp", "EDMDPMSolverMultistepScheduler")]
)
def test_euler_and_dpm_solver_over_the_sigmas_of_edm(steps, sampler, name):
    """Relative to the size of the images at each level, which begin at 80."""
    scheduler = getattr(schedulers, name)(sigma_data=0.5)
    scheduler.set_timesteps(steps)
    edm = Preconditioning(0.5)
    levels = diffusion.karras_sigmas(steps)
    np.testing.assert_allclose(levels.sigma.numpy(), scheduler.sigmas.numpy(), rtol=3e-6)
    found = getattr(diffusion, sampler)(lambda x, s: edm.denoise(images, x, torch.full((len(x),), s)), 80 * X, levels)
    theirs = theirs_from(scheduler, 80 * X, lambda x, t: images(x, t.expand(len(x))))
    assert_equal(found, theirs)


@STEPS
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_euler_at_the_same_times(steps, shift):
    """By default diffusers goes from 1 to 1/1000 in n - 1 steps and then to 0, so the times are given to it."""
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=flow.flow_times(steps)[:-1].tolist())  # it shifts them
    found = flow.euler(lambda x, t: images(x, torch.full((len(x),), t)), X, flow.flow_times(steps, shift))
    assert_equal(found, theirs_from(scheduler, X, on_steps(images)))


def test_linspace_steps_to_the_levels_that_come_next_and_not_those_of_diffusers():
    """diffusers' DDIM computes the next level as t - 1000 // n: from 999 to 749 where 666 comes next."""
    scheduler = schedulers.DDIMScheduler(**LINEAR, timestep_spacing="linspace", clip_sample=False)
    scheduler.set_timesteps(4)
    steps = time_steps(1000, 4, "linspace")
    assert scheduler.timesteps.tolist() == steps.tolist() == [999, 666, 333, 0]
    bar = DiscreteDiffusion(1000).alpha_bar
    # a network that predicts no noise leaves sqrt(bar[next] / bar[t]) of the images
    there = scheduler.step(torch.zeros(1, 1), 999, torch.ones(1, 1)).prev_sample.item()
    assert there == pytest.approx(float((bar[749] / bar[999]).sqrt()), rel=1e-4)
    levels = discrete_levels(bar.sqrt(), (1 - bar).sqrt(), 4, "linspace")
    model, one = DiscreteDiffusion(1000), type(levels)(levels.time[:2], levels.alpha[:2], levels.sigma[:2])
    here = diffusion.ddim(lambda x, t: model.predict(lambda x, time: 0 * x, x, int(t), False)[0], torch.ones(1, 1), one)
    assert here.item() == pytest.approx(float((bar[666] / bar[999]).sqrt()), rel=1e-4)


def test_trailing_has_the_steps_that_were_asked_for_where_diffusers_adds_a_step_at_the_noisiest():
    """np.arange gives diffusers one step more for 62 numbers of steps, the first of them 61. Its time step is -1, which
    is the noisiest in the table of noise levels. For 49 others some time steps differ by one."""
    scheduler, different, more = schedulers.DDIMScheduler(**LINEAR, timestep_spacing="trailing"), 0, []
    for n in range(1, 1001):
        scheduler.set_timesteps(n)
        ours, theirs = time_steps(1000, n).tolist(), scheduler.timesteps.tolist()
        assert len(ours) == n
        different += theirs != ours
        if len(theirs) > n:
            assert len(theirs) == n + 1 and theirs[-1] == -1
            more.append(n)
    assert more[0] == 61 and len(more) == 62 and different == 62 + 49


def test_the_shift_is_applied_once_where_diffusers_shifts_the_smallest_sigma_twice():
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(10)

    def shifted(t):
        return 3 * t / (1 + 2 * t)

    assert scheduler.sigmas[-2].item() == pytest.approx(shifted(shifted(1 / 1000)), rel=1e-4)
    torch.testing.assert_close(flow.flow_times(1000, 3.0)[-2].item(), shifted(1 / 1000))


def test_zero_terminal_snr_is_finite_where_diffusers_divides_by_zero():
    scheduler = schedulers.DDIMScheduler(
        **LINEAR, timestep_spacing="trailing", rescale_betas_zero_snr=True, clip_sample=False
    )
    scheduler.set_timesteps(10)
    assert not theirs_from(scheduler, X, on_steps(images)).isfinite().all()
    model = like(scheduler, zero_terminal_snr=True, prediction="v")
    net = network("v", model)
    levels = discrete_levels(model.alpha, model.sigma, 10)
    found = diffusion.ddim(lambda x, t: model.predict(net, x, int(t), False)[0], X, levels)
    scheduler = schedulers.DDIMScheduler(
        **LINEAR,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
        prediction_type="v_prediction",
    )
    scheduler.set_timesteps(10)
    assert_equal(found, theirs_from(scheduler, X, on_steps(net)))


def test_noise_levels_are_exact_where_those_of_diffusers_are_rounded_to_float32():
    """1 - ᾱ of the first step is β, 0.0001; diffusers computes it as 1 - 0.9999 in float32."""
    theirs = 1 - schedulers.DDIMScheduler(**LINEAR).alphas_cumprod[0].item()
    assert (1 - DiscreteDiffusion(1000).alpha_bar[0]).item() == pytest.approx(1e-4, rel=1e-10)
    assert 1e-5 < abs(theirs / 1e-4 - 1) < 1e-3
