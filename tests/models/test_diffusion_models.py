"""DDPM, EDM and FlowMatching as models: training, sampling options, guides, and settings that do not fit."""

import math
import re

import pytest
import torch

from genbench.cli import main
from genbench.core.batch import DataSpec
from genbench.core.capabilities import HasLikelihood
from genbench.core.errors import UserError
from genbench.models import DDPM, EDM, FlowMatching
from genbench.objectives.flow_matching import log_density
from genbench.objectives.pixels import LEVELS, dequantized
from tests.helpers.small import untrained

IMAGES, POINTS = DataSpec((1, 8, 8)), DataSpec((2,))
LABELS = DataSpec((1, 8, 8), "label", ("zero", "one", "two"))
SMALL = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "heads": 2}
ALL = pytest.mark.parametrize("cls", [DDPM, EDM, FlowMatching])


def small(cls, spec=IMAGES, awake=True, **arguments):
    """A small model; `awake`: as after training, with no parameter zero."""
    torch.manual_seed(0)
    network = SMALL if len(spec.shape) == 3 else {"width": 16}
    model = cls(spec, network=network, **arguments).eval()
    for p in model.parameters() if awake else ():
        torch.nn.init.normal_(p, std=0.1)
    return model


@ALL
def test_training_reduces_the_loss(cls):
    model = small(cls, POINTS, awake=False).train()
    x = torch.tensor([[-0.5, 0.5], [0.5, 0.5]]).repeat(64, 1)  # two points
    batch, losses = type("Batch", (), {"image": x}), []
    adam = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(150):
        model.draw.seed("step", step)
        (each,) = model.validation_step(batch, 0).values()
        adam.zero_grad()
        each.mean().backward()
        adam.step()
        losses.append(each.mean().item())
    assert sum(losses[-20:]) < 0.8 * sum(losses[:3]) / 3 * 20


@ALL
@pytest.mark.parametrize("spec", [IMAGES, POINTS], ids=["images", "points"])
def test_all_samplers_draw_each_sample_from_its_own_seed(cls, spec):
    model, seeds = small(cls, spec), torch.tensor([4, 1, 7])
    for options in {
        DDPM: [{"sampler": "ddim"}, {"sampler": "ddim", "eta": 0.7}, {"sampler": "ddpm"}, {"sampler": "dpm++"}],
        EDM: [{"sampler": "heun"}, {"sampler": "heun", "churn": 3.0}, {"sampler": "euler"}, {"sampler": "dpm++"}],
        FlowMatching: [{"sampler": "euler"}, {"sampler": "midpoint", "shift": 2.0}],
    }[cls]:
        together = model.sample(seeds, steps=4, **options)
        each = torch.cat([model.sample(seeds[k : k + 1], steps=4, **options) for k in range(3)])
        torch.testing.assert_close(together, each, atol=1e-3, rtol=1e-3)
        assert together.shape == (3, *spec.shape) and together.isfinite().all()
        assert not torch.allclose(together[0], together[1])
        if spec is IMAGES:
            assert together.abs().max() <= 1


@ALL
def test_guidance_changes_samples_except_with_weight_1(cls):
    model, seeds, label = small(cls, LABELS, conditional=True), torch.arange(3), torch.arange(3)
    plain = model.sample(seeds, condition=label, steps=3)
    assert torch.equal(model.sample(seeds, condition=label, steps=3, guidance=1.0), plain)
    assert not torch.equal(model.sample(seeds, condition=label, steps=3, guidance=3.0), plain)
    outside = {"guidance_from": 1e5, "guidance_to": 2e5}  # no noise is so strong
    assert torch.equal(model.sample(seeds, condition=label, steps=3, guidance=3.0, **outside), plain)


@ALL
def test_a_guide_is_a_checkpoint_and_a_model_does_not_guide_itself(cls, tmp_path):
    model, seeds = small(cls), torch.arange(2)
    other, same = untrained(small(cls, awake=False), tmp_path / "a.ckpt"), untrained(model, tmp_path / "b.ckpt")
    plain = model.sample(seeds, steps=3)
    torch.testing.assert_close(model.sample(seeds, steps=3, guidance=2.0, guide=str(same)), plain, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model.sample(seeds, steps=3, guidance=2.0, guide=str(other)), plain)


