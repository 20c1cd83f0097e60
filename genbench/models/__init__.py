"""The models, one file per model."""

from genbench.models.autoencoder import Autoencoder
from genbench.models.conditional_gan import ConditionalGAN
from genbench.models.conditional_vae import ConditionalVAE
from genbench.models.consistency_model import ConsistencyModel
from genbench.models.conv_autoencoder import ConvAutoencoder
from genbench.models.cyclegan import CycleGAN
from genbench.models.dcgan import DCGAN
from genbench.models.ddpm import DDPM
from genbench.models.denoising_autoencoder import DenoisingAutoencoder
from genbench.models.edm import EDM
from genbench.models.flow_matching import FlowMatching
from genbench.models.gan import GAN
from genbench.models.glow import Glow
from genbench.models.latent_diffusion import LatentDiffusion
from genbench.models.latent_mixture import LatentMixture
from genbench.models.mean_flow import MeanFlow
from genbench.models.pix2pix import Pix2Pix
from genbench.models.pixelcnn import PixelCNN
from genbench.models.real_nvp import RealNVP
from genbench.models.segmentation_unet import SegmentationUNet
from genbench.models.semi_supervised_gan import SemiSupervisedGAN
from genbench.models.sngan import SNGAN
from genbench.models.text_conditional_gan import TextConditionalGAN
from genbench.models.unet import UNet
from genbench.models.vae import VAE
from genbench.models.vq_prior import VQPrior
from genbench.models.vqvae import VQVAE

__all__ = [
    "DCGAN",
    "DDPM",
    "EDM",
    "GAN",
    "SNGAN",
    "VAE",
    "VQVAE",
    "Autoencoder",
    "ConditionalGAN",
    "ConditionalVAE",
    "ConsistencyModel",
    "ConvAutoencoder",
    "CycleGAN",
    "DenoisingAutoencoder",
    "FlowMatching",
    "Glow",
    "LatentDiffusion",
    "LatentMixture",
    "MeanFlow",
    "Pix2Pix",
    "PixelCNN",
    "RealNVP",
    "SegmentationUNet",
    "SemiSupervisedGAN",
    "TextConditionalGAN",
    "UNet",
    "VQPrior",
]
