"""ConditionalGAN: DCGAN's networks, conditioned on a class label in one of three ways.

concat      Mirza & Osindero, "Conditional Generative Adversarial Nets", 2014, https://arxiv.org/abs/1411.1784: the
            one-hot label is appended to the input of the discriminator as channels
projection  Miyato & Koyama, "cGANs with Projection Discriminator", ICLR 2018, https://arxiv.org/abs/1802.05637
auxiliary   Odena et al., "Conditional Image Synthesis with Auxiliary Classifier GANs", ICML 2017,
            https://arxiv.org/abs/1610.09585: the discriminator predicts the label
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from genbench.core.arguments import Weight, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.optim import GAN_ADAM
from genbench.core.precision import to_float32
from genbench.networks.conv import Norm, dcgan_init, down_body, down_net, up_net, widths
from genbench.objectives.adversarial_settings import AdversarialSettings


class ConditionalGAN(GenerativeModule):
    """GAN for labeled square images of 16, 32, 64, 128 or 256 pixels.

    Args:
        conditioning: How the discriminator uses the label: concat, projection or auxiliary
        latent_dim: Dimensions of the noise vector z, drawn from a standard normal; the one-hot label is concatenated
        width: Channels of the layers nearest the image, in both networks; doubled at each downsampling, up to 8 times
        norm: Normalization in the discriminator: over the batch, over each image (layer), or none
        class_weight: Weight of the classification terms of auxiliary conditioning
        adversarial: Objective, penalties, augmentation and step counts, see
            `genbench.objectives.adversarial_settings.AdversarialSettings`
    """

    default_optimizer = GAN_ADAM
    players = {"generator": ("generator",), "discriminator": ("discriminator",)}
    ema = ("generator",)
    changeable = ("class_weight",)
    conditional = True
    latent_dtype = "float32"

    def __init__(
        self,
        spec: DataSpec | None = None,
        conditioning: Literal["concat", "projection", "auxiliary"] = "projection",
        latent_dim: Width = 100,
        width: Width = 64,
        norm: Norm = "batch",
        class_weight: Weight = 1.0,
        adversarial: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        self.latent_dim, self.latent_shape, self.class_weight = latent_dim, (latent_dim,), class_weight
        self.adversarial = AdversarialSettings.of(adversarial)
        if self.spec.target != "label":
            raise UserError(
                "ConditionalGAN needs labels, but this data has none. Choose data with classes (for Shapes "
                "`--data.target label`), or train a DCGAN."
            )
        channels, size, self.classes = self.spec.channels, self.spec.size, len(self.spec.classes)
        self.generator = up_net(latent_dim + self.classes, channels, size, width, output=nn.Tanh())
        discriminator = {"concat": Concatenation, "projection": Projection, "auxiliary": Auxiliary}[conditioning]
        self.discriminator = discriminator(channels, size, width, self.classes, norm)
        if conditioning == "auxiliary":
            self.classify = self._classify  # the capability `Classifies`
        dcgan_init(self)
        self.adversarial.constrain(self.discriminator)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real, label = batch.image, self.labels_of_all(batch)  # [B, C, H, W], [B]
        view = self.adversarial.view(self.draw, self.images_seen)
        generator_steps = self.adversarial.generator_steps_due(self.updates["discriminator"])
        with torch.set_grad_enabled(generator_steps > 0):
            fake = self._generate(label)  # used by both updates, since the generator steps last

        with self.turn("discriminator") as turn:
            real_logits, real_class = self.discriminator(view(real), label)  # [B, 1], [B, K] or None
            fake_logits, fake_class = self.discriminator(view(fake.detach()), label)
            terms = self.adversarial.discriminator_loss(real_logits, fake_logits)
            if real_class is not None:  # equation 3 of Odena et al. 2017, for real and for generated images
                terms["real_class"] = self.class_weight * cross_entropy(to_float32(real_class), label)
                terms["fake_class"] = self.class_weight * cross_entropy(to_float32(fake_class), label)
            forward = self.discriminator.forward
            terms |= self.adversarial.penalties(lambda x: forward(view(x), label)[0], real, fake, self.draw)
            turn.minimize(**terms)
            turn.log(**self.adversarial.balance(real_logits, fake_logits))
        self.adversarial.clip_weights_(self.discriminator)

        for step in range(generator_steps):
            with self.turn("generator") as turn:
                fake_logits, fake_class = self.discriminator(view(self._generate(label) if step else fake), label)
                terms = self.adversarial.generator_loss(fake_logits)
                if fake_class is not None:
                    terms["class"] = self.class_weight * cross_entropy(to_float32(fake_class), label)
                turn.minimize(**terms)

    def _generate(self, label: Tensor) -> Tensor:
        """Labels [B] -> images of these classes, from noise of training."""
        return self.generator(self._joined(self.draw(torch.randn, len(label), self.latent_dim), label))

    def _joined(self, z: Tensor, label: Tensor) -> Tensor:
        """[B, latent_dim], [B] -> [B, latent_dim + K]."""
        return torch.cat([z, one_hot(label, self.classes)], 1).to(self.dtype)

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n] and labels [n] -> images [n, C, H, W] in [-1, 1]."""
        self.check_condition(condition)
        return self.decode(self.sample_latents(seeds), condition=condition)

    def sample_latents(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> z [n, latent_dim]."""
        return per_seed(torch.randn, seeds, (self.latent_dim,)).to(self.dtype)

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """[n, latent_dim] and labels [n] -> images [n, C, H, W] in [-1, 1]."""
        self.check_condition(condition)
        assert condition is not None  # checked above
        return self.generator(self._joined(z, condition))

    def _classify(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K] of the auxiliary classifier."""
        return self.discriminator(x, None)[1]


class Concatenation(nn.Module):
    """Image [B, C, H, W] and label [B] -> logits [B, 1]: the one-hot label is appended as channels."""

    def __init__(self, channels: int, size: int, width: int, classes: int, norm: Norm) -> None:
        super().__init__()
        self.classes = classes
        self.net = down_net(channels + classes, size, width, outputs=1, norm=norm)

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, None]:
        maps = one_hot(label, self.classes).to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[-2:])
        return self.net(torch.cat([x, maps], 1)), None


class Projection(nn.Module):
    """Image and label [B] -> logits [B, 1]: ψ(φ(x)) + ⟨embedding of the label, φ(x)⟩ (equation 3, figure 1d)."""

    def __init__(self, channels: int, size: int, width: int, classes: int, norm: Norm) -> None:
        super().__init__()
        features = widths(size, width)[-1]
        self.body = down_body(channels, size, width, norm)
        self.squeeze = nn.Sequential(nn.Conv2d(features, features, 4), nn.LeakyReLU(0.2), nn.Flatten())  # 4x4 -> 1x1
        self.output = nn.Linear(features, 1)
        self.embedding = nn.Embedding(classes, features)
        nn.init.normal_(self.embedding.weight, 0.0, features**-0.5)  # so that the inner product is about 1 at the start

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, None]:
        phi = self.squeeze(self.body(x))  # [B, F]
        return self.output(phi) + (self.embedding(label) * phi).sum(1, keepdim=True), None


class Auxiliary(nn.Module):
    """Image -> logits [B, 1] of being real, and logits [B, K] of the classes. The label is ignored."""

    def __init__(self, channels: int, size: int, width: int, classes: int, norm: Norm) -> None:
        super().__init__()
        self.net = down_net(channels, size, width, outputs=1 + classes, norm=norm)

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.net(x)
        return outputs[:, :1], outputs[:, 1:]
