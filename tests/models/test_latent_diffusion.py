"""LatentDiffusion: standardized latents of several kinds of autoencoders, its samplers, and what it refuses."""

import json

import pytest
import torch

import genbench
from genbench.callbacks import Checkpoint
from genbench.cli.flags import own_options
from genbench.core import composition
from genbench.core.batch import DataSpec
from genbench.core.capabilities import Reconstructs, Samples, options
from genbench.core.errors import UserError
from genbench.core.noise import SeedNoise
from genbench.core.passes import counting
from genbench.core.units import Images
from genbench.models import GAN, VAE, VQVAE, Autoencoder, ConditionalVAE, LatentDiffusion
from genbench.models.latent_diffusion import OBJECTIVES
from genbench.objectives import flow_matching, mean_flow
from genbench.testing import contracts
from genbench.testing.recipe import Recipe
from tests.helpers.small import RandomImages, run, same_weights, untrained, validate

SPEC = DataSpec((1, 8, 8))
LABELS = DataSpec((1, 8, 8), "label", ("zero", "one", "two"))
SMALL = {"width": 8, "multipliers": [1], "blocks": 1, "attention": [2], "heads": 2}


def vqvae(spec=SPEC):
    torch.manual_seed(0)
    return VQVAE(spec, num_embeddings=8, embedding_dim=3, width=8, blocks=1)


def vae(spec=SPEC):
    torch.manual_seed(0)
    return VAE(spec, latent_dim=3, network="mlp", hidden=[8])


def small(part, **arguments):
    torch.manual_seed(0)
    network = SMALL if isinstance(part, VQVAE) else {"width": 8, "depth": 1}
    return LatentDiffusion(part.spec, autoencoder=composition.described(part), network=network, **arguments)


def test_its_checkpoint_contains_the_autoencoder(tmp_path):
    first = untrained(vqvae(), tmp_path / "part.ckpt")
    model = LatentDiffusion(SPEC, autoencoder=str(first), network=SMALL)
    before = {name: value.clone() for name, value in model.autoencoder.state_dict().items()}
    run(model, images=64, callbacks=[Checkpoint(every_images=Images(64))], folder=tmp_path / "whole")
    first.unlink()
    loaded = genbench.load(next((tmp_path / "whole").rglob("last.ckpt")))
    assert isinstance(loaded, Samples) and isinstance(loaded, Reconstructs)
    assert same_weights(loaded.autoencoder, model.autoencoder)
    assert all(torch.equal(before[name], value) for name, value in loaded.autoencoder.state_dict().items())
    images = loaded.sample(torch.arange(4), steps=3)
    assert images.shape == (4, 1, 8, 8) and images.abs().max() <= 1
    torch.testing.assert_close(images[2:], loaded.sample(torch.tensor([2, 3]), steps=3))


@pytest.mark.parametrize("part", [vqvae, vae], ids=["grids", "vectors"])
def test_latents_have_zero_mean_and_unit_variance_in_each_channel(part):
    model = small(part())
    data = RandomImages(SPEC)
    run(model, images=40)  # each of the forty images once
    x = torch.cat([batch.image for batch in [data.train.batch(torch.arange(40))]])
    z = model._latents(genbench.core.batch.from_stored(x))
    scaled = model.standardize(z).transpose(0, 1).flatten(1)
    torch.testing.assert_close(scaled.mean(1), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(1, correction=0), torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.standardize.inverse(model.standardize(z)), z)


@pytest.mark.parametrize(("objective", "sampler"), [(o, s) for o, each in OBJECTIVES.items() for s in each.samplers])
def test_each_sampler_inverts_the_noise_of_a_known_objective(objective, sampler):
    """With a network for latents that are all the same point, every sampler returns this point."""
    model = small(vae(), objective=objective).eval()
    point = torch.tensor([[0.3, -1.0, 2.0]])

    def net(x, time, condition=None):
        if objective == "ddpm":
            t = (time * 1000).round().long()
            tables = model.objective.diffusion.alpha, model.objective.diffusion.sigma
            alpha, sigma = (table[t][:, None].float() for table in tables)
            return (alpha * x - point) / sigma  # v of the noise (x - alpha * point) / sigma
        if objective == "edm":
            sigma = (4 * time).exp()[:, None]
            total = (sigma.square() + 1).sqrt()  # x is divided by it
            return (point - x / total) * total / sigma
        if objective == "consistency":
            sigma, least = (4 * time).exp()[:, None], model.objective.consistency.sigma_min
            total, above = (sigma.square() + 1).sqrt(), sigma - least
            return (point - x * total / (above.square() + 1)) * total / above  # x is divided by total
        return (x - point) / time[:, :1] if objective == "mean_flow" else (x - point) / time[:, None]

    noise = SeedNoise(torch.arange(5), (3,), torch.float64 if objective == "consistency" else torch.float32)
    z = model.objective.sample(net, noise, sampler, 10)
    torch.testing.assert_close(z, point.expand(5, 3).to(z.dtype), atol=1e-4, rtol=0)


