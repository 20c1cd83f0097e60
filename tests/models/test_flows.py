"""RealNVP and Glow: exact inverse, exact log-determinant, and densities that integrate to one."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian

from genbench.core.batch import Batch, DataSpec, from_uint8, to_uint8
from genbench.core.capabilities import Encodes, HasLikelihood, Reconstructs, SamplesLatents
from genbench.core.errors import UserError
from genbench.data import Ring
from genbench.metrics.mixture import mixture_statistics
from genbench.models import Glow, RealNVP
from genbench.networks.coupling import ActNorm, initialize
from genbench.objectives.flow import log_density
from genbench.objectives.pixels import LEVELS, dequantized
from tests.helpers.small import RandomImages, run

GRAY = DataSpec((1, 4, 4))
SMALL = {RealNVP: {"couplings": 2, "width": 6}, Glow: {"steps": 2, "width": 6}}
both = pytest.mark.parametrize("kind", [RealNVP, Glow])


def small(kind, spec=GRAY, **arguments):
    torch.manual_seed(0)
    return kind(spec, **SMALL[kind] | {"levels": 2} | arguments)


def levels_of(n, *shape, seed=1):
    """Random images with 256 levels, in [-1, 1]."""
    return from_uint8(torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(seed)).byte())


def perturbed(model, x, by=0.1):
    """A model with statistics of x and random weights, as if it had been trained."""
    initialize(model.flow, x)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by * torch.randn(p.shape, generator=draw, dtype=p.dtype))
    return model.eval()


@both
@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 2), 1), ((3, 2, 2), 1), ((1, 4, 4), 1), ((1, 4, 4), 2)])
def test_the_log_determinant_equals_autograds(kind, shape, levels):
    x = dequantized(levels_of(3, *shape).double(), torch.rand(3, *shape, dtype=torch.float64))
    model = perturbed(small(kind, DataSpec(shape), levels=levels).double(), x)
    log_det = model.flow(x)[1]
    for image, found in zip(x, log_det, strict=True):
        matrix = jacobian(lambda one: model.flow(one[None])[0][0], image).reshape(math.prod(shape), -1)
        assert found.item() == pytest.approx(torch.linalg.slogdet(matrix).logabsdet.item(), abs=1e-8)
    assert log_det.std() > 1e-3  # not only the constant part


@both
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 16, 16)])
def test_decode_is_the_inverse_of_encode_in_float32(kind, shape):
    x = levels_of(8, *shape)
    model = perturbed(small(kind, DataSpec(shape), levels=3, width=16), x, by=0.02)
    with torch.no_grad():
        z = model.encode(x)
        assert z.shape == (8, math.prod(shape)) == (8, *model.latent_shape)
        assert (model.decode(z) - x).abs().max() < 1e-5
        assert torch.equal(to_uint8(model.decode(z)), to_uint8(x))
        draws = torch.randn(8, *model.latent_shape)
        unclamped = model.flow.inverse(draws)
        torch.testing.assert_close(model.flow(unclamped)[0], draws, rtol=0, atol=2e-3)


@both
def test_it_has_latents_and_a_lower_bound_for_8_bit_pixels(kind):
    model = small(kind)
    assert isinstance(model, HasLikelihood) and (model.likelihood, model.pixels) == ("lower bound", "8-bit")
    assert isinstance(model, SamplesLatents) and isinstance(model, Encodes) and not isinstance(model, Reconstructs)


@both
def test_a_uniform_density_of_levels_has_8_bits_per_dimension(kind):
    """The density is exchanged for a uniform one on [0, 256) levels, 1/256 per level."""
    model, x = small(kind), levels_of(5, 1, 4, 4)

    class Uniform(torch.nn.Module):
        def forward(self, x):
            # latents at 0, and a determinant that cancels the density of a standard normal at 0
            per_unit = math.log(LEVELS / 256) + 0.5 * math.log(2 * math.pi)
            return torch.zeros(len(x), 16), torch.full((len(x),), 16 * per_unit)

    model.flow = Uniform()
    torch.testing.assert_close(model.log_likelihood(x), torch.full((5,), -16 * math.log(256)))
    model.draw.seed(0)
    scores = model.validation_step(Batch(x), 0)
    torch.testing.assert_close(scores["bits_per_dim"], torch.full((5,), 8.0))
    loss = model.training_step.__wrapped__(model, Batch(x), 0)["nll"]
    assert loss.item() == pytest.approx(math.log(256), rel=1e-6)  # nats per dimension


@both
def test_the_density_integrates_over_all_levels_to_the_share_of_samples_among_them(kind):
    """Images of 2×2 pixels. A part of the density lies outside of the levels, since alpha is above 0."""
    model = perturbed(small(kind, DataSpec((1, 2, 2)), levels=1), levels_of(64, 1, 2, 2)).double()
    anywhere = torch.quasirandom.SobolEngine(4, scramble=True, seed=0).draw(2**15, dtype=torch.float64)
    with torch.no_grad():
        log_p = log_density(model.flow, ((anywhere * 256 - 0.5) / LEVELS - 1).view(-1, 1, 2, 2))
        samples = model.flow.inverse(torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0)).double())
    share = (samples.abs() <= 1 + 0.5 / LEVELS).flatten(1).all(1).double().mean().item()
    assert 0.3 < share < 1
    assert log_p.exp().mean().item() * 256**4 == pytest.approx(share, abs=0.015)  # 4 standard errors of the share


@both
def test_the_first_batch_has_zero_mean_and_unit_variance_after_every_actnorm(kind):
    model, found = small(kind), []
    for norm in (layer for layer in model.flow.modules() if isinstance(layer, ActNorm)):
        norm.register_forward_hook(lambda _, __, output: found.append(output[0]))
    x = dequantized(levels_of(64, 1, 4, 4), torch.rand(64, 1, 4, 4))
    initialize(model.flow, x)
    found.clear()
    model.flow(x)
    for z in found:
        assert z.mean((0, 2, 3)).abs().max() < 1e-4
        torch.testing.assert_close(z.var((0, 2, 3), unbiased=False), torch.ones(z.shape[1]), rtol=0, atol=1e-3)


@both
def test_training_improves_the_likelihood(kind):
    model = small(kind, levels=2, width=16, optimizer={"lr": 0.01})
    images = from_uint8(RandomImages(model.spec).train.everything.image)
    before = model.eval().log_likelihood(images).mean().item()
    run(model.train(), images=1200)
    after = model.eval().log_likelihood(images).mean().item()
    assert all(norm.initialized for norm in model.modules() if isinstance(norm, ActNorm))
    assert after > before + 2 and -after / (16 * math.log(2)) < 8  # uniform noise has 8 bits per pixel


@both
def test_temperature_scales_the_latents(kind):
    model = perturbed(small(kind), levels_of(64, 1, 4, 4))
    seeds = torch.arange(4)
    with torch.no_grad():
        assert torch.equal(model.sample(seeds), model.decode(model.sample_latents(seeds)))
        assert torch.equal(model.sample(seeds, temperature=0.5), model.decode(0.5 * model.sample_latents(seeds)))
        mode = model.sample(seeds, temperature=0.0)
        assert torch.equal(mode, model.decode(torch.zeros(4, 16))) and torch.equal(mode[0], mode[3])


@both
def test_the_latents_of_a_sample_are_those_of_its_seed(kind):
    model = small(kind)
    assert torch.equal(model.sample_latents(torch.tensor([7, 3])), model.sample_latents(torch.arange(8))[[7, 3]])


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_densities_are_computed_in_float32_under_mixed_precision(kind, dtype):
    x = levels_of(16, 1, 4, 4)
    model = perturbed(small(kind), x, by=0.02)
    with torch.no_grad():
        exact = log_density(model.flow, x)
        with torch.autocast("cpu", dtype):
            z, log_det = model.flow(x)
            mixed = log_density(model.flow, x)
    assert z.dtype == log_det.dtype == mixed.dtype == torch.float32
    assert (mixed - exact).abs().max() < 0.5


# ---- points ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ring():
    """A RealNVP after a few seconds on `Ring`."""
    torch.manual_seed(0)
    model = RealNVP(DataSpec((2,)), levels=3, couplings=2, width=64)
    points = Ring().source("train").everything.image
    initialize(model.flow, points[:1000])
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    draw = torch.Generator().manual_seed(0)
    for step in range(900):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(1, (step + 1) / 50) * (1 - step / 900)
        loss = -log_density(model.flow, points[torch.randint(len(points), (256,), generator=draw)]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    return model.eval().requires_grad_(False)


def test_the_density_of_points_sums_to_one_on_a_grid(ring):
    side, most = 1200, 2.0
    axis = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 * most - most
    grid = torch.cartesian_prod(axis, axis).float()
    log_p = torch.cat([ring.log_likelihood(part) for part in grid.split(100_000)])
    assert log_p.double().exp().sum().item() * (2 * most / side) ** 2 == pytest.approx(1, abs=0.02)


def test_points_on_a_ring_are_learned(ring):
    assert (ring.likelihood, ring.pixels) == ("exact", "density")
    data = Ring()
    held_out = data.source("val").everything.image
    modes = torch.tensor(data.modes, dtype=torch.float64)
    square = (held_out.double()[:, None] - modes).square().sum(2)
    true = (-square / (2 * data.std**2)).logsumexp(1) - math.log(8 * 2 * math.pi * data.std**2)
    nats, best = ring.log_likelihood(held_out).double().mean(), true.mean()
    assert best - 1 < nats < best + 0.05
    found = mixture_statistics(ring.sample(torch.arange(2000)), torch.tensor(data.modes), data.std)
    assert found["modes"] == 8 and found["good_samples"] > 0.6, found


def test_decode_is_the_inverse_of_encode_for_points(ring):
    x = Ring().source("val").everything.image[:500]
    assert (ring.decode(ring.encode(x)) - x).abs().max() < 1e-5


def test_validation_has_bits_only_for_images(ring):
    assert ring.validation_step(Batch(torch.zeros(3, 2)), 0).keys() == {"nats"}


def test_points_of_odd_dimension_are_split_unevenly():
    model = small(RealNVP, DataSpec((5,))).double()
    x = torch.randn(3, 5, dtype=torch.float64)
    perturbed(model, torch.randn(64, 5).double())
    torch.testing.assert_close(model.decode(model.encode(x)), x, rtol=0, atol=1e-10)


# ---- bad input ------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("spec", "arguments", "said"),
    [
        (
            DataSpec((1, 28, 28)), {"levels": 3},
            r"model.levels is 3, so the sides of the images must be multiples of 8, but the data has 28×28 pixels. Set "
            r"`--data.size 32`, or `--model.levels 2`",
        ),
        (DataSpec((1, 9, 9)), {"levels": 1}, r"multiples of 2, but the data has 9×9 pixels. Set `--data.size 10`\."),
        (DataSpec((1, 4, 4), binary=True), {}, r"only black and white pixels. Remove `--data.binarize`"),
        (GRAY, {"alpha": 0.0}, "model.alpha is 0.0; it must be above 0"),
        (GRAY, {"alpha": 0.5}, "model.alpha is 0.5; it must be below 0.5"),
        (GRAY, {"levels": 0}, "model.levels is 0; it must be at least 1"),
    ],
)  # fmt: skip
def test_invalid_settings_are_rejected(kind, spec, arguments, said):
    with pytest.raises(UserError, match=said):
        small(kind, spec, **arguments)


@both
@pytest.mark.parametrize("temperature", [-0.1, math.nan, math.inf])
def test_an_impossible_temperature_is_rejected(kind, temperature):
    with pytest.raises(UserError, match=r"temperature is .*; it must be (at least 0|a finite number)"):
        small(kind).sample(torch.arange(2), temperature=temperature)


@both
def test_a_condition_is_rejected(kind):
    with pytest.raises(UserError, match="trained without labels"):
        small(kind).sample(torch.arange(2), condition=torch.zeros(2, dtype=torch.long))


def test_points_need_two_dimensions_and_glow_needs_images():
    with pytest.raises(UserError, match="has one dimension"):
        small(RealNVP, DataSpec((1,)))
    with pytest.raises(UserError, match="This model needs images"):
        small(Glow, DataSpec((2,)))
