"""Settings of adversarial training: objective, penalties, augmentation and step counts. All models with a
discriminator use this class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from genbench.core.arguments import Bounds, Checked, Count, Weight
from genbench.core.errors import UserError, did_you_mean
from genbench.core.noise import Draws
from genbench.core.units import Images
from genbench.objectives.adversarial import OBJECTIVES, gradient_penalty, r1_penalty
from genbench.objectives.augment import augmentations, augmented

Terms = dict[str, Tensor]  # scalar loss terms by name
View = Callable[[Tensor], Tensor]  # images -> inputs of the discriminator
Smoothing = Annotated[float, Bounds(above=0.5, at_most=1, words="it must be in (0.5, 1]")]


class AdversarialSettings(metaclass=Checked):
    """Settings of how a discriminator and a generator are trained. A model gets them as its argument `adversarial`, and
    calls the methods of this class in `training_step`.

    Args:
        objective: minimax (saturating, as written in 2014), non_saturating, least_squares, hinge or wasserstein
        gradient_penalty: Weight of (‖∇D‖ - 1)² between real and fake images (WGAN-GP); 10 in the paper
        r1: Weight gamma of the R1 penalty, half the squared gradient on real images
        clip: The discriminator's weights are clamped to [-clip, clip] after each of its steps (WGAN); 0.01 in the paper
        spectral_norm: Divide each of the discriminator's weights by its largest singular value (Miyato et al. 2018)
        smoothing: Target of the discriminator for real images: 0.9 for one-sided label smoothing (Salimans et al. 2016,
            section 3.4)
        instance_noise: Standard deviation of noise on the discriminator's inputs (Sønderby et al. 2017, section 4)
        noise_images: Number of images over which `instance_noise` decreases linearly to 0; by default it is constant
        augment: Differentiable augmentations of the discriminator's inputs (DiffAugment): any of color, translation,
            cutout, affine
        discriminator_steps: Discriminator steps per generator step, each on a new batch
        generator_steps: Generator steps per discriminator step
    """

    _setting = "model.adversarial"

    def __init__(
        self,
        objective: str = "non_saturating",
        gradient_penalty: Weight = 0.0,
        r1: Weight = 0.0,
        clip: Weight = 0.0,
        spectral_norm: bool = False,
        smoothing: Smoothing = 1.0,
        instance_noise: Weight = 0.0,
        noise_images: Images | None = None,
        augment: Sequence[str] = (),
        discriminator_steps: Count = 1,
        generator_steps: Count = 1,
    ) -> None:
        if objective not in OBJECTIVES:
            near = did_you_mean(objective, OBJECTIVES)
            raise UserError(f"Unknown adversarial.objective '{objective}'. Choose from: {', '.join(OBJECTIVES)}.{near}")
        self.objective = OBJECTIVES[objective]()
        self.gradient_penalty, self.r1, self.clip = gradient_penalty, r1, clip
        self.spectral_norm, self.smoothing = spectral_norm, smoothing
        self.instance_noise = instance_noise
        self.noise_images = None if noise_images is None else Images(noise_images)
        self.discriminator_steps, self.generator_steps = discriminator_steps, generator_steps
        self.augment = augmentations(augment, "adversarial.augment")
        if min(discriminator_steps, generator_steps) > 1:
            raise UserError(
                f"adversarial.discriminator_steps is {discriminator_steps} and adversarial.generator_steps is "
                f"{generator_steps}: at least one of them must be 1."
            )
        if smoothing < 1 and not self.objective.smooths:
            raise UserError(
                f"adversarial.smoothing is {smoothing}, but the {objective} objective has no labels to smooth."
            )
        if not (self.objective.bounded or gradient_penalty or r1 or clip or spectral_norm):
            raise UserError(
                "The wasserstein objective is unbounded without a penalty or constraint. Set one of `gradient_penalty: "
                "10`, `clip: 0.01`, `spectral_norm: true` or `r1: 1` in `model.adversarial`."
            )

    @classmethod
    def of(cls, *settings: dict[str, Any] | None) -> AdversarialSettings:
        """Merge the defaults of a model with the user's settings. Later settings replace earlier settings."""
        merged: dict[str, Any] = {}
        for part in settings:
            merged |= part or {}
        known = AdversarialSettings.__init__.__annotations__
        for name, value in merged.items():
            if name not in known or name == "return":
                listed = ", ".join(k for k in known if k != "return")
                raise UserError(f"Unknown `adversarial.{name}`. Choose from: {listed}.{did_you_mean(name, known)}")
            kind = str(known[name])
            expected, valid = {
                "str": ("a word", isinstance(value, str)),
                "bool": ("true or false", isinstance(value, bool)),
                "Sequence[str]": ("a list of words", isinstance(value, (list, tuple))),
            }.get(kind, ("", True))
            if value is None and "None" not in kind:
                raise UserError(f"adversarial.{name} is none, but it needs a value. Remove it to use its default.")
            if not valid:
                raise UserError(f"adversarial.{name} is {value!r}; it must be {expected}.")
        return cls(**merged)

    def constrain(self, discriminator: nn.Module) -> nn.Module:
        """Apply spectral normalization to all weight matrices, if it is set. Call this after initializing the weights.

        Raises:
            UserError: a gradient penalty is set, but the discriminator has batch normalization.
        """
        layers = list(discriminator.modules())
        if self.gradient_penalty and any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in layers):
            raise UserError(
                "adversarial.gradient_penalty penalizes the gradient of each image, but batch normalization in the "
                "discriminator mixes the images of a batch (Gulrajani et al. 2017, section 4). Set the model's `norm: "
                "layer` or `norm: none`."
            )
        for layer in layers if self.spectral_norm else []:
            if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)):
                spectral_norm(layer)
        return discriminator

    # ---- parts of a training step -------------------------------------------------------------------------------

    def generator_steps_due(self, discriminator_updates: int) -> int:
        """Number of generator steps in this training step.

        Args:
            discriminator_updates: Number of discriminator steps before this training step
        """
        due = (discriminator_updates + 1) % self.discriminator_steps == 0
        return self.generator_steps if due else 0

    def view(self, draw: Draws, images_seen: int) -> View:
        """A function that maps images to inputs of the discriminator: it applies augmentations, then instance noise."""
        fraction = max(0.0, 1 - images_seen / self.noise_images) if self.noise_images else 1.0

        def view(x: Tensor) -> Tensor:
            x = augmented(x, self.augment, draw)
            if self.instance_noise and fraction:
                x = x + self.instance_noise * fraction * draw(torch.randn, *x.shape).to(x.dtype)
            return x

        return view

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Terms:
        """[B], [B] -> the terms of the discriminator's loss, scalars by name."""
        return {"real": self.objective.real(real_logits, self.smoothing), "fake": self.objective.fake(fake_logits)}

    def generator_loss(self, fake_logits: Tensor) -> Terms:
        """[B] -> the terms of the generator's loss, scalars by name."""
        return {"adversarial": self.objective.generator(fake_logits)}

    def penalties(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, draw: Draws) -> Terms:
        """The weighted penalties that are set, scalars by name.

        Args:
            discriminator: Function from images [B, ...] to logits [B] or [B, 1], which must use the uncompiled forward
                and include the view
            real, fake: [B, ...]

        Raises:
            UserError: the images, and therefore the weights, are in half precision.
        """
        terms = {}
        if (self.gradient_penalty or self.r1) and real.dtype in (torch.float16, torch.bfloat16):
            raise UserError(
                f"A gradient penalty needs second derivatives, for which weights in {real.dtype} are not precise "
                "enough. Use `--trainer.precision bf16-mixed`, `16-mixed` or `32-true`."
            )
        if self.gradient_penalty:
            epsilon = draw(torch.rand, len(real)).to(real.dtype)
            terms["gradient_penalty"] = self.gradient_penalty * gradient_penalty(discriminator, real, fake, epsilon)
        if self.r1:
            terms["r1"] = self.r1 * r1_penalty(discriminator, real)
        return terms

    def balance(self, real_logits: Tensor, fake_logits: Tensor) -> Terms:
        """For logging: mean D(x) and D(G(z)), and the accuracy on both; {} if the objective defines no probability."""
        real, fake = (self.objective.probability(x.detach()) for x in (real_logits, fake_logits))
        if real is None or fake is None:
            return {}
        return {
            "d_real": real.mean(),
            "d_fake": fake.mean(),
            "real_accuracy": (real > 0.5).float().mean(),
            "fake_accuracy": (fake < 0.5).float().mean(),
        }

    @torch.no_grad()
    def clip_weights_(self, discriminator: nn.Module) -> None:
        """If `clip` is set, clamp the weights. Call this after each discriminator step (Arjovsky et al. 2017, algorithm
        1)."""
        for p in discriminator.parameters() if self.clip else ():
            p.clamp_(-self.clip, self.clip)
