"""Passes through networks are counted exactly, without changing what the networks compute."""

import pytest
import torch
from torch import nn

from genbench.core.batch import DataSpec
from genbench.core.passes import count_passes, counting
from genbench.models import DCGAN, GAN
from genbench.networks.pixelcnn import GatedPixelCNN
from genbench.samplers.pixelcnn import draw, draw_naively
from tests.helpers.abilities import Untrained

SPEC = DataSpec((1, 16, 16))


def gan():
    torch.manual_seed(0)
    return DCGAN(SPEC, latent_dim=4, width=4).eval()


def test_samples_are_the_same_bit_for_bit_and_networks_are_left_as_they_were():
    model, seeds = gan(), torch.arange(5)
    expected = model.sample(seeds)
    with counting(model) as passes:
        assert torch.equal(model.sample(seeds), expected)
    assert passes == {model.generator: 5, model.discriminator: 0}
    model.sample(seeds)
    with pytest.raises(ZeroDivisionError), counting(model):
        raise ZeroDivisionError
    model.sample(seeds)
    assert passes[model.generator] == 5 and model.generator._compiled_call_impl is None


def test_hooks_of_a_network_still_run():
    model, seen = gan(), []
    model.generator.register_forward_hook(lambda net, inputs, output: seen.append(len(output)))
    with counting(model):
        model.sample(torch.arange(3))
    assert seen == [3]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_network_is_counted_and_not_compiled_again(backend):
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    model, seeds = gan(), torch.arange(8)
    model.generator.compile(backend=backend)
    with torch.no_grad():
        expected = model.sample(seeds)
        for _ in range(12):  # more than the limit of compilations
            with counting(model) as passes:
                assert torch.equal(model.sample(seeds), expected)
                model.sample(seeds)
            assert passes[model.generator] == 16
    assert counters["stats"]["unique_graphs"] == 1
    assert model.generator._compiled_call_impl is not None


def test_a_network_in_a_list_or_in_a_part_counts_itself_and_a_layer_in_a_network_does_not():
    model = Untrained(SPEC)
    model.steps, model.part = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)]), GAN(SPEC, latent_dim=4, hidden=[4])
    model.twice = model.net  # the same network in two attributes
    with counting(model) as passes:
        model.net(torch.zeros(2, 1))
        for step in model.steps:
            step(input=torch.zeros(7, 3))
        model.part.sample(torch.arange(4))
    assert list(passes.values()) == [2, 7, 7, 4, 0]


def test_the_first_tensor_with_rows_says_how_many_samples_pass():
    model = Untrained(SPEC)
    model.net = Scaled()
    with counting(model) as passes:
        model.net(2.0, torch.tensor(0.5), x=torch.zeros(6, 2))
        assert passes[model.net] == 6
        model.net(2.0, torch.tensor(0.5), x=None)
    assert passes[model.net] == 6


class Scaled(nn.Module):
    def forward(self, factor, time, x):
        return None if x is None else factor * time * x


@pytest.mark.parametrize("channels", [1, 3])
def test_cached_and_naive_sampling_of_a_pixelcnn_pass_once_for_each_value(channels):
    model = Untrained(SPEC)
    model.net = GatedPixelCNN(4, channels, 6, 2, kernel=3).eval()
    for way in (draw, draw_naively):
        with counting(model) as passes:
            way(model.net, torch.rand(5, channels, 4, 3))
        assert passes[model.net] == 5 * channels * 4 * 3


def test_nothing_is_counted_outside():
    model = gan()
    count_passes(model.generator, 3)
    with counting(model) as passes:
        count_passes(model.generator, 3)
    count_passes(model.generator, 3)
    assert passes[model.generator] == 3
