"""Folders and zips of images of two domains, A and B: pairs, or unpaired images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from genbench.core.arguments import Whole, key_of
from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.data import ranges
from genbench.data.base import ImageData, Stage
from genbench.data.folder import expanded, find, grouped, opened, warn_ignored
from genbench.data.image_files import columns, size_of
from genbench.data.layouts import SPLIT_FOLDERS, listed
from genbench.data.ranges import Range, Stored
from genbench.data.readers import FilePictures, Frame, Picture
from genbench.data.streams import Split

Domain = Literal["A", "B"]
_FOLDER = re.compile(rf"({'|'.join(SPLIT_FOLDERS)})?[_-]?([AB])")


class _Place(NamedTuple):
    """Split and domain of an image, found from its folders. The two images of a pair have the same `key`."""

    stage: Stage | None
    domain: Domain | None
    key: str
    name: Picture


@dataclass(eq=False)
class HalfPictures(FilePictures):
    """rows -> the left or the right half of each image. An image shows a pair side by side."""

    right: bool

    def __call__(self, rows: np.ndarray) -> Iterator[Stored]:
        for row, picture in zip(rows, super().__call__(rows), strict=True):
            size = size_of(picture)
            self.check(row, size)
            half = size[0] // 2
            yield columns(picture, half * self.right, half * (1 + self.right))

    def check(self, row: int, size: tuple[int, int] | None = None) -> None:
        """Raise UserError if the image has an odd width. Without `size`, its file's header is read."""
        width, height = size or self.reader.size(self.pictures[row])
        if width % 2:
            raise UserError(
                f"{self.pictures[row]} is {width}×{height}, so its halves would differ in size. An image of a pair "
                "side by side must have an even width."
            )


@dataclass(eq=False)
class PartnerPictures(FilePictures):
    """rows -> images, after a check that each has the aspect ratio of its partner in the other folder.

    With different aspect ratios, the square crops of the two images would show different parts.
    """

    partners: Sequence[Picture]

    def __call__(self, rows: np.ndarray) -> Iterator[Stored]:
        for row, picture in zip(rows, super().__call__(rows), strict=True):
            self.check(row, size_of(picture))
            yield picture

    def check(self, row: int, size: tuple[int, int] | None = None) -> None:
        """Raise UserError if the aspect ratio differs from the partner's. Without `size`, the file's header is read."""
        w, h = size or self.reader.size(self.pictures[row])
        width, height = self.reader.size(self.partners[row])
        if abs(w * height - h * width) > max(w + h, width + height):  # more than the rounding error of a scaled side
            raise UserError(
                f"{self.pictures[row]} is {w}×{h}, but its partner {self.partners[row]} is {width}×{height}: their "
                "square crops would show different parts. Use images with the same aspect ratio, or set "
                "`--data.resize_mode stretch`."
            )


