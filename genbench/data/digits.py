"""The handwritten digits of scikit-learn."""

from __future__ import annotations

import torch

from genbench.data.base import ImageData, Stage
from genbench.data.streams import Split


class Digits(ImageData):
    """Handwritten digits (Alpaydin & Kaynak 1998): the 1,797 images in scikit-learn, 8×8 gray, no download.

    The last 297 images are the test split. All images are enlarged to 32×32, or to `size`.
    """

    classes = tuple("0123456789")
    native_channels = 1
    native_enlarge = True
    native_range = "dtype"
    extractor = "digitsnet"

    def split(self, stage: Stage) -> Split:
        from sklearn.datasets import load_digits  # slow to import, and only this data set needs it

        images, labels = load_digits(return_X_y=True)
        images = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype("uint8")  # stored as 0..16
        part = slice(0, 1500) if stage == "train" else slice(1500, None)
        images, labels = images[part], labels[part]
        return Split(len(images), images.__getitem__, label=torch.as_tensor(labels, dtype=torch.int64))
