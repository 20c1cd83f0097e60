"""VQPrior: the second stage of van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017, section
3.3: a PixelCNN over the codes of a VQ-VAE, for sampling new images."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from genbench.core import composition
from genbench.core.arguments import Depth, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.capabilities import Decodes, Encodes
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.precision import to_float32
from genbench.networks.pixelcnn import GatedPixelCNN
from genbench.samplers.pixelcnn import draw


class VQPrior(composition.OnCodes, GenerativeModule):
    """A gated PixelCNN over the codes of a frozen autoencoder, followed by the decoder of the autoencoder.

    Args:
        autoencoder: Checkpoint of a trained VQVAE. The checkpoints of this model contain the VQVAE
        width: Features of each of the two stacks
        layers: Number of gated layers
        kernel: Side of each layer's receptive field in codes; odd
        by_class: Condition all layers on the class label
    """

    latent_dtype = "int64"

    def __init__(
        self,
        spec: DataSpec | None = None,
        autoencoder: str | dict[str, Any] | None = None,
        width: Width = 64,
        layers: Depth = 8,
        kernel: Width = 5,
        by_class: bool = False,
        **training: Any,
    ) -> None:
        part, self._arguments["autoencoder"] = composition.take(autoencoder, "model.autoencoder", "a VQVAE")
        super().__init__(spec, **training)
        if not (isinstance(part, Encodes) and isinstance(part, Decodes) and part.latent_dtype == "int64"):
            raise UserError(
                f"VQPrior needs a model whose codes are grids of integers, which {type(part).__name__} does not have. "
                "Use the checkpoint of a VQVAE."
            )
        composition.refuse_other_images(part, self.spec)
        if by_class and self.spec.target != "label":
            raise UserError("model.by_class is true, but this data has no classes. Remove `--model.by_class`.")
        self.autoencoder = part
        self.conditional = by_class
        values = part.latent_values
        assert isinstance(values, int)  # set in every model with int64 latents
        self.latent_shape, self.latent_values = part.latent_shape, values
        classes = len(self.spec.classes) if by_class else 0
        self.net = GatedPixelCNN(values, 1, width, layers, kernel, classes, ordinal=False)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        with torch.no_grad():
            code = self.encode(batch.image)[:, None]  # [B, 1, h, w]
        label = self.labels_of_all(batch) if self.conditional else None
        logits = self.net(code, label)  # [B, values, 1, h, w]
        return {"nll": cross_entropy(to_float32(logits), code)}  # nats per codebook index

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """-log2 p(codes) of each image, [B] bits. Under a uniform prior it would equal the score `code_bits`."""
        code = self.encode(batch.image)[:, None]
        logits = self.net(code, batch.label if self.conditional else None)
        nats = cross_entropy(to_float32(logits), code, reduction="none").flatten(1).sum(1)
        return {"prior_bits": nats / math.log(2)}

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n], and labels [n] for a class-conditional prior -> images [n, C, H, W] in [-1, 1]."""
        self.check_condition(condition)
        u = per_seed(torch.rand, seeds, (1, *self.latent_shape))
        return self.decode(draw(self.net, u, condition)[:, 0])
