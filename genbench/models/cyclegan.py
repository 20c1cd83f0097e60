"""CycleGAN: Zhu, Park, Isola & Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks", ICCV 2017, https://arxiv.org/abs/1703.10593."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from genbench.core.arguments import Depth, Halvings, Weight, Whole, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.optim import GAN_ADAM
from genbench.core.precision import to_float32
from genbench.networks.conv import dcgan_init
from genbench.networks.cyclegan import ImagePool, ResidualTranslator
from genbench.networks.pix2pix import PatchGAN, refuse_small
from genbench.networks.unet import refuse_stride
from genbench.objectives.adversarial import LeastSquares


class CycleGAN(GenerativeModule):
    """Image translation between two domains in both directions, learned without pairs.

    Args:
        width: Channels of the generators at full resolution
        blocks: Residual blocks of each generator; the paper uses 6 for 128 pixels and 9 for 256 pixels and more
        discriminator_width: Channels of the discriminators' first layer
        patch_layers: Downsampling layers of the discriminators: 3 give patches of 70×70 pixels, 2 of 34×34, 1 of 16×16
        norm: Normalization in all four networks: over each channel of an image, as in the paper (instance), or over all
            channels of an image (layer). Instance normalization removes the color of a single-color image
        cycle: Weight of the cycle-consistency loss, lambda of equation 3
        identity: Weight of the identity loss, which preserves colors; section 5.2 uses half of `cycle` for
            painting-to-photo translation, and 0 otherwise
        pool: Number of past images of each generator that are kept for its discriminator; each process has its own pool
    """

    default_optimizer = GAN_ADAM
    players = {"generator": ("G_AB", "G_BA"), "discriminator": ("D_B", "D_A")}
    ema = ("G_AB", "G_BA")
    changeable = ("cycle", "identity")
    per_process = ("pool_B.images", "pool_B.filled", "pool_A.images", "pool_A.filled")
    domains = ("A", "B")
    stride = ResidualTranslator.stride

    def __init__(
        self,
        spec: DataSpec | None = None,
        width: Width = 64,
        blocks: Depth = 9,
        discriminator_width: Width = 64,
        patch_layers: Halvings = 3,
        norm: Literal["instance", "layer"] = "instance",
        cycle: Weight = 10.0,
        identity: Weight = 5.0,
        pool: Whole = 50,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        if not self.spec.source:
            raise UserError(
                "CycleGAN needs images of two domains, but this data has one. Choose data with two, such as "
                "`--data UnpairedFolder --data.path FOLDER` or `--data Shapes --data.target domain`."
            )
        refuse_stride(self.spec.size, self.stride, "CycleGAN", instead="")
        refuse_small(self.spec.size, patch_layers)
        a, b = self.spec.source[0], self.spec.channels
        if identity and a != b:
            raise UserError(
                f"The identity loss needs equal channels, but the domains have {a} and {b}. Set `--model.identity 0`."
            )
        self.cycle, self.identity, self.objective = cycle, identity, LeastSquares()
        self.G_AB, self.G_BA = (ResidualTranslator(*io, width, blocks, norm) for io in ((a, b), (b, a)))
        self.D_B, self.D_A = (PatchGAN(c, discriminator_width, patch_layers, norm) for c in (b, a))
        dcgan_init(self)  # section 7.1
        self.pool_B, self.pool_A = (ImagePool(pool, shape) for shape in (self.spec.shape, self.spec.source))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real_A, real_B = batch.source, batch.image  # [B, C', H, W] and [B, C, H, W], unpaired
        assert real_A is not None  # the data has two domains
        objective = self.objective
        with self.turn("generator") as turn:
            fake_B, fake_A = self.G_AB(real_A), self.G_BA(real_B)
            # twice, since the generators of the paper minimize the squared error and this objective is half of it
            terms = {"adversarial": 2 * (objective.generator(self.D_B(fake_B)) + objective.generator(self.D_A(fake_A)))}
            if self.cycle:  # equation 2
                rec_A, rec_B = self.G_BA(fake_B), self.G_AB(fake_A)
                terms["cycle"] = self.cycle * (_l1(rec_A, real_A) + _l1(rec_B, real_B))
            if self.identity:  # section 5.2
                terms["identity"] = self.identity * (_l1(self.G_AB(real_B), real_B) + _l1(self.G_BA(real_A), real_A))
            turn.minimize(**terms)

        fake_B = self.pool_B(fake_B.detach(), self.draw(torch.rand, len(fake_B), 2))  # some of them are past images
        fake_A = self.pool_A(fake_A.detach(), self.draw(torch.rand, len(fake_A), 2))
        with self.turn("discriminator") as turn:
            turn.minimize(
                real=objective.real(self.D_B(real_B)) + objective.real(self.D_A(real_A)),
                fake=objective.fake(self.D_B(fake_B)) + objective.fake(self.D_A(fake_A)),
            )

    def translate(self, x: Tensor, *, to: str = "B") -> Tensor:
        """Images [B, C, H, W] of one domain -> [B, C', H, W] in [-1, 1] of the domain `to`."""
        return (self.G_AB if to == "B" else self.G_BA)(x)


def _l1(x: Tensor, y: Tensor) -> Tensor:
    return l1_loss(to_float32(x), to_float32(y))
