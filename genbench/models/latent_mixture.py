"""LatentMixture: Ghosh et al., "From Variational to Deterministic Autoencoders", ICLR 2020,
https://arxiv.org/abs/1903.12436, section 4: a density fitted to the codes of a trained autoencoder, for sampling new
images. The paper fits it by expectation maximization, this model by gradient descent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genbench.core import composition
from genbench.core.arguments import Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.capabilities import Decodes, Encodes, takes_condition
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.networks.mixture import GaussianMixture


class LatentMixture(composition.OnCodes, GenerativeModule):
    """A mixture of Gaussians over the codes of a frozen autoencoder, followed by the decoder of the autoencoder.

    Args:
        autoencoder: Checkpoint of a model whose code is a vector (Autoencoder, ConvAutoencoder, DenoisingAutoencoder,
            VAE). The checkpoints of this model contain the autoencoder
        components: Number of Gaussians in the mixture; 10 in the paper
    """

    latent_dtype = "float32"

    def __init__(
        self,
        spec: DataSpec | None = None,
        autoencoder: str | dict[str, Any] | None = None,
        components: Width = 10,
        **training: Any,
    ) -> None:
        part, self._arguments["autoencoder"] = composition.take(autoencoder, "model.autoencoder", "an autoencoder")
        super().__init__(spec, **training)
        if not (
            isinstance(part, Encodes)
            and isinstance(part, Decodes)
            and part.latent_dtype == "float32"
            and len(part.latent_shape) == 1
            and not takes_condition(part.encode)
        ):
            raise UserError(
                f"LatentMixture needs a model whose codes are vectors, which {type(part).__name__} does not have. Use "
                "the checkpoint of an autoencoder or a VAE; for a VQVAE, train `VQPrior`."
            )
        composition.refuse_other_images(part, self.spec)
        self.autoencoder, self.latent_shape = part, part.latent_shape
        self.mixture = GaussianMixture(components, *part.latent_shape)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        with torch.no_grad():
            z = self.encode(batch.image)  # [B, D]
        self.mixture.begin(z)
        return {"nll": -self.mixture.log_prob(z).mean()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """-log p(z) for the code of each image, [B] nats. It is not a likelihood of the image."""
        return {"code_nll": -self.mixture.log_prob(self.encode(batch.image))}

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n] -> images [n, C, H, W] in [-1, 1]."""
        self.check_condition(condition)
        return self.decode(self.sample_latents(seeds))

    def sample_latents(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> codes [n, D], drawn from the mixture."""
        return self.mixture.draw(seeds).to(self.dtype)
