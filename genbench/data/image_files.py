"""Reads image files, and resizes images to square uint8 [C, H, W]."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from genbench.core.errors import UserError
from genbench.core.files import ordinary
from genbench.data import tiff
from genbench.data.ranges import DTYPE, Levels, Range, Stored, pixels

How = Literal["crop", "pad", "stretch", "none"]
StoredImages = np.ndarray | Iterable[Stored]
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the first bytes of TIFF and BigTIFF
File = str | Path | Callable[[], BinaryIO]  # a path, or a function that opens the file
SEVERAL = (".gif", ".tif", ".tiff", ".webp", ".avif")  # formats with several frames


def read_picture(file: File, name: str, frame: int | None = None) -> Stored:
    """Read an image with its stored values and its EXIF rotation applied.

    It is 8-bit gray or RGB, or an array if it has a higher bit depth.

    Args:
        file: A path, or a function that opens the file
        name: Name of the file in errors
        frame: Index of the frame. None: the first frame, but a PNG of several frames is an error

    Raises UserError, with `name`, if the file cannot be read.
    """
    with _opened(file, name) as image:
        if image is not None and image.format == "TIFF":
            image.seek(frame or 0)
        if image is None or (image.format == "TIFF" and not tiff.ordinary(image)):
            return _scientific(file, image, frame or 0)
        if frame is None and image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
            raise UserError(
                f"{name} is an animation of {image.n_frames} frames. Use `--data.frames first` for only the first "
                "frame of such files, or `--data.frames each` for all frames."
            )
        if frame:
            image.seek(frame)
        if image.format == "PPM" and image.tile[0].codec_name != "raw" and image.tile[0].args[-1] != 255:
            return _stated_levels(file, image)
        if image.format == "PNG" and any(";16" in str(tile[3]) for tile in image.tile) and image.mode != "I;16":
            if frame:
                raise ValueError("frames of 16-bit color are not supported; save each frame as a file")
            return tiff.upright(_deep_png(file, image), image.getexif().get(ExifTags.Base.Orientation, 1))
        return _as_shown(image)


def _as_shown(image: Image.Image) -> Stored:
    """Gray or RGB, with EXIF rotation applied, of an image that Pillow reads correctly."""
    inverted = image.format == "TIFF" and tiff.inverted(image)
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        return np.asarray(image)
    if image.mode.startswith("I"):  # PNG or PGM
        array, clear = np.asarray(image).astype(np.uint16), image.info.get("transparency")
        return array if clear is None else np.stack([array, (array != clear) * np.uint16(65535)], axis=-1)
    if image.has_transparency_data:  # composite over white, like on a web page
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image = image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
    return Levels(255 - np.asarray(image), inverted=True) if inverted else image


class Film:
    """The frames of an animation. The file stays open, since each frame depends on the previous frame."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        with _errors_named(name):
            self.image = Image.open(stream)

    def frame(self, number: int, name: str) -> Stored:
        """One frame, as from `read_picture`."""
        with _errors_named(name):
            self.image.seek(number)
            return _as_shown(self.image.copy())


def _scientific(file: File, image: Image.Image | None, page: int) -> Stored:
    try:
        with _binary(file) as stream:
            return tiff.read(stream, page)
    except (ValueError, NotImplementedError, ImportError) as error:  # for example for an unknown compression
        if image is None or "imagecodecs" not in str(error):
            raise
        return tiff.by_pillow(image, f"{error}: `pip install imagecodecs`")


def _stated_levels(file: File, image: Image.Image) -> np.ndarray | Levels:
    """Read a PGM or PPM whose maximum is not 255, as [H, W] or [H, W, 3]. Pillow would scale its values.

    Raises ValueError if the file is truncated.
    """
    codec, _, offset, (mode, white) = image.tile[0]
    shape = (image.height, image.width, 3) if mode == "RGB" else (image.height, image.width)
    count, kind = math.prod(shape), np.dtype("u1" if white < 256 else "u2")
    with _binary(file) as stream:
        stream.seek(offset)
        if codec == "ppm_plain":
            numbers = re.sub(rb"#[^\r\n]*", b"", stream.read()).split()[:count]
            array = np.array(numbers, dtype=np.int64).astype(kind)
        else:
            array = np.frombuffer(stream.read(count * kind.itemsize), kind.newbyteorder(">")).astype(kind)
    array = array.reshape(shape)
    return array if white == 65535 else Levels(array, white)


