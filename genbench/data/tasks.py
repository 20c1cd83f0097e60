"""Degraded versions of images, from which models learn to restore them: colorize, denoise, inpaint.

Each function maps images [B, C, H, W] in [-1, 1] to the input of the model: [B, C2, H, W] in [-1, 1], rounded to
8 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

from genbench.core.errors import UserError

Task = Literal["none", "colorize", "edges", "denoise", "deblur", "super_resolve_2", "super_resolve_4", "inpaint"]
Draw = Callable[..., Tensor]  # (torch.randn or torch.rand, *shape) -> noise [B, *shape]

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue: ITU-R BT.601
NOISE = 0.4  # standard deviation, for pixels in [-1, 1]: 51 levels of 256
BLUR = 1.5  # standard deviation of the Gaussian, in pixels


def channels_of(task: Task, channels: int) -> int:
    """Number of channels of a task's input."""
    return 1 if task in ("colorize", "edges") else channels


def make(task: Task, image: Tensor, draw: Draw) -> Tensor:
    """Make the input of a task from its target images."""
    return _levels(_TASKS[task](image, draw))


def check(task: Task, channels: int, size: int) -> None:
    """Raise UserError if the task does not apply to such images."""
    if task == "colorize" and channels == 1:
        raise UserError("data.task is colorize, but these images are gray. Choose data in color.")
    factor = {"super_resolve_2": 2, "super_resolve_4": 4}.get(task, 1)
    if size % factor:
        raise UserError(
            f"data.task is {task}, but data.size is {size}, which is not divisible by {factor}. Set `--data.size`."
        )


def _levels(x: Tensor) -> Tensor:
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def _gray(image: Tensor) -> Tensor:
    if image.shape[1] == 1:
        return image
    return (image * image.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def _edges(image: Tensor, draw: Draw) -> Tensor:
    """White edges on black: the norm of the Sobel gradient."""
    across = image.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4
    both = torch.stack([across, across.T])[:, None]
    return conv2d(pad(_gray(image), (1, 1, 1, 1), mode="replicate"), both).norm(dim=1, keepdim=True) * 2 - 1


def _denoise(image: Tensor, draw: Draw) -> Tensor:
    return image + NOISE * draw(torch.randn, *image.shape[1:]).to(image)


def _deblur(image: Tensor, draw: Draw) -> Tensor:
    reach = round(3 * BLUR)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=image.device) / BLUR).square())
    line = (line / line.sum()).to(image.dtype)
    channels = image.shape[1]
    x = pad(image, (reach,) * 4, mode="reflect" if reach < image.shape[-1] else "replicate")
    x = conv2d(x, line.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return conv2d(x, line.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def _super_resolve(factor: int) -> Callable[[Tensor, Draw], Tensor]:
    def shrink(image: Tensor, draw: Draw) -> Tensor:
        small = _levels(avg_pool2d(image, factor))
        return interpolate(small, image.shape[2:], mode="bicubic", align_corners=False)

    return shrink


def _inpaint(image: Tensor, draw: Draw) -> Tensor:
    """The image with a gray square at a random position; the square's side is half of the image's."""
    size = image.shape[-1]
    hole = size // 2
    corner = (draw(torch.rand, 2).to(image.device) * (size - hole + 1)).long()  # [B, 2]
    place = torch.arange(size, device=image.device)
    inside = (place >= corner[..., None]) & (place < corner[..., None] + hole)  # [B, 2, size]
    return torch.where(inside[:, 0, None, :, None] & inside[:, 1, None, None, :], torch.zeros_like(image), image)


_TASKS: dict[str, Callable[[Tensor, Draw], Tensor]] = {
    "colorize": lambda image, draw: _gray(image),
    "edges": _edges,
    "denoise": _denoise,
    "deblur": _deblur,
    "super_resolve_2": _super_resolve(2),
    "super_resolve_4": _super_resolve(4),
    "inpaint": _inpaint,
}
