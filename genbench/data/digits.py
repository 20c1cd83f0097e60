"""scikit-learn's handwritten digits: 1,797 real 8×8 scans that come with the package, no download."""

from __future__ import annotations

import torch

from genbench.data.base import ImageData, Stage
from genbench.data.streams import Split


class Digits(ImageData):
    """Optical recognition of handwritten digits (Alpaydin & Kaynak 1998), the 1,797 test scans in scikit-learn.

    The last 297 are the test split. Native size 8×8, gray; enlarged smoothly to the size that is asked for.
    """

    classes = tuple("0123456789")
    native_channels = 1
    native_enlarge = True
    native_range = "dtype"
    extractor = "digitsnet"

    def split(self, stage: Stage) -> Split:
        from sklearn.datasets import load_digits  # heavy, and only this data set wants it

        images, labels = load_digits(return_X_y=True)
        images = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype("uint8")  # the scans count 0..16
        part = slice(0, 1500) if stage == "train" else slice(1500, None)
        images, labels = images[part], labels[part]
        return Split(len(images), images.__getitem__, label=torch.as_tensor(labels, dtype=torch.int64))
