"""DCGAN: Radford, Metz & Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016, https://arxiv.org/abs/1511.06434.

With different adversarial settings, this class is the WGAN of Arjovsky et al. 2017 (configs/wgan.yaml). Without batch
normalization in the critic, it is the WGAN-GP of Gulrajani et al. 2017 (configs/wgan_gp.yaml)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from genbench.core.arguments import Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.optim import GAN_ADAM
from genbench.networks.conv import Norm, dcgan_init, down_net, up_net
from genbench.objectives.adversarial_settings import AdversarialSettings


class DCGAN(GenerativeModule):
    """Deep convolutional GAN for square images of 16, 32, 64, 128 or 256 pixels.

    Args:
        latent_dim: Dimensions of the noise vector z; 100 in the paper
        prior: Distribution of z: uniform on [-1, 1] as in the paper, or a standard normal
        width: Channels of the layers nearest the image, in both networks; doubled at each downsampling, up to 8 times
        norm: Normalization in the discriminator: over the batch as in the paper, over each image (layer), or none
        adversarial: Objective, penalties, augmentation and step counts, see
            `genbench.objectives.adversarial_settings.AdversarialSettings`
    """

    default_optimizer = GAN_ADAM
    players = {"generator": ("generator",), "discriminator": ("discriminator",)}
    ema = ("generator",)
    latent_dtype = "float32"

    def __init__(
        self,
        spec: DataSpec | None = None,
        latent_dim: Width = 100,
        prior: Literal["normal", "uniform"] = "normal",
        width: Width = 64,
        norm: Norm = "batch",
        adversarial: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        self.latent_dim, self.latent_shape, self.prior = latent_dim, (latent_dim,), prior
        self.adversarial = AdversarialSettings.of(adversarial)
        channels, size = self.spec.channels, self.spec.size
        self.generator = up_net(latent_dim, channels, size, width, output=nn.Tanh())
        self.discriminator = down_net(channels, size, width, outputs=1, norm=norm)
        dcgan_init(self)
        self.adversarial.constrain(self.discriminator)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = batch.image  # [B, C, H, W]
        view = self.adversarial.view(self.draw, self.images_seen)
        generator_steps = self.adversarial.generator_steps_due(self.updates["discriminator"])
        with torch.set_grad_enabled(generator_steps > 0):
            fake = self.generator(self._z(len(real)))  # used by both updates, since the generator steps last

        with self.turn("discriminator") as turn:
            real_logits, fake_logits = self.discriminator(view(real)), self.discriminator(view(fake.detach()))
            terms = self.adversarial.discriminator_loss(real_logits, fake_logits)
            terms |= self.adversarial.penalties(lambda x: self.discriminator.forward(view(x)), real, fake, self.draw)
            turn.minimize(**terms)
            turn.log(**self.adversarial.balance(real_logits, fake_logits))
        self.adversarial.clip_weights_(self.discriminator)

        for step in range(generator_steps):
            with self.turn("generator") as turn:
                fake = self.generator(self._z(len(real))) if step else fake
                turn.minimize(**self.adversarial.generator_loss(self.discriminator(view(fake))))

    def _z(self, n: int) -> Tensor:
        """Noise vectors [n, latent_dim] for training."""
        return self._place(self.draw(getattr(torch, self._draw), n, self.latent_dim))

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n] -> images [n, C, H, W] in [-1, 1]."""
        self.check_condition(condition)
        return self.decode(self.sample_latents(seeds))

    def sample_latents(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> z [n, latent_dim]."""
        return self._place(per_seed(getattr(torch, self._draw), seeds, (self.latent_dim,)))

    def decode(self, z: Tensor) -> Tensor:
        """[n, latent_dim] -> images [n, C, H, W] in [-1, 1]."""
        return self.generator(z)

    def discriminate(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B] of being real, or the values of a critic."""
        return self.discriminator(x)[:, 0]

    @property
    def _draw(self) -> str:
        return "randn" if self.prior == "normal" else "rand"

    def _place(self, z: Tensor) -> Tensor:
        """Map uniform draws from [0, 1) to [-1, 1), and cast to the dtype of the weights."""
        return (z if self.prior == "normal" else 2 * z - 1).to(self.dtype)