class _TwoDomains(ImageData):
    """Base class of `PairedFolder` and `UnpairedFolder`: finds the images of each split and domain.

    Args:
        path: The folder or the zip file, absolute or relative to the current folder or the data root
        direction: AtoB: images of A are translated to B. BtoA: images of B are translated to A
        test_size: Images of each domain held out of the training set for testing, if there is no test folder. Default:
            5000, or a tenth of the training set if that is less
        frames: What to use of a file of several frames, as in ImageFolder: first, each or channels
    """

    abstract = True
    published_pixels = False
    native_size = 256
    target: Literal["image", "domain"]

    def __init__(
        self,
        path: str,
        direction: Literal["AtoB", "BtoA"] = "AtoB",
        test_size: Whole | None = None,
        frames: Literal["first", "each", "channels"] | None = None,
        **kwargs,
    ) -> None:
        self.shown: Domain = direction[0]
        self.wanted: Domain = direction[-1]
        super().__init__(**kwargs)
        self.refuse_tasks()
        self.test_size = test_size
        self.path = find(path, self.root)
        self.reader, images, files = opened(self.path)
        warn_ignored(self.path, set(files) - set(images))
        found, notes = expanded(self.reader, images, frames, self.path)
        for note in notes:
            rank_zero_warn(f"{self.path}: {note}")
        pictures = [picture for name in images for picture in found[name]]
        self._contents = f"{key_of([str(picture) for picture in pictures])}.{self.reader.sampled(pictures)}"
        self.places = [_placed(picture) for picture in pictures]
        stages = {place.stage for place in self.places}
        if "val" in stages and "test" not in stages:  # the data sets of pix2pix call their test split val
            self.places = [p._replace(stage="test") if p.stage == "val" else p for p in self.places]
            stages = {place.stage for place in self.places}
        if stages != {None}:
            named = " and ".join(sorted(stage for stage in stages if stage))
            stray = next((place.name for place in self.places if place.stage is None), None)
            if stray is not None:
                raise UserError(
                    f"{self.path} has folders for {named}, but {stray} is in none of them. Move it into one."
                )
            if "train" not in stages:
                raise UserError(f"{self.path} has images for {named}, but none in a folder train.")
        self.own_splits = tuple(sorted(stages - {None})) or ("train",)
        self.check_files()

    def check_files(self) -> None:
        """Raise UserError before training if the files of any split have an error."""
        raise NotImplementedError

    @property
    def kinds(self) -> tuple[str, str]:
        return f"Domain {self.wanted} of {self.name}", f"Domain {self.shown} of {self.name}"

    def read_range(self, value: str | list[float] | None) -> tuple[Range | str | None, Range | str | None]:
        """One range for both domains, or one for A and one for B, as in `0,1/dtype`; `0,1/` sets only A."""
        parts = value.split("/") if isinstance(value, str) else [value]
        if len(parts) > 2:
            raise UserError(f"data.range is {value}; expected one range, or two ranges for A and B, separated by /.")
        both = [part or None for part in parts] if len(parts) == 2 else parts * 2
        of = dict(zip("AB", map(ranges.stated, both), strict=True))
        return of[self.wanted], of[self.shown]

    def written_range(self, found: tuple[Range, Range]) -> str:
        of = dict(zip((self.wanted, self.shown), map(str, found), strict=True))
        return of["A"] if of["A"] == of["B"] else f"{of['A']}/{of['B']}"

    @property
    def spec(self) -> DataSpec:
        shape = (self.channels, self.size, self.size)
        return DataSpec(shape, self.target, source=shape)

    def contents(self) -> str:
        return self._contents

    def of(self, stage: Stage, domain: Domain | None) -> list[_Place]:
        """The images of a split and domain."""
        return [place for place in self.places if place.domain == domain and (place.stage or "train") == stage]

    def refuse_missing(self, stage: Stage) -> None:
        """Raise UserError if a domain has no image for a split."""
        for domain in ("A", "B"):
            if not self.of(stage, domain):
                raise UserError(
                    f"{self.path} has no image of domain {domain} for `{stage}`: the folder {stage}{domain} (or "
                    f"{domain}/{stage}) is missing or empty."
                )

    def _split(self, pictures: FilePictures, names: Sequence[object] | None = None) -> Split:
        files = pictures.pictures
        return Split(len(files), pictures, files if names is None else names, group=grouped(files))


