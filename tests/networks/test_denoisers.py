"""The networks of diffusion and flow models: shapes, conditions, and what they are before training."""

import pytest
import torch

from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.networks.denoiser import DenoiserSettings
from genbench.networks.dit import DiT
from genbench.networks.embedding import sinusoidal
from genbench.networks.point_denoiser import PointDenoiser
from genbench.networks.unet_denoiser import Attention, UNetDenoiser, normalization

SMALL = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "heads": 2}


def unet(inputs=1, outputs=1, size=8, **settings):
    return UNetDenoiser(inputs, outputs, size, **SMALL | settings)


def dit(inputs=1, outputs=1, size=8, **settings):
    return DiT(inputs, outputs, size, **{"width": 16, "depth": 2, "patch": 2, "heads": 2} | settings)


def mlp(inputs=2, outputs=2, size=0, **settings):
    return PointDenoiser(inputs, outputs, width=16, **settings)


def awake(net):
    """The network as after training: no parameter is zero."""
    torch.manual_seed(0)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return net.eval()


def example(build, batch=3, inputs=None):
    return torch.randn(batch, inputs or 2) if build is mlp else torch.randn(batch, inputs or 1, 8, 8)


ALL = pytest.mark.parametrize("build", [unet, dit, mlp])


@pytest.mark.parametrize("build", [unet, dit])
@pytest.mark.parametrize(("inputs", "outputs", "size"), [(1, 1, 8), (3, 6, 8), (1, 2, 12)])
def test_images_keep_their_size(build, inputs, outputs, size):
    net = awake(build(inputs, outputs, size))
    assert net(torch.randn(2, inputs, size, size), torch.rand(2)).shape == (2, outputs, size, size)


def test_points_keep_their_shape():
    assert awake(mlp(2, 4))(torch.randn(5, 2), torch.rand(5)).shape == (5, 4)


@ALL
@pytest.mark.parametrize("condition", [{}, {"classes": 3}, {"words": 5, "length": 4}, {"times": 2}])
def test_the_output_is_zero_before_training_and_every_parameter_can_be_trained(build, condition):
    torch.manual_seed(0)
    net, x = build(**condition), example(build)
    time = torch.rand(3, 2) if "times" in condition else torch.rand(3)
    label = {"classes": torch.tensor([0, 1, 3]), "words": torch.tensor([[1, 2, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0]])}
    given = next((label[key] for key in condition if key in label), None)
    assert not net(x, time, given).any()
    awake(net).train()(x, time, given).square().sum().backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in still if "key" not in name]  # softmax ignores a constant in all keys


@ALL
def test_time_and_class_change_the_output_and_the_null_condition_is_the_last_class(build):
    net, x, time = awake(build(classes=3)), example(build), torch.full((3,), 0.5)
    label = torch.zeros(3, dtype=torch.int64)
    out = net(x, time, label)
    assert not torch.allclose(out, net(x, time / 2, label)) and not torch.allclose(out, net(x, time, label + 1))
    assert torch.equal(net(x, time), net(x, time, label + 3))


@ALL
def test_two_times_are_told_apart(build):
    net, x = awake(build(times=2)), example(build)
    one, other = torch.tensor([[0.2, 0.7]]).expand(3, 2), torch.tensor([[0.7, 0.2]]).expand(3, 2)
    assert not torch.allclose(net(x, one), net(x, other))


@ALL
def test_padding_of_captions_has_no_influence_and_the_null_caption_is_padding_alone(build):
    net, x, time = awake(build(words=5, length=4)), example(build), torch.rand(3)
    caption = torch.tensor([[1, 2, 0, 0], [4, 0, 0, 0], [3, 3, 2, 1]])
    with torch.no_grad():
        out = net(x, time, caption)
        net.embedding.caption.word.weight[0] += 5.0  # the vector of padding
        net.embedding.caption.position[3:] += 5.0  # the places that are padding in the first two captions
        torch.testing.assert_close(net(x, time, caption)[:2], out[:2], atol=1e-5, rtol=1e-5)
        empty = net(x, time, torch.zeros_like(caption))
        assert empty.isfinite().all() and torch.equal(empty, net(x, time))
        assert not torch.allclose(empty, out)
        assert not torch.allclose(net(x, time, caption.flip(0)), net(x, time, caption))


