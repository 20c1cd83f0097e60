"""A PixelCNN is a distribution: its order is causal, its probabilities add up, and both ways to sample agree."""

import itertools

import pytest
import torch

from genbench.networks.pixelcnn import GatedPixelCNN
from genbench.samplers.pixelcnn import choose, draw, draw_naively

KINDS = {
    "gray": {"values": 4, "channels": 1, "width": 6, "layers": 3},
    "color": {"values": 5, "channels": 3, "width": 48, "layers": 3},
    "one layer": {"values": 4, "channels": 2, "width": 16, "layers": 1},
    "codes": {"values": 7, "channels": 1, "width": 6, "layers": 2, "ordinal": False},
    "by class": {"values": 4, "channels": 2, "width": 24, "layers": 3, "classes": 3},
}


def network(**arguments):
    torch.manual_seed(0)
    net = GatedPixelCNN(**arguments).double()
    for parameter in net.parameters():  # far from the even guess of a new network
        parameter.data.mul_(3)
    return net


def label_of(net, n):
    return torch.arange(n) % net.classes if net.classes else None


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_depends_on_all_before_it_in_its_receptive_field_and_on_none_after(kind):
    net, size = network(**KINDS[kind], kernel=3), 4
    channels = net.channels
    entered = net.enter(torch.randint(net.values, (1, channels, size, size))).requires_grad_()
    each = entered.shape[1] // channels
    net.enter = lambda x: entered
    logits = net(torch.zeros(1, channels, size, size, dtype=torch.int64), label_of(net, 1))
    places = list(itertools.product(range(size), range(size), range(channels)))  # the order of the numbers
    for number, (i, j, c) in enumerate(places):
        (gradient,) = torch.autograd.grad(logits[0, :, c, i, j].square().sum(), entered, retain_graph=True)
        sees = gradient[0].unflatten(0, (channels, each)).abs().sum(1) > 0  # [C, H, W]
        for other, (k, m, d) in enumerate(places):
            if other >= number:
                assert not sees[d, k, m], f"{(i, j, c)} sees {(k, m, d)}"
        if number:
            k, m, d = places[number - 1]
            if m == j or m == j - 1:  # the neighbor before it
                assert sees[d, k, m]
        if i:
            assert sees[:, i - 1, max(j - 1, 0) : j + 2].all()


@pytest.mark.parametrize("layers", [1, 3])
def test_probabilities_of_all_images_of_two_by_two_pixels_sum_to_one(layers):
    net = network(values=2, channels=1, width=4, layers=layers)
    images = torch.tensor(list(itertools.product((0, 1), repeat=4))).view(16, 1, 2, 2)
    log_p = -torch.nn.functional.cross_entropy(net(images), images, reduction="none").flatten(1).sum(1)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert log_p.exp().std() > 0.01  # and they differ


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_cached_and_naive_sampling_give_the_same_values(kind, kernel):
    net = network(**KINDS[kind], kernel=kernel)
    u = torch.rand(3, net.channels, 5, 6, dtype=torch.float64)
    cached, naive = (way(net, u, label_of(net, 3)) for way in (draw, draw_naively))
    assert torch.equal(cached, naive)
    assert len(cached.unique()) > 2


def test_sample_frequencies_match_their_probabilities():
    net = network(values=2, channels=1, width=4, layers=2)
    images = torch.tensor(list(itertools.product((0, 1), repeat=4))).view(16, 1, 2, 2)
    with torch.no_grad():
        log_p = -torch.nn.functional.cross_entropy(net(images), images, reduction="none").flatten(1).sum(1)
    n = 20_000
    drawn = draw(net, torch.rand(n, 1, 2, 2, dtype=torch.float64)).flatten(1) @ torch.tensor([8, 4, 2, 1])
    frequency, p = drawn.bincount(minlength=16) / n, log_p.exp()
    assert ((frequency - p).abs() < 4.5 * (p * (1 - p) / n).sqrt()).all()


def test_the_value_chosen_is_where_the_probabilities_add_up_to_u():
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().expand(5, 3)
    assert choose(logits, torch.tensor([0.0, 0.19, 0.21, 0.69, 0.9999])).tolist() == [0, 0, 1, 1, 2]


def test_a_label_changes_every_value():
    net = network(**KINDS["by class"])
    x = torch.randint(4, (1, 2, 3, 3))
    a, b = (net(x, torch.tensor([k])) for k in (0, 1))
    assert ((a - b).abs().amax(1) > 0).all()
