"""ConsistencyModel: its curriculum follows from images seen and settings, and settings that do not fit are refused."""

import pytest
import torch
from lightning import Trainer

from genbench.callbacks import MaxImages
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.noise import SeedNoise
from genbench.data import Ring
from genbench.models import ConsistencyModel
from genbench.testing.recipe import QUIET

POINTS = DataSpec((2,))


def small(spec=POINTS, **arguments):
    return ConsistencyModel(spec, **{"network": {"width": 32, "depth": 2}} | arguments)


def fit(model, images, batch_size=100):
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, callbacks=[MaxImages(images)], limit_val_batches=0, **QUIET
    )
    trainer.fit(model, datamodule=Ring(target=model.spec.target, batch_size=batch_size))


def test_the_number_of_intervals_is_doubled_over_the_budget():
    model = small(first_intervals=10, last_intervals=40)
    seen = []
    original = model.consistency.loss
    model.consistency.loss = lambda net, x, count, draw: seen.append(count) or original(net, x, count, draw)
    fit(model, 600)
    assert seen == [10, 10, 20, 20, 40, 40]


def test_a_number_of_images_replaces_the_budget():
    model = small(first_intervals=10, last_intervals=40, curriculum_images=300)
    seen = []
    for model.images_seen in (0, 100, 200, 300, 400):
        seen.append(model.intervals())
    assert seen == [10, 20, 40, 40, 40]


def test_without_a_budget_the_error_says_what_to_set():
    with pytest.raises(UserError, match="curriculum_images"):
        small().intervals()


def test_validation_uses_the_last_number_of_intervals():
    model, seen = small(last_intervals=640), []
    model.consistency.loss = lambda net, x, count, draw: seen.append(count) or torch.zeros(len(x))
    score = model.validation_step(Batch(torch.randn(5, 2)), 0)
    assert seen == [640] and score["consistency_loss"].shape == (5,)


def test_samples_of_one_and_two_steps_follow_the_algorithm():
    model, seeds = small().double().eval(), torch.arange(4)
    torch.nn.init.normal_(model.network.last[1].weight)
    denoise, noise = model.consistency.denoise, SeedNoise(seeds, (2,), torch.float64)
    with torch.no_grad():
        one = denoise(model.network, 80 * noise(), torch.full((4,), 80.0))
        two = denoise(model.network, one + (0.5**2 - 0.002**2) ** 0.5 * noise(), torch.full((4,), 0.5))
    torch.testing.assert_close(model.sample(seeds), one)
    torch.testing.assert_close(model.sample(seeds, steps=2, sigma_last=0.5), two)
    torch.testing.assert_close(model.sample(seeds[2:], steps=2, sigma_last=0.5), two[2:])


def test_training_moves_the_samples_to_the_data():
    model = small(optimizer={"lr": 0.003}, last_intervals=80)
    seeds = torch.arange(500)
    before = (model.eval().sample(seeds).norm(dim=1) - 1).abs().mean().item()
    fit(model.train(), 50_000)
    assert (model.eval().sample(seeds).norm(dim=1) - 1).abs().mean().item() < 0.6 * before


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"sigma_min": 80.0}, "must be larger"),
        ({"first_intervals": 20, "last_intervals": 10}, "must not be smaller"),
        ({"first_intervals": 0}, "at least 1"),
        ({"log_std": 0.0}, "above 0"),
        ({"log_mean": 100.0}, "must lie between the logarithms of sigma_min and sigma_max, -6.21 and 4.38"),
        ({"last_intervals": 2**31 - 1}, "at most 1000000"),
        ({"conditional": True}, "no labels"),
    ],
)
def test_settings_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        small(**arguments)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"steps": 0}, "at least 1"),
        ({"steps": 1.5}, "whole number"),
        ({"steps": 2, "sigma_last": 90.0}, "lie between"),
        ({"sigma_last": 1.5}, "no effect"),
        ({"steps": 10**9}, "at most 100000"),
    ],
)
def test_sampling_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        small().sample(2, **options)
