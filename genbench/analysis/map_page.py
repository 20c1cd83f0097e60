"""Pictures of a map of codes: a plot, and an interactive page that loads nothing from the network."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from genbench.core.html_page import html_page
from genbench.core.image_grid import arranged, rendered
from genbench.evaluation.images import ImageSet, choice

HERE = Path(__file__).parent
MOST = 20_000  # points on a page: with more, a browser becomes slow
THUMBNAIL = 32  # largest side of an image on a page
LARGEST = 6_000_000  # bytes of all images on a page
COLORS = (
    "#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#d4a72c", "#9d755d", "#ff9da6", "#5b5b5b",
    "#1f4e79", "#a04000", "#1e6b2e", "#8c1d2a", "#2a7f7a", "#6a3570", "#8a6d00", "#5c4033", "#c2427e", "#a0a0a0",
)  # fmt: skip
UNLABELED = "#b8b8b8"
LEGEND = 20  # classes that the legend of the plot lists, at most


def classes_in(label: Tensor | None, classes: Sequence[str], count: int) -> tuple[Tensor, tuple[str, ...]]:
    """Labels int64 [N], -1 where there is none, and the names of the classes.

    If the classes have no names, their numbers are the names.
    """
    if label is None:
        return torch.full((count,), -1), ()
    missing = range(len(classes), int(label.max()) + 1)
    return label.to(torch.int64), (*classes, *map(str, missing))


def _groups(label: Tensor, classes: Sequence[str]) -> list[tuple[str, str, Tensor]]:
    """Name, color and rows of each class that has images; images without a label come first, in gray."""
    found = [("unlabeled" if classes else "images", UNLABELED if classes else COLORS[0], (label < 0).nonzero()[:, 0])]
    found += [
        (name, COLORS[k % len(COLORS)], (label == k).nonzero()[:, 0]) for k, name in enumerate(classes)
    ]  # colors repeat after the last
    return [group for group in found if len(group[2])]


def plot(points: Tensor, label: Tensor, classes: Sequence[str], title: str) -> Image.Image:
    """Plot points [N, 2] in the colors of their classes.

    Args:
        label: int64 [N], -1 where there is none
        classes: Names of the classes
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 7.4), dpi=120, layout="constrained")
    axes = figure.add_subplot(aspect="equal", adjustable="datalim")
    size = max(2.0, min(30.0, 30_000 / len(points)))
    groups = _groups(label, classes)
    for name, color, rows in groups:
        x, y = points[rows].T.numpy()
        axes.scatter(x, y, s=size, c=color, alpha=0.7, linewidths=0, label=name.replace("$", r"\$"), rasterized=True)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("0.8")
    axes.set_title(title.replace("$", r"\$"), fontsize=9, color="0.3", wrap=True)
    if classes and len(groups) <= LEGEND:
        axes.legend(
            loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9, markerscale=(40 / size) ** 0.5
        )
    return rendered(figure)


def page(
    points: Tensor, label: Tensor, classes: Sequence[str], names: Sequence[str], title: str, images: ImageSet
) -> tuple[str, list[str]]:
    """An HTML page of points [N, 2], and notes about what it leaves out. It shows the image of the point under the
    pointer.

    Args:
        label: int64 [N], -1 where there is none
        classes: Names of the classes
        names: Names of the images
        images: The images; or points, which have no thumbnails
    """
    from plotly.offline import get_plotlyjs

    notes = []
    shown = choice(len(points), MOST)
    if len(shown) < len(points):
        notes.append(f"map.html shows {MOST:,} of the {len(points):,} images, chosen at random")
    sprite = _sprite(images, shown)
    if sprite is None and len(images.shape) == 3:
        notes.append("map.html has no thumbnails, which would be too large; use a smaller --n")
    xy = points[shown].double().numpy().round(4)
    data: dict[str, Any] = {
        "names": [names[row] for row in shown.tolist()],
        "groups": [
            {"name": name, "color": color, "rows": rows.tolist(), "x": xy[rows, 0].tolist(), "y": xy[rows, 1].tolist()}
            for name, color, rows in _groups(label[shown], classes)
        ],
        "sprite": sprite,
    }
    scripts = {"plotly": get_plotlyjs(), "js": (HERE / "map_page.js").read_text(encoding="utf-8")}
    return html_page(HERE / "map_page.html", scripts, title=title, data=data), notes


def _sprite(images: ImageSet, rows: Tensor) -> dict[str, Any] | None:
    """All images as the tiles of one PNG, or None for points, or if the PNG is too large.

    uri      of the PNG
    width    of a tile in pixels, and `height`
    columns  tiles in a row
    """
    if len(images.shape) != 3:
        return None
    parts = [images.images(part) for part in rows.split(1000)]
    stored = torch.cat([_small(part) for part in parts])
    columns = math.ceil(math.sqrt(len(stored)))
    file = io.BytesIO()
    arranged(stored, columns, gap=0).save(file, "PNG")
    if file.tell() > LARGEST:
        return None
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"uri": uri, "width": stored.shape[3], "height": stored.shape[2], "columns": columns}


def _small(images: Tensor) -> Tensor:
    """uint8 [B, C, H, W], reduced to at most THUMBNAIL pixels per side."""
    factor = max(images.shape[2:]) / THUMBNAIL
    if factor <= 1:
        return images
    size = [round(side / factor) for side in images.shape[2:]]
    small = torch.nn.functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)