def _deep_png(file: File, image: Image.Image) -> np.ndarray:
    """Read a PNG that Pillow would reduce to 8 bits, as uint16 [H, W, C]."""
    import torch
    from torchvision.io import ImageReadMode, decode_png  # importing it takes a second

    # the warning recommends torchcodec, which does not read 16 bits
    warnings.filterwarnings("ignore", "The image decoding and encoding capabilities of TorchVision are deprecated")
    with _binary(file) as stream:
        content = torch.frombuffer(bytearray(stream.read()), dtype=torch.uint8)
    array = decode_png(content, ImageReadMode.UNCHANGED).numpy().transpose(1, 2, 0)
    clear = image.info.get("transparency")
    if clear is not None and array.shape[-1] in (1, 3):
        shown = (array != np.asarray(clear)).any(-1, keepdims=True)
        array = np.concatenate([array, shown * np.uint16(65535)], axis=-1)
    return array


def count_frames(file: File, name: str) -> list[tuple[int, tuple[int, int]]]:
    """(index, (width, height)) of each frame of an image file."""
    with _opened(file, name) as image:
        if image is None or image.format == "TIFF":
            with _binary(file) as stream:
                return tiff.pages(stream)
        count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photo and its preview
        return [(k, image.size) for k in range(count)]


def picture_size(file: File, name: str) -> tuple[int, int]:
    """Width and height of an image after EXIF rotation, from its file's header."""
    with _opened(file, name) as image:
        if image is None:
            return count_frames(file, name)[0][1]
        # `getexif` would decode a whole PNG to look for data after the pixels
        exif = {} if image.format == "PNG" and "exif" not in image.info else image.getexif()
        return image.size[::-1] if exif.get(ExifTags.Base.Orientation, 1) >= 5 else image.size


def size_of(picture: Stored) -> tuple[int, int]:
    """Width and height."""
    return picture.size if isinstance(picture, Image.Image) else pixels(picture).shape[1::-1]


def columns(picture: Stored, left: int, right: int) -> Stored:
    """The part of an image between two columns."""
    if isinstance(picture, Image.Image):
        return picture.crop((left, 0, right, picture.height))
    part = pixels(picture)[:, left:right]
    return replace(picture, pixels=part) if isinstance(picture, Levels) else part


def joined(frames: Sequence[Stored], name: str) -> Stored:
    """One image with each frame as a channel."""
    arrays = [pixels(frame) for frame in frames]
    if any(array.shape != arrays[0].shape or array.ndim != 2 for array in arrays):
        raise UserError(
            f"{name} has frames in color or of different sizes, which cannot be channels of one image. Use "
            "`--data.frames each` or `first`."
        )
    whole = np.stack(arrays, axis=-1)
    return replace(frames[0], pixels=whole) if isinstance(frames[0], Levels) else whole


@contextmanager
def _binary(file: File) -> Iterator[BinaryIO]:
    with file() if callable(file) else open(ordinary(file), "rb") as stream:
        yield stream


@contextmanager
def _opened(file: File, name: str) -> Iterator[Image.Image | None]:
    """The image opened with Pillow; None for a TIFF that Pillow cannot open."""
    with _errors_named(name), _binary(file) as stream:
        try:
            image = Image.open(stream)
        except UnidentifiedImageError:
            stream.seek(0)
            if stream.read(4) not in TIFF:
                raise
            yield None
        else:
            with image:
                yield image


