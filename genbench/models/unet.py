"""UNet: Ronneberger, Fischer & Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015,
https://arxiv.org/abs/1505.04597, trained with an L1 or L2 loss for image-to-image translation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from genbench.core.arguments import Bounds, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.core.precision import to_float32
from genbench.networks import unet


class UNet(GenerativeModule):
    """Image-to-image translation, such as colorization and denoising.

    Args:
        width: Channels at full resolution; doubled at each downsampling, up to 8 times
        depth: Number of downsampling layers; the sides of images must be multiples of 2^depth
        skips: Use skip connections from the encoder to the decoder at each resolution
        loss: Mean absolute (l1) or squared (l2) difference of pixels in [-1, 1]
    """

    changeable = ("loss",)
    domains = ("B",)

    def __init__(
        self,
        spec: DataSpec | None = None,
        width: Width = 32,
        depth: Annotated[int, Bounds(at_least=1, at_most=16)] = 4,
        skips: bool = True,
        loss: Literal["l1", "l2"] = "l1",
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        unet.refuse_single(self.spec, "UNet")
        self.loss = loss
        self.net = unet.UNet(self.spec.source[0], self.spec.channels, width, depth, skips)
        self.stride = self.net.stride
        unet.refuse_stride(self.spec.size, self.stride, "UNet")

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        distance = {"l1": l1_loss, "l2": mse_loss}[self.loss]
        return {self.loss: distance(to_float32(self.net(batch.source)), to_float32(batch.image))}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """L1 distance of each image from its target, [B]."""
        return {"l1": (to_float32(self.net(batch.source)) - to_float32(batch.image)).abs().flatten(1).mean(1)}

    def translate(self, x: Tensor, *, to: str = "B") -> Tensor:
        """[B, C', H, W] -> [B, C, H, W] in [-1, 1]."""
        return self.net(x).clamp(-1, 1)
