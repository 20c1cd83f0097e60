"""Fully connected networks equal the corresponding matrix products."""

import torch
from torch import nn

from genbench.networks.mlp import mlp


def test_it_is_linear_layers_with_relu_between_them_and_none_at_the_end():
    net = mlp([4, 8, 6, 3])
    assert [type(layer) for layer in net] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    x = torch.randn(5, 4)
    expected = x
    for k in (0, 2, 4):
        expected = (expected.clamp(min=0) if k else expected) @ net[k].weight.T + net[k].bias
    torch.testing.assert_close(net(x), expected)
    assert net(x).min() < 0


def test_two_widths_are_one_linear_map():
    net = mlp([4, 3])
    assert len(net) == 1 and isinstance(net[0], nn.Linear)
    assert sum(p.numel() for p in net.parameters()) == 4 * 3 + 3


def test_its_input_is_not_changed():
    x = torch.randn(5, 4)
    kept = x.clone()
    mlp([4, 8, 3])(x)
    assert torch.equal(x, kept)
