"""Arrays of images in .npy and .npz files as a data set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn

from genbench.core.arguments import Bounds, Whole, key_of
from genbench.core.errors import UserError
from genbench.data.array_file import ArrayFile
from genbench.data.array_members import SUFFIXES, refuse_special, refuse_unread
from genbench.data.base import ImageData, Stage
from genbench.data.module import data_root, existing
from genbench.data.streams import Split


class ArrayImages(ImageData):
    """Images in an .npy or .npz file, or in a folder of such files: MedMNIST, ImageNet32, dSprites, CIFAR-10-C, ADM.

    Arrays with train, val or test in their names (`train_images`, `x_test`) are used as splits; a missing val or test
    is held out of train. Images are [N, H, W], [N, H, W, C], [N, C, H, W] or flattened [N, H*W], of integers, floats or
    booleans. Pickled arrays are never loaded. The default size and channels are those of the file, but images of 28×28
    are padded to 32×32, like MNIST.

    Args:
        path: The file or folder, absolute or relative to the current folder or the data root
        key: Name of the array of images; in a folder of .npy files, the name of a file without .npy. Default: chosen by
            name and shape
        labels: Use labels as classes, if the file has labels: integers (the first class may have any number), strings
            or one-hot vectors
        labels_key: Name of the array of labels. Default: `labels`, `label`, `targets`, `target` or `y`; `arr_1` if the
            images are `arr_0`; or an array with one integer per image and one of these words in its name, preferably
            `fine_labels`. For an .npy, the file labels.npy in the same folder, or y_train.npy for X_train.npy
        layout: Order of the axes: images, height, width and channels. Default: chosen by the shape, if that is
            unambiguous
        severity: Which fifth of the images to use, from 1 to 5. The files of CIFAR-10-C contain five severities in
            order
        test_size: Images held out of the training set for testing, if there is no test array. Default: 5000, or a tenth
            of the training set if that is less
    """

    published_pixels = False

    def __init__(
        self,
        path: str,
        key: str | None = None,
        labels: bool = True,
        labels_key: str | None = None,
        layout: Literal["NHW", "NHWC", "NCHW"] | None = None,
        severity: Annotated[int, Bounds(at_least=1, at_most=5)] | None = None,
        test_size: Whole | None = None,
        **kwargs,
    ) -> None:
        if labels_key is not None and not labels:
            raise UserError(f"data.labels_key is {labels_key}, but data.labels is false. Remove one of the two.")
        self.file = ArrayFile(find(path, data_root(kwargs.get("root"))))
        self.images = self.file.images(key, layout, severity)
        if len(self.images) > 1 and "train" not in self.images:
            raise UserError(
                f"{self.file.path} has no training images. Choose an array with `--data.key`: "
                f"{', '.join(images.name for images in self.images.values())}."
            )
        if len(self.images) == 1:
            self.images = {"train": next(iter(self.images.values()))}
        shapes = [images.shape for images in self.images.values()]
        self.native_size = min(shapes[0][:2])
        if shapes[0][:2] == (28, 28):  # like MNIST
            self.native_size, self.native_resize_mode = 32, "pad"
        self.native_channels = 1 if all(shape[2] == 1 for shape in shapes) else 3
        super().__init__(**kwargs)
        self.test_size = test_size
        self.own_splits = tuple(self.images)
        self.label: dict[Stage, torch.Tensor] = {}
        if labels:
            self._read_labels(labels_key)

    def contents(self) -> str:
        labels = {stage: label.tolist() for stage, label in self.label.items()}
        names = key_of(
            {s: [images.name, images.count, list(images.shape), labels.get(s)] for s, images in self.images.items()}
        )
        digest = hashlib.sha256()
        for path in sorted({member.path for images in self.images.values() for member in images.members}):
            with open(path, "rb") as file:
                size = file.seek(0, 2)
                # only 16 parts, since files may be large
                for place in np.linspace(0, max(0, size - 2**16), 16).astype(int):
                    file.seek(place)
                    digest.update(file.read(2**16))
        return f"{names}.{digest.hexdigest()[:16]}"

    def split(self, stage: Stage) -> Split:
        images = self.images[stage].opened()
        return Split(len(images), images, images.name_of, label=self.label.get(stage))

    def _read_labels(self, key: str | None) -> None:
        found = {stage: self.file.labels(images, key) for stage, images in self.images.items()}
        if found["train"] is None:
            return
        values = np.unique(found["train"])
        if len(values) < 2:
            return
        for stage, labels in found.items():
            if labels is None:  # test images often have none
                continue
            if len(unknown := np.setdiff1d(labels, values)):
                raise UserError(
                    f"The labels for `{stage}` in {self.file.path} include {unknown[0]}, which no training image has. "
                    "Use `--data.labels false` to train without labels."
                )
            self.label[stage] = torch.from_numpy(np.searchsorted(values, labels)).long()
        if len(values) == len(found["train"]):
            raise UserError(
                f"Each of the {len(values):,} training images in {self.file.path} has a different label, so the "
                "labels are not classes but measurements or image numbers. Use `--data.labels false` to train "
                "without labels, or choose other labels with `--data.labels_key`."
            )
        self.classes = tuple(map(str, values.tolist()))
        if values.dtype.kind in "iu" and not np.array_equal(values, np.arange(len(values))):
            rank_zero_warn(
                f"{self.file.path}: {len(values)} different labels from {values[0]} to {values[-1]} are used as "
                f"classes 0 to {len(values) - 1}, in that order."
            )


def find(path: str, root: Path) -> Path:
    """An .npy or .npz file or a folder. Raises UserError if there is none at the path."""
    place = existing(path, root)
    refuse_special(place)
    if not place.is_dir() and place.suffix.lower() not in SUFFIXES:
        refuse_unread(place)
        raise UserError(f"{place} is not an .npy or .npz file. For image files, or a zip of them, use `ImageFolder`.")
    return place
