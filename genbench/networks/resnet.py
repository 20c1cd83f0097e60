"""The residual networks for 32×32 images of Miyato et al. 2018, "Spectral Normalization for Generative Adversarial
Networks", https://arxiv.org/abs/1802.05957, table 4."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu


class UpBlock(nn.Module):
    """[B, inputs, H, W] -> [B, outputs, 2H, 2W], with batch normalization before each ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(_double(relu(self.norm1(x))))
        h = self.conv2(relu(self.norm2(h)))
        # the shortcut is 1×1, so the result is equal to upsampling first, in a quarter of the time
        return h + _double(self.shortcut(x))


class DownBlock(nn.Module):
    """[B, inputs, H, W] -> [B, outputs, H/2, W/2], or [B, outputs, H, W] without `halve`. It has no normalization."""

    def __init__(self, inputs: int, outputs: int, halve: bool = True, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first  # the first block applies no ReLU to the image
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if halve or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else relu(x))
        h = self.conv2(relu(h))
        if not self.halve:
            return h + self.shortcut(x)
        return avg_pool2d(h, 2) + self.shortcut(avg_pool2d(x, 2))


class ResidualGenerator(nn.Module):
    """z [B, latent_dim] -> [B, channels, 32, 32] in [-1, 1]."""

    def __init__(self, latent_dim: int, channels: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(latent_dim, 4 * 4 * width)
        self.blocks = nn.Sequential(*(UpBlock(width, width) for _ in range(3)))  # 4 -> 8 -> 16 -> 32
        self.norm = nn.BatchNorm2d(width)
        self.output = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.project(z).unflatten(1, (-1, 4, 4))
        return self.output(relu(self.norm(self.blocks(h)))).tanh()


class ResidualDiscriminator(nn.Module):
    """[B, channels, 32, 32] -> logits [B, 1]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            DownBlock(channels, width, first=True),  # 32 -> 16
            DownBlock(width, width),  # 16 -> 8
            DownBlock(width, width, halve=False),
            DownBlock(width, width, halve=False),
        )
        self.output = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(relu(self.blocks(x)).sum((2, 3)))  # sum over the image


def residual_init(net: nn.Module) -> None:
    """Initialize with Xavier uniform weights, with gain √2 in residual branches and 1 elsewhere, as in the authors'
    code."""
    for name, layer in net.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight, 2**0.5 if name.endswith(("conv1", "conv2")) else 1.0)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _double(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="nearest")
