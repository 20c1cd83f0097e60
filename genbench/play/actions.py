"""What the page computes: functions from a trained model and values of controls to images and text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from torch import Tensor

from genbench.analysis import latents
from genbench.analysis.anomaly import reconstruction_error
from genbench.analysis.latents import decode, encode
from genbench.analysis.variations import reconstruct
from genbench.core.batch import from_stored, to_stored
from genbench.core.capabilities import Decodes, Encodes, SamplesLatents, options, takes_condition
from genbench.core.conditions import in_turn, of_caption, of_class
from genbench.core.errors import UserError
from genbench.core.image_grid import MASK_COLORS, arranged, enlarged, grid, painted, picture

if TYPE_CHECKING:
    from genbench.evaluation.images import ImageSet

MOST_SEED = 2**31 - 1  # larger numbers are not exact in every browser control
NEIGHBORS = 8
REFERENCE = 2000  # training images among which neighbors are searched
SIDE = 560  # pixels of an enlarged image
IN_TURN = "all classes in turn"


@dataclass
class Loaded:
    """A trained model on the page.

    title       its name, shown above its results
    about       its class and the images that it was trained on, shown below the name
    model       in eval mode
    trained_on  class and arguments of its training data, from the checkpoint
    images      returns the training images; raises UserError if they are not on this machine
    """

    title: str
    about: str
    model: Any
    trained_on: dict[str, Any]
    images: Callable[[], ImageSet]
    _reference: tuple[Tensor, Tensor, Tensor | None] | None = field(default=None, repr=False)

    def reference(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Up to 2,000 training images, uint8 [N, C, H, W], their codes [N, D] and their labels [N].

        Raises:
            UserError: the training images are not on this machine.
        """
        if self._reference is None:
            from genbench.evaluation.images import at_most

            found = self.images()
            label = found.label
            some = at_most(found, REFERENCE)
            rows: Tensor = torch.arange(len(found)) if some is found else some.rows  # type: ignore[attr-defined]
            stored = some.images(torch.arange(len(some)))
            labels = None if label is None else label[rows]
            codes = []
            for part in torch.arange(len(stored)).split(256):
                x = from_stored(stored[part]).to(self.model.device)
                y = None if labels is None else labels[part].to(self.model.device)
                codes.append(flat(self.model, encode(self.model, x, y)))
            self._reference = stored, torch.cat(codes), labels
        return self._reference


@dataclass
class Seen:
    """An image as a model sees it.

    x     [1, C, H, W] in [-1, 1]
    note  how it was converted
    """

    x: Tensor
    note: str


# ---- abilities ------------------------------------------------------------------------------------------------------


def has_sliders(model: Any) -> bool:
    """Whether codes of the model are vectors of numbers that can be changed and decoded."""
    return isinstance(model, Decodes) and model.latent_dtype == "float32" and _of_images(model)


def has_latent_paths(model: Any) -> bool:
    """Whether the model gives seeds codes that can be interpolated and decoded."""
    return has_sliders(model) and isinstance(model, SamplesLatents)


def takes_images(model: Any) -> bool:
    """Whether the page shows results of the model for an image."""
    methods = ("reconstruct", "encode", "translate", "segment", "classify", "discriminate", "log_likelihood")
    return _of_images(model) and any(hasattr(model, name) for name in methods)


def takes_drawings(model: Any) -> bool:
    """Whether the page shows results of the model for a drawing: it encodes, reconstructs or classifies images."""
    return _of_images(model) and any(hasattr(model, name) for name in ("encode", "reconstruct", "classify"))


def _of_images(model: Any) -> bool:
    return len(model.spec.shape) == 3


# ---- values of controls ---------------------------------------------------------------------------------------------


def whole(value: Any, name: str, low: int = 0, high: int = MOST_SEED) -> int:
    """A whole number from a control.

    Raises:
        UserError: the control is empty, or its number is not a whole number from `low` to `high`.
    """
    if value is None or not math.isfinite(value) or value != int(value) or not low <= value <= high:
        shown = "nothing" if value is None else f"{value:g}"
        raise UserError(f"{name} is {shown}; expected a whole number from {low:,} to {high:,}.")
    return int(value)


