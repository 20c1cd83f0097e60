"""Guidance: the output is weak + weight·(strong - weak)."""

import pytest
import torch

from genbench.samplers.guidance import guided

X, TIME, LABEL, NULL = torch.randn(4, 2, 3, 3), torch.full((4,), 0.3), torch.arange(4), torch.full((4,), 9)


class Net:
    """A function of image, time and label that records its calls."""

    def __init__(self, scale=1.0):
        self.scale, self.batches = scale, []

    def __call__(self, x, time, condition):
        self.batches.append(len(x))
        label = 0 if condition is None else condition.view(-1, 1, 1, 1)
        return torch.sin(self.scale * x + time.view(-1, 1, 1, 1) + label)


def test_weight_1_is_the_network_alone_bit_for_bit():
    net = Net()
    found = guided(net, LABEL, weight=1.0, null=NULL)(X, TIME)
    assert net.batches == [4] and torch.equal(found, Net()(X, TIME, LABEL))


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_one_call_for_both_conditions_equals_two_calls(weight):
    net = Net()
    found = guided(net, LABEL, weight=weight, null=NULL)(X, TIME)
    strong, weak = Net()(X, TIME, LABEL), Net()(X, TIME, NULL)
    assert net.batches == [8]
    torch.testing.assert_close(found, (1 - weight) * weak + weight * strong)


def test_guidance_is_used_only_in_its_interval():
    net = Net()
    call = guided(net, LABEL, weight=3.0, null=NULL, active=lambda time: 0.2 < time < 0.4)
    for time, guided_here in ((0.1, False), (0.3, True), (0.5, False)):
        at = torch.full((4,), time)
        found, alone = call(X, at), Net()(X, at, LABEL)
        assert torch.equal(found, alone) != guided_here
    assert net.batches == [4, 8, 4]


@pytest.mark.parametrize("condition", [LABEL, None])
def test_autoguidance_uses_the_guide_with_the_same_condition(condition):
    guide = Net(0.5)
    found = guided(Net(), condition, weight=2.0, guide=guide)(X, TIME)
    expected = 2 * Net()(X, TIME, condition) - Net(0.5)(X, TIME, condition)
    assert guide.batches == [4]
    torch.testing.assert_close(found, expected)


def test_learned_variances_are_not_guided():
    found = guided(Net(), LABEL, weight=3.0, null=NULL, values=1)(X, TIME)
    assert torch.equal(found[:, 1:], Net()(X, TIME, LABEL)[:, 1:])
    everything = guided(Net(), LABEL, weight=3.0, null=NULL)(X, TIME)
    assert torch.equal(found[:, :1], everything[:, :1]) and not torch.equal(found, everything)
