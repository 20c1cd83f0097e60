"""Layers of flows: each is undone by its inverse, and its log-determinant is that of the Jacobian."""

import math
from functools import partial

import pytest
import torch
from torch.autograd.functional import jacobian

from genbench.networks.coupling import (
    ActNorm,
    AffineCoupling,
    Chain,
    FactorOut,
    Flatten,
    InvertibleConv,
    Regroup,
    Squeeze,
    ToLogits,
    fully_connected,
    initialize,
    one_convolution,
    residual,
    three_convolutions,
)

CONVOLUTIONS = partial(residual, width=5, blocks=1)
LAYERS = {
    "logits": (lambda: ToLogits(0.05), (1, 2, 2)),
    "squeeze": (Squeeze, (2, 4, 2)),
    "squeeze by checkerboard": (lambda: Squeeze((0, 3, 1, 2)), (1, 4, 4)),
    "regroup": (lambda: Regroup((0, 2, 3, 1)), (8, 1, 2)),
    "flatten": (lambda: Flatten((3, 2, 2)), (3, 2, 2)),
    "factor out": (lambda: FactorOut((4, 2, 2), Chain(ActNorm(2), Flatten((2, 2, 2)))), (4, 2, 2)),
    "actnorm": (lambda: ActNorm(3), (3, 2, 2)),
    "actnorm of points": (lambda: ActNorm(3), (3,)),
    "convolution": (lambda: InvertibleConv(4), (4, 2, 3)),
    "coupling": (lambda: AffineCoupling(4, CONVOLUTIONS), (4, 2, 2)),
    "swapped coupling": (lambda: AffineCoupling(4, CONVOLUTIONS, swap=True), (4, 2, 2)),
    "sigmoid coupling": (lambda: AffineCoupling(4, partial(three_convolutions, width=5), scale="sigmoid"), (4, 2, 2)),
    "prior": (lambda: AffineCoupling(4, one_convolution), (4, 2, 2)),
    "coupling of points": (lambda: AffineCoupling(3, partial(fully_connected, width=5, blocks=1), swap=True), (3,)),
}


def trained(layer, seed=0):
    """The layer in float64 with random weights, as if it had been trained."""
    draw = torch.Generator().manual_seed(seed)
    layer = layer.double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn(p.shape, generator=draw, dtype=p.dtype) * 0.3)
        for name, b in layer.named_buffers():
            if name.endswith(("mean", "log_std")):
                b.copy_(torch.randn(b.shape, generator=draw))
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_has_an_exact_inverse_and_the_log_determinant_of_its_jacobian(name):
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    layer, x = trained(build()), torch.rand(3, *shape, dtype=torch.float64) * 2 - 1
    z, log_det = layer(x)
    torch.testing.assert_close(layer.inverse(z), x, rtol=0, atol=1e-12)
    expected = []
    for image in x:
        matrix = jacobian(lambda one: layer(one[None])[0][0], image).reshape(x[0].numel(), x[0].numel())
        expected.append(torch.linalg.slogdet(matrix).logabsdet)
    torch.testing.assert_close(log_det.expand(3), torch.stack(expected), rtol=0, atol=1e-10)


def test_squeezing_puts_the_pixels_of_a_block_in_groups_of_channels():
    x = torch.arange(8.0).reshape(1, 2, 2, 2)  # two channels of a 2×2 image
    assert Squeeze()(x)[0].flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert Squeeze((0, 3, 1, 2))(x)[0].flatten().tolist() == [0, 4, 3, 7, 1, 5, 2, 6]
    back = Regroup((0, 2, 3, 1))  # from the order of the checkerboard to the order of the rows
    assert torch.equal(Chain(Squeeze((0, 3, 1, 2)), back)(x)[0], Squeeze()(x)[0])


def test_the_halves_of_a_squeezed_image_are_the_colors_of_a_checkerboard():
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    color = ((rows + columns) % 2).float()[None, None]
    first, second = Squeeze((0, 3, 1, 2))(color)[0].chunk(2, 1)
    assert (first == 0).all() and (second == 1).all()


