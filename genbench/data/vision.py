"""Data sets that torchvision downloads, checks and reads, in its folder layout below the data root."""

from __future__ import annotations

import string
from typing import Any, Literal

import numpy as np
import torch

from genbench.core.errors import UserError
from genbench.data.base import ImageData, Stage
from genbench.data.readers import FilePictures, Files
from genbench.data.streams import Split

_DIGITS = tuple(string.digits)


class TorchvisionData(ImageData):
    """Base class of the data sets that torchvision reads."""

    abstract = True
    native_range = "dtype"
    dataset: str  # name of the class in torchvision.datasets
    source_page: str  # where users find the files
    files: tuple[str, ...]  # paths below the root
    test_images: int  # published number of test images, known without the files

    def which(self, stage: Stage) -> dict[str, Any]:
        """Arguments that select a split in torchvision's class."""
        return {"train": stage == "train"}

    def arrays(self, data: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 [N, H, W] or [N, H, W, 3] and labels [N] of an object of torchvision's class."""
        return np.asarray(data.data), data.targets

    def split(self, stage: Stage) -> Split:
        data = self._open(stage)
        images, labels = self.arrays(data)
        label = torch.as_tensor(np.asarray(labels), dtype=torch.int64) if self.classes else None
        return Split(len(images), images.__getitem__, label=label)

    def prepare_data(self) -> None:
        """Download missing files; Lightning calls this on one process of each machine."""
        if self.download and self.missing():
            for stage in self.own_splits:
                self._open(stage, download=True)

    def missing(self) -> list[str]:
        """Paths below the root of the missing files."""
        return [name for name in self.files if not (self.root / name).exists()]

    def _open(self, stage: Stage, download: bool = False) -> Any:
        import torchvision.datasets

        try:
            return getattr(torchvision.datasets, self.dataset)(self.root, download=download, **self.which(stage))
        # a broken pickle, a short file, a refused connection or a missing package may raise any exception
        except Exception as error:
            reason = str(error).strip().split("\n")[-1] or type(error).__name__
            missing = self.missing()
            if not missing:
                raise UserError(
                    f"{self.name} is in {self.root.absolute()} but cannot be read ({reason}). Delete "
                    f"{', '.join(self.files)} there and download them again, from {self.source_page}."
                ) from error
            tried = f"could not be downloaded ({reason})" if download else "`data.download` is false"
            raise UserError(
                f"{self.name} is not at {self.root.absolute()} and {tried}. Put {', '.join(missing)} there, from "
                f"{self.source_page}, or set GENBENCH_DATA or `--data.root` to the folder that has them."
            ) from error


def _idx_files(folder: str, train: str = "train-", test: str = "t10k-") -> tuple[str, ...]:
    return tuple(
        f"{folder}/raw/{part}{kind}-ubyte" for part in (train, test) for kind in ("images-idx3", "labels-idx1")
    )


class _Padded(TorchvisionData):
    """Base class of MNIST and the data sets in its format: 28×28 gray, padded by 2 pixels to 32×32."""

    abstract = True
    test_images = 10_000
    native_channels = 1
    native_resize_mode = "pad"


class MNIST(_Padded):
    """Handwritten digits (LeCun et al. 1998): 60,000 + 10,000 images, 28×28 gray, padded by 2 to 32×32."""

    dataset = "MNIST"
    source_page = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    files = _idx_files("MNIST")
    classes = _DIGITS
    extractor = "mnistnet"


class FashionMNIST(_Padded):
    """Articles of clothing (Xiao et al. 2017): 60,000 + 10,000 images, 28×28 gray, padded by 2 to 32×32."""

    dataset = "FashionMNIST"
    source_page = "https://github.com/zalandoresearch/fashion-mnist"
    files = _idx_files("FashionMNIST")
    classes = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip


class KMNIST(_Padded):
    """Cursive Japanese characters (Clanuwat et al. 2018): 60,000 + 10,000 images, 28×28 gray, padded by 2 to 32×32."""

    dataset = "KMNIST"
    source_page = "http://codh.rois.ac.jp/kmnist/"
    files = _idx_files("KMNIST")
    classes = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


# lower-case letters that look like their capitals: three of EMNIST's variants merge the two (table 1 of the paper)
_MERGED = set("cijklmopsuvwxyz")
_EMNIST_CLASSES = {
    "byclass": tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase),
    "bymerge": tuple(c for c in string.digits + string.ascii_uppercase + string.ascii_lowercase if c not in _MERGED),
    "letters": tuple(string.ascii_lowercase),
    "digits": _DIGITS,
    "mnist": _DIGITS,
}
_EMNIST_TEST = {
    "balanced": 18_800, "byclass": 116_323, "bymerge": 116_323, "digits": 40_000, "letters": 20_800, "mnist": 10_000,
}  # fmt: skip
_EMNIST_CLASSES["balanced"] = _EMNIST_CLASSES["bymerge"]


