"""Small convolutional classifiers: their last hidden layer is a feature space for scores, and they measure how well
images train a classifier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

Classifier = TypeVar("Classifier", bound=nn.Module)


class SmallClassifier(nn.Module):
    """Five 3×3 convolutions with batch normalization, 32×32 -> 8×8, then the mean over the image: 128 features.

    It has about 136,000 parameters, so its weights can be shipped with the package.
    """

    features = 128

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _block(channels, 16),
            _block(16, 32, stride=2),
            _block(32, 64),
            _block(64, 64, stride=2),
            _block(64, self.features),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(self.features, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] in [-1, 1] -> features [B, 128], logits [B, K]."""
        features = self.body(x)
        return features, self.head(features)


class FactorClassifier(nn.Module):
    """Predicts several factors of an image. Five 3×3 convolutions as in `SmallClassifier`, 32×32 -> 4×4.

    The 64 features of each of the 16 positions are kept, so that the place of an object can be a factor. A class is a
    combination of one value per factor, in the order of `itertools.product`. Its probability is the product of the
    probabilities of the values, so the cross-entropy of classes is the sum of the cross-entropies of factors.
    """

    features = 1024

    def __init__(self, channels: int, factors: Sequence[int]) -> None:
        """`factors` contains the number of values of each factor."""
        super().__init__()
        self.body = nn.Sequential(
            _block(channels, 16),
            _block(16, 32, stride=2),
            _block(32, 64, stride=2),
            _block(64, 64),
            _block(64, 64, stride=2),
            nn.Flatten(),
        )
        self.heads = nn.ModuleList(nn.Linear(self.features, values) for values in factors)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, 32, 32] in [-1, 1] -> features [B, 1024], log-probabilities of the classes [B, K]."""
        features = self.body(x)
        joint = features.new_zeros(len(x), 1)
        for head in self.heads:
            joint = (joint[:, :, None] + head(features).log_softmax(1)[:, None]).flatten(1)
        return features, joint


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def train(
    net: Classifier, batches: Iterable[tuple[Tensor, Tensor]], steps: int, generator: torch.Generator | None
) -> Classifier:
    """Train a classifier with AdamW and a one-cycle schedule. Returns it in eval mode.

    Args:
        net: The untrained classifier
        batches: `steps` batches of images [B, C, H, W] in [-1, 1] and labels [B] int64, on the device of `net`
        steps: Number of batches
        generator: Draws the rotations and shifts of the images; on the CPU. None: images are not changed
    """
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for images, label in batches:
        images = images if generator is None else jittered(images, generator)
        _, logits = net(images.contiguous(memory_format=torch.channels_last))
        loss = cross_entropy(logits, label, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def jittered(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by up to 8°, shift by up to 2 of 32 pixels, scale by up to 8%, since samples are not centered like
    scans."""
    turn, across, down, larger = (torch.rand(4, len(images), generator=generator) * 2 - 1) * torch.tensor(
        [[0.14], [0.125], [0.125], [0.08]]
    )
    scale = 1 + larger
    cos, sin = scale * turn.cos(), scale * turn.sin()
    theta = torch.stack([cos, -sin, across, sin, cos, down], 1).view(-1, 2, 3).to(images.device)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def accuracy(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Fraction of the images [B, C, H, W] whose label [B] the classifier predicts."""
    right = count = 0
    for images, label in batches:
        right += int((net(images)[1].argmax(1) == label).sum())
        count += len(label)
    return right / count