def test_a_coupling_starts_without_effect_and_does_not_change_the_half_it_reads():
    x = torch.randn(2, 4, 3, 3)
    coupling = AffineCoupling(4, CONVOLUTIONS)
    assert torch.equal(coupling(x)[0], x) and (coupling(x)[1] == 0).all()
    z = trained(coupling)(x.double())[0].float()
    assert torch.equal(z[:, :2], x[:, :2]) and not torch.isclose(z[:, 2:], x[:, 2:]).any()


def test_a_convolution_starts_as_a_rotation():
    torch.manual_seed(0)
    conv = InvertibleConv(12).double()
    z, log_det = conv(torch.eye(12, dtype=torch.float64).view(12, 12, 1, 1))
    matrix = z.view(12, 12)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(12, dtype=torch.float64), rtol=0, atol=1e-6)
    assert abs(log_det.item()) < 1e-5


@pytest.mark.parametrize("channels", [1, 2, 7, 48])
def test_the_inverse_of_a_convolution_is_accurate_in_float32(channels):
    torch.manual_seed(0)
    conv, x = InvertibleConv(channels), torch.randn(5, channels, 3, 3)
    with torch.no_grad():
        for p in conv.parameters():
            p.add_(0.05 * torch.randn_like(p))
    assert (conv.inverse(conv(x)[0]) - x).abs().max() < 1e-5


def test_initialization_gives_zero_mean_and_unit_variance_once():
    torch.manual_seed(0)
    x = torch.randn(64, 4, 3, 3) * torch.tensor([0.1, 1, 5, 2]).view(4, 1, 1) + 3
    flow = Chain(ActNorm(4), InvertibleConv(4), ActNorm(4))
    first, last = flow.layers[0], flow.layers[2]
    assert not first.initialized and not last.initialized
    initialize(flow, x)
    assert first.initialized and last.initialized and not last.measures
    for z in (first(x)[0], flow(x)[0]):
        assert z.mean((0, 2, 3)).abs().max() < 1e-5
        torch.testing.assert_close(z.var((0, 2, 3), unbiased=False), torch.ones(4), rtol=0, atol=1e-4)
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    initialize(flow, 2 * x + 1)
    assert all(torch.equal(before[name], value) for name, value in flow.state_dict().items())


def test_a_restored_flow_is_not_initialized_again():
    flow, restored = Chain(ActNorm(2)), Chain(ActNorm(2))
    initialize(flow, torch.randn(8, 2) * 3)
    restored.load_state_dict(flow.state_dict())
    initialize(restored, torch.randn(8, 2) * 7)
    assert torch.equal(restored.layers[0].log_std, flow.layers[0].log_std)


def test_a_channel_without_variance_stays_finite():
    flow = Chain(ActNorm(2))
    initialize(flow, torch.ones(8, 2))
    z, log_det = flow(torch.ones(8, 2))
    assert (z == 0).all() and torch.isfinite(log_det).all()


@pytest.mark.parametrize("alpha", [0.05, 1e-6])
def test_logits_are_those_of_the_dequantized_pixels(alpha):
    levels = torch.tensor([0.0, 0.5, 128.0, 255.999, 256.0], dtype=torch.float64)  # on the edges of bins, in [0, 256]
    x = (levels - 0.5) / 127.5 - 1
    z, log_det = ToLogits(alpha)(x.view(1, 1, 1, 5))
    p = alpha + (1 - 2 * alpha) * levels / 256
    torch.testing.assert_close(z.flatten(), torch.logit(p), rtol=1e-9, atol=1e-9)
    by_hand = (math.log((1 - 2 * alpha) * 127.5 / 256) - p.log() - (1 - p).log()).sum()
    torch.testing.assert_close(log_det, by_hand[None], rtol=1e-9, atol=0)
    assert torch.isfinite(ToLogits(alpha)(x.float().view(1, 1, 1, 5))[0]).all()
