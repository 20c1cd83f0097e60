"""One file per system of the literature."""

from genbench.models.conditional_gan import ConditionalGAN
from genbench.models.dcgan import DCGAN
from genbench.models.gan import GAN
from genbench.models.semi_supervised_gan import SemiSupervisedGAN
from genbench.models.sngan import SNGAN
from genbench.models.text_conditional_gan import TextConditionalGAN
from genbench.models.vae import VAE

__all__ = ["DCGAN", "GAN", "SNGAN", "VAE", "ConditionalGAN", "SemiSupervisedGAN", "TextConditionalGAN"]
