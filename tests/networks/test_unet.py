"""A U-Net keeps the image size, and its skip connections preserve details."""

import pytest
import torch
from torch.nn.functional import mse_loss

from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.models import SegmentationUNet
from genbench.networks.unet import UNet
from tests.helpers.small import Turns

SPEC = DataSpec((3, 16, 16), "mask", ("background", "thing"))


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("skips", [True, False])
def test_the_output_has_the_inputs_size(depth, skips):
    net = UNet(3, 5, width=4, depth=depth, skips=skips)
    assert net.stride == 2**depth
    for height, width in ((16, 16), (32, 16)):
        assert net(torch.rand(2, 3, height, width)).shape == (2, 5, height, width)


def test_without_skips_detail_is_lost():
    costs = {}
    for skips in (True, False):
        torch.manual_seed(0)
        net = UNet(1, 1, width=4, depth=2, skips=skips)
        optimizer = torch.optim.Adam(net.parameters(), 0.02)
        for _ in range(150):
            x = torch.rand(16, 1, 16, 16).round()
            cost = mse_loss(net(x), x)
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        costs[skips] = cost.item()
    assert costs[True] < 0.02 < 0.1 < costs[False]


def test_every_pixel_reaches_the_middle_of_the_output():
    net = UNet(1, 1, width=4, depth=4).eval()
    x = torch.rand(1, 1, 32, 32, requires_grad=True)
    net(x)[0, 0, 16, 16].backward()
    assert (x.grad != 0).float().mean() > 0.9


def test_sizes_that_do_not_halve_and_data_without_masks_are_rejected():
    with pytest.raises(UserError, match=r"multiples of 16, but the data has 24 pixels per side. Set `--data.size`"):
        SegmentationUNet(DataSpec((1, 24, 24), "mask", ("a", "b")))
    with pytest.raises(UserError, match="needs masks, but this data has none"):
        SegmentationUNet(DataSpec((1, 16, 16)))
    with pytest.raises(UserError, match="model.depth is 0; it must be at least 1"):
        SegmentationUNet(SPEC, depth=0)


@pytest.mark.parametrize("loss", ["cross_entropy", "dice", "both"])
def test_a_segmentation_learns_a_threshold_by_each_of_its_losses(loss):
    from genbench.core.batch import Batch

    torch.manual_seed(0)
    model = SegmentationUNet(SPEC, width=4, depth=1, loss=loss)
    model.turn = turns = Turns()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(40):
        x = torch.rand(8, 3, 16, 16) * 2 - 1
        optimizer.zero_grad()
        model.training_step(Batch(x, mask=(x[:, 0] > 0).long()), 0)
        sum(turns.terms["train"].values()).backward()
        optimizer.step()
    assert set(turns.terms["train"]) == ({"cross_entropy", "dice"} if loss == "both" else {loss})
    assert (model.segment(x).argmax(1) == (x[:, 0] > 0)).float().mean() > 0.95
