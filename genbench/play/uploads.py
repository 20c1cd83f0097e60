"""Reads the images of the user and converts them like the model's training images."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from genbench.core.batch import from_uint8
from genbench.core.errors import UserError
from genbench.data.image_files import Fit, picture_size, read_picture, size_of
from genbench.data.ranges import DTYPE, of_domain, pixels
from genbench.evaluation.images import resizing_of
from genbench.play.actions import Loaded, Seen

if TYPE_CHECKING:
    from genbench.data.ranges import Stored

MOST_BYTES = "10mb"
MOST_PIXELS = 40_000_000  # a picture of this size needs 120 MB in memory
LIMIT = f"the page accepts at most {MOST_PIXELS // 10**6} million. Scale it down first."
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def read(path: str | Path) -> Stored:
    """Read an uploaded image; of an animation, the first frame.

    Raises:
        UserError: it is not an image, is damaged, or has too many pixels.
    """
    path = Path(path)
    name = path.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MOST_PIXELS is lower than the limit of Pillow
        try:
            width, height = picture_size(path, name)
            if width * height > MOST_PIXELS:
                raise UserError(f"{name} has {width:,}×{height:,} pixels; {LIMIT}")
            return read_picture(path, name, frame=0)
        except UserError as error:
            if isinstance(error.__cause__, Image.DecompressionBombError):
                raise UserError(f"{name} has too many pixels; {LIMIT}") from error
            if "cannot be read" not in str(error):
                raise
            endings = ", ".join(sorted({ending[1:].upper() for ending in ENDINGS}))
            raise UserError(f"{name} is not an image that can be read. Upload one of: {endings}.") from error


def drawn(address: str) -> Image.Image:
    """The gray image of a PNG in a data URI, from the drawing board.

    Raises:
        UserError: it is something else.
    """
    kind, _, content = address.partition(",")
    try:
        if kind != "data:image/png;base64" or len(content) > 10**6:
            raise ValueError("no drawing")
        with Image.open(io.BytesIO(base64.b64decode(content, validate=True)), formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError("too large")
            return image.convert("L")
    except (ValueError, OSError, SyntaxError) as error:  # what Pillow raises for a damaged PNG
        raise UserError("The drawing could not be read. Clear it and draw again.") from error


def seen_by(shown: Loaded, image: Stored, name: str) -> Seen:
    """Resize and convert an image like the training images of a model.

    Raises:
        UserError: the type or values of the image do not fit the `range` setting of the training data.
    """
    how, enlarge = resizing_of(shown.trained_on)
    settings: dict[str, Any] = shown.trained_on.get("arguments") or {}
    spec = shown.model.spec
    translates = hasattr(shown.model, "translate") and bool(spec.source)
    channels, size = (spec.source if translates else spec.shape)[::2]
    # images of 8 bits keep the range of their dtype
    range_ = None if isinstance(image, Image.Image) else of_domain(settings.get("range"), "A" if translates else "B")
    array = Fit(size, channels, how, enlarge, range=range_ or DTYPE).one(image, name)
    width, height = size_of(image)
    given = f"{width}×{height} {_color(image)}"
    note = f"{given} converted as in training to {size}×{size} {'gray' if channels == 1 else 'RGB'} ({how})."
    if spec.binary:
        array = np.where(array >= 128, 255, 0).astype(np.uint8)
        note += " Each pixel was made black or white, because the model was trained on such images."
    x = from_uint8(torch.from_numpy(array.copy())[None]).to(device=shown.model.device, dtype=shown.model.dtype)
    return Seen(x, note)


def _color(image: Stored) -> str:
    return "gray" if pixels(image).ndim == 2 else "RGB"
