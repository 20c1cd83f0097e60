"""PixelCNN: van den Oord et al., "Pixel Recurrent Neural Networks", ICML 2016, https://arxiv.org/abs/1601.06759, with
the gated layers of "Conditional Image Generation with PixelCNN Decoders", NeurIPS 2016."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from genbench.core.arguments import Depth, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.precision import to_float32
from genbench.networks.pixelcnn import GatedPixelCNN
from genbench.samplers.pixelcnn import draw


class PixelCNN(GenerativeModule):
    """Autoregressive model with an exact likelihood, over binary pixels if the data is binary (`data.binarize`), else
    over 256 levels.

    Args:
        width: Features of each of the two stacks; a multiple of the data's channels
        layers: Number of gated layers
        kernel: Side of each layer's receptive field in pixels; odd
        by_class: Condition all layers on the class label
    """

    likelihood = "exact"

    def __init__(
        self,
        spec: DataSpec | None = None,
        width: Width = 48,
        layers: Depth = 8,
        kernel: Width = 5,
        by_class: bool = False,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        channels = self.spec.channels
        if by_class and self.spec.target != "label":
            raise UserError(
                "model.by_class is true, but this data has no classes. Choose data with classes (for Shapes "
                "`--data.target label`), or remove `--model.by_class`."
            )
        self.conditional = by_class
        self.values = 2 if self.spec.binary else 256
        self.pixels = "binary" if self.spec.binary else "8-bit"
        classes = len(self.spec.classes) if by_class else 0
        self.net = GatedPixelCNN(self.values, channels, width, layers, kernel, classes)

    def levels(self, x: Tensor) -> Tensor:
        """[-1, 1] -> int64 in [0, values)."""
        return ((x.float() + 1) / 2 * (self.values - 1)).round().long()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        levels = self.levels(batch.image)  # [B, C, H, W]
        label = self.labels_of_all(batch) if self.conditional else None
        logits = self.net(levels, label)  # [B, values, C, H, W]
        return {"nll": cross_entropy(to_float32(logits), levels)}  # nats per dimension

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log-likelihood [B] in nats, and bits per dimension [B]."""
        nats = self.log_likelihood(batch.image)
        return {"nats": nats, "bits_per_dim": -nats / (math.log(2) * batch.image[0].numel())}

    def log_likelihood(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> log p(x), [B] nats; for a class-conditional model log Σ p(x|y) / K.

        Raises:
            UserError: the model is for binary pixels, but some pixels are gray.
        """
        if self.values == 2 and bool((x.abs() < 0.999).any()):
            raise UserError(
                "This PixelCNN models black and white pixels, but these images have gray pixels. Use binary images "
                "(`--data.binarize static` or `dynamic`), or train on gray images without `data.binarize`."
            )
        levels = self.levels(x)
        if not self.conditional:
            return self._log_p(levels, None)
        classes = len(self.spec.classes)
        each = [self._log_p(levels, torch.full((len(x),), k, device=x.device)) for k in range(classes)]
        return torch.stack(each).logsumexp(0) - math.log(classes)

    def _log_p(self, levels: Tensor, label: Tensor | None) -> Tensor:
        return -cross_entropy(to_float32(self.net(levels, label)), levels, reduction="none").flatten(1).sum(1)

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n], and labels [n] for a class-conditional model -> images [n, C, H, W] in [-1, 1]."""
        self.check_condition(condition)
        levels = draw(self.net, per_seed(torch.rand, seeds, self.spec.shape), condition)
        return (levels * (2 / (self.values - 1)) - 1).to(self.dtype)
