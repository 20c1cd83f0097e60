"""What an extractor is: a frozen network whose features scores are computed from.

It is no `nn.Module`: it never lands in a module tree, a checkpoint or an optimizer. It takes uint8 images or points,
runs in float32 under any precision of the trainer, and gives features and, if it classifies, logits.
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
    name     what scores are called after
    network  frozen, in eval mode
    read     (network, uint8 images [B, C, H, W]) -> features [B, D], logits [B, K] or None
    resize   how it brings images to its own size, in words, for the protocol
    classes  names of the classes, where they are those of a data set of ours
    hash     of its weights
    points   it takes points, float32 [B, D], and no images
    own      it is a class of the user's
    mixture  modes [K, D] and standard deviation of the Gaussians that these points are drawn from, where known
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
    _numbers: dict[str, int] = field(default_factory=dict, repr=False)  # of features and logits, as first seen

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
            UserError: it takes images and was given points, or the other way round; or its output has another shape.
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
                    f"The extractor '{self.name}' gave {what} {shape} for {len(images)} images; a tensor of shape "
                    f"[{len(images)}, number of {what}] was expected."
                )
            numbers = self._numbers.setdefault(what, found.shape[1])
            if found.shape[1] != numbers:
                raise UserError(
                    f"The extractor '{self.name}' gave {found.shape[1]} {what} per image, and {numbers} before. It "
                    "must give equally many for all images."
                )
        if logits is not None and self.classes and len(self.classes) != logits.shape[1]:
            raise UserError(
                f"The extractor '{self.name}' names {len(self.classes)} classes and gave {logits.shape[1]} logits per "
                "image. Both numbers must be equal."
            )
        return features.float(), None if logits is None else logits.float()

    def check(self, shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        """Call a network of the user's twice, before anything is trained or sampled.

        Raises:
            UserError: its output is wrong, or differs for the same images.
        """
        if not self.own:
            return
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (2, *shape), generator=generator).to(device, torch.uint8)
        images = images.float() / 255 if self.points else images
        first, second = self(images), self(images)
        if not torch.equal(first[0], second[0]):
            raise UserError(
                f"The extractor '{self.name}' gave different features for the same images. Remove the randomness from "
                "its `forward`."
            )

    def refuse_others(self, shape: Sequence[int]) -> None:
        """Raise UserError where it looks at images and those of that shape are points, or the other way round."""
        if (len(shape) == 1) != self.points:
            what = ("points", "images") if self.points else ("images", "points")
            raise UserError(
                f"The extractor '{self.name}' looks at {what[0]}, and here are {what[1]}. Leave it out: the data set "
                "has one of its own."
            )

    def score(self, metric: str) -> str:
        """What a score in this feature space is called: only the FID Inception's have the plain names."""
        return metric if self.name == "inception" else f"{metric}-{self.name}"


@contextmanager
def full_precision(device: torch.device):
    """Neither autocast nor TF32, whatever training had set."""
    with without_tf32(), torch.autocast(device.type, enabled=False):
        yield


def state_hash(state: dict[str, Tensor]) -> str:
    """16 hex digits of all names, types, shapes and values: the same however the file was written."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def in_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 or float [B, 1 or 3, H, W] -> [B, channels, H, W]: gray repeated, or the luminance of RGB (ITU-R 601)."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    gray = (images.float() * weights).sum(1, keepdim=True)
    return gray if images.is_floating_point() else gray.round().to(torch.uint8)
