"""VAE: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, https://arxiv.org/abs/1312.6114.
beta: Higgins et al., "beta-VAE", ICLR 2017. KL warm-up: Sønderby et al., "Ladder VAE", NeurIPS 2016. Several
importance samples: Burda et al., "Importance Weighted Autoencoders", ICLR 2016. Free bits: Kingma et al., "Improved
Variational Inference with Inverse Autoregressive Flow", NeurIPS 2016."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genbench.core.arguments import Count, Sigma, Weight, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.units import Images
from genbench.networks import encoder_decoder
from genbench.networks.mlp import ToUnitRange
from genbench.objectives.elbo import (
    gaussian_kl,
    importance_bound,
    log_likelihood,
    log_weights,
    reparameterize,
    with_free_bits,
)
from genbench.objectives.pixels import dequantized, pixels_of


class VAE(GenerativeModule):
    """Variational autoencoder with a diagonal Gaussian posterior and a standard normal prior.

    Args:
        latent_dim: Dimensions of the latent code z
        network: Convolutional (sizes 16, 32, 64, 128 and 256) or fully connected networks (any size)
        width: Channels of the convolutional layers nearest the image; doubled at each downsampling, up to 8 times
        hidden: Hidden widths of the fully connected encoder; the decoder uses them in reverse order
        decoder: Distribution of a pixel: Bernoulli (a gray pixel is the probability of white), Gaussian, or logistic
            (over 256 levels, with a scale for each pixel)
        sigma: Standard deviation of the Gaussian decoder, for pixels in [-1, 1]; or `learned`, one value for all pixels
        beta: Weight of the KL term
        kl_warmup: Images over which the KL weight grows linearly from 0 to beta; no warm-up by default
        free_bits: Nats per latent dimension that are excluded from the KL penalty
        importance_samples: Samples of z per image in the training bound (IWAE); with 1, the KL term is computed
            analytically
    """

    changeable = ("beta", "kl_warmup", "free_bits", "importance_samples")
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
        kl_warmup: Images | None = None,
        free_bits: Weight = 0.0,
        importance_samples: Count = 1,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        if importance_samples > 1 and free_bits:
            raise UserError(
                f"model.free_bits is {free_bits} and model.importance_samples is {importance_samples}. Free bits apply "
                "to the KL term, which the bound with several samples does not contain. Remove one of the settings."
            )
        if len(self.spec.shape) == 1 and decoder != "gaussian":
            raise UserError(
                f"model.decoder is {decoder}, a distribution of pixels, but this data consists of points. Set "
                "`--model.decoder gaussian`."
            )
        self.latent_dim, self.latent_shape = latent_dim, (latent_dim,)
        self.beta, self.kl_warmup = beta, Images(kl_warmup) if kl_warmup else None
        self.free_bits, self.importance_samples = free_bits, importance_samples
        pixel = pixels_of(decoder, sigma)
        shape = self.spec.shape
        if network == "conv":
            shape = (self.spec.channels, *shape[1:])  # raises UserError for points
        outputs = (pixel.outputs(shape[0]), *shape[1:])
        # with inputs in [0, 1], black pixels give no gradient to the weights of the first layer, which improves the
        # likelihood of binary MNIST (docs/results/likelihood.md)
        flatten = nn.Sequential(ToUnitRange(), nn.Flatten()) if decoder == "bernoulli" else nn.Flatten()
        self.encoder = encoder_decoder.encoder(network, shape, 2 * latent_dim, width, hidden, flatten)
        self.decoder = encoder_decoder.decoder(network, latent_dim, outputs, width, hidden)
        self.pixel = pixel  # assigned last, to match the order of the optimizer state in older checkpoints

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x, k = batch.image, self.importance_samples  # [B, C, H, W]
        eps = self.draw(torch.randn, len(x), k, self.latent_dim).to(self.dtype)  # [B, K, D]
        target = self._target(x)
        if k > 1:
            targets = target[:, None].expand(-1, k, *x.shape[1:])
            return {"bound": -importance_bound(self._log_weights(x, targets, eps, self.kl_weight())).mean()}
        nll, kl = self._bound(x, eps[:, 0], target)  # [B], [B, D]
        reconstruction, divergence = nll.mean(), kl.sum(1).mean()
        self.record("train/elbo", -(reconstruction + divergence))
        kl_loss = with_free_bits(kl, self.free_bits).sum() if self.free_bits else divergence
        return {"reconstruction": reconstruction, "kl": self.kl_weight() * kl_loss}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The evidence lower bound [B] in nats, from one draw of z per image, and its two terms."""
        eps = self.draw(torch.randn, len(batch), self.latent_dim).to(self.dtype)
        nll, kl = self._bound(batch.image, eps, self._target(batch.image))
        kl = kl.sum(1)
        return {"elbo": -(nll + kl), "reconstruction": nll, "kl": kl}

    def _target(self, x: Tensor) -> Tensor:
        """The target of the likelihood. If it is a density, the pixels are dequantized: on discrete levels, a density
        would be unbounded."""
        return dequantized(x, self.draw(torch.rand, *x.shape)) if self.pixel.density and x.ndim == 4 else x

    def _bound(self, x: Tensor, eps: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The two terms of equation 10 with negative sign: -log p(x|z) [B] and KL(q(z|x) ‖ p(z)) [B, D], in nats."""
        mu, logvar = self.posterior(x)
        output = self.decoder(reparameterize(mu, logvar, eps))  # [B, C, H, W]
        return self.pixel.nll(output, target), gaussian_kl(mu, logvar)

    def _log_weights(self, x: Tensor, targets: Tensor, eps: Tensor, kl_weight: float = 1.0) -> Tensor:
        """log p(x|z_k) p(z_k) / q(z_k|x), [B, K] nats; `targets` [B, K, ...] is x, dequantized for each k."""
        return log_weights(*self.posterior(x), self.decoder, self.pixel, targets, eps, kl_weight)

    def log_likelihood(self, x: Tensor, *, importance_samples: int = 16) -> Tensor:
        """[B, C, H, W] -> [B] nats: a lower bound of log p(x), tighter with more samples (Burda et al. 2016)."""
        return log_likelihood(self._log_weights, self.pixel, x, self.latent_dim, importance_samples)

    @property
    def pixels(self) -> str:
        """What the likelihood is defined over: binary pixels, 8-bit pixels, or points (density)."""
        return self.pixel.pixels if len(self.spec.shape) == 3 else "density"

    def kl_weight(self) -> float:
        """The weight of the KL term: beta, or a fraction of beta during the warm-up."""
        return self.beta * min(1.0, self.images_seen / self.kl_warmup) if self.kl_warmup else self.beta

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> mean and log variance of q(z|x), [B, D] each."""
        return self.encoder(x).chunk(2, dim=1)

    def encode(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> posterior means [B, D]."""
        return self.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """[B, D] -> mean images [B, C, H, W] in [-1, 1]."""
        return self.pixel.mean(self.decoder(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> decoded posterior means."""
        return self.decode(self.encode(x))

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None, mean: bool = True) -> Tensor:
        """int64 seeds [n] -> images [n, C, H, W] in [-1, 1].

        mean  return the decoder's mean; if False, sample pixels from its distribution
        """
        self.check_condition(condition)
        output = self.decoder(self.sample_latents(seeds))
        # different seeds for the pixels, since z uses the first draws of each seed
        return self.pixel.mean(output) if mean else self.pixel.draw(output, ~seeds)

    def sample_latents(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> z [n, D] from the prior."""
        return per_seed(torch.randn, seeds, (self.latent_dim,)).to(self.dtype)