ONE_STEP = ("mean_flow", "consistency")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_default_steps_and_sampler_follow_from_the_objective(objective):
    model, seeds = small(vae(), objective=objective).eval(), torch.arange(3)
    torch.nn.init.normal_(model.network.last[1].weight, std=0.1)
    found = options(model.sample)
    assert found["steps"] == (1 if objective in ONE_STEP else 25)
    assert found["sampler"] == OBJECTIVES[objective].samplers[0]
    assert own_options(model, [], "sample") == found
    with counting(model) as passes:
        default = model.sample(seeds)
    evaluations = {"edm": 49}.get(objective, found["steps"])  # Heun's method evaluates twice, but for the last step
    assert passes[model.network] == 3 * evaluations
    assert torch.equal(default, model.sample(seeds, **found))


@pytest.mark.parametrize("steps", [0, -1, 1.5])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_steps_must_be_a_positive_whole_number(objective, steps):
    model = small(vae(), objective=objective)
    with pytest.raises(UserError, match=f"steps is {steps}; it must be"):
        model.sample(torch.arange(2), steps=steps)
    if isinstance(steps, int):
        with pytest.raises(UserError, match=f"steps is {steps}; it must be"):
            model.sample(torch.arange(2), **own_options(model, ["--steps", str(steps)], "sample"))


@pytest.mark.parametrize("objective", ONE_STEP)
def test_objectives_of_one_step_refuse_guidance_and_are_trained_with_all_conditions(objective, tmp_path):
    model, seeds, labels = (
        small(vae(LABELS), objective=objective, conditional=True),
        torch.arange(2),
        torch.tensor([0, 1]),
    )
    assert model.condition_dropout == 0
    with pytest.raises(UserError, match=f"dropout is 0.5, but models of the objective {objective} are always"):
        small(vae(LABELS), objective=objective, conditional=True, condition_dropout=0.5)
    for given in ({"guidance": 2.0}, {"guide": str(tmp_path / "weak.ckpt")}, {"guidance_from": 0.5}):
        with pytest.raises(UserError, match=f"guidance does not work with objective {objective}"):
            model.sample(seeds, condition=labels, **given)
    with pytest.raises(UserError, match=f"trained with objective {objective}, whose samplers are: "):
        model.sample(seeds, condition=labels, sampler="heun")


def test_without_intervals_the_loss_of_mean_flow_is_that_of_flow_matching(monkeypatch):
    """Before weighting, for the same times and noise, and a network that ignores the second time and its scale."""
    model, z = small(vae(), objective="mean_flow"), torch.randn(6, 3)
    t, noise = torch.rand(6), torch.randn(6, 3)
    monkeypatch.setattr(mean_flow, "draw_intervals", lambda *_: (t, t))
    model.draw = lambda function, *shape: noise
    model.network.forward = lambda x, time, condition=None: x * time[:, :1]
    expected = flow_matching.loss(lambda x, time: x * time[:, None], z, noise, t)["mse"]
    torch.testing.assert_close(model.objective.score(model, z, None), expected)
    torch.testing.assert_close(model.objective.loss(model, z, None)["adaptive"], expected / (expected + 1e-3))