@ALL
def test_an_image_does_not_depend_on_the_others_of_its_batch(build):
    net, x, time = awake(build(classes=3)), example(build), torch.rand(3)
    label = torch.arange(3)
    each = torch.cat([net(x[k : k + 1], time[k : k + 1], label[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(net(x, time, label), each, atol=1e-5, rtol=1e-5)


@ALL
def test_float32_images_pass_through_half_precision_weights(build):
    net = awake(build()).bfloat16()
    out = net(example(build), torch.rand(3))
    assert out.dtype == torch.bfloat16 and out.isfinite().all()


def test_attention_is_at_the_chosen_sides_and_in_the_middle():
    def sides(**settings):
        net, found = unet(size=16, multipliers=[1, 1, 1], **settings), []
        for layer in net.modules():
            if isinstance(layer, Attention):
                layer.register_forward_hook(lambda layer, given, out: found.append(out.shape[-1]))
        net(torch.randn(1, 1, 16, 16), torch.rand(1))
        return found

    assert sides(attention=[]) == [4]  # the middle
    assert sides(attention=[8]) == [8, 4, 8, 8]  # one block down, two up
    assert sides(attention=[16, 4]).count(16) == 3


def test_the_unet_computes_in_channels_last():
    net, seen = unet(width=16), []
    net.middle[0].register_forward_hook(lambda layer, given, out: seen.append(out))
    net(torch.randn(2, 1, 8, 8), torch.rand(2))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert net.down[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_patch_is_read_and_written_as_channels():
    """pixel_unshuffle: channel 4·c + 2·row + column."""
    net = awake(unet(1, 1, 8, patch=2, multipliers=[1]))
    seen = []
    net.first.register_forward_hook(lambda layer, given, out: seen.append(given[0]))
    x = torch.arange(64.0).view(1, 1, 8, 8)
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.copy_(torch.arange(4))
        out = net(x, torch.rand(1))[0, 0]
    assert torch.equal(seen[0][0, :, 1, 2], torch.tensor([20.0, 21, 28, 29]))
    assert torch.equal(out, torch.tensor([[0.0, 1], [2, 3]]).repeat(4, 4))


def test_blocks_of_a_dit_are_the_identity_before_training():
    """adaLN-Zero: Peebles & Xie 2023, section 3.2."""
    net, tokens = dit(), torch.randn(2, 16, 16)
    for block in net.blocks:
        assert torch.equal(block(tokens, torch.randn(2, 16), None, None), tokens)


def test_patches_of_a_dit_are_put_back_in_their_places():
    net = awake(dit(1, 1, 8, patch=4))
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.copy_(torch.arange(16))  # one value for each pixel of a patch
        out = net(torch.randn(1, 1, 8, 8), torch.rand(1))[0, 0]
    assert torch.equal(out, torch.arange(16.0).view(4, 4).repeat(2, 2))


def test_groups_of_the_normalization_have_at_least_4_channels():
    for channels in (*range(1, 200), 256, 512):
        layer = normalization(channels)
        assert channels % layer.num_groups == 0 and layer.num_groups <= 32
        assert layer.num_groups == 1 or channels // layer.num_groups >= 4
    assert [normalization(c).num_groups for c in (32, 64, 128, 256)] == [8, 16, 32, 32]


def test_embeddings_of_times_are_cosines_and_sines_at_frequencies_from_1_to_1_by_10000():
    found = sinusoidal(torch.tensor([0.0, 250.0]), 8)
    assert found[0].tolist() == [1] * 4 + [0] * 4
    angle = 250 / 10000 ** (torch.arange(4) / 4)
    torch.testing.assert_close(found[1], torch.cat([angle.cos(), angle.sin()]))


def test_captions_need_a_width_that_their_attention_heads_divide():
    spec = DataSpec((1, 8, 8), target="caption", vocabulary=("", "red"), caption_length=2)
    with pytest.raises(UserError, match=r"multiple of the 4 heads.*Set `--model.network.width` to a multiple of 4"):
        DenoiserSettings(width=6).build((3,), spec, conditional=True)


IMAGES, POINTS = DataSpec((1, 8, 8)), DataSpec((2,))


@pytest.mark.parametrize(
    ("settings", "spec", "said"),
    [
        ({"multipliers": [1, 1, 1, 1, 1]}, IMAGES, "halves the side 4 times.*multiples of 16, but these have 8 pixels"),
        ({"kind": "dit", "patch": 3}, IMAGES, "patches of 3×3 pixels, but these have 8 pixels"),
        ({"kind": "dit", "width": 18}, IMAGES, "model.network.width is 18; it must be a multiple of 4"),
        ({"width": 6, "heads": 4}, IMAGES, "Attention over 6 channels cannot be divided into"),
        ({"multipliers": []}, IMAGES, "model.network.multipliers is empty"),
        ({"multipliers": [0]}, IMAGES, "model.network.multipliers is 0; it must be at least 1"),
        ({"multipliers": 2}, IMAGES, "model.network.multipliers is 2; it must be a list of numbers"),
        ({"width": [2]}, IMAGES, r"model.network.width is \[2\]; it must be a single value"),
        ({"patch": 3}, IMAGES, "patches of 3×3 pixels and halves the side 2 times.*multiples of 12, but these have 8"),
        ({"depth": 2}, IMAGES, "model.network.depth is set, but this network is unet, for images"),
        (
            {"kind": "mlp"},
            IMAGES,
            "model.network.kind is mlp, which is for points or .* vectors, but this model has images",
        ),
        (
            {"kind": "unet"},
            POINTS,
            "model.network.kind is unet, which is for images or .* has points.*Set `--model.network.kind mlp`",
        ),
        ({"kind": "u-net"}, IMAGES, "model.network.kind is 'u-net'. Choose from: unet, dit, mlp.*Did you mean"),
        (
            {"blocks": 1},
            POINTS,
            "this network is mlp, for points .*`--model.network.kind mlp` drops the settings of other",
        ),
        ({"widht": 4}, IMAGES, "Unknown `model.network.widht`.*Did you mean"),
        ({"dropout": 1.0}, IMAGES, "model.network.dropout is 1.0; it must be below 1"),
        ({"blocks": 0}, IMAGES, "model.network.blocks is 0; it must be at least 1"),
    ],
)
def test_invalid_settings_are_rejected(settings, spec, said):
    with pytest.raises(UserError, match=said):
        DenoiserSettings.of(settings).build(spec.shape, spec)


def test_the_kind_follows_the_data():
    assert isinstance(DenoiserSettings.of(None).build((2,), POINTS), PointDenoiser)
    assert isinstance(DenoiserSettings.of({"width": 8}).build((1, 8, 8), IMAGES), UNetDenoiser)
    assert isinstance(DenoiserSettings.of({"kind": "dit", "width": 16}).build((1, 8, 8), IMAGES), DiT)
