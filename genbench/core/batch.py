"""The shape of a data set, and the batches that a DataModule passes to a model.

Inside the package, images are float32 `[B, C, H, W]` in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from genbench.core.errors import UserError


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """One value per image, [B] -> [B, 1, ...], with as many dimensions as `images` [B, ...], for broadcasting."""
    return values.view(-1, *(1,) * (images.ndim - 1))


@dataclass(frozen=True)
class DataSpec:
    """The properties of a data set that a model needs to be built.

    shape       (C, H, W) of an image, or (D,) of a point
    target      what each image comes with: nothing, a class label, a caption, a mask, the source image of a paired
                translation, or an unpaired image of the other domain
    classes     names of the classes, in the order of the labels
    vocabulary  words of the captions, in the order of their tokens; token 0 is padding
    caption_length
                tokens of a caption, L; 0 if captions have no common length
    binary      whether every pixel is black or white
    source      (C, H, W) of the source image, or of the images of the other domain
    """

    shape: tuple[int, ...]
    target: Literal["none", "label", "caption", "mask", "image", "domain"] = "none"
    classes: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    caption_length: int = 0
    binary: bool = False
    source: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        return self._of_images()[0]

    @property
    def size(self) -> int:
        """Height and width: all images are square.

        Example:
            >>> DataSpec((3, 32, 32)).size
            32
        """
        return self._of_images()[-1]

    def _of_images(self) -> tuple[int, ...]:
        if len(self.shape) == 1:  # the model's network needs images
            raise UserError(
                f"This model needs images, but the data has points of {self.shape[0]} numbers. Choose a model that "
                "supports any shape, such as GAN, or data with images."
            )
        return self.shape

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, for hyperparameters and YAML."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSpec:
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in values.items()}
        return cls(**given)


def to_tokens(caption: str, vocabulary: Sequence[str], length: int = 0) -> list[int]:
    """The words of a caption as tokens of the vocabulary, padded with 0 to `length`.

    Raises:
        UserError: the vocabulary lacks a word, or `length` is not 0 and the caption has more words.

    Example:
        >>> to_tokens("a red star", ("<pad>", "a", "red", "star"), length=5)
        [1, 2, 3, 0, 0]
    """
    token, words = {word: number for number, word in enumerate(vocabulary) if number}, caption.lower().split()
    if unknown := [word for word in words if word not in token]:
        raise UserError(f"The word `{unknown[0]}` is in no caption of this data set. Choose from: {', '.join(token)}.")
    if length and len(words) > length:
        raise UserError(f"A caption of this data set has at most {length} words, but `{caption}` has {len(words)}.")
    return [token[word] for word in words] + [0] * (length - len(words))


def to_words(tokens: Tensor | Sequence[int], vocabulary: Sequence[str]) -> str:
    """Tokens [L] as the words of a caption, without padding.

    Example:
        >>> to_words([1, 2, 3, 0, 0], ("<pad>", "a", "red", "star"))
        'a red star'
    """
    return " ".join(vocabulary[token] for token in tokens if token)


class _Movable:
    """Moves, pins and slices every tensor of a batch dataclass."""

    def _map(self, fn):
        return replace(self, **{f.name: fn(v) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)})

    def to(self, *args: Any, **kwargs: Any):
        # int tensors keep their dtype: labels and tokens must not become floats
        def move(t: Tensor) -> Tensor:
            moved = t.to(*args, **kwargs)
            return moved if t.is_floating_point() else moved.to(t.dtype)

        return self._map(move)

    def pin_memory(self):
        return self._map(Tensor.pin_memory)

    def __getitem__(self, rows: slice | Tensor):
        """The batch with only these rows."""
        return self._map(lambda t: t[rows])

    def __len__(self) -> int:
        """Number of real images in the batch."""
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]  # the subclasses are dataclasses


@dataclass
class Batch(_Movable):
    """Images with their targets.

    image    [B, C, H, W] float32 in [-1, 1], or [B, D] for points
    label    [B] int64, index into `DataSpec.classes`; -1 if unknown (`data.labeled`)
    caption  [B, L] int64 tokens of `DataSpec.vocabulary`, padded with 0
    mask     [B, H, W] int64, a class per pixel
    factors  [B, F] float32, the known factors the image was drawn from
    source   [B, C', H, W] float32 in [-1, 1], the input of a translation to the image; or unpaired images of the other
             domain

    If only some training images have a label, there is a second batch of labeled images, in their own order:

    known_image  [B, C, H, W] float32 in [-1, 1]
    known_label  [B] int64
    """

    image: Tensor
    label: Tensor | None = None
    caption: Tensor | None = None
    mask: Tensor | None = None
    factors: Tensor | None = None
    source: Tensor | None = None
    known_image: Tensor | None = None
    known_label: Tensor | None = None


def to_uint8(image: Tensor) -> Tensor:
    """[-1, 1] floats to uint8, rounded and clamped.

    Example:
        >>> to_uint8(torch.tensor([-1.0, 0.0, 1.0, 1.5]))
        tensor([  0, 128, 255, 255], dtype=torch.uint8)
    """
    return image.detach().float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)


def from_uint8(image: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1].

    Example:
        >>> from_uint8(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    return image.to(torch.float32).div_(127.5).sub_(1)


def to_stored(x: Tensor) -> Tensor:
    """Convert outputs of a model for storage and comparison: images [B, C, H, W] to uint8, points [B, D] to float32."""
    return x.detach().float() if x.ndim == 2 else to_uint8(x)


def from_stored(x: Tensor) -> Tensor:
    """Convert stored images or points to inputs of a model: float32, images in [-1, 1]."""
    return x if x.is_floating_point() else from_uint8(x)