@contextmanager
def _errors_named(name: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    # for broken files Pillow's plugins may raise any exception, such as SyntaxError or struct.error
    except Exception as error:
        # Pillow's own message has the representation of a Python object
        why = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{name} cannot be read as an image ({why}). Replace it or remove it.") from error


@dataclass(frozen=True)
class Fit:
    """Resizes and converts images to uint8 [N, C, size, size].

    size         side of the square, in pixels
    channels     1 for gray, 3 for RGB
    how          crop     scale the shorter side to `size`, crop the center
                 pad      center the whole image on black, scaled down if it is larger than `size`
                 stretch  scale both sides, ignoring the aspect ratio
                 none     images must already have this size
    enlarge      scale up images that are too small. Otherwise they are an error, except for `pad`, which does not scale
                 them
    random_crop  pixels of `size` that the loader crops later: images may be smaller by this number
    range        the stored values that become black and white
    """

    size: int
    channels: int
    how: How = "crop"
    enlarge: bool = False
    random_crop: int = 0
    range: Range = DTYPE

    def __call__(self, pictures: StoredImages, name: Callable[[int], str]) -> np.ndarray:
        """Convert the images that `Split.pictures` returns; `name(k)` is the name of image k in errors."""
        if isinstance(pictures, np.ndarray):
            pictures = self.range.levels(pictures, name)
            height, width = pictures.shape[1:3]
            unscaled = self.how == "pad" and not self.enlarge and max(height, width) <= self.size
            if unscaled or height == width == self.size:
                return self._pad(self._color(pictures))
            pictures = map(Image.fromarray, pictures[..., 0] if pictures.shape[3:] == (1,) else pictures)
            return np.stack([self._one(picture, name(k)) for k, picture in enumerate(pictures)])
        return np.stack([self.one(picture, name(k)) for k, picture in enumerate(pictures)])

    def one(self, picture: Stored, name: str) -> np.ndarray:
        """One image, uint8 [C, size, size]."""
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
                f"{name} is {width}×{height}, but data.size is {self.size} and data.resize_mode is `none`. Use "
                "`--data.resize_mode crop`, `pad` or `stretch`, or a different `--data.size`."
            )
        if self.how != "pad" and shorter < self.size - self.random_crop and not self.enlarge:
            raise UserError(
                f"{name} is {width}×{height}, smaller than data.size ({self.size - self.random_crop}). Use "
                "`--data.enlarge true` to scale such images up, `--data.resize_mode pad` to center them on black, or "
                f"`--data.size {shorter}` or less."
            )
        if self.how == "pad":
            scale = self.size / longer
            if scale > 1 and not self.enlarge:
                return image
            return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.LANCZOS)
        if self.how == "stretch":
            return image.resize((self.size, self.size), Image.LANCZOS)
        # cropped before scaling, so that only the crop is resampled
        left, top = (width - shorter) / 2, (height - shorter) / 2
        return image.resize((self.size, self.size), Image.LANCZOS, box=(left, top, left + shorter, top + shorter))

    def _color(self, pictures: np.ndarray) -> np.ndarray:
        """[N, H, W] or [N, H, W, 3] to [N, H, W, C]. Gray values are bit for bit Pillow's luma (ITU-R 601-2)."""
        if pictures.ndim == 3:
            pictures = pictures[..., None]
        if pictures.shape[-1] == 3 and self.channels == 1:
            luma = pictures.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
            return ((luma + 0x8000) >> 16).astype(np.uint8)[..., None]
        return pictures  # `_pad` broadcasts one channel to three

    def _pad(self, pictures: np.ndarray) -> np.ndarray:
        """Center [N, H, W, C] on black, as [N, C, size, size]."""
        count, height, width, _ = pictures.shape
        out = np.zeros((count, self.channels, self.size, self.size), dtype=np.uint8)
        top, left = (self.size - height) // 2, (self.size - width) // 2
        out[:, :, top : top + height, left : left + width] = pictures.transpose(0, 3, 1, 2)
        return out
