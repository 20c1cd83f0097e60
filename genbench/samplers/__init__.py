"""Free functions from a denoiser or an autoregressive net to images."""
