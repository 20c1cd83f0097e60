"""SNGAN: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018,
https://arxiv.org/abs/1802.05957, with its residual networks for 32×32 images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genbench.core.arguments import Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.optim import GAN_ADAM
from genbench.networks.resnet import ResidualDiscriminator, ResidualGenerator, residual_init
from genbench.objectives.adversarial_settings import AdversarialSettings

# section 4.1 and table 4: hinge loss, five discriminator steps
SETTINGS = {"objective": "hinge", "spectral_norm": True, "discriminator_steps": 5}


class SNGAN(GenerativeModule):
    """Residual GAN with spectral normalization, for 32×32 images.

    Args:
        latent_dim: Dimensions of the noise vector z, drawn from a standard normal
        width: Channels of the generator; 256 in the paper
        discriminator_width: Channels of the discriminator; 128 in the paper
        adversarial: Objective, penalties, augmentation and step counts, see
            `genbench.objectives.adversarial_settings.AdversarialSettings`
    """

    default_optimizer = {**GAN_ADAM, "betas": [0.0, 0.9]}  # section 4.1 and table 4
    players = {"generator": ("generator",), "discriminator": ("discriminator",)}
    ema = ("generator",)
    latent_dtype = "float32"

    def __init__(
        self,
        spec: DataSpec | None = None,
        latent_dim: Width = 128,
        width: Width = 256,
        discriminator_width: Width = 128,
        adversarial: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        self.latent_dim, self.latent_shape = latent_dim, (latent_dim,)
        self.adversarial = AdversarialSettings.of(SETTINGS, adversarial)
        channels, size = self.spec.channels, self.spec.size
        if size != 32:
            raise UserError(f"SNGAN needs images of 32 pixels per side, but the data has {size}. Set `--data.size 32`.")
        self.generator = ResidualGenerator(latent_dim, channels, width)
        self.discriminator = ResidualDiscriminator(channels, discriminator_width)
        residual_init(self)
        self.adversarial.constrain(self.discriminator)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = batch.image  # [B, C, 32, 32]
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
        return self.draw(torch.randn, n, self.latent_dim).to(self.dtype)

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n] -> images [n, C, 32, 32] in [-1, 1]."""
        self.check_condition(condition)
        return self.decode(self.sample_latents(seeds))

    def sample_latents(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> z [n, latent_dim]."""
        return per_seed(torch.randn, seeds, (self.latent_dim,)).to(self.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """[n, latent_dim] -> images [n, C, 32, 32] in [-1, 1]."""
        return self.generator(z)

    def discriminate(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B] of being real, or the values of a critic."""
        return self.discriminator(x)[:, 0]