@ALL
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampler": "hein"}, "sampler is 'hein'. Choose from: "),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"steps": -2}, "steps is -2; it must be at least 1"),
        ({"steps": 2.5}, "steps is 2.5; it must be a whole number"),
        ({"guidance": 2.0}, "guidance is 2, but this .* is unconditional"),
        ({"guidance": float("nan")}, "guidance is nan; it must be a finite number"),
        ({"guide": "some.ckpt"}, "guide has no effect with guidance 1"),
        ({"guidance_from": 0.5}, "guidance_from and guidance_to have no effect with guidance 1"),
        ({"steps": 10**9}, "steps is 1000000000; it must be at most 100000"),
        ({"guidance": 2.0, "guide": "missing.ckpt"}, "guide: There is no checkpoint at missing.ckpt"),
    ],
)
def test_invalid_options_are_rejected(cls, options, said):
    with pytest.raises(UserError, match=said):
        small(cls).sample(torch.arange(2), **options)


@pytest.mark.parametrize(
    ("cls", "options", "said"),
    [
        (DDPM, {"steps": 1001}, "steps is 1001; this model has 1,000 time steps, so it must be at most 1000"),
        (DDPM, {"spacing": "even"}, "spacing is 'even'. Choose from: trailing, leading, linspace"),
        (DDPM, {"eta": 1.5}, "eta is 1.5; it must lie between 0 and 1"),
        (DDPM, {"eta": 0.5, "sampler": "dpm++"}, "eta has no effect with the sampler dpm"),
        (EDM, {"churn": 5.0, "sampler": "euler"}, "churn has no effect with the sampler euler"),
        (EDM, {"churn_from": 1.0}, "churn_from, churn_to and inflation have no effect without churn"),
        (EDM, {"churn": 5.0, "churn_from": 2.0, "churn_to": 1.0}, "churn_from is 2 and churn_to is 1"),
        (EDM, {"sigma_min": 90.0}, "sigma_min is 90; it must be below sigma_max, 80"),
        (EDM, {"sigma_max": 1e300}, "sigma_max is 1e.300; it must be at most 1000000"),
        (EDM, {"rho": 0.001}, "rho is 0.001; it must be at least 0.1"),
        (EDM, {"rho": 5.0, "steps": 1}, "sigma_min and rho have no effect with one step"),
        (FlowMatching, {"shift": 0.0}, "shift is 0.0; it must be at least 0.001"),
        (FlowMatching, {"shift": 1e300}, "shift is 1e.300; it must be at most 1000"),
    ],
)
def test_invalid_options_of_one_model_are_rejected(cls, options, said):
    with pytest.raises(UserError, match=said):
        small(cls).sample(torch.arange(2), **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"probes": 10**9}, "probes is 1000000000; it must be at most 10000"),
        ({"probes": -1}, "probes is -1; it must be at least 0"),
        ({"tolerance": 0.0}, "tolerance is 0.0; it must be at least 1e-09"),
        ({"tolerance": float("nan")}, "tolerance is nan; it must be a finite number"),
        ({}, "Set `--probes 1` or more for an estimate"),
    ],
)
def test_invalid_options_of_the_likelihood_are_rejected(options, said):
    with pytest.raises(UserError, match=said):
        small(FlowMatching).log_likelihood(torch.zeros(1, 1, 8, 8), **options)


@pytest.mark.parametrize(
    ("cls", "of_guide", "spec", "said"),
    [
        (DDPM, {"prediction": "v"}, IMAGES, "trained with prediction v, but this model with noise"),
        (DDPM, {"variance": "learned"}, IMAGES, "trained with variance learned, but this model with small"),
        (EDM, {"sigma_data": 1.0}, IMAGES, "trained with sigma_data 1.0, but this model with 0.5"),
        (EDM, {}, DataSpec((1, 12, 12)), "guide: .* was trained on data of 12×12×1, but this model on data of 8×8×1"),
        (EDM, {}, DataSpec((1, 8, 8), binary=True), "guide: .* was trained on black-and-white data of 8×8×1"),
        (
            FlowMatching,
            {"conditional": True},
            LABELS,
            "a conditional FlowMatching, which cannot guide an unconditional",
        ),
    ],
)
def test_a_guide_that_predicts_something_else_is_rejected(cls, of_guide, spec, said, tmp_path):
    guide = untrained(small(cls, spec, **of_guide), tmp_path / "guide.ckpt")
    with pytest.raises(UserError, match=said):
        small(cls).sample(torch.arange(2), guidance=2.0, guide=str(guide), steps=2)


