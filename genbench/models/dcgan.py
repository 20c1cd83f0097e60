"""DCGAN: Radford, Metz & Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016, https://arxiv.org/abs/1511.06434.

With another game it is the WGAN of Arjovsky et al. 2017 (configs/wgan.yaml) and, without batch normalization in the
critic, the WGAN-GP of Gulrajani et al. 2017 (configs/wgan_gp.yaml)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from genbench.core.arguments import Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.optim import merge
from genbench.networks.conv import Norm, dcgan_init, down_net, up_net
from genbench.objectives.game import Game

# section 4: Adam with learning rate 0.0002 and beta1 0.5
ADAM = {"class_path": "torch.optim.Adam", "lr": 2e-4, "betas": [0.5, 0.999]}


class DCGAN(GenerativeModule):
    """Deep convolutional GAN, for square images of any power of two from 16 to 256 pixels.

    Args:
        latent_dim: Numbers in the noise vector z; the paper's 100
        prior: Distribution of z; the paper's uniform on [-1, 1], or a standard normal
        width: Channels of both networks next to the image; they double at each halving, at most 8 times
        norm: Normalization in the discriminator: over the batch as in the paper, over each image (layer), or none
        game: Objective, penalties and balance, see `genbench.objectives.game.Game`
    """

    players = {"generator": ("generator",), "discriminator": ("discriminator",)}
    averaged = ("generator",)

    def __init__(
        self,
        spec: DataSpec | None = None,
        latent_dim: Width = 100,
        prior: Literal["normal", "uniform"] = "normal",
        width: Width = 64,
        norm: Norm = "batch",
        game: dict[str, Any] | None = None,
        optimizer: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, optimizer=merge(ADAM, optimizer), **training)
        self.latent_dim, self.prior, self.game = latent_dim, prior, Game.of(game)
        channels, size = self.spec.channels, self.spec.size
        self.generator = up_net(latent_dim, channels, size, width, output=nn.Tanh())
        self.discriminator = down_net(channels, size, width, outputs=1, norm=norm)
        dcgan_init(self)
        self.game.constrain(self.discriminator)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = batch.image  # [B, C, H, W]

        def generate() -> Tensor:
            return self.generator(self._place(self.draw(getattr(torch, self._draw), len(real), self.latent_dim)))

        self.game.duel(self, real, generate)

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n] -> images [n, C, H, W] in [-1, 1]."""
        self.check_condition(condition)
        return self.generator(self._place(per_seed(getattr(torch, self._draw), seeds, (self.latent_dim,))))

    @property
    def _draw(self) -> str:
        return "randn" if self.prior == "normal" else "rand"

    def _place(self, z: Tensor) -> Tensor:
        """Uniform draws to [-1, 1], and all to the weights' dtype."""
        return (z if self.prior == "normal" else 2 * z - 1).to(self.dtype)
