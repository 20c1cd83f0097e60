"""SemiSupervisedGAN: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016,
https://arxiv.org/abs/1606.03498, section 5. The discriminator has K + 1 classes, the last for generated images. It
learns from a few labeled images and from all unlabeled images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize

from genbench.core.arguments import Weight, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.optim import GAN_ADAM
from genbench.core.precision import to_float32
from genbench.networks.conv import dcgan_init, down_body, up_net, widths
from genbench.networks.mlp import ToUnitRange
from genbench.objectives.adversarial_settings import AdversarialSettings
from genbench.objectives.augment import augmentations, augmented


class SemiSupervisedGAN(GenerativeModule):
    """GAN whose discriminator is a classifier. With `data.labeled`, it uses the labels of only that many images.

    Args:
        generator: Loss of the generator: feature_matching (section 3.1: the distance between batch means of the
            discriminator's last hidden layer), or adversarial (the objective of the adversarial settings)
        latent_dim: Dimensions of the noise vector z, drawn from a standard normal
        network: Convolutional (sizes 16, 32, 64, 128 and 256) or fully connected networks (any size)
        width: Channels of the convolutional layers nearest the image; doubled at each downsampling, up to 8 times
        hidden: Widths of the fully connected discriminator's hidden layers
        noise: Standard deviation of the noise added to the discriminator's hidden layers in training; the noise on its
            input is 0.6 times as large
        norm: Normalization in the convolutional discriminator: over each image (layer), or none
        unsupervised: Weight of the adversarial terms in the discriminator's loss. With 0, the discriminator is a purely
            supervised classifier, and the generator is not trained
        transforms: Augmentations of labeled images that do not change the class: any of color, translation, cutout,
            affine
        consistency: Weight of the cross-entropy between the predictions for a real image and for the transformed image
            (Laine & Aila 2017, "Temporal Ensembling for Semi-Supervised Learning"; with a GAN, Kumar et al. 2017)
        adversarial: Objective, penalties, augmentation and step counts, see
            `genbench.objectives.adversarial_settings.AdversarialSettings`
    """

    default_optimizer = {**GAN_ADAM, "lr": 3e-4}
    players = {"generator": ("generator",), "discriminator": ("discriminator",)}
    latent_dtype = "float32"
    changeable = ("generator", "unsupervised", "transforms", "consistency")

    def __init__(
        self,
        spec: DataSpec | None = None,
        generator: Literal["feature_matching", "adversarial"] = "feature_matching",
        latent_dim: Width = 100,
        network: Literal["conv", "mlp"] = "conv",
        width: Width = 32,
        hidden: Sequence[Width] = (1000, 500, 250, 250, 250),
        noise: Weight = 0.5,
        norm: Literal["layer", "none"] = "layer",
        unsupervised: Weight = 1.0,
        transforms: Sequence[str] = (),
        consistency: Weight = 0.0,
        adversarial: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        self.latent_dim, self.latent_shape = latent_dim, (latent_dim,)
        self.adversarial = AdversarialSettings.of(adversarial)
        self.matches, self.unsupervised = generator == "feature_matching", unsupervised
        self.transforms, self.consistency = augmentations(transforms, "model.transforms"), consistency
        if self.spec.target != "label":
            raise UserError(
                "SemiSupervisedGAN needs labels, but this data has none. Choose data with classes (for Shapes "
                "`--data.target label`), or train a DCGAN."
            )
        shape, classes = self.spec.shape, len(self.spec.classes)
        if network == "conv":
            self.generator = up_net(latent_dim, shape[0], self.spec.size, width, output=nn.Tanh())
            body, features = down_body(shape[0], self.spec.size, width, norm), widths(self.spec.size, width)[-1]
            body = nn.Sequential(Noise(0.6 * noise), body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        else:
            output = nn.Tanh() if len(shape) == 3 else nn.Identity()  # points are not bounded
            layers = _softplus_net([latent_dim, 500, 500, prod(shape)])
            self.generator = nn.Sequential(*layers, output, nn.Unflatten(1, shape))
            entry = ToUnitRange() if len(shape) == 3 else nn.Identity()  # the authors' images are in [0, 1]
            body, features = nn.Sequential(entry, *_noisy_net([prod(shape), *hidden], noise)), hidden[-1]
        self.discriminator = Classifier(body, features, classes)
        if network == "conv":
            dcgan_init(self)
        self.adversarial.constrain(self.discriminator)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = batch.image  # [B, C, H, W]
        known, label = (real, batch.label) if batch.known_image is None else (batch.known_image, batch.known_label)
        assert label is not None  # the data's target is `label`
        if not self.unsupervised:
            self._classifier_step(known, label)
            return

        view = self.adversarial.view(self.draw, self.images_seen)
        generator_steps = self.adversarial.generator_steps_due(self.updates["discriminator"])
        with torch.set_grad_enabled(generator_steps > 0):
            fake = self._generate(len(real))  # used by both updates, since the generator steps last

        with self.turn("discriminator") as turn:
            inputs = [augmented(known, self.transforms, self.draw), real, fake.detach()]
            if self.consistency:
                inputs.append(augmented(real, self.transforms, self.draw))
            # one forward pass for all images, since no layer of the discriminator mixes the images of a batch
            logits, _ = self.discriminator(torch.cat([view(x) for x in inputs]))
            known_class, real_class, fake_class, *transformed = logits.split([len(x) for x in inputs])  # [B, K] each
            real_logits, fake_logits = real_logit(real_class), real_logit(fake_class)
            terms = self.adversarial.discriminator_loss(real_logits, fake_logits)
            forward = self.discriminator.forward
            terms |= self.adversarial.penalties(lambda x: real_logit(forward(view(x))[0]), real, fake, self.draw)
            terms = {name: self.unsupervised * term for name, term in terms.items()}
            terms["class"] = cross_entropy(to_float32(known_class), label)
            if transformed:  # the target is the prediction for the untransformed image, without gradient
                target = to_float32(real_class).detach().softmax(1)
                terms["consistency"] = self.consistency * cross_entropy(to_float32(transformed[0]), target)
            turn.minimize(**terms)
            turn.log(**self.adversarial.balance(real_logits, fake_logits))
        self.adversarial.clip_weights_(self.discriminator)

        for step in range(generator_steps):
            with self.turn("generator") as turn:
                logits, features = self.discriminator(view(self._generate(len(real)) if step else fake))
                if self.matches:
                    turn.minimize(features=self._feature_matching(view(real), features))
                else:
                    turn.minimize(**self.adversarial.generator_loss(real_logit(logits)))

    def _classifier_step(self, known: Tensor, label: Tensor) -> None:
        """Train only the discriminator, supervised. The generator does not step."""
        view = self.adversarial.view(self.draw, self.images_seen)
        with self.turn("discriminator") as turn:
            logits, _ = self.discriminator(view(augmented(known, self.transforms, self.draw)))  # [B, K]
            turn.minimize(**{"class": cross_entropy(to_float32(logits), label)})

    def _feature_matching(self, real: Tensor, fake_features: Tensor) -> Tensor:
        """Squared distance between the mean features of `real` [B, C, H, W] and of `fake_features` [B, F] (section
        3.1)."""
        with torch.no_grad():
            _, real_features = self.discriminator(real)
        return (to_float32(real_features).mean(0) - to_float32(fake_features).mean(0)).square().sum()

    def _generate(self, count: int) -> Tensor:
        return self.generator(self.draw(torch.randn, count, self.latent_dim).to(self.dtype))

    def classify(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K] of the classes."""
        return self.discriminator(x)[0]

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n] -> images [n, C, H, W] in [-1, 1]."""
        if condition is not None:
            raise UserError("SemiSupervisedGAN cannot sample by class. Remove the label.")
        return self.decode(self.sample_latents(seeds))

    def sample_latents(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> z [n, latent_dim]."""
        return per_seed(torch.randn, seeds, (self.latent_dim,)).to(self.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """[n, latent_dim] -> images [n, C, H, W] in [-1, 1]."""
        return self.generator(z)

    def discriminate(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B] of being real."""
        return real_logit(self.classify(x))


def real_logit(logits: Tensor) -> Tensor:
    """Class logits l [B, K] -> logit of being real [B]: D = Z/(Z + 1), Z = Σ exp l, as class K + 1 has logit 0 (section
    5)."""
    return to_float32(logits).logsumexp(1)


class Classifier(nn.Module):
    """[B, C, H, W] -> logits [B, K], and the features [B, F] of the last hidden layer."""

    def __init__(self, body: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(features, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.head(features), features


class UnitRows(nn.Linear):
    """Linear layer whose weight rows are normalized to length √2: the authors' weight normalization with fixed lengths.

    The length √2 preserves the scale of activations across ReLU layers.
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, 2**0.5 * normalize(self.weight, dim=1), self.bias)


class Noise(nn.Module):
    """Adds Gaussian noise in training."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x) if self.training and self.sigma else x


def _noisy_net(sizes: Sequence[int], noise: float) -> nn.Sequential:
    """The authors' network for MNIST: ReLU layers, with noise added before each layer."""
    layers: list[nn.Module] = [nn.Flatten(), Noise(0.6 * noise)]
    for inputs, outputs in pairwise(sizes):
        layer = UnitRows(inputs, outputs)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU(), Noise(noise)]
    return nn.Sequential(*layers)


def _softplus_net(sizes: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.Softplus(), nn.BatchNorm1d(outputs)]
    return [*layers, nn.Linear(sizes[-2], sizes[-1])]
