"""Finds the images, labels and statistics among the arrays of a file, and the order of their axes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import get_args

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from genbench.core.errors import UserError
from genbench.data.array_members import (
    SUFFIXES,
    Images,
    Layout,
    Member,
    flat_channels,
    members_of,
    refuse_special,
    refuse_unread,
)
from genbench.data.base import Stage
from genbench.data.layouts import SPLIT_FOLDERS, listed

IMAGES = ("images", "image", "imgs", "data", "x", "samples")
LABELS = ("labels", "label", "targets", "target", "y")
STATISTICS = ("mu", "sigma", "m", "s")
# Hendrycks & Dietterich 2019: each file contains all test images at five severities, one severity after the other
SEVERITIES = 5
CORRUPTIONS = (
    "brightness", "contrast", "defocus_blur", "elastic_transform", "fog", "frost", "gaussian_blur", "gaussian_noise",
    "glass_blur", "impulse_noise", "jpeg_compression", "motion_blur", "pixelate", "saturate", "shot_noise", "snow",
    "spatter", "speckle_noise", "zoom_blur",
)  # fmt: skip


class ArrayFile:
    """The arrays of an .npy or .npz file, or of a folder of these."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: dict[str, list[Member]] = {}
        refuse_special(path)
        for file in sorted(_arrays_in(path), key=_natural) if path.is_dir() else [path]:
            for name, member in members_of(file).items():
                if path.is_dir() and file.suffix.lower() == ".npz":  # the files are batches of one data set
                    stage = parted(file.stem)[0]
                    name = name if stage is None else f"{stage}_{name}"
                self.members.setdefault(name, []).append(member)
        if not self.members:
            raise UserError(f"{path} contains no arrays.")
        for name, members in self.members.items():
            if len({re.sub(r"\d+", "", member.path.stem) for member in members}) > 1:
                raise UserError(
                    f"{path}: {listed([member.path.name for member in members])} all have an array {name}, but "
                    "their names do not look like numbered parts of one data set. Use the path of one file."
                )

    def statistics(self) -> tuple[Member, Member] | None:
        """Mean and covariance of features: `mu` and `sigma`, or floats `m` [D] and `s` [D, D]; None without them."""
        if {"mu", "sigma"} <= self.members.keys():
            return self.members["mu"][0], self.members["sigma"][0]
        if {"m", "s"} <= self.members.keys():
            m, s = self.members["m"][0], self.members["s"][0]
            count = math.prod(m.shape)
            if m.dtype.kind == s.dtype.kind == "f" and s.shape == (count, count):
                return m, s
        return None

    @property
    def has_images(self) -> bool:
        """Whether at least one array has the shape of images."""
        return any(self._is_image(name) for name in self.members)

    def points(self, key: str | None = None) -> Member | None:
        """The array of points, floats [N, D]; None if the file has no points, or has images or statistics.

        Raises UserError if several arrays may be points.
        """
        if key in (None, *STATISTICS) and self.statistics():
            return None
        if key is None and self.has_images:
            return None
        others = {*LABELS, "mu", "sigma"}  # mu without sigma is an incomplete file of statistics, not points
        names = [key] if key is not None else [name for name in self.members if parted(name)[1] not in others]
        found = {name: self.members[name][0] for name in names if name in self.members}
        found = {name: m for name, m in found.items() if len(m.shape) == 2 and m.dtype.kind == "f" and m.shape[0]}
        if "images" in found:
            return found["images"]
        if len(found) > 1:
            raise self._several("points", list(found))
        return next(iter(found.values()), None)

    def _several(self, what: str, names: list[str]) -> UserError:
        found = _described({name: self.members[name] for name in names})
        return UserError(f"{self.path} has several arrays of {what}: {found}. Choose one: `--data.key {names[0]}`.")

    def images(
        self, key: str | None = None, layout: Layout | None = None, severity: int | None = None
    ) -> dict[Stage | None, Images]:
        """The arrays of images by split. The split is None for an array without a split in its name.

        Raises UserError if there are no images, or if the array, the order of its axes or the severity is ambiguous.
        """
        if layout is not None and layout not in get_args(Layout):
            raise UserError(f"data.layout is {layout}; choose from: {', '.join(get_args(Layout))}.")
        if key is not None and key not in self.members:
            raise UserError(f"{self.path} has no array {key}. Choose from: {_described(self.members)}.")
        names = [key] if key is not None else self._image_names(layout)
        return {parted(name)[0]: self._images(name, layout, severity) for name in names}

    def _image_names(self, layout: Layout | None) -> list[str]:
        images = [name for name in self.members if self._is_image(name)]
        if not images:  # flattened
            images = [name for name in self.members if self._is_image(name, flat=True, floats=layout is not None)]
        groups: dict[str, list[str]] = {}
        for name in images:
            groups.setdefault(parted(name)[1], []).append(name)
        if len(groups) > 1:
            groups = {base: names for base, names in groups.items() if base in IMAGES} or groups
            if "images" in groups:
                groups = {"images": groups["images"]}
        if not groups:
            if all(members[0].pickled for members in self.members.values()):
                next(iter(self.members.values()))[0].array()  # raises
            hint = ""
            if self.statistics():
                hint = ". These are the mean and covariance of features. Use them with `evaluate --reference`"
            raise UserError(
                f"{self.path} has no array of images. Images must be numbers of shape [N, H, W], [N, H, W, C] or [N, "
                f"C, H, W], but the file has {_described(self.members)}{hint}."
            )
        names = next(iter(groups.values()))
        stages = [parted(name)[0] for name in names]
        if len(groups) > 1 or len(set(stages)) < len(stages) or (None in stages and len(stages) > 1):
            raise self._several("images", [name for group in groups.values() for name in group])
        return names

    def _is_image(self, name: str, flat: bool = False, floats: bool = False) -> bool:
        member = self.members[name][0]
        if member.dtype.kind not in "uifb" or parted(name)[1] in LABELS:
            return False
        if not flat:
            return len(member.shape) in (3, 4)
        if member.dtype.kind == "f" and not floats:
            return False
        return len(member.shape) == 2 and flat_channels(member.shape[1]) is not None

    def _images(self, name: str, layout: Layout | None, severity: int | None) -> Images:
        stage, base = parted(name)
        members = self.members[name]
        one = members[0]
        if one.pickled:
            one.array()  # raises
        if one.dtype.kind not in "uifb":
            raise UserError(f"{name} in {self.path} holds {one.dtype}; images must be integers, floats or booleans.")
        for other in members[1:]:
            if (other.dtype, other.shape[1:]) != (one.dtype, one.shape[1:]):
                raise UserError(
                    f"{name} is {one.described} in {one.path}, but {other.described} in {other.path}. All parts must "
                    "have the same type and the same image shape."
                )
        if one.shape and not math.prod(one.shape):
            raise UserError(f"{self.path} contains no images: {name} is {one.described}.")
        found = Images(name, stage, members, self._layout(name, base, one, layout), 0, 0)
        found.count, rest = divmod(found.total, SEVERITIES)
        if severity is None:
            if base in CORRUPTIONS and not rest:
                raise UserError(
                    f"{name} in {self.path} contains {found.count:,} images at each of five severities. Choose one "
                    "with `--data.severity`, from 1 to 5."
                )
            found.count = found.total
            return found
        if not 1 <= severity <= SEVERITIES:
            raise UserError(f"data.severity is {severity}; it must be from 1 to {SEVERITIES}.")
        if rest:
            raise UserError(
                f"data.severity is {severity}, but the {found.total:,} images of {name} cannot be split into five "
                "equal parts. Remove `--data.severity`."
            )
        found.first = (severity - 1) * found.count
        return found

    def _layout(self, name: str, base: str, member: Member, given: Layout | None) -> Layout:
        shape, flag = member.shape, "--data.layout"
        what = f"{name} in {self.path} is {member.described}"
        fits: list[Layout] = []
        if len(shape) == 2 and (flat := flat_channels(shape[1])):
            if member.dtype.kind == "f" and given is None:
                raise UserError(f"{what}, which may be points. For flattened images set `{flag} NHW`, NHWC or NCHW.")
            fits = ["NHWC", "NCHW"] if flat == 3 else ["NHW", "NHWC", "NCHW"]
            # ImageNet32 and CIFAR store flattened images one channel after the other
            if given is None and (flat == 1 or base == "data"):
                return "NCHW"
        elif len(shape) == 3:
            fits = ["NHW"]
            long_first, long_last = (max(sides) / min(sides) for sides in (shape[:2], shape[1:]))
            if given is None and shape[2] > 4 and shape[1] != shape[2] and long_first <= long_last:
                raise UserError(
                    f"{what}, whose axes may be [N, H, W] or [H, W, N]. If the first axis counts the images, use "
                    f"`{flag} NHW`. Otherwise move the last axis to the front and save the array again."
                )
            if given is None and (shape[0] == 3 or (shape[2] in (1, 3, 4) and shape[1] != shape[2])):
                raise UserError(
                    f"{what}, which may be one image or several gray images. Use `{flag} NHW` for gray images, or "
                    "save the array as [N, H, W, C]."
                )
        elif len(shape) == 4:
            last = (1, 3, 4) if member.dtype.kind == "u" else (1, 3)  # four float channels are rarely RGB and opacity
            fits = ["NHWC"] * (shape[3] in last) + ["NCHW"] * (shape[1] in (1, 3))
        if given in fits:
            return given
        if not fits:
            volumes = len(shape) == 4 and min(shape[1:]) > 4  # such as the 3D sets of MedMNIST
            slices = (
                f" For volumes, save their slices as images, such as {name}[:, {shape[1] // 2}]." if volumes else ""
            )
            raise UserError(
                f"{what}; images must be [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels.{slices}"
            )
        if given is not None:
            raise UserError(f"data.layout is {given}, but {what}. Use {' or '.join(fits)}.")
        if len(fits) > 1:
            raise UserError(f"{what}, whose axes may be {' or '.join(fits)}. Choose one: `{flag} {fits[0]}`.")
        return fits[0]

    # ---- labels -------------------------------------------------------------------------------------------------

    def labels(self, images: Images, key: str | None = None) -> np.ndarray | None:
        """Labels of the images, integers or strings [N]; None if the file has no labels.

        Raises UserError if the labels are not classes, or if there is not exactly one label per image.
        """
        found = self._label_members(images, key)
        if found is None:
            return None
        name, members = found
        described = members[0].described

        def refused(reason: str, instead: str = "") -> UserError:
            where = self.path if name in self.members else members[0].path
            without = f"Use `--data.labels false` to train without labels{instead}."
            return UserError(f"{name} in {where} {reason}. {without}")

        if any(member.pickled for member in members):
            reason = "is a pickle, which is not loaded because it could run any code"
            raise refused(reason, ", or save the labels as an array of integers")
        if not {member.dtype.kind for member in members} <= set("uibUS"):
            raise refused(f"holds {members[0].dtype}; labels must be integers", ", or save them as integers")
        single = f"is {described}; labels must be [N], one per image"
        parts = [member.array() for member in members]
        if any(part.ndim == 0 or part.shape[1:] != parts[0].shape[1:] for part in parts):
            raise refused(single)
        labels = np.concatenate(parts)
        if len(labels) != images.total:
            reason = f"has {len(labels):,} labels, but {images.name} has {images.total:,} images"
            raise refused(reason, ", or choose other labels with `--data.labels_key`")
        labels = labels[images.first : images.first + images.count]
        if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "uib":
            if not (((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()):
                raise refused(f"is {described}: an image with several labels has no class")
            labels = labels.argmax(1)
        if labels[0].size != 1:
            raise refused(single)
        labels = labels.reshape(len(labels))
        if labels.dtype.kind == "S":
            labels = np.char.decode(labels, "utf-8", "replace")
        if labels.dtype.kind == "i" and labels.min() == -1 and 0 in labels:
            raise refused("contains -1 as well as 0, and -1 often marks an unknown label")
        return labels.astype(np.int64) if labels.dtype.kind in "bu" else labels

    def _label_members(self, images: Images, key: str | None) -> tuple[str, list[Member]] | None:
        members = {**self.members, **self._labels_beside()}
        bases = LABELS if key is None else (parted(key)[1],)
        names = [name for name in members if parted(name)[1] in bases and parted(name)[0] == images.stage]
        if key is not None and not names and key not in members:
            raise UserError(f"{self.path} has no array {key}. Choose from: {_described(members)}.")
        if not names and images.stage is not None and images.stage == parted(images.name)[0] and key in members:
            names = [key]
        if not names and key is None:
            names = (
                ["arr_1"] if images.name == "arr_0" and "arr_1" in members else self._named_as_labels(members, images)
            )
        if len(names) > 1:
            raise UserError(
                f"{self.path} has several arrays that may be labels: {', '.join(names)}. Choose one: "
                f"`--data.labels_key {names[0]}`, or use `--data.labels false`."
            )
        return (names[0], members[names[0]]) if names else None

    def _labels_beside(self) -> dict[str, list[Member]]:
        """Labels in a different .npy file of the same folder: y_train.npy for X_train.npy, or else labels.npy."""
        if self.path.suffix.lower() != ".npy":
            return {}
        files = [file for file in sorted(self.path.parent.glob("*.npy")) if file != self.path and file.is_file()]
        named = [file for file in files if _same_but_labels(file.stem, self.path.stem)]
        found = {}
        for file in named or [file for file in files if file.stem == "labels"]:
            found |= {name: [member] for name, member in members_of(file).items()}
            rank_zero_warn(
                f"{file} is used as the labels of {self.path.name}. Use `--data.labels false` to train without labels."
            )
        return found

    def _named_as_labels(self, members: dict[str, list[Member]], images: Images) -> list[str]:
        """Names of arrays with one label per image and a word such as `label` in the name, preferably also `fine`."""
        found = []
        for name, parts in members.items():
            shape = (sum(part.shape[0] for part in parts if part.shape), *parts[0].shape[1:])
            fits = shape in ((images.total,), (images.total, 1)) and parts[0].dtype.kind in "uibUS"
            # `y` does not count: center_y is a position
            named = _words(name) & {*LABELS} - {"y"} or _same_but_labels(name, images.name)
            if fits and named and parted(name)[0] == images.stage:
                found.append(name)
        chosen = [name for name in found if "fine" in _words(name)] or found
        chosen = [name for name in chosen if _same_but_labels(name, images.name)] or chosen
        if len(chosen) == 1 and chosen[0] in self.members:
            others = [name for name in found if name not in chosen]
            other = f"`--data.labels_key {others[0]}` for different labels, or " if others else ""
            rank_zero_warn(
                f"{self.path}: {chosen[0]} is used as the labels of {images.name}. Use {other}`--data.labels false` "
                "to train without labels."
            )
        return chosen


def _described(members: dict[str, list[Member]]) -> str:
    return listed([f"{name} ({some[0].described})" for name, some in members.items()], most=8)


def _arrays_in(folder: Path) -> list[Path]:
    """The .npy and .npz files of a folder. Raises UserError if there are none."""
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    arrays = [path for path in files if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not arrays:
        refuse_unread(folder)
        raise UserError(f"There is no .npy or .npz file in {folder}. For image files use `ImageFolder`.")
    if others := sorted(path.name for path in set(files) - set(arrays)):
        rank_zero_warn(f"{folder}: {len(others)} files that are not arrays are ignored: {listed(others)}.")
    return arrays


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts batch_2 before batch_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def parted(name: str) -> tuple[Stage | None, str]:
    """The split in an array's name, and the rest of the name: `train_images` -> train, images."""
    words = re.split(r"[_\-. ]", name.lower())
    stages = [word for word in words if word in SPLIT_FOLDERS]
    if len(stages) != 1:
        return None, name.lower()
    return SPLIT_FOLDERS[stages[0]], "_".join(word for word in words if word != stages[0])


def _words(name: str) -> set[str]:
    return set(re.split(r"[_\-. ]", name.lower()))


def _same_but_labels(labels: str, images: str) -> bool:
    """Whether two names differ only in words for labels and for images: y_train and X_train."""
    found = _words(labels)
    return bool(found & {*LABELS}) and found - {*LABELS} == _words(images) - {*IMAGES}
