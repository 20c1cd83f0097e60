"""Drawn shapes with known label, caption, mask and factors. No download.

`draw` is a pure function from factors to images; `Shapes` chooses the factors at random.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, Literal

import numpy as np
import torch

from genbench.core.arguments import Count, Seed, Share
from genbench.core.batch import DataSpec, to_tokens
from genbench.core.errors import UserError
from genbench.core.noise import mix
from genbench.data.base import ImageData, Stage
from genbench.data.streams import Split

SHAPES = ("circle", "square", "triangle", "star", "cross")

# colors with well separated lightness, so that they also differ in gray images
COLORS = {
    "blue": (35, 70, 215),
    "red": (228, 38, 48),
    "purple": (165, 78, 215),
    "green": (62, 205, 92),
    "orange": (255, 156, 42),
    "yellow": (252, 226, 70),
}
BACKGROUND = (22, 24, 32)
BAR = (122, 124, 128)
PAPER = (238, 236, 228)
LINE = 0.05  # width of an outline, as a fraction of the side
STRIPES = 16  # per image

# the columns of the factors
FACTORS = {
    "shape": "index into SHAPES",
    "color": "index into COLORS",
    "size": "radius of the circle around the shape, as a fraction of the image's side",
    "x": "distance of the center from the left, as a fraction of the side",
    "y": "distance of the center from the top, as a fraction of the side",
    "rotation": "degrees, clockwise",
}

# The ranges of two words, such as small and large, have a gap between them, so that no caption is ambiguous. A large
# shape at an edge is still inside the image.
SMALL, LARGE = (0.14, 0.18), (0.24, 0.30)
NEAR, MIDDLE, FAR = (0.32, 0.36), (0.46, 0.54), (0.64, 0.68)
# degrees. This is less than half of the smallest rotational symmetry (72°, star), so its direction is visible
ROTATION = 30.0

_PLACES = ("in", "at", "the", "top", "bottom", "left", "right", "centre")
VOCABULARY = ("<pad>", "a", "small", "large", *COLORS, *SHAPES, *_PLACES)
CAPTION_LENGTH = 8  # "a large red circle at the bottom right"

# the factors that a caption names, in the order of its words, and their values
CAPTION_FACTORS = {
    "size": ("small", "large"),
    "color": tuple(COLORS),
    "shape": SHAPES,
    "place": (
        "at the top left", "at the top", "at the top right",
        "at the left", "in the centre", "at the right",
        "at the bottom left", "at the bottom", "at the bottom right",
    ),
}  # fmt: skip
CAPTIONS = tuple(" ".join(("a", *values)) for values in product(*CAPTION_FACTORS.values()))  # all 540


def draw_factors(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random factors, float32 [count, 6], with the columns of FACTORS.

    The word for each factor is chosen uniformly, then the value is uniform in the word's range.
    """

    def among(*ranges: tuple[float, float]) -> np.ndarray:
        low, high = np.array(ranges)[rng.integers(len(ranges), size=count)].T
        return rng.uniform(low, high)

    columns = (
        rng.integers(len(SHAPES), size=count),
        rng.integers(len(COLORS), size=count),
        among(SMALL, LARGE),
        among(NEAR, MIDDLE, FAR),
        among(NEAR, MIDDLE, FAR),
        rng.uniform(-ROTATION, ROTATION, size=count),
    )
    return np.stack(columns, axis=1).astype(np.float32)


def describe(factors: np.ndarray) -> str:
    """The caption of one row of factors [6]: "a large red circle at the top left"."""
    shape, color, size, x, y, _ = factors.tolist()
    extent = "small" if size < (SMALL[1] + LARGE[0]) / 2 else "large"
    low, high = (NEAR[1] + MIDDLE[0]) / 2, (MIDDLE[1] + FAR[0]) / 2
    vertical = "top" if y < low else "bottom" if y > high else ""
    horizontal = "left" if x < low else "right" if x > high else ""
    place = f"at the {vertical} {horizontal}" if vertical or horizontal else "in the centre"
    return " ".join(f"a {extent} {list(COLORS)[int(color)]} {SHAPES[int(shape)]} {place}".split())


