"""What trained models are used for: latent spaces, clusters, anomalies, augmentation and export.

The functions take models and tensors; the commands of the same names read and write files.
"""