def condition_of(model: Any, n: int, label: str | None = None, prompt: str | None = None) -> Tensor | None:
    """The condition of n samples, int64 [n] or [n, L]; None for an unconditional model.

    Args:
        label: A class, or None for all classes in turn
        prompt: A caption, for a model trained on captions

    Raises:
        UserError: the model does not have the class, or a word is not in its vocabulary.
    """
    spec = model.spec
    if not model.conditional:
        return None
    if spec.target == "label":
        if label is None or label == IN_TURN:
            return in_turn(model, n)
        if label not in spec.classes:  # the class of another model on the page; "0" is not the number of a class here
            raise UserError(f"This model has no class '{label}'. Its classes: {', '.join(spec.classes)}.")
        return of_class(n, label, spec, "Class").to(model.device)
    if not (prompt or "").split():
        raise UserError(f"Write a prompt with words from: {', '.join(spec.vocabulary[1:])}.")
    return of_caption(n, str(prompt), spec).to(model.device)


def option_values(method: Callable[..., Tensor], given: dict[str, Any]) -> dict[str, Any]:
    """The options of a method, with values from controls of the same name. A whole number stays a whole number.

    Raises:
        UserError: a control is empty, or has a fraction although the option is a whole number.
    """
    values = {}
    for name, default in options(method).items():
        value = given.get(name, default)
        if isinstance(default, bool):
            value = bool(value)
        elif isinstance(default, int):
            value = whole(value, name, -MOST_SEED)
        elif isinstance(default, float):
            if value is None:
                raise UserError(f"{name} is empty; expected a number.")
            value = float(value)
        values[name] = value
    return values


# ---- samples and latents --------------------------------------------------------------------------------------------


@torch.no_grad()
def samples(
    model: Any, seed: int, n: int, label: str | None = None, prompt: str | None = None, **own: Any
) -> Image.Image:
    """A grid of n samples, drawn from seed, seed + 1, ...; a plot for points. `own`: the model's sampling options."""
    seeds = torch.arange(seed, seed + n, device=model.device)
    condition = condition_of(model, n, label, prompt)
    images = model.sample(seeds, condition=condition, **option_values(model.sample, own))
    return _shown(images)


