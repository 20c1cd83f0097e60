"""SemiSupervisedGAN: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016,
https://arxiv.org/abs/1606.03498, section 5: a discriminator of K classes and one more, the generated images, which
learns from a few labels and from all images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.optim import merge
from genbench.core.precision import full
from genbench.networks.conv import Norm, dcgan_init, down_body, up_net, widths
from genbench.objectives.game import Game

ADAM = {"class_path": "torch.optim.Adam", "lr": 3e-4, "betas": [0.5, 0.999]}


class SemiSupervisedGAN(GenerativeModule):
    """GAN whose discriminator classifies; with `data.labelled` it needs labels of that many images only.

    Args:
        generator: What the generator learns from: feature_matching (section 3.1: the mean of the discriminator's last
            hidden layer over a batch), or adversarial (the game's own objective)
        latent_dim: Numbers in the noise vector z, from a standard normal
        network: Convolutional nets (power-of-two sizes from 16 to 256), or fully connected ones (any size)
        width: Channels of the convolutional nets next to the image; they double at each halving, at most 8 times
        hidden: Widths of the fully connected discriminator
        noise: Standard deviation of the noise on the discriminator's layers, while it trains; on its input 0.6 of it
        norm: Normalisation in the convolutional discriminator: over the batch, over each image (layer), or none. Over
            the batch, labelled, real and generated images are each normalised by themselves
        unsupervised: Weight of the game's terms in the discriminator; 0 leaves a classifier alone with its labels
        game: Objective, penalties and balance, see `genbench.objectives.game.Game`
    """

    players = {"generator": ("generator",), "discriminator": ("discriminator",)}
    averaged = ("generator", "discriminator")

    def __init__(
        self,
        spec: DataSpec | None = None,
        generator: Literal["feature_matching", "adversarial"] = "feature_matching",
        latent_dim: int = 100,
        network: Literal["conv", "mlp"] = "conv",
        width: int = 32,
        hidden: Sequence[int] = (1000, 500, 250, 250, 250),
        noise: float = 0.5,
        norm: Norm = "layer",
        unsupervised: float = 1.0,
        game: dict[str, Any] | None = None,
        optimizer: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, optimizer=merge(ADAM, optimizer), **training)
        self.latent_dim, self.game = latent_dim, Game.of(game)
        self.matches, self.unsupervised = generator == "feature_matching", unsupervised
        if self.spec.target != "label":
            raise UserError(
                "SemiSupervisedGAN learns classes, and this data has none. Choose data with classes (for Shapes "
                "`--data.target label`), or train a DCGAN."
            )
        shape, classes = self.spec.shape, len(self.spec.classes)
        if network == "conv":
            self.generator = up_net(latent_dim, shape[0], self.spec.size, width, output=nn.Tanh())
            body, features = down_body(shape[0], self.spec.size, width, norm), widths(self.spec.size, width)[-1]
            body = nn.Sequential(Noise(0.6 * noise), body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        else:
            output = nn.Tanh() if len(shape) == 3 else nn.Identity()  # a point may lie anywhere
            layers = _softplus_net([latent_dim, 500, 500, prod(shape)])
            self.generator = nn.Sequential(*layers, output, nn.Unflatten(1, shape))
            body, features = _noisy_net([prod(shape), *hidden], noise), hidden[-1]
        self.discriminator = Classifier(body, features, classes)
        if network == "conv":
            dcgan_init(self)
        self.game.constrain(self.discriminator)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        game, real = self.game, batch.image  # [B, C, H, W]
        known, label = (real, batch.label) if batch.known_image is None else (batch.known_image, batch.known_label)
        turns, view = game.generator_turns(self), game.view(self.draw, self.images_seen)
        with torch.set_grad_enabled(turns > 0):
            fake = self._generate(len(real))

        with self.turn("discriminator") as turn:
            named, _ = self.discriminator(view(known))  # [B, K], the logits of the K classes
            real_logits = is_real(self.discriminator(view(real))[0])
            with running_statistics_kept(self.discriminator):
                fake_logits = is_real(self.discriminator(view(fake.detach()))[0])
            terms = game.discriminator(real_logits, fake_logits)
            terms |= game.penalties(lambda x: is_real(self.discriminator.forward(view(x))[0]), real, fake, self.draw)
            terms = {name: self.unsupervised * term for name, term in terms.items()}
            turn.minimize(**{"class": cross_entropy(full(named), label)}, **terms)
            turn.log(**game.balance(real_logits, fake_logits))
        game.clip_(self.discriminator)

        for again in range(turns):
            with self.turn("generator") as turn, running_statistics_kept(self.discriminator):
                fake = self._generate(len(real)) if again else fake
                logits, features = self.discriminator(view(fake))  # [B, K], [B, F]
                if self.matches:
                    with torch.no_grad():
                        _, wanted = self.discriminator(view(real))
                    turn.minimize(features=(full(wanted).mean(0) - full(features).mean(0)).square().sum())
                else:
                    turn.minimize(**game.generator(is_real(logits)))

    def _generate(self, count: int) -> Tensor:
        return self.generator(self.draw(torch.randn, count, self.latent_dim).to(self.dtype))

    def classify(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K] of the classes."""
        return self.discriminator(x)[0]

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n] -> images [n, C, H, W] in [-1, 1]."""
        if condition is not None:
            raise UserError("SemiSupervisedGAN names classes and does not draw by class: leave the label out.")
        return self.generator(per_seed(torch.randn, seeds, (self.latent_dim,)).to(self.dtype))


def is_real(logits: Tensor) -> Tensor:
    """[B, K] -> [B]: logit of not being class K + 1, whose own is 0: D = Z/(Z + 1), Z = Σ exp l (section 5)."""
    return full(logits).logsumexp(1)


@contextmanager
def running_statistics_kept(net: nn.Module) -> Iterator[None]:
    """Passes that leave the running statistics of batch normalisation alone: `classify` meets real images only."""
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


class Classifier(nn.Module):
    """[B, C, H, W] -> logits [B, K], and the features [B, F] that they are made of."""

    def __init__(self, body: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(features, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.head(features), features


class Noise(nn.Module):
    """Normal noise on a layer, while training."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x) if self.training and self.sigma else x


def _noisy_net(sizes: Sequence[int], noise: float) -> nn.Sequential:
    """The authors' network for MNIST: ReLU layers with noise before each."""
    layers: list[nn.Module] = [nn.Flatten(), Noise(0.6 * noise)]
    for inputs, outputs in pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        # so that each layer's outputs are of size 1, which is what the noise is measured by
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [nn.utils.parametrizations.weight_norm(linear), nn.ReLU(), Noise(noise)]
    return nn.Sequential(*layers)


def _softplus_net(sizes: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.Softplus(), nn.BatchNorm1d(outputs)]
    return [*layers, nn.Linear(sizes[-2], sizes[-1])]