@ALL
def test_an_interval_of_guidance_that_is_empty_is_rejected(cls):
    model = small(cls, LABELS, conditional=True)
    with pytest.raises(UserError, match="guidance_from is 2 and guidance_to is 1; it must not be smaller"):
        model.sample(torch.arange(1), condition=torch.zeros(1).long(), guidance=3.0, guidance_from=2.0, guidance_to=1.0)


def test_noise_levels_of_edm_that_overflow_are_rejected():
    for arguments in ({"log_mean": 1e3}, {"log_std": 1e3}, {"sigma_data": 1e300}):
        with pytest.raises(UserError, match="it must be at most"):
            small(EDM, **arguments)


@ALL
def test_dropout_of_conditions_is_rejected_without_conditions(cls):
    with pytest.raises(UserError, match="condition_dropout is 0.5, but this model is unconditional"):
        small(cls, condition_dropout=0.5)
    assert small(cls, condition_dropout=0.0).conditional is False


def test_a_guide_of_other_classes_or_another_model_is_rejected(tmp_path):
    two = DataSpec((1, 8, 8), "label", ("a", "b"))
    guide = untrained(small(EDM, two, conditional=True), tmp_path / "a.ckpt")
    other = untrained(small(FlowMatching, LABELS, conditional=True), tmp_path / "b.ckpt")
    for path, said in ((guide, "other classes or captions"), (other, "a conditional FlowMatching, which cannot guide")):
        with pytest.raises(UserError, match=said):
            small(EDM, LABELS, conditional=True).sample(
                torch.arange(2), condition=torch.arange(2), guidance=2.0, guide=str(path)
            )


@ALL
def test_a_model_that_never_saw_images_without_condition_has_no_guidance_of_its_own(cls):
    model = small(cls, LABELS, conditional=True, condition_dropout=0.0)
    with pytest.raises(UserError, match="condition_dropout"):
        model.sample(torch.arange(2), condition=torch.arange(2), guidance=2.0)
    if cls is DDPM:
        with pytest.raises(UserError, match="condition_dropout"):
            model.log_likelihood(torch.zeros(1, 1, 8, 8))
    if cls is FlowMatching:
        with pytest.raises(UserError, match="condition_dropout"):
            model.log_likelihood(torch.zeros(1, 1, 8, 8), probes=1)


def test_conditions_are_dropped_as_often_as_asked():
    from genbench.core import conditions

    model = small(EDM, LABELS, conditional=True)
    model.draw.seed("drop")
    batch = type("Batch", (), {"known_label": None, "label": torch.zeros(4000, dtype=torch.int64)})
    found = conditions.of_batch(model, batch, 0.25)
    assert found.unique().tolist() == [0, 3]
    assert (found == 3).float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("variance", ["small", "learned"])
def test_ddpm_has_a_bound_in_nats_for_images_and_points(variance):
    model = small(DDPM, timesteps=50, variance=variance)
    assert (model.likelihood, model.pixels) == ("lower bound", "8-bit")
    assert model.log_likelihood(torch.zeros(2, 1, 8, 8), time_steps=5).shape == (2,)
    assert small(DDPM, POINTS).pixels == "density"
    with pytest.raises(UserError, match="time_steps is 51; this model has 50, so it must be at most that"):
        model.log_likelihood(torch.zeros(2, 1, 8, 8), time_steps=51)


def test_the_density_of_flow_matching_on_points_sums_to_one_on_a_grid():
    model = small(FlowMatching, POINTS)
    assert isinstance(model, HasLikelihood) and (model.likelihood, model.pixels) == ("exact", "density")
    side, most = 150, 6.0
    axis = (torch.arange(side) + 0.5) / side * 2 * most - most
    grid = torch.cartesian_prod(axis, axis)
    log_p = model.log_likelihood(grid, tolerance=1e-4).double()
    assert log_p.exp().sum().item() * (2 * most / side) ** 2 == pytest.approx(1, abs=1e-3)
    standard = -0.5 * grid.double().square().sum(1) - math.log(2 * math.pi)  # the density of a velocity of 0
    assert (log_p - standard).abs().max() > 0.5


