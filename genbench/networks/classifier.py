"""A small convolutional classifier whose last hidden layer serves as a feature space for scores."""

from __future__ import annotations

from torch import Tensor, nn


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
        """[B, C, 32, 32] in [-1, 1] -> features [B, 128], logits [B, K]."""
        features = self.body(x)
        return features, self.head(features)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
