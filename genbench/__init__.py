"""genbench: generative image models, trained, measured with one ruler and compared on one board."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from PIL.Image import Image
    from torch import Tensor

    from genbench.core.module import GenerativeModule

__version__ = "0.1.0"


def load(path: str | os.PathLike, *, raw: bool = False, device: str = "cpu") -> GenerativeModule:
    """The trained model of a checkpoint, in eval mode with its averaged weights: all it needs is the one file.

    Args:
        path: The checkpoint; or a run folder, whose last one is taken; or `last` / `best` of the newest run in `runs`
        raw: The weights as trained, not their moving average
        device: Where to put it

    Raises:
        UserError: there is none, it is damaged, or it holds a model whose class is not imported.
    """
    import genbench.models  # noqa: F401  so that our own classes are known
    from genbench.core import checkpoint_io, files

    return checkpoint_io.load(files.find_checkpoint(path), raw=raw, device=device)


def show(images: Tensor, *, columns: int | None = None) -> Image:
    """A grid of images [N, C, H, W] in [-1, 1], or a plot of points [N, D], which a notebook displays.

    columns  images in a row of the grid; by default it is a square
    """
    from genbench.core.image_grid import enlarged, picture

    return enlarged(picture(images, columns=columns))
