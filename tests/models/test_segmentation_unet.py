"""SegmentationUNet: its masks are evaluated and pictured next to image and true mask."""

import torch

from genbench.core.image_grid import MASK_COLORS
from genbench.data import Shapes
from genbench.evaluation import protocol
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.galleries import Gallery
from genbench.models import SegmentationUNet


def test_masks_are_pictured_next_to_the_image_and_the_true_mask():
    data = Shapes(size=16, target="mask", train_images=8, val_images=12, test_images=8)
    kept = Gallery(reconstructions=5)
    model = SegmentationUNet(data.spec, width=2, depth=2)
    found = evaluate(model, data, protocol.load("quick"), pictures=kept).metrics
    assert 0 <= found["mean_iou"]["value"] <= 1
    sheet = kept.found["masks"].unflatten(0, (5, 3))
    rows = torch.randperm(12, generator=torch.Generator().manual_seed(0))[:5].sort().values
    batch = data.source("val").batch(rows)
    assert torch.equal(sheet[:, 0], batch.image)
    assert torch.equal(sheet[0, 2].permute(1, 2, 0), torch.tensor(MASK_COLORS, dtype=torch.uint8)[batch.mask[0].long()])
    assert {tuple(c) for c in sheet[:, 1].permute(0, 2, 3, 1).reshape(-1, 3).tolist()} <= set(MASK_COLORS)
