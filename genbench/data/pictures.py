"""From a picture as a data set keeps it to a square of uint8 [C, H, W]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from genbench.core.errors import UserError
from genbench.data.ranges import DTYPE, Range

How = Literal["crop", "pad", "stretch", "none"]
Pictures = np.ndarray | Iterable[Image.Image | np.ndarray]


def read_picture(file: str | Path | Callable[[], BinaryIO], name: str) -> Image.Image:
    """Read an image as 8-bit grey or RGB, upright, from a path or from what `file()` opens.

    Raises UserError naming a file that is no whole image.
    """
    with _opened(file, name) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise UserError(f"{name} has floating-point pixels, whose black and white are unknown. Convert it to 8 bits.")
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow's own conversion would clip them at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.has_transparency_data:  # over white, as a page would show it
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def picture_size(file: str | Path | Callable[[], BinaryIO], name: str) -> tuple[int, int]:
    """Width and height of the upright picture, by what stands before its pixels."""
    with _opened(file, name) as image:
        # asked for it, Pillow decodes all of a PNG in search of what may stand behind the pixels too
        exif = {} if image.format == "PNG" and "exif" not in image.info else image.getexif()
        on_its_side = exif.get(ExifTags.Base.Orientation, 1) >= 5
        return image.size[::-1] if on_its_side else image.size


@contextmanager
def _opened(file: str | Path | Callable[[], BinaryIO], name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(file() if callable(file) else file) as image:
            yield image
    # Pillow's plugins let through whatever a broken file makes them stumble over, SyntaxError and struct.error included
    except Exception as error:
        raise UserError(f"{name} cannot be read as an image ({error}). Replace it or remove it.") from error


@dataclass(frozen=True)
class Fit:
    """Brings pictures to uint8 [N, C, size, size].

    size      side of the square, in pixels
    channels  1 for grey, 3 for RGB
    how       crop     scale the shorter side to `size`, cut the centre out
              pad      the whole picture in the middle of black, scaled down if it is larger than `size`
              stretch  scale both sides, whatever becomes of the proportions
              none     it must have the size already
    enlarge   a picture that is too small may be scaled up; otherwise it is refused (`pad` leaves it as it is)
    jitter    pixels of the size that will be cut off again: a picture may be so much smaller
    range     which of the stored values become black and white
    """

    size: int
    channels: int
    how: How = "crop"
    enlarge: bool = False
    jitter: int = 0
    range: Range = DTYPE

    def __call__(self, pictures: Pictures, name: Callable[[int], str]) -> np.ndarray:
        """`pictures` as `Split` has them; `name(k)` is the k-th in an error."""
        if isinstance(pictures, np.ndarray):
            pictures = self.range.levels(pictures, name)
            height, width = pictures.shape[1:3]
            unscaled = self.how == "pad" and not self.enlarge and max(height, width) <= self.size
            if unscaled or height == width == self.size:
                return self._pad(self._colour(pictures))
            pictures = map(Image.fromarray, pictures[..., 0] if pictures.shape[3:] == (1,) else pictures)
            return np.stack([self._one(picture, name(k)) for k, picture in enumerate(pictures)])
        return np.stack([self.one(picture, name(k)) for k, picture in enumerate(pictures)])

    def one(self, picture: Image.Image | np.ndarray, name: str) -> np.ndarray:
        """One picture, uint8 [C, size, size]."""
        return self._one(self.range.apply(picture, name), name)

    def _one(self, picture: Image.Image, name: str) -> np.ndarray:
        mode = "L" if self.channels == 1 else "RGB"
        image = picture if picture.mode == mode else picture.convert(mode)
        if image.size != (self.size, self.size):
            image = self._scale(image, name)
        array = np.asarray(image)[None]
        return self._pad(array[..., None] if self.channels == 1 else array)[0]

    def _scale(self, image: Image.Image, name: str) -> Image.Image:
        width, height = image.size
        shorter, longer = sorted(image.size)
        if self.how == "none":
            raise UserError(
                f"{name} is {width}×{height}, data.size is {self.size} and data.fit is `none`, which scales nothing. "
                "Say `--data.fit crop`, `pad` or `stretch`, or another `--data.size`."
            )
        if self.how != "pad" and shorter < self.size - self.jitter and not self.enlarge:
            raise UserError(
                f"{name} is {width}×{height}, smaller than data.size, which is {self.size - self.jitter}. Say "
                "`--data.enlarge true` to scale such pictures up, `--data.fit pad` to put them in the middle of "
                f"black, or `--data.size {shorter}` or less."
            )
        if self.how == "pad":
            scale = self.size / longer
            if scale > 1 and not self.enlarge:
                return image
            return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.LANCZOS)
        if self.how == "stretch":
            return image.resize((self.size, self.size), Image.LANCZOS)
        # cut before scaling, so that a long picture is not resampled where nobody will see it
        left, top = (width - shorter) / 2, (height - shorter) / 2
        return image.resize((self.size, self.size), Image.LANCZOS, box=(left, top, left + shorter, top + shorter))

    def _colour(self, pictures: np.ndarray) -> np.ndarray:
        """[N, H, W] or [N, H, W, 3] to [N, H, W, C]; the luma is Pillow's (ITU-R 601-2), to the bit."""
        if pictures.ndim == 3:
            pictures = pictures[..., None]
        if pictures.shape[-1] == 3 and self.channels == 1:
            luma = pictures.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
            return ((luma + 0x8000) >> 16).astype(np.uint8)[..., None]
        return pictures  # one channel spreads over three where `_pad` assigns it

    def _pad(self, pictures: np.ndarray) -> np.ndarray:
        """[N, H, W, C] to [N, C, size, size], in the middle of black."""
        count, height, width, _ = pictures.shape
        out = np.zeros((count, self.channels, self.size, self.size), dtype=np.uint8)
        top, left = (self.size - height) // 2, (self.size - width) // 2
        out[:, :, top : top + height, left : left + width] = pictures.transpose(0, 3, 1, 2)
        return out
