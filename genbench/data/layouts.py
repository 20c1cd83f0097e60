"""Which split and class each image of a folder or zip belongs to, by the layouts that data sets come in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from genbench.core.errors import UserError
from genbench.data.module import Stage

# sub-folders that are splits, by the names that data sets give them
SPLIT_FOLDERS: dict[str, Stage] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# folders that hold a thousand images each: of the dataset_tool of StyleGAN and EDM, and of FFHQ
_SHARDS = re.compile(r"(?:\d{5}/img\d{8}|(\d{2})000/\1\d{3})\.\w+")
LABELS = "dataset.json"  # of the dataset_tool
MASKS = "ground_truth"  # of MVTec
ANNOTATIONS = "val_annotations.txt"  # of tiny-imagenet
# what other data sets call such folders: train2017, training_set, test_public, imagesTr of medical ones
_LIKE_SPLIT = re.compile(
    rf"(?:images?|imgs?|data|labels?)?[\W_]*(?P<word>{'|'.join(SPLIT_FOLDERS)})"
    rf"[\W_]*(?:set|split|data|images?|imgs?|public|private|\d+)?|(?:images?|labels?)(?P<end>tr|ts|va)"
)
_ENDS: dict[str, Stage] = {"tr": "train", "ts": "test", "va": "val"}
_IMAGES = {"image", "images", "img", "imgs"}
_ANNOTATIONS = {
    "annotation", "annotations", "ground_truth", "groundtruth", "gt", "label", "labels", "mask", "masks",
    "segmentation", "segmentations", "segmentation_mask", "segmentation_masks",
}  # fmt: skip


def listed(names: Sequence[object], most: int = 5) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


@dataclass
class Layout:
    """
    images   of each split, each with the name of its class ("" where it has none)
    classes  of the training split, in order; none where not every training image has one
    used     files beside the images that were read
    notes    what a user should know
    """

    images: dict[Stage, list[tuple[str, str]]]
    classes: tuple[str, ...] = ()
    used: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def classes_of(some: Sequence[tuple[str, str]]) -> set[str]:
    return {folder for _, folder in some}


def layout(
    images: Sequence[str], files: Sequence[str], path: Path, read: Callable[[str], bytes], labels: bool = True
) -> Layout:
    """The layout of the images of `path`.

    Args:
        images: Their names, relative to it
        files: All files that it holds
        path: For messages
        read: Gives the content of a file
        labels: Whether classes are wanted; without, nothing is read

    Raises UserError where a layout contradicts itself.
    """
    out = Layout({})
    names = _without_masks(images, out)
    parts = [PurePosixPath(name).parts for name in names]

    def folders(depth: int) -> list[str]:
        return [found[depth] if len(found) > depth + 1 else "" for found in parts]

    depth = 0
    # a folder around everything, as most zips have one, says nothing
    while len(set(outer := folders(depth))) == 1 and outer[0] and outer[0].lower() not in SPLIT_FOLDERS:
        depth += 1
    stages = [SPLIT_FOLDERS.get(folder.lower()) for folder in outer]
    inner = [SPLIT_FOLDERS.get(folder.lower()) for folder in folders(depth + 1)]
    found = set(stages)
    classes = folders(depth)
    if "train" in found and found != {"train", None}:  # that would be a class of trains among others
        if None in found:
            stray = names[stages.index(None)]
            raise UserError(
                f"{path} has folders for train and {', '.join(sorted(found - {'train', None}))}, and {stray} "
                "lies in none of them. Move it, or give the path of one folder."
            )
        classes = folders(depth + 1)
    elif "train" in inner and len(set(inner)) > 1 and None not in inner:  # splits in each class
        stages = inner
    else:
        stages = ["train"] * len(names)
        _refuse_like_splits(names, parts, path)
    _refuse_annotations(classes, names, path)
    if all(_SHARDS.fullmatch("/".join(found[-2:])) for found in parts):
        classes = [""] * len(names)
    for stage, name, folder in zip(stages, names, classes, strict=True):
        out.images.setdefault(stage, []).append((name, folder))
    if labels:
        for stage in ("val", "test"):
            if stage in out.images and "images" not in classes_of(out.images["train"]):
                out.images[stage] = _annotated(out.images[stage], files, path, read, out)
        numbers = _told(names, files, path, read, out)
        if numbers is not None:
            out.images = {
                stage: [(name, numbers.get(name, folder)) for name, folder in some]
                for stage, some in out.images.items()
            }
        known = classes_of(out.images["train"])
        if "" in known and len(known) > 1:
            loose = [name for name, folder in out.images["train"] if not folder]
            out.notes.append(
                f"{len(loose)} training images lie in no class folder ({listed(loose)}), so no folder is a class."
            )
        elif len(known) > 1:
            numbered = numbers is not None and known <= set(numbers.values())
            out.classes = tuple(sorted(known, key=int if numbered else None))
    return out


def _like_split(folder: str) -> Stage | None:
    """The split that a folder's name seems to mean."""
    found = _LIKE_SPLIT.fullmatch(folder.lower())
    if not found:
        return None
    return SPLIT_FOLDERS[found["word"]] if found["word"] else _ENDS[found["end"]]


def _refuse_like_splits(names: Sequence[str], parts: Sequence[tuple[str, ...]], path: Path) -> None:
    """Raise UserError where folders seem to be splits and were not read as such: all would be trained on."""
    for depth in range(max(map(len, parts)) - 1):
        folders = [found[depth] if len(found) > depth + 1 else "" for found in parts]
        like = {stage: folder for folder in sorted(set(folders)) if (stage := _like_split(folder))}
        if "train" in like and len(like) > 1:
            stray = next(
                name for name, folder in zip(names, folders, strict=True) if folder.lower() not in SPLIT_FOLDERS
            )
            raise UserError(
                f"{path} has the folders {' and '.join(sorted(like.values()))}, which look like splits, and {stray} "
                "lies in none that is called train, val or test. Rename or move it, or give the path of one folder."
            )