def caption_factors(caption: str) -> dict[str, str]:
    """The value of each factor in one of CAPTIONS.

    Example:
        >>> caption_factors("a large red circle at the top left")
        {'size': 'large', 'color': 'red', 'shape': 'circle', 'place': 'at the top left'}
    """
    return dict(zip(CAPTION_FACTORS, caption.split(maxsplit=len(CAPTION_FACTORS))[1:], strict=True))


def distances(factors: np.ndarray, size: int) -> np.ndarray:
    """Signed distance of each pixel's center to the shape's outline, in pixels, negative inside: float32 [N, H, W]."""
    centers = (np.arange(size, dtype=np.float32) + 0.5) / size
    radius, x, y, rotation = factors.T[2:, :, None, None]
    right, down = centers - x, centers[:, None] - y
    cos, sin = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    # the pixel in the shape's coordinates, in which the shape is upright and has radius 1
    u, v = (cos * right + sin * down) / radius, (cos * down - sin * right) / radius
    out = np.empty_like(u)
    for number, outline in enumerate((_circle, _square, _triangle, _star, _cross)):
        rows = np.flatnonzero(factors[:, 0] == number)
        out[rows] = outline(u[rows], v[rows])
    return out * (radius * size)


def _circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sqrt(u * u + v * v) - 1


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(abs(u), abs(v)) - np.float32(0.5**0.5)


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # equilateral with a corner on top (v points down): distances to the base and to one side, which is mirrored
    return np.maximum(v, np.float32(0.75**0.5) * abs(u) - v / 2) - np.float32(0.5)


def _star(u: np.ndarray, v: np.ndarray, inner: float = 0.45) -> np.ndarray:
    # five tips: fold the plane onto half of a tip, with an edge from (1, 0) to the notch at 36° and radius `inner`
    angle = np.arctan2(u, -v)
    folded = abs(angle - np.float32(np.pi * 0.4) * np.round(angle / np.float32(np.pi * 0.4)))
    radius = np.sqrt(u * u + v * v)
    notch = inner * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)], dtype=np.float32)
    edge = notch - np.array([1, 0], dtype=np.float32)
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return (radius * np.cos(folded) - 1) * normal[0] + radius * np.sin(folded) * normal[1]


def _cross(u: np.ndarray, v: np.ndarray, width: float = 0.32) -> np.ndarray:
    length = np.float32((1 - width**2) ** 0.5)  # the corners of the cross lie on the circle
    long, short = np.maximum(abs(u), abs(v)), np.minimum(abs(u), abs(v))
    return np.maximum(long - length, short - np.float32(width))