def test_the_intervals_of_consistency_are_doubled_over_the_budget(monkeypatch):
    model, seen = small(vae(), objective="consistency"), []
    loss = model.objective.consistency.loss
    model.objective.consistency.loss = lambda net, z, count, draw: seen.append(count) or loss(net, z, count, draw)
    monkeypatch.setattr(type(model.objective), "last_intervals", 40)
    run(model, images=48, limit_val_batches=0)
    assert seen == [10, 10, 20, 20, 40, 40]
    validate(model, [])
    assert set(seen[6:]) == {40}
    model.budget = None
    with pytest.raises(UserError, match="add a MaxImages callback"):
        model.objective.loss(model, torch.randn(4, 3), None)


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "edm"])  # edm has a config of its own
@pytest.mark.parametrize(
    "contract_test",
    [
        contracts.one_batch_can_be_learned,
        contracts.a_sample_depends_on_its_seed_alone,
        contracts.a_checkpoint_is_enough,
        contracts.interrupted_equals_uninterrupted,
        contracts.half_precision_stays_finite,
    ],
)
def test_the_other_objectives_pass_the_contract_tests(contract_test, objective, tmp_path):
    (tmp_path / "part.yaml").write_text(json.dumps({
        "model": {
            "class_path": "VQVAE",
            "init_args": {"num_embeddings": 8, "embedding_dim": 3, "width": 8, "blocks": 1},
        },
        "data": {"class_path": "Digits"},
    }))  # fmt: skip
    arguments = {
        "autoencoder": "runs/part/checkpoints/last.ckpt", "objective": objective, "network": SMALL, "conditional": True,
        "optimizer": {"class_path": "torch.optim.Adam", "lr": 0.003},
    }  # fmt: skip
    path = tmp_path / "whole.yaml"
    path.write_text(json.dumps({
        "model": {"class_path": "genbench.models.LatentDiffusion", "init_args": arguments},
        "data": {"class_path": "Digits"},
    }))  # fmt: skip
    contract_test(Recipe(path), tmp_path / "runs")


def test_classes_change_the_samples_and_guidance_of_one_does_not():
    model = small(vae(LABELS), conditional=True)
    torch.nn.init.normal_(model.network.last[1].weight, std=0.1)
    model.eval()
    seeds, labels = torch.arange(3), torch.tensor([0, 1, 2])
    plain = model.sample(seeds, condition=labels, steps=2)
    assert torch.equal(plain, model.sample(seeds, condition=labels, steps=2, guidance=1.0))
    assert not torch.equal(plain, model.sample(seeds, condition=labels, steps=2, guidance=4.0))
    assert not torch.equal(plain, model.sample(seeds, condition=labels.flip(0), steps=2))
    off = {"guidance_from": 1e5, "guidance": 4.0}  # no noise level lies in this interval
    torch.testing.assert_close(plain, model.sample(seeds, condition=labels, steps=2, **off))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GAN(SPEC, latent_dim=4, hidden=[8]), "encodes and decodes images without labels, which GAN does not"),
        (
            lambda: ConditionalVAE(DataSpec((1, 16, 16), "label", ("a", "b")), latent_dim=2, width=8),
            "without labels, which ConditionalVAE does not",
        ),
        (lambda: Autoencoder(DataSpec((1, 16, 16)), latent_dim=3), "was trained on images of 16×16×1"),
        (lambda: Autoencoder(DataSpec((2,)), latent_dim=3), "on points of 2, but the data has images .*Use other data"),
    ],
    ids=["no encoder", "encoder with labels", "other size", "points"],
)
def test_autoencoders_that_do_not_fit_are_refused(build, message):
    with pytest.raises(UserError, match=message):
        LatentDiffusion(SPEC, autoencoder=composition.described(build()))


def test_a_guide_in_the_latents_of_another_autoencoder_is_refused(tmp_path):
    part, seeds = vae(), torch.arange(2)
    model, same, other = small(part), small(part), small(vae())
    same.autoencoder.load_state_dict(model.autoencoder.state_dict())
    for p in other.autoencoder.parameters():
        torch.nn.init.normal_(p, std=0.1)
    paths = [str(untrained(each, tmp_path / f"{k}.ckpt")) for k, each in enumerate((same, other))]
    model.sample(seeds, steps=2, guidance=2.0, guide=paths[0])
    with pytest.raises(UserError, match="was trained in the latents of a different autoencoder"):
        model.sample(seeds, steps=2, guidance=2.0, guide=paths[1])


def test_settings_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UserError, match="Train an autoencoder first"):
        LatentDiffusion(SPEC, autoencoder=str(tmp_path / "missing.ckpt"))
    with pytest.raises(UserError, match="Set the checkpoint of an autoencoder to build on"):
        LatentDiffusion(SPEC)
    with pytest.raises(UserError, match="model.conditional is true, but this data has no labels"):
        small(vqvae(), conditional=True)
    with pytest.raises(UserError, match="sampler is ddim, but this LatentDiffusion was trained with objective edm"):
        small(vae()).sample(torch.arange(2), sampler="ddim")
    with pytest.raises(UserError, match="sampler is 'dim'. Choose from: ddim, ddpm"):
        small(vae()).sample(torch.arange(2), sampler="dim")
    with pytest.raises(UserError, match="steps is 0; it must be at least 1"):
        small(vae()).sample(torch.arange(2), steps=0)
    with pytest.raises(UserError, match="guidance is 2, but this LatentDiffusion is unconditional"):
        small(vae()).sample(torch.arange(2), guidance=2.0)
