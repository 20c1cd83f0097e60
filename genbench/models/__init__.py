"""One file per system of the literature."""

from genbench.models.dcgan import DCGAN
from genbench.models.vae import VAE

__all__ = ["DCGAN", "VAE"]
