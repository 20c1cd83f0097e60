"""VAE: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, https://arxiv.org/abs/1312.6114.
beta: Higgins et al., "beta-VAE", ICLR 2017. KL warm-up: Sønderby et al., "Ladder VAE", NeurIPS 2016."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.units import Images
from genbench.networks.conv import down_net, up_net
from genbench.networks.mlp import mlp
from genbench.objectives.elbo import bernoulli_nll, gaussian_kl, gaussian_nll, reparameterize


class VAE(GenerativeModule):
    """Variational autoencoder with a Gaussian posterior of diagonal covariance and a standard normal prior.

    Args:
        latent_dim: Numbers in the code z
        network: Convolutional nets (power-of-two sizes from 16 to 256), or fully connected ones (any size)
        width: Channels of the convolutional nets next to the image; they double at each halving, at most 8 times
        hidden: Widths of the fully connected encoder; the decoder has them reversed
        decoder: Distribution of a pixel: Bernoulli (the pixel as the probability of white), or Gaussian
        sigma: Standard deviation of the Gaussian decoder, for pixels in [-1, 1]
        beta: Weight of the KL term
        kl_warmup: Let the weight grow from 0 to beta over so many images; none by default
    """

    players = {"vae": ("encoder", "decoder")}
    averaged = ("encoder", "decoder")
    latent_dtype = "float32"

    def __init__(
        self,
        spec: DataSpec | None = None,
        latent_dim: int = 32,
        network: Literal["conv", "mlp"] = "conv",
        width: int = 32,
        hidden: Sequence[int] = (512, 256),
        decoder: Literal["bernoulli", "gaussian"] = "bernoulli",
        sigma: float = 0.1,
        beta: float = 1.0,
        kl_warmup: Images | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        self.latent_dim, self.likelihood_of_pixel, self.sigma = latent_dim, decoder, sigma
        self.beta, self.kl_warmup = beta, Images(kl_warmup) if kl_warmup else None
        self.latent_shape = (latent_dim,)
        if network == "conv":
            self.encoder = down_net(self.spec.channels, self.spec.size, width, outputs=2 * latent_dim)
            self.decoder = up_net(latent_dim, self.spec.channels, self.spec.size, width)
        else:
            pixels = prod(self.spec.shape)
            self.encoder = nn.Sequential(nn.Flatten(), mlp([pixels, *hidden, 2 * latent_dim]))
            self.decoder = nn.Sequential(mlp([latent_dim, *hidden[::-1], pixels]), nn.Unflatten(1, self.spec.shape))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        eps = self.draw(torch.randn, len(batch), self.latent_dim).to(self.dtype)  # [B, D]
        with self.turn("vae") as turn:
            nll, kl = self._bound(batch.image, eps)  # [B], [B]
            turn.minimize(reconstruction=nll.mean(), kl=self.kl_weight() * kl.mean())
            turn.log(elbo=-(nll.detach() + kl.detach()).mean())

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The evidence lower bound [B] in nats, with one draw of z for each image, and its two parts."""
        eps = self.draw(torch.randn, len(batch), self.latent_dim).to(self.dtype)
        nll, kl = self._bound(batch.image, eps)
        return {"elbo": -(nll + kl), "reconstruction": nll, "kl": kl}

    def _bound(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """The two terms of equation 10, as costs: -log p(x|z) [B] and KL(q(z|x) ‖ p(z)) [B], in nats."""
        mu, logvar = self.posterior(x)
        output = self.decoder(reparameterize(mu, logvar, eps))  # [B, C, H, W]
        if self.likelihood_of_pixel == "bernoulli":
            return bernoulli_nll(output, x), gaussian_kl(mu, logvar)
        return gaussian_nll(output, x, self.sigma), gaussian_kl(mu, logvar)

    def kl_weight(self) -> float:
        """beta, or its share while the KL term warms up."""
        return self.beta * min(1.0, self.images_seen / self.kl_warmup) if self.kl_warmup else self.beta

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> mean and log variance of q(z|x), [B, D] each."""
        return self.encoder(x).chunk(2, dim=1)

    def encode(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> posterior means [B, D]."""
        return self.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """[B, D] -> mean images [B, C, H, W] in [-1, 1]."""
        output = self.decoder(z)
        return torch.sigmoid(output) * 2 - 1 if self.likelihood_of_pixel == "bernoulli" else output.clamp(-1, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> mean images of the mean codes."""
        return self.decode(self.encode(x))

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None, mean: bool = True) -> Tensor:
        """int64 seeds [n] -> images [n, C, H, W] in [-1, 1].

        mean  the decoder's mean; else pixels are drawn from its distribution
        """
        if condition is not None:
            raise UserError("VAE is trained without labels or prompts, so none can be asked of it.")
        images = self.decode(per_seed(torch.randn, seeds, (self.latent_dim,)).to(self.dtype))
        if mean:
            return images
        if self.likelihood_of_pixel == "bernoulli":
            # seeds of their own for the pixels: z has used the first draws of each
            return (per_seed(torch.rand, ~seeds, self.spec.shape) < (images + 1) / 2).to(self.dtype) * 2 - 1
        return (images + self.sigma * per_seed(torch.randn, ~seeds, self.spec.shape).to(self.dtype)).clamp(-1, 1)
