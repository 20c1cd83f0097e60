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
from genbench.core.optim import merge
from genbench.core.precision import full
from genbench.networks.conv import dcgan_init
from genbench.networks.cyclegan import ImagePool, ResidualTranslator
from genbench.networks.pix2pix import PatchGAN, refuse_small
from genbench.networks.unet import refuse_stride
from genbench.objectives.adversarial import LeastSquares

# section 4 and the authors' code
ADAM = {"class_path": "torch.optim.Adam", "lr": 2e-4, "betas": [0.5, 0.999]}


class CycleGAN(GenerativeModule):
    """Two domains, each made from the other and back again, with no pairs to learn from.

    Args:
        width: Channels of the generators at full resolution
        blocks: Their residual blocks; the paper's are 6 for 128 pixels and 9 from 256 on
        discriminator_width: Channels of the discriminators' first layer
        patch_layers: Halvings of the discriminators: 3 judge patches of 70×70, 2 of 34×34, 1 of 16×16
        norm: Normalisation of all four: of each channel over an image, as in the paper (instance), or of an image over
            all channels (layer). The first takes the colour from an image of one colour: it is in the channels' scale
        cycle: Weight of the absolute difference after there and back, lambda of equation 3
        identity: Weight of leaving images alone that are of the wanted domain already, which keeps their colours;
            section 5.2 has half of `cycle` for paintings made photographs, and none otherwise
        pool: Past images of each generator that its discriminator is shown, each process its own
    """

    players = {"generator": ("to_b", "to_a"), "discriminator": ("judge_b", "judge_a")}
    ema = ("to_b", "to_a")
    changeable = ("cycle", "identity")
    per_process = ("pool_b.images", "pool_b.filled", "pool_a.images", "pool_a.filled")
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
        optimizer: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, optimizer=merge(ADAM, optimizer), **training)
        if not self.spec.source:
            raise UserError(
                "CycleGAN learns from images of two domains, and this data has one. Choose data with two, such as "
                "`--data UnpairedFolder --data.path FOLDER` or `--data Shapes --data.target domain`."
            )
        refuse_stride(self.spec.size, self.stride, "CycleGAN", instead="")
        refuse_small(self.spec.size, patch_layers)
        a, b = self.spec.source[0], self.spec.channels
        if identity and a != b:
            raise UserError(f"Images of {a} and of {b} channels cannot be left alone: say `--model.identity 0`.")
        self.cycle, self.identity, self.objective = cycle, identity, LeastSquares()
        self.to_b, self.to_a = (ResidualTranslator(*io, width, blocks, norm) for io in ((a, b), (b, a)))
        self.judge_b, self.judge_a = (PatchGAN(c, discriminator_width, patch_layers, norm) for c in (b, a))
        dcgan_init(self)  # section 7.1
        self.pool_b, self.pool_a = (ImagePool(pool, shape) for shape in (self.spec.shape, self.spec.source))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        a, b = batch.source, batch.image  # [B, C', H, W], [B, C, H, W], in no relation
        with self.turn("generator") as turn:
            made_b, made_a = self.to_b(a), self.to_a(b)
            logits = self.judge_b(made_b), self.judge_a(made_a)
            # the paper's generators minimise the square itself, and this objective has half of it
            terms = {"adversarial": 2 * sum(self.objective.generator(x) for x in logits)}
            if self.cycle:
                terms["cycle"] = self.cycle * (_distance(self.to_a(made_b), a) + _distance(self.to_b(made_a), b))
            if self.identity:
                terms["identity"] = self.identity * (_distance(self.to_b(b), b) + _distance(self.to_a(a), a))
            turn.minimize(**terms)

        old_b, old_a = (
            pool(made.detach(), self.draw(torch.rand, len(made), 2))
            for pool, made in ((self.pool_b, made_b), (self.pool_a, made_a))
        )
        with self.turn("discriminator") as turn:
            pairs = (self.judge_b, b, old_b), (self.judge_a, a, old_a)
            turn.minimize(
                real=sum(self.objective.real(judge(real)) for judge, real, _ in pairs),
                fake=sum(self.objective.fake(judge(fake)) for judge, _, fake in pairs),
            )

    def translate(self, x: Tensor, *, to: str = "B") -> Tensor:
        """[B, C, H, W] of the one domain -> [B, C', H, W] in [-1, 1] of the other, `to`."""
        return (self.to_b if to == "B" else self.to_a)(x)


def _distance(x: Tensor, y: Tensor) -> Tensor:
    return l1_loss(full(x), full(y))
