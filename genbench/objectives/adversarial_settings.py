"""Settings of adversarial training, as a config describes them: objective, penalties, augmentation and step counts. One
class for all models that have a discriminator."""

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
Smoothing = Annotated[float, Bounds(above=0.5, at_most=1, words="the target of real images lies in (0.5, 1]")]


class AdversarialSettings(metaclass=Checked):
    """How a discriminator and a generator are trained; a model's `adversarial` argument holds these.

    A model's `training_step` calls the methods below by name.

    Args:
        objective: minimax (saturating, as written in 2014), non_saturating, least_squares, hinge or wasserstein
        gradient_penalty: Weight of (‖∇D‖ - 1)² between real and fake (WGAN-GP); the paper's is 10
        r1: Weight gamma of the R1 penalty, half the squared gradient on real images
        clip: Bound to which the discriminator's weights are clamped after each of its steps (WGAN); the paper's is 0.01
        spectral_norm: Divide each of the discriminator's weights by its largest singular value (Miyato et al. 2018)
        smoothing: Target of the discriminator for real images: 0.9 for one-sided label smoothing (Salimans et al. 2016,
            section 3.4)
        instance_noise: Standard deviation of noise on the discriminator's inputs (Sønderby et al. 2017, section 4)
        noise_images: Images over which that noise falls linearly to 0; by default it is constant
        augment: Differentiable augmentations of the discriminator's inputs (DiffAugment): any of color, translation,
            cutout, affine
        discriminator_steps: Steps of the discriminator, each on a new batch, for each step of the generator
        generator_steps: Steps of the generator for each step of the discriminator
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
            raise UserError(f"adversarial.objective is '{objective}'; there are {', '.join(OBJECTIVES)}.{near}")
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
                f"adversarial.smoothing is {smoothing}, and the {objective} objective has no labels to smooth."
            )
        if not (self.objective.bounded or gradient_penalty or r1 or clip or spectral_norm):
            raise UserError(
                "The wasserstein objective is unbounded by itself: give `model.adversarial` one of `gradient_penalty: "
                "10`, `clip: 0.01`, `spectral_norm: true` and `r1: 1`."
            )

    @classmethod
    def of(cls, *settings: dict[str, Any] | None) -> AdversarialSettings:
        """Merge the defaults of a model and the settings of its user; later settings replace earlier ones."""
        merged: dict[str, Any] = {}
        for part in settings:
            merged |= part or {}
        known = AdversarialSettings.__init__.__annotations__
        for name, value in merged.items():
            if name not in known or name == "return":
                listed = ", ".join(k for k in known if k != "return")
                raise UserError(f"There is no `adversarial.{name}`; there are {listed}.{did_you_mean(name, known)}")
            kind = str(known[name])
            expected, valid = {
                "str": ("a word", isinstance(value, str)),
                "bool": ("true or false", isinstance(value, bool)),
                "Sequence[str]": ("a list of words", isinstance(value, (list, tuple))),
            }.get(kind, ("", True))
            if value is None and "None" not in kind:
                raise UserError(f"adversarial.{name} is none, and it needs a value. Leave it out for its default.")
            if not valid:
                raise UserError(f"adversarial.{name} is {value!r}; it must be {expected}.")
        return cls(**merged)

    def constrain(self, discriminator: nn.Module) -> nn.Module:
        """Apply spectral normalization to all weight matrices, if set; called after the weights are initialized.

        Raises:
            UserError: the discriminator has batch normalization, and a gradient penalty is set.
        """
        layers = list(discriminator.modules())
        if self.gradient_penalty and any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in layers):
            raise UserError(
                "adversarial.gradient_penalty bounds the gradient of each image, and batch normalization in the "
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
            discriminator_updates: Steps of the discriminator before this training step
        """
        due = (discriminator_updates + 1) % self.discriminator_steps == 0
        return self.generator_steps if due else 0

    def view(self, draw: Draws, images_seen: int) -> View:
        """A function from images to the discriminator's inputs: augmentations, then instance noise."""
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
        """The weighted penalties of these settings, scalars by name.

        Args:
            discriminator: Images [B, ...] -> logits [B] or [B, 1], through the uncompiled forward and the view
            real, fake: [B, ...]

        Raises:
            UserError: the images, and so the weights, are in half precision.
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
        """For logging: mean D(x) and D(G(z)), and the accuracy on both; {} if the objective has no probability."""
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
        """Clamp its weights if `clip` is set, after each of its steps (Arjovsky et al. 2017, algorithm 1, line 7)."""
        for p in discriminator.parameters() if self.clip else ():
            p.clamp_(-self.clip, self.clip)
