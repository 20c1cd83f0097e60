"""TextConditionalGAN: Reed et al., "Generative Adversarial Text to Image Synthesis", ICML 2016,
https://arxiv.org/abs/1605.05396: GAN-CLS, whose discriminator sees matched, mismatched and generated pairs.

There are two differences from the paper. The paper's text encoder was pretrained on captions and images; here the
generator and the discriminator each learn a small text encoder. The paper's discriminator appends the text embedding as
channels at 4×4; here the logit contains an inner product with the text embedding (Miyato & Koyama 2018, "cGANs with
Projection Discriminator"), which needs far fewer training images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from genbench.core.arguments import Count, Weight, Width
from genbench.core.batch import Batch, DataSpec
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.noise import Draws, per_seed
from genbench.core.optim import GAN_ADAM
from genbench.networks.conv import Norm, dcgan_init, down_body, up_net, widths
from genbench.objectives.adversarial import alikeness
from genbench.objectives.adversarial_settings import AdversarialSettings


class TextConditionalGAN(GenerativeModule):
    """GAN for captioned square images of 16, 32, 64, 128 or 256 pixels.

    Args:
        latent_dim: Dimensions of the noise vector z, drawn from a standard normal; 100 in the paper
        text_dim: Dimensions of a caption's embedding; 128 in the paper
        width: Channels of the layers nearest the image, in both networks; doubled at each downsampling, up to 8 times
        norm: Normalization in the discriminator: over the batch, over each image (layer), or none
        mismatches: Mismatched captions per real image in the discriminator's loss; 1 in the paper
        mismatch_weight: Weight of the mean loss of mismatched pairs; 0.5 in the paper, the same as for generated images
        diversity: Weight of the loss `alikeness`, which makes two images of the same caption differ. The paper has no
            such loss; without it the generator soon ignores the noise
        adversarial: Objective, penalties, augmentation and step counts, see
            `genbench.objectives.adversarial_settings.AdversarialSettings`
    """

    default_optimizer = GAN_ADAM
    players = {"generator": ("generator",), "discriminator": ("discriminator",)}
    ema = ("generator",)
    changeable = ("mismatches", "mismatch_weight", "diversity")
    conditional = True
    latent_dtype = "float32"

    def __init__(
        self,
        spec: DataSpec | None = None,
        latent_dim: Width = 100,
        text_dim: Width = 128,
        width: Width = 64,
        norm: Norm = "batch",
        mismatches: Count = 1,
        mismatch_weight: Weight = 0.5,
        diversity: Weight = 0.0,
        adversarial: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, **training)
        self.latent_dim, self.latent_shape = latent_dim, (latent_dim,)
        self.adversarial = AdversarialSettings.of(adversarial)
        self.mismatches, self.mismatch_weight, self.diversity = mismatches, mismatch_weight, diversity
        if self.spec.target != "caption":
            raise UserError(
                "TextConditionalGAN needs captions, but this data has none. Choose captioned data, such as "
                "`--data Shapes --data.target caption`."
            )
        channels, size, words = self.spec.channels, self.spec.size, len(self.spec.vocabulary)
        self.generator = TextGenerator(channels, size, width, words, latent_dim, text_dim)
        self.discriminator = TextDiscriminator(channels, size, width, words, text_dim, norm)
        dcgan_init(self)
        self.adversarial.constrain(self.discriminator)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real, caption = batch.image, batch.caption  # [B, C, H, W], [B, L]
        assert caption is not None  # the data's target is `caption`
        if len(real) < 2:
            raise UserError(
                "TextConditionalGAN takes mismatched captions from the batch, so each device needs at least 2 images."
            )
        wrong = [_mismatched(caption, self.draw, 1 + k % (len(caption) - 1)) for k in range(self.mismatches)]
        half = len(real) // 2
        # two images for each caption of the first half, and one image for the last caption of an odd batch
        fake_caption = torch.cat([caption[:half], caption[:half], caption[2 * half :]]) if self.diversity else caption
        view = self.adversarial.view(self.draw, self.images_seen)
        generator_steps = self.adversarial.generator_steps_due(self.updates["discriminator"])
        with torch.set_grad_enabled(generator_steps > 0):
            fake = self._generate(fake_caption)  # used by both updates, since the generator steps last

        with self.turn("discriminator") as turn:
            # algorithm 1: s_r of matched pairs, s_w of real images with mismatched captions, s_f of generated images
            real_logits, *wrong_logits = self.discriminator(view(real), caption, *wrong)  # [B, 1] each
            (fake_logits,) = self.discriminator(view(fake.detach()), fake_caption)
            terms = self.adversarial.discriminator_loss(real_logits, fake_logits)
            terms["fake"] = terms["fake"] / 2
            terms["mismatched"] = self.mismatch_weight * self.adversarial.objective.fake(torch.cat(wrong_logits))
            forward = self.discriminator.forward
            terms |= self.adversarial.penalties(lambda x: forward(view(x), caption)[0], real, fake, self.draw)
            turn.minimize(**terms)
            turn.log(**self.adversarial.balance(real_logits, fake_logits))
        self.adversarial.clip_weights_(self.discriminator)

        for step in range(generator_steps):
            with self.turn("generator") as turn:
                fake = self._generate(fake_caption) if step else fake
                terms = self.adversarial.generator_loss(self.discriminator(view(fake), fake_caption)[0])
                if self.diversity:
                    terms["alikeness"] = self.diversity * alikeness(fake[:half], fake[half : 2 * half])
                turn.minimize(**terms)

    def _generate(self, caption: Tensor) -> Tensor:
        z = self.draw(torch.randn, len(caption), self.latent_dim).to(self.dtype)
        return self.generator(z, caption)

    def sample(self, seeds: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """int64 seeds [n] and captions [n, L] (tokens of the data's vocabulary) -> images [n, C, H, W] in [-1, 1]."""
        return self.decode(self.sample_latents(seeds), condition=condition)

    def sample_latents(self, seeds: Tensor) -> Tensor:
        """int64 seeds [n] -> z [n, latent_dim]."""
        return per_seed(torch.randn, seeds, (self.latent_dim,)).to(self.dtype)

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """[n, latent_dim] and captions [n, L] -> images [n, C, H, W] in [-1, 1]."""
        self.check_condition(condition)
        return self.generator(z, condition)


class TextEncoder(nn.Module):
    """Tokens [B, L], padded with 0 -> [B, text_dim], by word embeddings, a convolution over the words, and a maximum.

    As in Kim 2014, "Convolutional Neural Networks for Sentence Classification".
    """

    def __init__(self, words: int, text_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, text_dim, padding_idx=0)
        self.neighbors = nn.Conv1d(text_dim, text_dim, 3, padding=1)
        self.output = nn.Linear(text_dim, text_dim)

    def forward(self, caption: Tensor) -> Tensor:
        h = relu(self.neighbors(self.embedding(caption).transpose(1, 2)))  # [B, text_dim, L]
        h = h * (caption != 0)[:, None]  # zero at padding, so that it has no influence
        return self.output(h.amax(2))


class TextGenerator(nn.Module):
    """Noise z [B, latent_dim] and captions [B, L] -> images [B, C, H, W] in [-1, 1] (section 4.1)."""

    def __init__(self, channels: int, size: int, width: int, words: int, latent_dim: int, text_dim: int) -> None:
        super().__init__()
        self.text = TextEncoder(words, text_dim)
        self.net = up_net(latent_dim + text_dim, channels, size, width, output=nn.Tanh())

    def forward(self, z: Tensor, caption: Tensor) -> Tensor:
        return self.net(torch.cat([z, self.text(caption)], 1))


class TextDiscriminator(nn.Module):
    """Images [B, C, H, W] and several sets of captions [B, L] -> logits [B, 1] for each set.

    The logit is ψ(φ) + ⟨text, φ⟩. The image features φ are computed once for all sets.
    """

    def __init__(self, channels: int, size: int, width: int, words: int, text_dim: int, norm: Norm) -> None:
        super().__init__()
        features = widths(size, width)[-1]
        self.body = down_body(channels, size, width, norm)
        self.squeeze = nn.Sequential(nn.Conv2d(features, features, 4), nn.LeakyReLU(0.2), nn.Flatten())  # 4x4 -> 1x1
        self.output = nn.Linear(features, 1)
        self.text = nn.Sequential(TextEncoder(words, text_dim), nn.Linear(text_dim, features))

    def forward(self, x: Tensor, *captions: Tensor) -> list[Tensor]:
        phi = self.squeeze(self.body(x))  # [B, F]
        plain = self.output(phi)
        texts = self.text(torch.cat(captions)).split(len(x))  # [B, F] each
        return [plain + (text * phi).sum(1, keepdim=True) for text in texts]


def _mismatched(caption: Tensor, draw: Draws, roll: int) -> Tensor:
    """Replace one word of each caption by the word of a different caption of the batch; [B, L] -> [B, L].

    The other caption is `roll` places earlier in the batch. A caption that equals the other one is not changed.
    """
    other = caption.roll(roll, 0)
    place = (draw(torch.rand, *caption.shape) * (caption != other)).argmax(1, keepdim=True)  # [B, 1]
    return caption.scatter(1, place, other.gather(1, place))
