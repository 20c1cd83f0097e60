"""Pix2Pix: Isola, Zhu, Zhou & Efros, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017,
https://arxiv.org/abs/1611.07004."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from genbench.core.arguments import Bounds, Halvings, Weight, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.module import GenerativeModule
from genbench.core.noise import mix
from genbench.core.optim import GAN_ADAM
from genbench.core.precision import to_float32
from genbench.networks.conv import dcgan_init
from genbench.networks.pix2pix import Norm, PatchGAN, UNetGenerator, refuse_small
from genbench.networks.unet import refuse_single, refuse_stride
from genbench.objectives.adversarial_settings import AdversarialSettings


class Pix2Pix(GenerativeModule):
    """Image-to-image translation learned from pairs, with a PatchGAN discriminator and an L1 loss.

    Args:
        width: Channels of the generator after its first downsampling
        depth: Downsampling layers of the generator; 8 in the paper, for 256 pixels
        dropout: Dropout rate in the first three decoder layers. It is the generator's only noise, so it is also applied
            by `translate`
        discriminator_width: Channels of the discriminator's first layer
        patch_layers: Downsampling layers of the discriminator: 3 give patches of 70×70 pixels, 2 of 34×34, 1 of 16×16,
            0 single pixels
        norm: Normalization in both networks: over each channel of the batch (batch), over each channel of an image
            (instance, equal to the paper's batch normalization with batches of one image), or over all channels of an
            image (layer). With batch normalization, `translate` uses the running averages of training
        l1: Weight of the L1 distance from the target image, lambda of equation 4
        adversarial: Objective, penalties, augmentation and step counts, see
            `genbench.objectives.adversarial_settings.AdversarialSettings`
    """

    default_optimizer = GAN_ADAM
    players = {"generator": ("generator",), "discriminator": ("discriminator",)}
    ema = ("generator",)
    changeable = ("l1",)
    domains = ("B",)

    def __init__(
        self,
        spec: DataSpec | None = None,
        width: Width = 64,
        depth: Annotated[int, Bounds(at_least=2, at_most=16)] = 8,
        dropout: Annotated[float, Bounds(at_least=0, below=1, words="it must be a fraction below 1")] = 0.5,
        discriminator_width: Width = 64,
        patch_layers: Halvings = 3,
        norm: Norm = "batch",
        l1: Weight = 100.0,
        adversarial: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        refuse_single(self.spec, "Pix2Pix")
        inputs, outputs = self.spec.source[0], self.spec.channels
        self.l1, self.adversarial = l1, AdversarialSettings.of(adversarial)
        self.generator = UNetGenerator(inputs, outputs, width, depth, norm, dropout)
        self.stride = self.generator.stride
        refuse_stride(self.spec.size, self.stride, "Pix2Pix")
        refuse_small(self.spec.size, patch_layers)
        self.discriminator = PatchGAN(inputs + outputs, discriminator_width, patch_layers, norm)
        dcgan_init(self)  # section 6.2
        self.adversarial.constrain(self.discriminator)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        source, real = batch.source, batch.image  # [B, C', H, W], [B, C, H, W]
        assert source is not None  # the data's target is `image`
        view = self.adversarial.view(self.draw, self.images_seen)
        generator_steps = self.adversarial.generator_steps_due(self.updates["discriminator"])
        with torch.set_grad_enabled(generator_steps > 0):
            fake = self._generate(source)  # used by both updates, since the generator steps last

        with self.turn("discriminator") as turn:
            pairs = torch.cat([source, real], 1), torch.cat([source, fake.detach().to(real)], 1)
            real_logits, fake_logits = (self.discriminator(view(pair)) for pair in pairs)  # [B, 1, h, w]
            # not halved as in the paper, since Adam is invariant to the scale
            terms = self.adversarial.discriminator_loss(real_logits, fake_logits)
            forward = self.discriminator.forward
            terms |= self.adversarial.penalties(lambda x: forward(view(x)).mean((2, 3)), *pairs, self.draw)
            turn.minimize(**terms)
            turn.log(**self.adversarial.balance(real_logits, fake_logits))
        self.adversarial.clip_weights_(self.discriminator)

        for step in range(generator_steps):
            with self.turn("generator") as turn:
                fake = self._generate(source) if step else fake
                terms = self.adversarial.generator_loss(self.discriminator(view(torch.cat([source, fake.to(real)], 1))))
                turn.minimize(**terms, l1=self.l1 * l1_loss(to_float32(fake), to_float32(real)))

    def _generate(self, source: Tensor) -> Tensor:
        """[B, C', H, W] -> [B, C, H, W], with the dropout of training."""
        return self.generator(source, lambda *shape: self.draw(torch.rand, len(source), *shape))

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """L1 distance of each image from its target, [B]."""
        assert batch.source is not None
        return {"l1": (to_float32(self.translate(batch.source)) - to_float32(batch.image)).abs().flatten(1).mean(1)}

    def translate(self, x: Tensor, *, to: str = "B", seed: int = 0) -> Tensor:
        """[B, C', H, W] -> [B, C, H, W] in [-1, 1].

        The dropout mask is drawn from the seed and is the same for all images, so the result does not depend on the
        batch.
        """
        generator = torch.Generator().manual_seed(mix("translate", seed))
        return self.generator(x, lambda *shape: torch.rand(1, *shape, generator=generator).to(x.device))