def test_flow_matching_estimates_the_bound_of_images_with_random_vectors():
    model, x = small(FlowMatching, DataSpec((1, 4, 4))).double(), torch.zeros(2, 1, 4, 4).double()
    assert (model.likelihood, model.pixels, model.likelihood_option) == ("lower bound", "8-bit", "probes")
    torch.manual_seed(0)
    found, error = model.log_likelihood_and_error(x, probes=32, tolerance=1e-3)
    torch.manual_seed(0)  # the same dequantization noise
    y = dequantized(x, torch.rand_like(x))
    exact, none = log_density(model.network, y, tolerance=1e-3)
    assert not none.any() and (error > 0).all()
    assert ((found - (exact - 16 * math.log(LEVELS))).abs() < 4 * error + 0.01).all()
    with pytest.raises(UserError, match=r"needs 16 derivatives at each step. Set `--probes 1` or more"):
        model.log_likelihood(x)


def test_a_flow_without_velocity_has_the_likelihood_of_its_noise():
    x = torch.zeros(2, 1, 8, 8)
    found = small(FlowMatching, awake=False).log_likelihood(x, probes=1)
    normal = torch.distributions.Normal(0.0, 1.0)
    each = math.log(normal.cdf(torch.tensor(1 / 255)) - normal.cdf(torch.tensor(-1 / 255)))  # a level is 2/255 wide
    torch.testing.assert_close(found, torch.full((2,), 64 * each).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        small(FlowMatching, POINTS, awake=False).log_likelihood(torch.ones(1, 2)).float(),
        2 * normal.log_prob(torch.ones(1)),
    )


@ALL
def test_weights_in_half_precision_train_and_sample(cls):
    model = small(cls).bfloat16()
    assert model.sample(torch.arange(2), steps=2).isfinite().all()
    batch = type("Batch", (), {"image": torch.zeros(2, 1, 8, 8, dtype=torch.bfloat16)})
    assert next(iter(model.validation_step(batch, 0).values())).isfinite().all()


def test_options_without_effect_on_points_and_pairs_across_classes_are_refused():
    with pytest.raises(UserError, match="clip has no effect on points"):
        small(DDPM, POINTS).sample(torch.arange(2), clip=False)
    with pytest.raises(UserError, match="so that it would depend on the condition in training, but not in sampling"):
        small(FlowMatching, LABELS, conditional=True, optimal_transport=True)


def test_pairing_by_optimal_transport_shortens_the_paths():
    losses = []
    for optimal_transport in (False, True):
        model = small(FlowMatching, POINTS, awake=False, optimal_transport=optimal_transport)
        model.draw.seed("pairs")
        x = torch.randn(128, 2, generator=torch.Generator().manual_seed(0))
        losses.append(model._loss(x, None)["mse"].mean().item())  # the velocity's square: the network returns 0
    assert losses[1] < 0.5 * losses[0]


def test_commands_reject_invalid_options_without_a_traceback(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(untrained(small(DDPM, timesteps=50), tmp_path / "ddpm.ckpt"))
    for flags, said in (
        (["--steps", "0"], "steps is 0; it must be at least 1"),
        (["--steps", "2.5"], "2.5"),
        (["--steps", "51"], "steps is 51; this model has 50 time steps"),
        (["--sampler", "heun"], "Choose from: ddim, ddpm, dpm"),
        (["--guidance", "2"], "unconditional"),
        (["--guide", "x.ckpt"], "guide has no effect with guidance 1"),
        (["--guidance", "2", "--guide", "x.ckpt"], "x.ckpt"),
        (["--stesp", "3"], "has no option --stesp"),
    ):
        assert main(["sample", "--ckpt", path, "--n", "2", "--device", "cpu", *flags]) == 2
        err = capsys.readouterr().err
        assert said in re.sub(r"\s+", " ", err) and "Traceback" not in err, (flags, err)
        assert not (tmp_path / "samples.png").exists()
    assert main(["sample", "--ckpt", path, "--n", "2", "--device", "cpu", "--steps", "3", "--sampler", "ddpm"]) == 0
    assert main(["export", "--ckpt", path, "--out", "a.onnx"]) == 2
    assert "DDPM cannot be exported" in capsys.readouterr().err