def _refuse_annotations(classes: Sequence[str], names: Sequence[str], path: Path) -> None:
    """Raise UserError where class folders are called images and masks: masks would be trained on as a class."""
    places = {folder.lower(): name for name, folder in zip(names, classes, strict=True)}
    images, others = sorted(_IMAGES & places.keys()), sorted(_ANNOTATIONS & places.keys())
    if images and others:
        raise UserError(
            f"{path} has the folders {images[0]} and {others[0]}, as of {places[images[0]]} and "
            f"{places[others[0]]}: they look like images and their annotations, and not like classes. Give the path of "
            f"{images[0]} alone, or move {others[0]} away."
        )


def _without_masks(images: Sequence[str], out: Layout) -> list[str]:
    """Those not in a folder `ground_truth` beside a folder `train` or `test`, where MVTec keeps masks of defects."""
    if not any(f"{MASKS}/" in name for name in images):
        return list(images)
    found = [f"/{name}".partition(f"/{split}/") for name in images for split in ("train", "test")]
    parents = {before for before, split, _ in found if split}

    def mask(name: str) -> bool:
        before, folder, _ = f"/{name}".partition(f"/{MASKS}/")
        return bool(folder) and before in parents

    kept = [name for name in images if not mask(name)]
    if len(kept) < len(images):
        out.notes.append(f"{len(images) - len(kept)} masks in folders `{MASKS}` are left out.")
    return kept


def _annotated(
    some: list[tuple[str, str]], files: Sequence[str], path: Path, read: Callable[[str], bytes], out: Layout
) -> list[tuple[str, str]]:
    """Images of a split that all lie in one folder `images`: their classes are in a text file, or not known."""
    if classes_of(some) != {"images"}:
        return some
    split = PurePosixPath(some[0][0]).parents[1]
    told = str(split / ANNOTATIONS)
    if told not in files:
        return [(name, "") for name, _ in some]
    out.used.append(told)
    # with a mark of its encoding in front, where an editor on Windows has saved it
    rows = [line.split("\t") for line in read(told).decode("utf-8-sig", "replace").splitlines() if line.strip()]
    classes: dict[str, str] = {}
    for name, label in ((row[0], row[1].strip()) for row in rows if len(row) > 1):
        if classes.setdefault(name, label) != label:
            raise UserError(
                f"{told} in {path} has two classes for {name}, {classes[name]} and {label}. Remove one of them."
            )
    if missing := [name for name, _ in some if PurePosixPath(name).name not in classes]:
        raise UserError(
            f"{told} in {path} names no class for {listed(missing)}. Add these lines, or say `--data.labels false`."
        )
    return [(name, classes[PurePosixPath(name).name]) for name, _ in some]


def _told(
    names: Sequence[str], files: Sequence[str], path: Path, read: Callable[[str], bytes], out: Layout
) -> dict[str, str] | None:
    """The class of each image, as text, by the files dataset.json of the dataset_tool; None where there is none."""
    labels: dict[str, str] | None = None
    for file in files:
        if PurePosixPath(file).name != LABELS:
            continue
        try:
            found = json.loads(read(file))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{file} in {path} is not readable as JSON ({error}). Repair it, or say `--data.labels false`."
            ) from error
        if not isinstance(found, dict) or not isinstance(found.get("labels", 0), (list, dict, type(None))):
            continue  # other data sets keep other things in a file of that name
        folder = PurePosixPath(file).parent
        here = [name for name in names if folder in PurePosixPath(name).parents]
        if isinstance(found["labels"], dict):  # StyleGAN's own reader takes such, too
            if not found["labels"].keys() & {str(PurePosixPath(name).relative_to(folder)) for name in here}:
                continue
            found["labels"] = [list(entry) for entry in found["labels"].items()]
        out.used.append(file)
        labels = labels or {}
        if found["labels"] is None:
            labels |= dict.fromkeys(here, "")
        else:
            labels |= _integers(found["labels"], folder, here, f"{file} in {path}")
    return labels


def _integers(entries: list, folder: PurePosixPath, here: list[str], file: str) -> dict[str, str]:
    without = "Say `--data.labels false` to train without classes"
    labels: dict[str, str] = {}
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise UserError(f"{file} has the label entry {str(entry)[:80]}; a pair of name and label was expected.")
        name, label = str(folder / entry[0].replace("\\", "/")), entry[1]
        if isinstance(label, list):
            raise UserError(
                f"{file} has lists of numbers as labels, such as {len(label)} for {entry[0]}: attributes, which are no "
                f"classes. {without}."
            )
        if isinstance(label, bool) or not isinstance(label, int) or label < 0:
            raise UserError(
                f"{file} has the label {label!r} for {entry[0]}; an integer was expected, 0 or more. {without}."
            )
        if labels.setdefault(name, str(label)) != str(label):
            raise UserError(f"{file} has two labels for {entry[0]}, {labels[name]} and {label}. Remove one of them.")
    if missing := [name for name in here if name not in labels]:
        raise UserError(f"{file} has no label for {listed(missing)}. Add these. {without}.")
    if gone := sorted(labels.keys() - set(here)):
        raise UserError(f"{file} has labels for images that are not there: {listed(gone)}. Add them. {without}.")
    return labels
