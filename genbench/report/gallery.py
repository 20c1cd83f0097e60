"""Images of all rows side by side, by kind and protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genbench.leaderboard import columns, formats
from genbench.leaderboard.board import Board
from genbench.leaderboard.formats import Namesakes
from genbench.report import page_images
from genbench.report.page_images import Picture, Shown
from genbench.report.rows import Rows, words

LARGE = 400  # pixels; a wider grid is scaled down
BESIDE = {
    "neighbors": ("nearest_train_ratio", "authenticity"),
    "reconstructions": ("mse",),
    "translations": ("translation_psnr", "translation_fid"),
    "translations_a": ("translation_a_psnr", "translation_a_fid"),
    "masks": ("mean_iou",),
}  # kind of image -> scores shown below it
TITLES = {
    "samples": ("Samples", "The first samples of each model. Under one protocol, all models get the same noise."),
    "neighbors": (
        "Nearest training images",
        "Each row shows a sample, followed by its nearest training images in the features of the extractor.",
    ),
    "reconstructions": ("Reconstructions", "Each reference image is followed by its reconstruction."),
    "translations": (
        "Translations",
        "The input, its translation and the true image. If no true image is known, the translation back to the input's "
        "domain.",
    ),
    "translations_a": ("Translations to A", "The same for the opposite direction."),
    "masks": ("Masks", "An image, its predicted classes and its true classes."),
}


def galleries(
    rows: Rows, tables: Sequence[tuple[Board, Namesakes | None]], skipped: list[tuple[Path, str]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return, for each kind, the images of all rows by protocol; and sentences about omitted images."""
    tiles = _tiles(rows, tables)
    wanted: list[tuple[str, dict[str, Any], Picture]] = []
    for kind in TITLES:
        for tile in tiles:
            path = _sheet(tile["path"], kind)
            try:
                if (picture := page_images.read(path)) is not None:
                    wanted.append((kind, tile, picture))
            except OSError as error:
                skipped.append((path, str(error)))
    shown = page_images.fitted([picture for *_, picture in wanted])
    found = []
    for kind in TITLES:
        groups: dict[str, list[dict[str, Any]]] = {}
        for (of, tile, _), image in zip(wanted, shown, strict=True):
            if of == kind and image is not None:
                scale = min(1, LARGE / image.width)
                more = {"picture": image, "width": round(image.width * scale), "small": scale == 1}
                more["scores"] = _scores(tile, BESIDE.get(kind, ()))
                groups.setdefault(tile["protocol"], []).append(tile | more)
        if groups:
            title, about = TITLES[kind]
            found.append({"kind": kind, "title": title, "about": about, "groups": groups})
    return found, list(_left_out(tiles, {tile["path"] for _, tile, _ in wanted}, shown))


def _tiles(rows: Rows, tables: Sequence[tuple[Board, Namesakes | None]]) -> list[dict[str, Any]]:
    """List each row of each data set and protocol once, in the order of the first leaderboard that contains it.

    If there are several seeds, the first is shown, with its own scores next to the means.
    """
    tiles: dict[Path, dict[str, Any]] = {}
    for board, namesakes in tables:
        best, last = ({r.records[0][0].source for r in board.rows if r.checkpoint == c} for c in ("best", "last"))
        for row in board.rows:
            pairs = rows.first(row)
            record, path = next(
                (pair for pair in pairs if any(_sheet(pair[1], kind).is_file() for kind in TITLES)), pairs[0]
            )
            if path in tiles:
                tiles[path]["means"] |= row.scores
                continue
            seed = (record.run or {}).get("seed")
            facts = [row.checkpoint, None if seed is None else f"seed {seed}"]
            tiles[path] = {
                "path": path,
                "protocol": formats.measured_on(board, namesakes),
                "label": row.label,
                "facts": " · ".join(fact for fact in facts if fact),
                "by": board.by,
                "own": record.metrics,
                "means": dict(row.scores),
                "checkpoint": row.checkpoint if row.records[0][0].source in best & last else None,
                "find": words(board, row),
            }
    return list(tiles.values())


def _sheet(path: Path, kind: str) -> Path:
    """Return the path of the image of this kind in the folder next to a record."""
    folder = path.with_suffix("")
    former = folder / "neighbours.png"  # file name in older versions
    return former if kind == "neighbors" and former.exists() else folder / f"{kind}.png"


def _scores(tile: dict[str, Any], stems: Sequence[str]) -> list[str]:
    """Format the checkpoint's own scores named in `stems`, or the score that its leaderboard ranks by. With several
    seeds, the mean is added."""
    own, means = tile["own"], tile["means"]
    named = [name for stem in stems for name in means if name.partition("-")[0] == stem] or [tile["by"]]
    lines = []
    for name in named:
        if name in own and own[name].get("value") is not None:
            entry, of = own[name], means[name]
            mean = f" (mean of {of.seeds} seeds: {of.mean:.3g})" if of.seeds > 1 else ""
            lines.append(
                f"{name} {columns.bound_sign(entry.get('better'), entry.get('bound'))}{entry['value']:.3g}{mean}"
            )
    return lines


def _left_out(tiles: Sequence[dict[str, Any]], pictured: set[Path], shown: Sequence[Shown | None]) -> Iterator[str]:
    if without := sum(tile["path"] not in pictured for tile in tiles):
        yield f"{without} of {len(tiles)} rows have no images next to their records. To create them, evaluate again."
    if compressed := [p for p in shown if p is not None and p.uri.startswith("data:image/webp")]:
        cut = next((f", and show the first {p.rows} of {p.of_rows} rows" for p in compressed if p.rows < p.of_rows), "")
        yield (
            f"To keep this file small, {len(compressed)} images are compressed as WebP{cut}. The files next to the "
            "records are lossless and complete."
        )
    if none := sum(p is None for p in shown):
        yield f"{none} images were omitted."
