"""SegmentationUNet: Ronneberger, Fischer & Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, https://arxiv.org/abs/1505.04597. Dice loss: Milletari et al., "V-Net", 3DV 2016."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from torch import Tensor
from torch.nn.functional import cross_entropy

from genbench.core.arguments import Bounds, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.precision import to_float32
from genbench.networks.unet import UNet, refuse_stride
from genbench.objectives.segmentation import dice_loss


class SegmentationUNet(GenerativeModule):
    """Semantic segmentation: predicts a class for each pixel.

    Args:
        width: Channels at full resolution; doubled at each downsampling, up to 8 times
        depth: Number of downsampling layers; the sides of images must be multiples of 2^depth
        skips: Use skip connections from the encoder to the decoder at each resolution
        loss: Cross-entropy, Dice loss, or the sum of both
    """

    changeable = ("loss",)

    def __init__(
        self,
        spec: DataSpec | None = None,
        width: Width = 32,
        depth: Annotated[int, Bounds(at_least=1, at_most=16)] = 4,
        skips: bool = True,
        loss: Literal["cross_entropy", "dice", "both"] = "cross_entropy",
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        if self.spec.target != "mask":
            raise UserError(
                "SegmentationUNet needs masks, but this data has none. Choose data with masks, such as "
                "`--data Shapes --data.target mask`."
            )
        self.loss = loss
        self.net = UNet(self.spec.channels, len(self.spec.classes), width, depth, skips)
        self.stride = self.net.stride
        refuse_stride(self.spec.size, self.stride, "SegmentationUNet")

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        logits, mask = self.segment(batch.image), batch.mask  # [B, K, H, W], [B, H, W]
        assert mask is not None  # the data's target is `mask`
        terms = {"cross_entropy": cross_entropy(to_float32(logits), mask), "dice": dice_loss(logits, mask)}
        return {name: term for name, term in terms.items() if self.loss in (name, "both")}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Mean cross-entropy over the pixels of each image, [B] nats."""
        assert batch.mask is not None
        each = cross_entropy(to_float32(self.segment(batch.image)), batch.mask, reduction="none")
        return {"cross_entropy": each.mean((1, 2))}

    def segment(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K, H, W]."""
        return self.net(x)
