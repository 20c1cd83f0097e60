"""ConditionalVAE: Sohn, Lee & Yan, "Learning Structured Output Representation using Deep Conditional Generative
Models", NeurIPS 2015. Conditioned on labels, it is model M2 of Kingma et al., "Semi-supervised Learning with Deep
Generative Models", NeurIPS 2014, with all labels known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from genbench.core.arguments import Sigma, Weight, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.networks import encoder_decoder
from genbench.objectives.elbo import gaussian_kl, log_likelihood, log_weights, reparameterize
from genbench.objectives.pixels import dequantized, pixels_of


class ConditionalVAE(GenerativeModule):
    """VAE for p(x|y): the encoder and the decoder are conditioned on the label y.

    Args:
        latent_dim: Dimensions of the latent code z
        network: Convolutional (sizes 16, 32, 64, 128 and 256) or fully connected networks (any size)
        width: Channels of the convolutional layers nearest the image; doubled at each downsampling, up to 8 times
        hidden: Hidden widths of the fully connected encoder; the decoder uses them in reverse order
        decoder: Distribution of a pixel: Bernoulli (a gray pixel is the probability of white), Gaussian, or logistic
            (over 256 levels, with a scale for each pixel)
        sigma: Standard deviation of the Gaussian decoder, for pixels in [-1, 1]; or `learned`, one value for all pixels
        beta: Weight of the KL term
    """

    changeable = ("beta",)
    conditional = True
    latent_dtype = "float32"
    likelihood = "lower bound"

    def __init__(
        self,
        spec: DataSpec | None = None,
        latent_dim: Width = 32,
        network: Literal["conv", "mlp"] = "conv",
        width: Width = 32,
        hidden: Sequence[Width] = (512, 256),
        decoder: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli",
        sigma: Sigma | Literal["learned"] = 0.1,
        beta: Weight = 1.0,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        if self.spec.target != "label":
            raise UserError(
                "ConditionalVAE needs labels, but this data has none. Choose data with classes (for Shapes "
                "`--data.target label`), or train a VAE."
            )
        self.latent_dim, self.latent_shape, self.beta = latent_dim, (latent_dim,), beta
        self.classes = len(self.spec.classes)
        pixel = pixels_of(decoder, sigma)
        self.pixels = pixel.pixels
        channels, size = self.spec.channels, self.spec.size
        inputs, outputs = channels + self.classes, pixel.outputs(channels)
        self.encoder = encoder_decoder.encoder(network, (inputs, size, size), 2 * latent_dim, width, hidden)
        self.decoder = encoder_decoder.decoder(network, latent_dim + self.classes, (outputs, size, size), width, hidden)
        self.pixel = pixel  # assigned last, to match the order of the optimizer state in older checkpoints

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x = batch.image  # [B, C, H, W]
        label = self.labels_of_all(batch)  # [B]
        eps = self.draw(torch.randn, len(x), self.latent_dim).to(self.dtype)  # [B, D]
        target = dequantized(x, self.draw(torch.rand, *x.shape)) if self.pixel.density else x
        mu, logvar = self.posterior(x, condition=label)
        nll = self.pixel.nll(self._decode(reparameterize(mu, logvar, eps), label), target)  # [B]
        kl = gaussian_kl(mu, logvar).sum(1)  # [B]
        self.record("train/elbo", -(nll + kl).mean())
        return {"reconstruction": nll.mean(), "kl": self.beta * kl.mean()}  # equation 4 of Sohn et al.

    def posterior(self, x: Tensor, *, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] and labels [B] -> mean and log variance of q(z|x, y), [B, D] each."""
        self.check_condition(condition)
        assert condition is not None  # checked above
        y = one_hot(condition, self.classes).to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.encoder(torch.cat([x, y], 1)).chunk(2, dim=1)

    def encode(self, x: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """[B, C, H, W] and labels [B] -> posterior means [B, D]."""
        return self.posterior(x, condition=condition)[0]

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """[B, D] and labels [B] -> mean images [B, C, H, W] in [-1, 1]."""
        self.check_condition(condition)
        assert condition is not None  # checked above
        return self.pixel.mean(self._decode(z, condition))

    def _decode(self, z: Tensor, label: Tensor) -> Tensor:
        return self.decoder(torch.cat([z, one_hot(label, self.classes).to(z.dtype)], 1))

    def log_likelihood(self, x: Tensor, *, importance_samples: int = 16) -> Tensor:
        """[B, C, H, W] -> [B] nats: a lower bound of log p(x) = log Σ p(x|y) / K, for equally probable classes."""
        each = []
        for k in range(self.classes):
            weights = partial(self._log_weights, torch.full((len(x),), k, device=x.device))
            each.append(log_likelihood(weights, self.pixel, x, self.latent_dim, importance_samples))
        return torch.stack(each).logsumexp(0) - math.log(self.classes)

    def _log_weights(self, label: Tensor, x: Tensor, targets: Tensor, eps: Tensor) -> Tensor:
        """log p(x|z_k, y) p(z_k) / q(z_k|x, y), [B, K] nats; `targets` [B, K, ...] is x, dequantized for each k."""
        labels = label.repeat_interleave(eps.shape[1])  # [B * K]
        return log_weights(
            *self.posterior(x, condition=label), lambda z: self._decode(z, labels), self.pixel, targets, eps
        )

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None, mean: bool = True) -> Tensor:
        """int64 seeds [n] and labels [n] -> images [n, C, H, W] in [-1, 1].

        mean  return the decoder's mean; if False, sample pixels from its distribution
        """
        self.check_condition(condition)
        assert condition is not None  # checked above
        output = self._decode(self.sample_latents(seeds), condition)
        # different seeds for the pixels, since z uses the first draws of each seed
        return self.pixel.mean(output) if mean else self.pixel.draw(output, ~seeds)

    def sample_latents(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> z [n, D] from the prior."""
        return per_seed(torch.randn, seeds, (self.latent_dim,)).to(self.dtype)