def draw(
    factors: np.ndarray,
    size: int,
    *,
    texture: float = 0.0,
    noise: float = 0.0,
    occlusion: float = 0.0,
    seeds: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw shapes from their factors, with smooth edges.

    Args:
        factors: float32 [N, 6], the columns named in FACTORS
        size: Side of the images, in pixels
        texture: Contrast of the waves in the background, 0 (flat) to 1
        noise: Standard deviation of the noise on each pixel, as a fraction of white
        occlusion: Width of a gray bar across the shape, as a fraction of the shape's diameter
        seeds: int64 [N], one seed per image for the waves, the noise and the position of the bar

    Returns:
        images uint8 [N, H, W, 3], and masks uint8 [N, H, W]: 0 for the background and the bar, else 1 plus the index
        into SHAPES
    """
    distance = distances(factors, size)
    mask = (distance < 0) * (1 + factors[:, 0].astype(np.uint8)[:, None, None])
    cover = np.clip(0.5 - distance, 0, 1)[:, None]  # fraction of a pixel that the shape covers: [N, 1, H, W]
    color = _colors(factors).transpose(0, 3, 1, 2)  # [N, 3, 1, 1]
    image = np.array(BACKGROUND, dtype=np.float32)[:, None, None]
    rngs = [np.random.default_rng(int(seed)) for seed in seeds] if texture or noise or occlusion else []
    if texture:
        image = image + 150 * texture * _waves(rngs, size)
    image = image + cover * (color - image)
    if occlusion:
        bar = _bars(rngs, factors, size, occlusion)
        image += np.clip(0.5 - bar, 0, 1)[:, None] * (np.array(BAR, dtype=np.float32)[:, None, None] - image)
        mask[bar < 0] = 0
    if noise:
        image += 255 * noise * np.stack([rng.standard_normal((3, size, size), dtype=np.float32) for rng in rngs])
        image = image.clip(0, 255)
    return (image + 0.5).astype(np.uint8).transpose(0, 2, 3, 1), mask


def draw_outlines(factors: np.ndarray, size: int) -> np.ndarray:
    """The same shapes as outlines in their color on a light background: uint8 [N, H, W, 3]."""
    return _on_paper(abs(distances(factors, size)) - LINE * size / 2, _colors(factors))


def draw_stripes(factors: np.ndarray, size: int) -> np.ndarray:
    """The same shapes with stripes of their color and of a dark color, on a light background: uint8 [N, H, W, 3]."""
    band = np.arange(size) * STRIPES // size % 2 == 1
    dark = np.array(BACKGROUND, dtype=np.float32)
    return _on_paper(distances(factors, size), np.where(band[:, None, None], _colors(factors), dark))


def _colors(factors: np.ndarray) -> np.ndarray:
    """[N, 1, 1, 3]"""
    return np.array(list(COLORS.values()), dtype=np.float32)[factors[:, 1].astype(int), None, None]


def _on_paper(distance: np.ndarray, color: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] in `color` [N, H or 1, W or 1, 3] where the signed distance [N, H, W] is negative."""
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    paper = np.array(PAPER, dtype=np.float32)
    return (paper + cover * (color - paper) + 0.5).astype(np.uint8)


def _waves(rngs: list[np.random.Generator], size: int, count: int = 3) -> np.ndarray:
    """The sum of three plane waves of random colors, with 1 to 4 periods over the image: [N, 3, H, W] in [0, 1]."""
    draws = np.stack([rng.random((6, count, 1), dtype=np.float32) for rng in rngs], axis=1)  # [6, N, count, 1]
    turn, periods, phase = 2 * np.pi * draws[0], 1 + 3 * draws[1], 2 * np.pi * draws[2]
    grid = 2 * np.pi * (np.arange(size, dtype=np.float32) + 0.5) / size
    across, down = periods * np.cos(turn) * grid + phase, periods * np.sin(turn) * grid  # [N, count, size]
    # cos(across + down) is a sum of products, so that the whole texture is one matrix product
    right = np.concatenate([np.cos(across), -np.sin(across)], axis=1)[:, None]  # [N, 1, 2 count, W]
    left = np.concatenate([np.cos(down), np.sin(down)], axis=1).swapaxes(1, 2)[:, None]  # [N, 1, H, 2 count]
    tint = np.tile(draws[3:, ..., 0].swapaxes(0, 1), 2)[:, :, None]  # [N, 3, 1, 2 count]
    return np.clip(0.5 + (tint * left) @ right / 3, 0, 1)


def _bars(rngs: list[np.random.Generator], factors: np.ndarray, size: int, width: float) -> np.ndarray:
    """Signed distance in pixels to a bar of any direction that passes near the shape's center: [N, H, W]."""
    turn, offset = np.stack([rng.random(2, dtype=np.float32) for rng in rngs], axis=1)[..., None, None]
    turn, offset = np.pi * turn, 0.8 * (offset - 0.5)
    radius, x, y = factors.T[2:5, :, None, None]
    centers = (np.arange(size, dtype=np.float32) + 0.5) / size
    across = np.cos(turn) * (centers - x) + np.sin(turn) * (centers[:, None] - y)
    return size * (abs(across - offset * radius) - width * radius)


def _draw_rows(draw: Callable[..., Any], columns: dict[str, np.ndarray], rows: np.ndarray, **options: Any) -> Any:
    """Call `draw` with `rows` of each argument in `columns`. Unlike a closure, a `partial` of this can be pickled."""
    return draw(**{name: column[rows] for name, column in columns.items()}, **options)


class Shapes(ImageData):
    """Colored shapes on a dark background, each with label, caption, mask and factors. Drawn, no download.

    Args:
        train_images: Number of training images
        val_images: Number of validation images
        test_images: Number of test images
        texture: Contrast of waves in the background, 0 (flat) to 1
        noise: Standard deviation of noise on each pixel, as a fraction of white
        occlusion: Width of a gray bar across each shape, as a fraction of the shape's diameter
        target: Condition of a conditional model: label (the shape), caption, mask or none. Or input of a translation
            model: outline (the outline of the same shape) or domain (other shapes, with stripes; in validation and test
            the same shapes, so that the true translation is known)
        seed: Seed of the images
    """

    classes = SHAPES
    own_splits = ("train", "val", "test")
    published_pixels = False
    native_range = "dtype"
    extractor = "shapesnet"

    def __init__(
        self,
        train_images: Count = 20_000,
        val_images: Count = 2_000,
        test_images: Count = 10_000,
        texture: Share = 0.0,
        noise: Share = 0.0,
        occlusion: Share = 0.0,
        target: Literal["label", "caption", "mask", "outline", "domain", "none"] = "label",
        seed: Seed = 0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.counts: dict[Stage, int] = {"train": train_images, "val": val_images, "test": test_images}
        self.difficulty = {"texture": texture, "noise": noise, "occlusion": occlusion}
        self.target, self.seed = target, seed
        if self.hflip:
            raise UserError("data.hflip does not work with Shapes: captions and factors would be wrong. Remove it.")
        if self.random_crop:
            raise UserError(
                "data.random_crop does not work with Shapes: captions and factors would be wrong. Remove it."
            )
        if target in ("outline", "domain"):
            self.refuse_tasks()
        if not 16 <= self.size <= 256:
            raise UserError(f"data.size is {self.size}; for Shapes it must be from 16 to 256.")

    @property
    def spec(self) -> DataSpec:
        # class 0 of a mask is the background
        classes = {"label": SHAPES, "mask": ("background", *SHAPES)}.get(self.target, ())
        captions = (VOCABULARY, CAPTION_LENGTH) if self.target == "caption" else ()
        shape = (self.channels, self.size, self.size)
        if self.target in ("outline", "domain"):
            return DataSpec(shape, "image" if self.target == "outline" else "domain", source=shape)
        return self.as_task(DataSpec(shape, self.target, classes, *captions, binary=self.binarize != "none"))

    def split(self, stage: Stage) -> Split:
        rng = np.random.default_rng(mix("shapes", self.seed, stage))
        factors = draw_factors(self.counts[stage], rng)
        seeds = rng.integers(2**63, size=len(factors))
        beside = {}
        if self.target == "domain" and stage == "train":
            others = draw_factors(self.counts[stage], np.random.default_rng(mix("stripes", self.seed)))
            drawn = partial(_draw_rows, draw_stripes, {"factors": others}, size=self.size)
            beside["other"] = Split(len(others), drawn)
        elif self.target in ("outline", "domain"):
            function = draw_outlines if self.target == "outline" else draw_stripes
            beside["source"] = Split(len(factors), partial(_draw_rows, function, {"factors": factors}, size=self.size))
        return Split(
            len(factors),
            partial(_draw_rows, draw, {"factors": factors, "seeds": seeds}, size=self.size, **self.difficulty),
            label=torch.from_numpy(factors[:, 0].astype(np.int64)),
            caption=torch.tensor([to_tokens(describe(row), VOCABULARY, CAPTION_LENGTH) for row in factors]),
            factors=torch.from_numpy(factors),
            **beside,
        )
