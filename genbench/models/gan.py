"""GAN: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, https://arxiv.org/abs/1406.2661, with fully
connected networks, for images of any size and for points."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from genbench.core.arguments import Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.optim import GAN_ADAM
from genbench.networks.mlp import mlp
from genbench.objectives.adversarial_settings import AdversarialSettings


class GAN(GenerativeModule):
    """Fully connected generator and discriminator.

    Args:
        latent_dim: Dimensions of the noise vector z, drawn from a standard normal
        hidden: Widths of the generator's hidden layers; the discriminator uses them in reverse order
        adversarial: Objective, penalties, augmentation and step counts, see
            `genbench.objectives.adversarial_settings.AdversarialSettings`
    """

    default_optimizer = GAN_ADAM  # the 2014 paper's SGD with momentum is no longer in use
    players = {"generator": ("generator",), "discriminator": ("discriminator",)}
    ema = ("generator",)
    latent_dtype = "float32"

    def __init__(
        self,
        spec: DataSpec | None = None,
        latent_dim: Width = 64,
        hidden: Sequence[Width] = (256, 512, 1024),
        adversarial: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        self.latent_dim, self.latent_shape = latent_dim, (latent_dim,)
        self.adversarial = AdversarialSettings.of(adversarial)
        shape, numbers = self.spec.shape, prod(self.spec.shape)
        is_image = len(shape) == 3  # pixels lie in [-1, 1]; points are not bounded
        self.generator = nn.Sequential(
            mlp([latent_dim, *hidden, numbers]), nn.Tanh() if is_image else nn.Identity(), nn.Unflatten(1, shape)
        )
        self.discriminator = nn.Sequential(nn.Flatten(), mlp([numbers, *hidden[::-1], 1], slope=0.2))
        self.adversarial.constrain(self.discriminator)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = batch.image  # [B, C, H, W] or [B, D]
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
        """int64 seeds [n] -> images [n, C, H, W] in [-1, 1], or points [n, D]."""
        self.check_condition(condition)
        return self.decode(self.sample_latents(seeds))

    def sample_latents(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> z [n, latent_dim]."""
        return per_seed(torch.randn, seeds, (self.latent_dim,)).to(self.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """[n, latent_dim] -> images [n, C, H, W] in [-1, 1], or points [n, D]."""
        return self.generator(z)

    def discriminate(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B] of being real, or the values of a critic."""
        return self.discriminator(x)[:, 0]
