"""The class of extractors: frozen networks whose features are compared.

An extractor is not an `nn.Module`, so it cannot become part of a module tree, a checkpoint or an optimizer. It takes
uint8 images or points, runs in float32 under any precision of the trainer, and returns features, and logits if it is a
classifier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from genbench.core.errors import UserError
from genbench.core.precision import without_tf32


@dataclass
class Extractor:
    """
    name     name of the extractor, part of the names of its scores
    network  frozen network in eval mode
    read     (network, uint8 images [B, C, H, W]) -> features [B, D], logits [B, K] or None
    resize   description of how images are resized for the network, for the protocol
    classes  names of the classes, if they are the classes of a genbench data set
    hash     hash of the weights
    points   True if the extractor takes points, float32 [B, D], instead of images
    own      True for a class of the user's
    mixture  modes [K, D] and standard deviation of the Gaussians that the points are drawn from, if known
    """

    name: str
    network: nn.Module
    read: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor | None]]
    resize: str
    classes: tuple[str, ...] = ()
    hash: str = ""
    points: bool = False
    mixture: tuple[Tensor, float] | None = None
    own: bool = False
    # number of features and of logits at the first call
    _numbers: dict[str, int] = field(default_factory=dict, repr=False)
    _checked: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)
        self.hash = self.hash or state_hash(self.network.state_dict())
        self.network.to(memory_format=torch.channels_last)  # twice as fast on a CPU, features equal to 3e-7

    def to(self, device: torch.device | str) -> Extractor:
        self.network.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 [B, C, H, W] or points [B, D] -> features [B, D] and logits [B, K] or None, float32.

        Raises:
            UserError: points were passed to an extractor of images or vice versa; or the network's output has a wrong
                shape.
        """
        self.refuse_others(images.shape[1:])
        with full_precision(images.device):
            features, logits = self.read(self.network, images)
        for what, found in (("features", features), ("logits", logits)):
            if found is None and (what == "logits" and not self.classes):
                continue
            if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images) or found.shape[1] == 0:
                shape = f"of shape {list(found.shape)}" if isinstance(found, Tensor) else f"as {type(found).__name__}"
                raise UserError(
                    f"The extractor '{self.name}' returned {what} {shape} for {len(images)} images; expected a tensor "
                    f"of shape [{len(images)}, number of {what}]."
                )
            numbers = self._numbers.setdefault(what, found.shape[1])
            if found.shape[1] != numbers:
                raise UserError(
                    f"The extractor '{self.name}' returned {found.shape[1]} {what} per image, but {numbers} before. "
                    "The number must be the same for all images."
                )
        if logits is not None and self.classes and len(self.classes) != logits.shape[1]:
            raise UserError(
                f"The extractor '{self.name}' names {len(self.classes)} classes but returned {logits.shape[1]} logits "
                "per image. Both numbers must be equal."
            )
        return features.float(), None if logits is None else logits.float()

    def check(self, shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        """Call a network of the user's twice, before anything is trained or sampled. Further checks do nothing.

        Raises:
            UserError: its output is wrong, or differs for the same images.
        """
        if not self.own or self._checked:
            return
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (2, *shape), generator=generator).to(device, torch.uint8)
        images = images.float() / 255 if self.points else images
        first, second = self(images), self(images)
        if not torch.equal(first[0], second[0]):
            raise UserError(
                f"The extractor '{self.name}' returned different features for the same images. Remove the randomness "
                "from its `forward`."
            )
        self._checked = True

    def refuse_others(self, shape: Sequence[int]) -> None:
        """Raise UserError if the extractor takes images but data of this shape are points, or vice versa."""
        if (len(shape) == 1) != self.points:
            what = ("points", "images") if self.points else ("images", "points")
            raise UserError(
                f"The extractor '{self.name}' takes {what[0]}, but the data are {what[1]}. Omit the extractor to use "
                "the default extractor of the data set."
            )

    def score(self, metric: str) -> str:
        """Name of a score that uses these features. Only scores of the FID Inception have no suffix."""
        return metric if self.name == "inception" else f"{metric}-{self.name}"


@contextmanager
def full_precision(device: torch.device):
    """Context without autocast and TF32, independent of the settings of training."""
    with without_tf32(), torch.autocast(device.type, enabled=False):
        yield


def state_hash(state: dict[str, Tensor]) -> str:
    """Hash (16 hex digits) of all names, dtypes, shapes and values. It does not depend on the file format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def in_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 or float [B, 1 or 3, H, W] -> [B, channels, H, W]: gray is repeated, RGB becomes luminance (ITU-R 601)."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    gray = (images.float() * weights).sum(1, keepdim=True)
    return gray if images.is_floating_point() else gray.round().to(torch.uint8)
