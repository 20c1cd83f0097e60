"""DataModules of images, which publish a `DataSpec`."""

from genbench.data.base import ImageData, Split
from genbench.data.digits import Digits
from genbench.data.folder import ImageFolder
from genbench.data.shapes import Shapes
from genbench.data.vision import CIFAR10, CIFAR100, EMNIST, KMNIST, MNIST, STL10, SVHN, CelebA, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "EMNIST",
    "KMNIST",
    "MNIST",
    "STL10",
    "SVHN",
    "CelebA",
    "Digits",
    "FashionMNIST",
    "ImageData",
    "ImageFolder",
    "Shapes",
    "Split",
]
