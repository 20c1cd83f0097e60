"""The residual generator and the image pool of CycleGAN: Zhu, Park, Isola & Efros, "Unpaired Image-to-Image Translation
using Cycle-Consistent Adversarial Networks", ICCV 2017, https://arxiv.org/abs/1703.10593, sections 4 and 7.2. The
generator follows Johnson et al. 2016, https://arxiv.org/abs/1603.08155."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genbench.networks.pix2pix import Norm, normalized


class ResidualTranslator(nn.Sequential):
    """[B, inputs, H, W] -> [B, outputs, H, W] in [-1, 1], where H and W are multiples of 4.

    Args:
        inputs, outputs: Channels of the input and the output
        width: Channels at full resolution; four times as many at a quarter of the resolution
        blocks: Residual blocks at a quarter of the resolution; the paper uses 6 for 128 pixels and 9 for 256 and more
        norm: Normalization over each channel of an image (instance), each channel of the batch (batch), or all channels
            of an image (layer)
    """

    stride = 4

    def __init__(self, inputs: int, outputs: int, width: int = 64, blocks: int = 9, norm: Norm = "instance") -> None:
        def halve(narrow: int) -> list[nn.Module]:
            return [nn.Conv2d(narrow, 2 * narrow, 3, stride=2, padding=1), *_after(norm, 2 * narrow)]

        def double(wide: int) -> list[nn.Module]:
            up = nn.ConvTranspose2d(wide, wide // 2, 3, stride=2, padding=1, output_padding=1)
            return [up, *_after(norm, wide // 2)]

        super().__init__(
            nn.Conv2d(inputs, width, 7, padding=3, padding_mode="reflect"),
            *_after(norm, width),
            *halve(width),
            *halve(2 * width),
            *(ResidualBlock(4 * width, norm) for _ in range(blocks)),
            *double(4 * width),
            *double(2 * width),
            nn.Conv2d(width, outputs, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )


class ResidualBlock(nn.Module):
    """[B, channels, H, W] -> the same shape, without a ReLU after the sum (Johnson et al. 2016)."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect") for _ in range(2))
        self.branch = nn.Sequential(first, *_after(norm, channels), second, normalized(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def _after(norm: Norm, channels: int) -> list[nn.Module]:
    return [normalized(norm, channels), nn.ReLU(inplace=True)]


class ImagePool(nn.Module):
    """Buffer of previously generated images for the discriminator (Shrivastava et al. 2017, section 2.3).

    Until the pool is full, each new image is stored and returned. After that, with probability 1/2, a new image
    replaces a random image of the pool, and the replaced image is returned. Otherwise the new image is returned.

    Args:
        size: Capacity in images; 0 disables the pool
        shape: Shape of an image, [C, H, W]
    """

    images: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("filled", torch.zeros(1, dtype=torch.int64))

    def forward(self, new: Tensor, noise: Tensor) -> Tensor:
        """new [B, C, H, W], and uniform noise [B, 2] -> images [B, C, H, W] for the discriminator."""
        size = len(self.images)
        if not size:
            return new
        returned = []
        # no branch on a value of a tensor, which would wait for the GPU
        for image, (coin, place) in zip(new.to(self.images.dtype), noise, strict=True):
            full = self.filled >= size  # [1]
            slot = torch.where(full, (place * size).long(), self.filled)  # [1]
            swap = full & (coin < 0.5)
            old = self.images[slot]  # [1, C, H, W]
            returned.append(torch.where(swap[:, None, None, None], old, image))
            self.images.index_copy_(0, slot, torch.where((swap | ~full)[:, None, None, None], image, old))
            self.filled += ~full
        return torch.cat(returned).to(new.dtype)
