"""Folders and zips of two kinds of images, A and B: pairs that show the same, or domains in no relation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from genbench.core.arguments import Whole, key_of
from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.data import ranges
from genbench.data.base import ImageData, Stage
from genbench.data.folder import expanded, find, grouped, opened, say_ignored
from genbench.data.image_files import columns, size_of
from genbench.data.layouts import SPLIT_FOLDERS, listed
from genbench.data.ranges import Range, Stored
from genbench.data.readers import FilePictures, Files, Frame, Picture, ZipFiles
from genbench.data.streams import Split

Domain = Literal["A", "B"]
_FOLDER = re.compile(rf"({'|'.join(SPLIT_FOLDERS)})?[_-]?([AB])")


class _Place(NamedTuple):
    """Where a file stands by the folders that it lies in; `key` is what its partner is called too."""

    stage: Stage | None
    domain: Domain | None
    key: str
    name: Picture


class HalfPictures:
    """rows -> the left or the right half of pictures that show a pair side by side."""

    def __init__(self, reader: Files | ZipFiles, names: list[Picture], right: bool) -> None:
        self.reader, self.names, self.right = reader, names, right

    def __call__(self, rows: np.ndarray) -> Iterator[Stored]:
        for row in rows:
            picture = self.reader.stored(self.names[row])
            half = self._whole(row, size_of(picture))[0] // 2
            yield columns(picture, half * self.right, half * (1 + self.right))

    def check(self, row: int) -> None:
        """Raises UserError where `row` has no halves, by what stands before its pixels."""
        self._whole(row, self.reader.size(self.names[row]))

    def _whole(self, row: int, size: tuple[int, int]) -> tuple[int, int]:
        if size[0] % 2:
            raise UserError(
                f"{self.names[row]} is {size[0]}×{size[1]}: its halves differ in size. A pair side by side has an "
                "even width."
            )
        return size


class PartnerPictures:
    """rows -> pictures of one folder, each of the proportions of its partner in the other, so that both are cut to a
    square alike."""

    def __init__(self, reader: Files | ZipFiles, names: list[Picture], partners: list[Picture]) -> None:
        self.reader, self.names, self.partners = reader, names, partners

    def __call__(self, rows: np.ndarray) -> Iterator[Stored]:
        for row in rows:
            picture = self.reader.stored(self.names[row])
            self._alike(row, size_of(picture))
            yield picture

    def check(self, row: int) -> None:
        """Raises UserError where `row` and its partner differ, by what stands before their pixels."""
        self._alike(row, self.reader.size(self.names[row]))

    def _alike(self, row: int, size: tuple[int, int]) -> None:
        (w, h), (width, height) = size, self.reader.size(self.partners[row])
        if abs(w * height - h * width) > max(w + h, width + height):  # more than rounding a scaled side may do
            raise UserError(
                f"{self.names[row]} is {w}×{h} and its partner {self.partners[row]} {width}×{height}: cut to a "
                "square, they would show different parts. Give both the same proportions, or say "
                "`--data.resize_mode stretch`."
            )


class _TwoKinds(ImageData):
    """What both classes below share: how a folder is found and how its files are told apart."""

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
        self.refuse_made()
        self.test_size = test_size
        self.path = find(path, self.root)
        self.reader, images, files = opened(self.path)
        say_ignored(self.path, set(files) - set(images))
        pictures, notes = expanded(self.reader, images, frames, self.path)
        for note in notes:
            rank_zero_warn(f"{self.path}: {note}")
        self.places = [_placed(picture) for name in images for picture in pictures[name]]
        every = [picture for name in images for picture in pictures[name]]
        self._contents = f"{key_of([str(picture) for picture in every])}.{self.reader.sampled(every)}"
        stages = {place.stage for place in self.places}
        if "val" in stages and "test" not in stages:  # the sets of pix2pix call so what is tested on
            self.places = [p._replace(stage="test") if p.stage == "val" else p for p in self.places]
            stages = {place.stage for place in self.places}
        if stages != {None}:
            stray = next((place.name for place in self.places if place.stage is None), None)
            if stray is not None:
                raise UserError(f"{self.path} has folders for {_listed(stages)}, and {stray} lies in none. Move it.")
            if "train" not in stages:
                raise UserError(f"{self.path} has images for {_listed(stages)}, and none in a folder train.")
        self.own_splits = tuple(sorted(stages - {None})) or ("train",)

    @property
    def kinds(self) -> tuple[str, str]:
        return f"Domain {self.wanted} of {self.name}", f"Domain {self.shown} of {self.name}"

    def read_range(self, value: str | list[float] | None) -> tuple[Range | str | None, Range | str | None]:
        """One range for both domains, or two, as in `0,1/dtype`: of A and of B; `0,1/` is of A alone."""
        parts = value.split("/") if isinstance(value, str) else [value]
        if len(parts) > 2:
            raise UserError(f"data.range is {value}; one range was expected, or two with / in between: of A and of B.")
        both = [part or None for part in parts] if len(parts) == 2 else parts * 2  # an empty one is found
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
        """The files of a split and domain."""
        return [place for place in self.places if place.domain == domain and (place.stage or "train") == stage]

    def refuse_missing(self, stage: Stage) -> None:
        """Raise UserError where a domain has no image for a split."""
        for domain in ("A", "B"):
            if not self.of(stage, domain):
                raise UserError(
                    f"{self.path} has no image of domain {domain} for `{stage}`: the folder {stage}{domain} (or "
                    f"{domain}/{stage}) is missing or empty."
                )

    def _files(self, names: list[Picture]) -> Split:
        return Split(len(names), FilePictures(self.reader, tuple(names)), names, group=grouped(names))


class PairedFolder(_TwoKinds):
    """Pairs of images in a folder or a zip file: what is shown, and what is to be made of it.

    Either A and B side by side in one picture, A left, as the sets of pix2pix have them, in folders train, val and
    test; or two folders of the same names, A and B, with train, val and test in them or around them (or trainA,
    trainB, ...). A val without a test is tested on; what else is missing of both is cut off train. A picture that is
    not square is cut to a square.

    Args:
        path: The folder or the zip file, as it is or below the data root
        direction: Whether B is made from A, or A from B
        test_size: Pairs cut off the training set for testing, where there is no test folder. Default: 5000, or a tenth
            of the training set where that is less
    """

    target = "image"

    def __init__(
        self,
        path: str,
        direction: Literal["AtoB", "BtoA"] = "AtoB",
        test_size: Whole | None = None,
        frames: Literal["first", "each", "channels"] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(path, direction, test_size, frames, **kwargs)
        for stage in self.own_splits:  # what is wrong with test pairs is said before training, and not after it
            split = self.split(stage)
            if stage != "train" and not isinstance(split.pictures, FilePictures):
                for row in range(split.length):
                    split.pictures.check(row)
        if halves := self.of("train", None):
            width, height = self.reader.size(halves[0].name)
            if width // 2 != height and self.resize_mode != "stretch":
                rank_zero_warn(
                    f"{self.path} is taken as pairs side by side, whose halves are cut to squares: in {halves[0].name} "
                    f"each is {width // 2}×{height}."
                )

    def split(self, stage: Stage) -> Split:
        halves = self.of(stage, None)
        side_by_side = [place.name for place in halves]
        shown, wanted = (_by_key(self.of(stage, domain)) for domain in (self.shown, self.wanted))
        if side_by_side:
            if len({place.key.rpartition("/")[0] for place in halves}) > 1:
                raise UserError(
                    f"{self.path} has pictures in several folders, as {side_by_side[0]} and {side_by_side[-1]}, that "
                    "are neither splits nor called A and B. Call those that belong together A and B; pictures that "
                    "show a pair side by side lie in one folder, or in train, val and test."
                )
            if shown or wanted:
                odd = next(iter((shown or wanted).values()))
                raise UserError(
                    f"{self.path} has pictures in folders for A and B, as {odd}, and others in neither, as "
                    f"{side_by_side[0]}. Move them apart."
                )
            source, image = (
                Split(
                    len(side_by_side),
                    HalfPictures(self.reader, side_by_side, domain == "B"),
                    [f"{'The right' if domain == 'B' else 'The left'} half of {name}" for name in side_by_side],
                    group=grouped(side_by_side),
                )
                for domain in (self.shown, self.wanted)
            )
            image.source = source
            return image
        self.refuse_missing(stage)
        if odd := sorted({*shown, *wanted} - (shown.keys() & wanted.keys())):
            names = [shown.get(key) or wanted[key] for key in odd]
            raise UserError(
                f"{len(names)} images in {self.path} have no partner of the same name in the other folder: "
                f"{listed(names)}. Add these, or remove the images."
            )
        names, partners = ([found[key] for key in sorted(found)] for found in (wanted, shown))
        image = self._files(names)
        if self.resize_mode != "stretch":
            image.pictures = PartnerPictures(self.reader, names, partners)
        image.source = self._files(partners)
        return image


class UnpairedFolder(_TwoKinds):
    """Images of two domains in a folder or a zip file, in folders trainA, trainB, testA and testB as the sets of
    CycleGAN have them (and valA, valB), or A and B with train, val and test in them or around them.

    A val without a test is tested on; what else is missing of both is cut off train. A picture that is not square is
    cut to a square.

    Args:
        path: The folder or the zip file, as it is or below the data root
        direction: Which domain counts as B: with BtoA they change places
        test_size: Images of each domain cut off the training set for testing, where there are no test folders. Default:
            5000, or a tenth of the training set where that is less
    """

    target = "domain"
    native_hflip = True

    def __init__(
        self,
        path: str,
        direction: Literal["AtoB", "BtoA"] = "AtoB",
        test_size: Whole | None = None,
        frames: Literal["first", "each", "channels"] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(path, direction, test_size, frames, **kwargs)
        if stray := next((place.name for place in self.places if place.domain is None), None):
            raise UserError(f"{self.path}: {stray} lies in no folder called A or B, or trainA and so on. Move it.")
        for stage in self.own_splits:
            self.refuse_missing(stage)

    def split(self, stage: Stage) -> Split:
        image, other = (self._files([p.name for p in self.of(stage, d)]) for d in (self.wanted, self.shown))
        image.other = other
        return image


def _by_key(places: list[_Place]) -> dict[str, Picture]:
    """Names by what their partners are called too. Raises UserError where two have one key."""
    found: dict[str, Picture] = {}
    for place in places:
        if place.key in found:
            raise UserError(f"{found[place.key]} and {place.name} have one name. Rename one of them.")
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


def _listed(stages: set[Stage | None]) -> str:
    return " and ".join(sorted(stage for stage in stages if stage))