def start(model: Any, seed: int, image: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
    """The code [1, *latent_shape] of an image [1, C, H, W], or of a seed if there is no image.

    Raises:
        UserError: the model does not sample codes, and cannot encode an image or none was given.
    """
    if image is not None and isinstance(model, Encodes):
        return encode(model, image, condition)
    if hasattr(model, "sample_latents"):
        return _code_of_seed(model, seed)
    raise UserError("This model does not sample codes. Upload an image. The sliders then change the code of the image.")


@torch.no_grad()
def _code_of_seed(model: Any, seed: int) -> Tensor:
    return model.sample_latents(torch.tensor([seed], device=model.device))


@torch.no_grad()
def spread(model: Any, z: Tensor) -> Tensor:
    """The standard deviation of each latent dimension, [D].

    It is estimated from 512 latents that the model samples. If the model does not sample latents, the
    standard deviation of the values of the code z is used for each dimension.
    """
    if hasattr(model, "sample_latents"):
        return model.sample_latents(torch.arange(512, device=model.device)).flatten(1).std(0)
    return z.flatten().std(correction=0).expand(z.numel())


def moved(
    model: Any, z: Tensor, steps: list[float], label: str | None = None, prompt: str | None = None
) -> Image.Image:
    """The image of a code z [1, *latent_shape] whose first dimensions are moved by `steps` standard deviations."""
    changed = z.flatten().clone()
    used = min(len(steps), len(changed))
    by = torch.tensor(steps[:used], dtype=z.dtype, device=z.device)
    changed[:used] += by * spread(model, z)[:used].to(z.dtype)
    return _shown(decode(model, changed.reshape(z.shape), condition_of(model, 1, label, prompt)))


def interpolation(
    model: Any,
    a: int,
    b: int,
    n: int = 8,
    spherical: bool = True,
    label: str | None = None,
    prompt: str | None = None,
) -> Image.Image:
    """Images of n codes between those of the seeds a and b, in two rows."""
    path: Literal["linear", "spherical"] = "spherical" if spherical else "linear"
    codes = latents.interpolate(_code_of_seed(model, a), _code_of_seed(model, b), n, path)[0]
    images = decode(model, codes, condition_of(model, n, label, prompt))
    return enlarged(grid(images, columns=math.ceil(n / 2)), SIDE)


def arithmetic(
    model: Any, a: int, b: int, c: int, label: str | None = None, prompt: str | None = None
) -> list[tuple[str, Image.Image]]:
    """The images of the seeds a, b and c, and of the code a − b + c."""
    codes = [_code_of_seed(model, seed) for seed in (a, b, c)]
    codes.append(latents.arithmetic(*codes)[None])
    images = decode(model, torch.cat(codes), condition_of(model, 4, label, prompt))
    return [(name, _shown(x[None], SIDE // 4)) for name, x in zip(("a", "b", "c", "a − b + c"), images, strict=True)]


def _shown(images: Tensor, side: int = SIDE) -> Image.Image:
    if images.ndim == 2:
        return picture(images)
    return enlarged(grid(images) if len(images) > 1 else arranged(to_stored(images).cpu(), 1, gap=0), side)


# ---- images of the user ---------------------------------------------------------------------------------------------


def what_it_does(
    shown: Loaded, seen: Seen, label: str | None = None
) -> tuple[list[tuple[str, Image.Image]], list[str], dict[str, float]]:
    """Everything that a model can do with an image.

    Returns:
        Images with captions, sentences, and the probabilities of the classes.
    """
    model, x = shown.model, seen.x
    images = [("input of the model", _shown(x, SIDE // 2))]
    texts = [seen.note]
    if hasattr(model, "reconstruct"):
        images.append(("reconstruction", _shown(reconstruct(model, x), SIDE // 2)))
    if hasattr(model, "translate"):
        for to in model.domains:
            images.append((f"translation to {to}", _shown(translated(model, x, to), SIDE // 2)))
    if hasattr(model, "segment"):
        mask, legend = segmented(model, x)
        images.append((f"segmentation: {legend}", mask))
    texts += scores(model, x)
    classes = classified(model, x) if hasattr(model, "classify") else {}
    if isinstance(model, Encodes):
        condition = condition_of(model, 1, label) if takes_condition(model.encode) else None
        z = encode(model, x, condition)
        images.append((f"code, {'×'.join(map(str, z.shape[1:]))} {_kind(model)}", code_picture(model, z)))
        try:
            near, labels = neighbors(shown, z)
            if len(shown.model.spec.classes) and labels is not None:
                names = [shown.model.spec.classes[k] if k >= 0 else "no label" for k in labels.tolist()]
                caption = f"nearest training images by code, of class {', '.join(names)}"
            else:
                caption = "nearest training images by code"
            images.append((caption, enlarged(arranged(near, len(near)), SIDE)))
        except UserError as error:
            texts.append(f"No nearest training images: {error}")
    return images, texts, classes


@torch.no_grad()
def translated(model: Any, x: Tensor, to: str) -> Tensor:
    """[1, C, H, W] -> [1, C', H, W] in the domain `to`, with default options."""
    channels = model.spec.source[0] if to == "B" and model.spec.source else model.spec.channels
    return model.translate(_in_channels(x, channels), to=to)


def _in_channels(x: Tensor, channels: int) -> Tensor:
    if x.shape[1] == channels:
        return x
    if channels == 1:  # ITU-R 601-2 luma, as in Pillow
        return (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    return x.expand(-1, channels, -1, -1)


@torch.no_grad()
def segmented(model: Any, x: Tensor) -> tuple[Image.Image, str]:
    """The classes of the pixels of [1, C, H, W] in color, and the names of the colors."""
    mask = model.segment(x).argmax(1)
    found = mask.unique().tolist()
    names = ", ".join(f"{model.spec.classes[k]} ({COLORS[k % len(COLORS)]})" for k in found)
    return enlarged(arranged(painted(mask).cpu(), 1, gap=0), SIDE // 2), names


COLORS = ("black", "red", "blue", "green", "yellow", "violet", "white")  # of MASK_COLORS
assert len(COLORS) == len(MASK_COLORS)


@torch.no_grad()
def classified(model: Any, x: Tensor, most: int = 5) -> dict[str, float]:
    """The most probable classes of [1, C, H, W], with their probabilities."""
    p = model.classify(x)[0, : len(model.spec.classes)].float().softmax(0)
    top = p.topk(min(most, len(p)))
    return {model.spec.classes[k]: float(v) for v, k in zip(top.values, top.indices.tolist(), strict=True)}


@torch.no_grad()
def scores(model: Any, x: Tensor) -> list[str]:
    """The scores that a model gives an image [1, C, H, W], as sentences."""
    found = []
    if hasattr(model, "reconstruct"):
        error = float(reconstruction_error(model, x))
        found.append(f"Mean squared error of the reconstruction, for pixels in [-1, 1]: {error:.4g}")
    if hasattr(model, "log_likelihood"):
        name = "Lower bound of the log-likelihood" if model.likelihood == "lower bound" else "Log-likelihood"
        try:
            found.append(f"{name}: {float(model.log_likelihood(x)):.5g} nats")
        except UserError as error:  # for example for gray pixels and a Bernoulli decoder
            found.append(f"No log-likelihood: {error}")
    if hasattr(model, "discriminate"):
        found.append(
            f"Discriminator's logit, higher for images that it considers real: {float(model.discriminate(x)):.4g}"
        )
    return found


def _kind(model: Any) -> str:
    return "codebook indices" if model.latent_dtype == "int64" else "numbers"


def code_picture(model: Any, z: Tensor) -> Image.Image:
    """A code [1, *latent_shape] as a picture: bars for a vector, gray levels for a grid of codebook indices."""
    if model.latent_dtype == "int64":
        levels = (z[0].float() / max(1, model.latent_values - 1) * 255).round().to(torch.uint8).cpu()
        rows = levels if levels.ndim == 2 else levels.reshape(1, -1)
        return enlarged(Image.fromarray(rows.numpy()), SIDE // 2)
    return bars(z.flatten().float().cpu())


def bars(values: Tensor, height: int = 140) -> Image.Image:
    """A bar for each value [D], upward if it is positive. The longest bar has half the height of the picture."""
    width = max(2, SIDE // 2 // len(values))
    paper = torch.full((height, width * len(values), 3), 255, dtype=torch.uint8)
    middle, most = height // 2, values.abs().max().clamp(min=1e-8)
    for k, value in enumerate((values / most * (height / 2 - 4)).round().int().tolist()):
        top, bottom = min(middle, middle - value), max(middle, middle - value)
        color = (60, 120, 200) if value > 0 else (225, 130, 50)
        paper[top:bottom, k * width : (k + 1) * width - (width > 2)] = torch.tensor(color, dtype=torch.uint8)
    paper[middle] = 90
    return Image.fromarray(paper.numpy())


def flat(model: Any, z: Tensor) -> Tensor:
    """Codes [B, *latent_shape] as vectors [B, D], to compute distances. Codebook indices stay int64."""
    return z.flatten(1) if model.latent_dtype == "int64" else z.flatten(1).float()


def neighbors(shown: Loaded, z: Tensor, most: int = NEIGHBORS) -> tuple[Tensor, Tensor | None]:
    """The training images whose codes are nearest to z [1, *latent_shape], uint8 [K, C, H, W], and their labels [K].

    The distance is Euclidean, or for codebook indices the number of different indices.

    Raises:
        UserError: the training images are not on this machine.
    """
    images, codes, labels = shown.reference()
    code = flat(shown.model, z).to(codes.device)
    away = (codes != code).sum(1) if shown.model.latent_dtype == "int64" else (codes - code).pow(2).sum(1)
    nearest = away.argsort(stable=True)[:most].cpu()
    return images[nearest], None if labels is None else labels[nearest]


def title_of(path: Path) -> str:
    """The name of a checkpoint above its column: its run, or its file if it is in no run.

    Example:
        >>> title_of(Path("runs/first/checkpoints/last.ckpt")), title_of(Path("runs/first/checkpoints/best.ckpt"))
        ('first', 'first, best')
    """
    if path.parent.name != "checkpoints":
        return path.stem
    return path.absolute().parents[1].name + ("" if path.stem == "last" else f", {path.stem}")
