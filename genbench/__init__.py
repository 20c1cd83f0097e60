"""genbench: generative image models, trained, evaluated under one protocol and compared on one leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from PIL.Image import Image
    from torch import Tensor

    from genbench.core.module import GenerativeModule

__version__ = "0.1.0"


def load(
    path: str | os.PathLike, *, raw: bool = False, ema: float | None = None, device: str = "cpu"
) -> GenerativeModule:
    """Load the trained model of a checkpoint, in eval mode with its EMA weights. No other file is needed.

    Args:
        path: The checkpoint; or a run folder, whose last checkpoint is loaded; or `last` / `best`, for the newest run
            in `runs`
        raw: Load the raw weights instead of the EMA weights
        ema: Load the power-function average of this length instead, such as 0.075 (of a run with `power_ema`)
        device: Device of the model

    Raises:
        UserError: the checkpoint does not exist or is damaged, or the class of its model is not imported.
    """
    import genbench.models  # noqa: F401  registers genbench's model classes
    from genbench.core import checkpoint_io, files

    return checkpoint_io.load(files.find_checkpoint(path), raw=raw, ema=ema, device=device)


def show(images: Tensor, *, columns: int | None = None) -> Image:
    """Make a grid of images [N, C, H, W] in [-1, 1], or a plot of points [N, D]. A notebook displays the result.

    columns  images in a row of the grid; by default the grid is square
    """
    from genbench.core.image_grid import enlarged, picture

    return enlarged(picture(images, columns=columns))