class PairedFolder(_TwoDomains):
    """Pairs of images in a folder or a zip file.

    There are two layouts. Either each image shows a pair side by side, with A on the left, as in the data sets of
    pix2pix; the images are in folders train, val and test. Or there are two folders A and B with the same file names.
    The folders train, val and test are then inside A and B or around them, or the folders are called trainA, trainB,
    and so on. A val without a test is used as test; other missing splits are held out of train. Images that are not
    square are cropped to a square.
    """

    target = "image"

    def check_files(self) -> None:
        for stage in self.own_splits:
            split = self.split(stage)
            if stage != "train" and isinstance(split.pictures, HalfPictures | PartnerPictures):
                for row in range(split.length):
                    split.pictures.check(row)
        if halves := self.of("train", None):
            width, height = self.reader.size(halves[0].name)
            if width // 2 != height and self.resize_mode != "stretch":
                rank_zero_warn(
                    f"{self.path} is read as pairs side by side, and each half is cropped to a square: in "
                    f"{halves[0].name} a half is {width // 2}×{height}."
                )

    def split(self, stage: Stage) -> Split:
        halves = self.of(stage, None)
        shown, wanted = (_by_key(self.of(stage, domain)) for domain in (self.shown, self.wanted))
        if halves:
            return self._side_by_side(halves, [*shown.values(), *wanted.values()])
        self.refuse_missing(stage)
        if odd := sorted({*shown, *wanted} - (shown.keys() & wanted.keys())):
            names = [shown.get(key) or wanted[key] for key in odd]
            raise UserError(
                f"{len(names)} images in {self.path} have no partner of the same name in the other folder: "
                f"{listed(names)}. Add the missing partners, or remove these images."
            )
        names, partners = ([found[key] for key in sorted(found)] for found in (wanted, shown))
        stretched = self.resize_mode == "stretch"
        image = self._split(
            FilePictures(self.reader, names) if stretched else PartnerPictures(self.reader, names, partners)
        )
        image.source = self._split(FilePictures(self.reader, partners))
        return image

    def _side_by_side(self, halves: list[_Place], others: list[Picture]) -> Split:
        names = [place.name for place in halves]
        if len({place.key.rpartition("/")[0] for place in halves}) > 1:
            raise UserError(
                f"{self.path} has images in several folders that are neither splits nor called A and B, such as "
                f"{names[0]} and {names[-1]}. For pairs in two folders, rename the folders to A and B. For pairs side "
                "by side, use one folder, or train, val and test."
            )
        if others:
            raise UserError(
                f"{self.path} has images in folders for A and B, such as {others[0]}, but also images elsewhere, "
                f"such as {names[0]}. Keep only one of the two layouts."
            )
        source, image = (
            self._split(
                HalfPictures(self.reader, names, domain == "B"),
                [f"{'The right' if domain == 'B' else 'The left'} half of {name}" for name in names],
            )
            for domain in (self.shown, self.wanted)
        )
        image.source = source
        return image


class UnpairedFolder(_TwoDomains):
    """Images of two domains in a folder or a zip file.

    They are in folders trainA, trainB, testA and testB (and valA, valB), as in the data sets of CycleGAN; or in folders
    A and B, with folders train, val and test inside A and B or around them. A val without a test is used as test; other
    missing splits are held out of train. Images that are not square are cropped to a square.
    """

    target = "domain"
    native_hflip = True

    def check_files(self) -> None:
        if stray := next((place.name for place in self.places if place.domain is None), None):
            raise UserError(
                f"{self.path}: {stray} is not in a folder called A or B (or trainA, trainB, ...). Move it into one."
            )
        for stage in self.own_splits:
            self.refuse_missing(stage)

    def split(self, stage: Stage) -> Split:
        image, other = (
            self._split(FilePictures(self.reader, [place.name for place in self.of(stage, domain)]))
            for domain in (self.wanted, self.shown)
        )
        image.other = other
        return image


def _by_key(places: list[_Place]) -> dict[str, Picture]:
    """Images by their key. Raises UserError if two images have the same key."""
    found: dict[str, Picture] = {}
    for place in places:
        if place.key in found:
            raise UserError(f"{found[place.key]} and {place.name} have the same name. Rename one of them.")
        found[place.key] = place.name
    return found


def _placed(picture: Picture) -> _Place:
    name, frame = (picture.file, f" {picture.numbers}") if isinstance(picture, Frame) else (picture, "")
    path, stage, domain, rest = PurePosixPath(name), None, None, []
    for part in path.parts[:-1]:
        both = _FOLDER.fullmatch(part)
        if both and domain is None:
            domain = both[2]
            stage = stage or (SPLIT_FOLDERS[both[1]] if both[1] else None)
        elif part.lower() in SPLIT_FOLDERS and stage is None:
            stage = SPLIT_FOLDERS[part.lower()]
        else:
            rest.append(part)
    return _Place(stage, domain, "/".join([*rest, path.stem]) + frame, picture)
