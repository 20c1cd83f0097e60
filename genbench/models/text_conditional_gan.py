"""TextConditionalGAN: Reed et al., "Generative Adversarial Text to Image Synthesis", ICML 2016,
https://arxiv.org/abs/1605.05396: GAN-CLS, whose discriminator sees matched, mismatched and generated pairs.

The paper's text encoder was trained beforehand on captions and images; here each player learns a small one of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.core.optim import merge
from genbench.networks.conv import Norm, dcgan_init, down_body, up_net, widths
from genbench.objectives.game import Game

# section 5: Adam with learning rate 0.0002 and momentum 0.5
ADAM = {"class_path": "torch.optim.Adam", "lr": 2e-4, "betas": [0.5, 0.999]}


class TextConditionalGAN(GenerativeModule):
    """GAN of captioned square images of any power of two from 16 to 256 pixels.

    Args:
        latent_dim: Numbers in the noise vector z, from a standard normal; the paper's 100
        text_dim: Numbers that a caption becomes; the paper's 128
        width: Channels of both networks next to the image; they double at each halving, at most 8 times
        norm: Normalisation in the discriminator: over the batch, over each image (layer), or none
        game: Objective, penalties and balance, see `genbench.objectives.game.Game`
    """

    players = {"generator": ("generator",), "discriminator": ("discriminator",)}
    averaged = ("generator",)
    conditional = True

    def __init__(
        self,
        spec: DataSpec | None = None,
        latent_dim: int = 100,
        text_dim: int = 128,
        width: int = 64,
        norm: Norm = "batch",
        game: dict[str, Any] | None = None,
        optimizer: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, optimizer=merge(ADAM, optimizer), **training)
        self.latent_dim, self.game = latent_dim, Game.of(game)
        if self.spec.target != "caption":
            raise UserError(
                "TextConditionalGAN learns from captions, and this data has none. Choose captioned data, such as "
                "`--data Shapes --data.target caption`."
            )
        channels, size, words = self.spec.channels, self.spec.size, len(self.spec.vocabulary)
        self.generator = Drawer(channels, size, width, words, latent_dim, text_dim)
        self.discriminator = Judge(channels, size, width, words, text_dim, norm)
        dcgan_init(self)
        self.game.constrain(self.discriminator)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real, caption, game = batch.image, batch.caption, self.game  # [B, C, H, W], [B, L]
        if len(real) < 2:
            raise UserError("TextConditionalGAN takes mismatched captions from its batch: give each device 2 images.")
        turns, view = game.generator_turns(self), game.view(self.draw, self.images_seen)
        with torch.set_grad_enabled(turns > 0):
            fake = self._generate(caption)

        with self.turn("discriminator") as turn:
            # algorithm 1: s_r of right pairs, s_w of real images with another's caption, s_f of generated images
            matched, mismatched = self.discriminator(view(real), caption, caption.roll(1, 0))  # [B, 1] each
            (fake_logits,) = self.discriminator(view(fake.detach()), caption)
            terms = game.discriminator(matched, fake_logits)
            terms |= {"fake": terms["fake"] / 2, "mismatched": game.objective.fake(mismatched) / 2}
            terms |= game.penalties(lambda x: self.discriminator.forward(view(x), caption)[0], real, fake, self.draw)
            turn.minimize(**terms)
            turn.log(**game.balance(matched, fake_logits))
        game.clip_(self.discriminator)

        for again in range(turns):
            with self.turn("generator") as turn:
                fake = self._generate(caption) if again else fake
                (fake_logits,) = self.discriminator(view(fake), caption)
                turn.minimize(**game.generator(fake_logits))

    def _generate(self, caption: Tensor) -> Tensor:
        z = self.draw(torch.randn, len(caption), self.latent_dim).to(self.dtype)
        return self.generator(z, caption)

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n] and captions [n, L] (tokens of the data's vocabulary) -> images [n, C, H, W] in [-1, 1]."""
        if condition is None:
            raise UserError("TextConditionalGAN draws what a caption says: give one for each image.")
        return self.generator(per_seed(torch.randn, seeds, (self.latent_dim,)).to(self.dtype), condition)


class TextEncoder(nn.Module):
    """Tokens [B, L], padded with 0, -> [B, text_dim]: words, their neighbourhoods, and the most of each feature.

    One convolution over the words, then a maximum (Kim 2014, "Convolutional Neural Networks for Sentence
    Classification").
    """

    def __init__(self, words: int, text_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, text_dim, padding_idx=0)
        self.neighbours = nn.Conv1d(text_dim, text_dim, 3, padding=1)
        self.output = nn.Linear(text_dim, text_dim)

    def forward(self, caption: Tensor) -> Tensor:
        h = relu(self.neighbours(self.embedding(caption).transpose(1, 2)))  # [B, text_dim, L]
        h = h * (caption != 0)[:, None]  # what stands at the padding says nothing
        return self.output(h.amax(2))


class Drawer(nn.Module):
    """z [B, latent_dim] and caption [B, L] -> [B, C, H, W] in [-1, 1]: the text joins the noise (section 4.1)."""

    def __init__(self, channels: int, size: int, width: int, words: int, latent_dim: int, text_dim: int) -> None:
        super().__init__()
        self.text = TextEncoder(words, text_dim)
        self.net = up_net(latent_dim + text_dim, channels, size, width, output=nn.Tanh())

    def forward(self, z: Tensor, caption: Tensor) -> Tensor:
        return self.net(torch.cat([z, self.text(caption)], 1))


class Judge(nn.Module):
    """Images [B, C, H, W] and captions [B, L] -> logits [B, 1] of each pair; several captions share the image's part.

    The text joins the features where they are 4×4 (section 4.1).
    """

    def __init__(self, channels: int, size: int, width: int, words: int, text_dim: int, norm: Norm) -> None:
        super().__init__()
        features = widths(size, width)[-1]
        self.text = TextEncoder(words, text_dim)
        self.body = down_body(channels, size, width, norm)
        self.join = nn.Sequential(nn.Conv2d(features + text_dim, features, 1), nn.LeakyReLU(0.2))
        self.output = nn.Sequential(nn.Conv2d(features, 1, 4), nn.Flatten())

    def forward(self, x: Tensor, *captions: Tensor) -> list[Tensor]:
        h = self.body(x)  # [B, F, 4, 4]
        texts = (self.text(caption)[:, :, None, None].expand(-1, -1, 4, 4) for caption in captions)
        return [self.output(self.join(torch.cat([h, text.to(h.dtype)], 1))) for text in texts]
