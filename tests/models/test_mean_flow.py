"""MeanFlow: one step is exact for known average velocities, captions and labels, and settings that do not fit."""

import math

import pytest
import torch
from lightning import Trainer

from genbench.callbacks import MaxImages
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.noise import per_seed
from genbench.data import Ring
from genbench.models import MeanFlow
from genbench.samplers import flow
from genbench.testing.recipe import QUIET
from tests.objectives.test_mean_flow import of_gaussian

POINTS = DataSpec((2,))
LABELED = Ring(target="label").spec


def small(spec=POINTS, **arguments):
    return MeanFlow(spec, **{"network": {"width": 16, "depth": 1}} | arguments)


def fit(model, images):
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, callbacks=[MaxImages(images)], limit_val_batches=0, **QUIET
    )
    trainer.fit(model, datamodule=Ring(target=model.spec.target, batch_size=100))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_with_the_true_average_velocity_of_a_gaussian_any_number_of_steps_is_exact(steps):
    mean, std = 0.7, 0.3
    model = small().double()
    model.network.forward = of_gaussian(mean, std)
    seeds = torch.arange(50)
    noise = per_seed(torch.randn, seeds, (2,)).double()
    torch.testing.assert_close(model.sample(seeds, steps=steps), mean + std * noise, rtol=0, atol=1e-6)  # float32 times


def test_each_step_goes_from_one_time_to_the_next():
    pairs = []

    def velocity(x, r, t):
        pairs.append((t, r))
        return torch.full_like(x, t**2)

    x = flow.mean_flow(velocity, torch.zeros(1), torch.tensor([1.0, 0.5, 0.0]))
    assert pairs == [(1.0, 0.5), (0.5, 0.0)]
    assert x.item() == pytest.approx(-(0.5 * 1 + 0.5 * 0.25))


def test_labels_reach_the_network_in_training_and_sampling():
    model = small(LABELED, conditional=True, optimizer={"lr": 0.01})
    fit(model, 2000)
    model.eval()
    seeds = torch.zeros(2, dtype=torch.int64)
    one, two = model.sample(seeds, condition=torch.tensor([0, 1]))
    assert (one - two).abs().max() > 1e-3
    with pytest.raises(UserError, match="Pass one label per image"):
        model.sample(seeds)


def test_the_derivative_of_a_part_of_the_batch_gets_that_parts_labels():
    model = small(LABELED, conditional=True)
    torch.nn.init.normal_(model.network.last[1].weight)
    calls = []
    forward = model.network.forward
    model.network.forward = lambda z, times, condition: calls.append((times, condition)) or forward(z, times, condition)
    label = torch.arange(64) % 2
    error = model._error(Batch(torch.randn(64, 2), label))
    (_, part), (times, whole) = calls
    assert torch.equal(whole, label) and torch.equal(part, label[times[:, 1] > 0]) and 0 < len(part) < 64
    assert error.shape == (64,)


def test_training_reduces_the_error_of_one_step():
    torch.manual_seed(0)
    model = small(network={"width": 32, "depth": 2}, optimizer={"lr": 0.003})
    seeds = torch.arange(256)
    before = model.eval().sample(seeds).std().item()
    fit(model.train(), 30_000)
    assert model.eval().sample(seeds).std().item() < before
    assert math.isfinite(model.sample(seeds, steps=2).sum().item())


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_steps_must_be_a_positive_whole_number(steps):
    with pytest.raises(UserError, match="steps"):
        small().sample(2, steps=steps)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"interval_share": 1.5}, "between 0 and 1"),
        ({"log_std": 0.0}, "above 0"),
        ({"weight_constant": 0.0}, "above 0"),
        ({"weight_power": -1.0}, "at least 0"),
        ({"conditional": True}, "no labels"),
    ],
)
def test_settings_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        small(**arguments)
