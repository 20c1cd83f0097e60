"""Functions that sample images with a network."""