class EMNIST(_Padded):
    """Handwritten letters and digits (Cohen et al. 2017), 28×28 gray, padded by 2 to 32×32.

    Args:
        split: One of six variants: balanced and bymerge have 47 classes, byclass 62, letters 26, digits and
            mnist 10
    """

    dataset = "EMNIST"
    source_page = "https://www.nist.gov/itl/products-and-services/emnist-dataset"

    def __init__(
        self,
        split: Literal["balanced", "byclass", "bymerge", "letters", "digits", "mnist"] = "balanced",
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if split not in _EMNIST_CLASSES:
            raise UserError(f"data.split is {split}; choose from: {', '.join(_EMNIST_CLASSES)}.")
        self.variant = split
        self.classes = _EMNIST_CLASSES[split]
        self.test_images = _EMNIST_TEST[split]
        self.files = _idx_files("EMNIST", f"emnist-{split}-train-", f"emnist-{split}-test-")

    def which(self, stage: Stage) -> dict[str, Any]:
        return {"split": self.variant, "train": stage == "train"}

    def arrays(self, data: Any) -> tuple[np.ndarray, np.ndarray]:
        # the files contain transposed images, and the labels of letters start at 1
        labels = data.targets - 1 if self.variant == "letters" else data.targets
        return data.data.numpy().transpose(0, 2, 1), labels


class CIFAR10(TorchvisionData):
    """Animals and vehicles (Krizhevsky 2009): 50,000 + 10,000 images, 32×32 RGB, 10 classes."""

    dataset = "CIFAR10"
    test_images = 10_000
    source_page = "https://www.cs.toronto.edu/~kriz/cifar.html"
    files = tuple(
        f"cifar-10-batches-py/{name}"
        for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta")
    )
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    native_hflip = True


class CIFAR100(TorchvisionData):
    """Animals, plants and things (Krizhevsky 2009): 50,000 + 10,000 images, 32×32 RGB, 100 classes."""

    dataset = "CIFAR100"
    test_images = 10_000
    source_page = "https://www.cs.toronto.edu/~kriz/cifar.html"
    files = ("cifar-100-python/train", "cifar-100-python/test", "cifar-100-python/meta")
    classes = tuple(
        """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()  # noqa: SIM905
    )
    native_hflip = True


class SVHN(TorchvisionData):
    """House numbers, cropped to digits (Netzer et al. 2011): 73,257 + 26,032 images, 32×32 RGB."""

    dataset = "SVHN"
    test_images = 26_032
    source_page = "http://ufldl.stanford.edu/housenumbers/"
    files = ("train_32x32.mat", "test_32x32.mat")
    classes = _DIGITS

    def which(self, stage: Stage) -> dict[str, Any]:
        return {"split": stage}

    def arrays(self, data: Any) -> tuple[np.ndarray, np.ndarray]:
        return data.data.transpose(0, 2, 3, 1), data.labels


class STL10(TorchvisionData):
    """Animals and vehicles (Coates et al. 2011): 5,000 + 8,000 images, 96×96 RGB, 10 classes.

    Args:
        unlabeled: Also train on the 100,000 unlabeled images; then no image has a label
    """

    dataset = "STL10"
    test_images = 8_000
    source_page = "https://cs.stanford.edu/~acoates/stl10/"
    files = tuple(f"stl10_binary/{name}.bin" for name in ("train_X", "train_y", "unlabeled_X", "test_X", "test_y"))
    classes = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    native_size = 96
    native_hflip = True

    def __init__(self, unlabeled: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        self.unlabeled = unlabeled
        if unlabeled:
            self.classes = ()

    def which(self, stage: Stage) -> dict[str, Any]:
        return {"split": "train+unlabeled" if stage == "train" and self.unlabeled else stage}

    def arrays(self, data: Any) -> tuple[np.ndarray, np.ndarray]:
        return data.data.transpose(0, 2, 3, 1), data.labels


class CelebA(TorchvisionData):
    """Faces (Liu et al. 2015), aligned: 162,770 + 19,867 + 19,962 images, the central 178×178 pixels of 178×218 RGB.

    Args:
        attribute: One of the 40 attributes (Smiling, Male, Eyeglasses, ...) as a label with two classes. Default: no
            label
    """

    dataset = "CelebA"
    test_images = 19_962
    source_page = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    files = (
        "celeba/img_align_celeba",
        *(f"celeba/list_{name}_celeba.txt" for name in ("attr", "bbox", "landmarks_align")),
        "celeba/identity_CelebA.txt",
        "celeba/list_eval_partition.txt",
    )
    own_splits = ("train", "val", "test")
    published_pixels = False  # papers use the sizes 64, 128 and 256
    native_size = 64
    native_hflip = True

    def __init__(self, attribute: str | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.attribute = attribute
        if attribute is not None:
            self.classes = (f"not {attribute}", attribute)

    def which(self, stage: Stage) -> dict[str, Any]:
        return {"split": "valid" if stage == "val" else stage}

    def split(self, stage: Stage) -> Split:
        data = self._open(stage)
        folder = self.root / "celeba" / "img_align_celeba"
        label = None
        if self.attribute is not None:
            known = [name for name in data.attr_names if name]
            if self.attribute not in known:
                raise UserError(f"data.attribute is {self.attribute}; choose from: {', '.join(known)}.")
            label = data.attr[:, known.index(self.attribute)]
        return Split(len(data.filename), FilePictures(Files(folder), data.filename), data.filename, label=label)
