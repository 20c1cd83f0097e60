"""DataModules of images and points, which publish a `DataSpec`."""

from genbench.data.arrays import ArrayImages
from genbench.data.base import ImageData
from genbench.data.digits import Digits
from genbench.data.folder import ImageFolder
from genbench.data.module import DataModule
from genbench.data.pairs import PairedFolder, UnpairedFolder
from genbench.data.points import Grid, Ring
from genbench.data.shapes import Shapes
from genbench.data.stacked import StackedMNIST
from genbench.data.streams import Split
from genbench.data.vision import CIFAR10, CIFAR100, EMNIST, KMNIST, MNIST, STL10, SVHN, CelebA, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "EMNIST",
    "KMNIST",
    "MNIST",
    "STL10",
    "SVHN",
    "ArrayImages",
    "CelebA",
    "DataModule",
    "Digits",
    "FashionMNIST",
    "Grid",
    "ImageData",
    "ImageFolder",
    "PairedFolder",
    "Ring",
    "Shapes",
    "Split",
    "StackedMNIST",
    "UnpairedFolder",
]
