"""Finds the split and the class of each image in a folder or zip that has a common layout.

All layouts are in this file: the order in which they are tried decides which one is found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import filterfalse
from pathlib import Path, PurePosixPath

from genbench.core.errors import UserError
from genbench.data.module import Stage

# sub-folders that are splits
SPLIT_FOLDERS: dict[str, Stage] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
# folders of 1,000 consecutively numbered images each, as in FFHQ and as written by StyleGAN's and EDM's dataset_tool
_SHARDS = re.compile(r"(?:\d{5}/img\d{8}|(\d{2})000/\1\d{3})\.\w+")
_SHARD, _NUMBERED = re.compile(r"\d{5}"), re.compile(r"(?:img)?\d+")
LABELS = "dataset.json"  # labels of the dataset_tool
MASKS = "ground_truth"  # folder of masks in MVTec
ANNOTATIONS = "val_annotations.txt"  # labels of tiny-imagenet
# names of splits in other data sets: train2017, training_set, test_public, or imagesTr in medical data sets
_LIKE_SPLIT = re.compile(
    rf"(?:images?|imgs?|data|labels?)?[\W_]*(?P<word>{'|'.join(SPLIT_FOLDERS)})"
    rf"[\W_]*(?:set|split|data|images?|imgs?|public|private|\d+)?|(?:images?|labels?)(?P<end>tr|ts|va)"
)
_ENDS: dict[str, Stage] = {"tr": "train", "ts": "test", "va": "val"}
# words for splits in names of folders, such as cars_train, bounding_box_test or trainA
_SPLIT_WORDS = {
    **SPLIT_FOLDERS, "trainval": "train", "dev": "val", "eval": "val", "evaluation": "val", "holdout": "test",
    "pred": "test", "query": "test", "gallery": "test", "unlabelled": "rest", "unlabeled": "rest", "extra": "rest",
}  # fmt: skip
_SPLIT_PART = re.compile(rf"(?:{'|'.join(_SPLIT_WORDS)})[\W_]*(?P<part>[a-z]|\d+)?")
_PART = re.compile(r"(?:fold|split|part|shard|chunk|batch|subset)[\W_]*(?:\d+|[a-z])")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_IMAGES = {"image", "images", "img", "imgs", "jpeg", "jpegs", "jpg", "photo", "photos", "picture", "pictures", "rgb"}
_ANNOTATIONS = {
    "anno", "annos", "annot", "annotation", "annotations", "groundtruth", "gt", "label", "labels", "lbl", "mask",
    "masks", "matte", "mattes", "seg", "segm", "segmentation", "segmentations", "trimap",
    "trimaps", "truth",
}  # fmt: skip
_MASK = rf"(?:{'|'.join(sorted(_ANNOTATIONS))}|ground[ _-]truth)"
_MASK_LAST = re.compile(rf"(?P<base>.+)[ _.-]{_MASK}(?:[ _-]?\d+)?")  # x_mask, x_gt, x_mask_1
_MASK_FIRST = re.compile(rf"{_MASK}[ _.-](?P<base>.+)")  # mask_x
_MASK_WORD = re.compile(rf"(?:^|[/ _.-]){_MASK}[ _.\d-]", re.I | re.M)
_LAST_PART, _FIRST_PART = re.compile(r"[ _.-][^ _.-]*$"), re.compile(r"^[^ _.-]*[ _.-]")


def listed(names: Sequence[object], most: int = 5) -> str:
    """The first `most` names, and the number of the others, as text."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


@dataclass
class Layout:
    """
    images   by split: pairs of an image's name and its class ("" if it has none)
    classes  classes of the training split, in order; empty unless every training image has a class
    used     files other than images that were read
    notes    messages for the user
    """

    images: dict[Stage, list[tuple[str, str]]]
    classes: tuple[str, ...] = ()
    used: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _classes_of(some: Sequence[tuple[str, str]]) -> set[str]:
    return {folder for _, folder in some}


def layout(
    images: Sequence[str], files: Sequence[str], path: Path, read: Callable[[str], bytes], labels: bool = True
) -> Layout:
    """Find the layout of the images in `path`.

    Args:
        images: Names of the images, relative to `path`
        files: Names of all files, relative to `path`
        path: The folder or zip, for messages
        read: Returns the content of a file
        labels: Whether to look for classes

    Raises UserError if a layout is contradictory.
    """
    out = Layout({})
    names = _without_mask_files(_without_masks(images, out), out)
    # split by hand, since PurePosixPath is slow
    parts = [tuple(part for part in name.split("/") if part not in ("", ".")) for name in names]
    depth = 0
    # most zips contain one top-level folder
    while len(set(outer := _folders(parts, depth))) == 1 and outer[0] and outer[0].lower() not in SPLIT_FOLDERS:
        depth += 1
    stages = [SPLIT_FOLDERS.get(folder.lower()) for folder in outer]
    inner = [SPLIT_FOLDERS.get(folder.lower()) for folder in _folders(parts, depth + 1)]
    found = set(stages)
    classes = _folders(parts, depth)
    if "train" in found and found != {"train", None}:  # else `train` may be a class of trains
        if None in found:
            stray = names[stages.index(None)]
            raise UserError(
                f"{path} has folders for train and {', '.join(sorted(found - {'train', None}))}, but {stray} is in "
                "none of them. Move it into one of them, or use the path of a single folder."
            )
        classes = _folders(parts, depth + 1)
    elif "train" in inner and len(set(inner)) > 1 and None not in inner:  # each class folder contains split folders
        stages = inner
    else:
        stages = ["train"] * len(names)
        _refuse_like_splits(names, parts, path)
        if labels:
            _refuse_no_train(names, parts, depth, path)
    _refuse_annotations(parts, path)
    shards = _shards(classes, stages, parts)
    if shards:
        classes = [""] * len(names)
    elif labels and len(set(classes)) > 1 and all(_PART.fullmatch(folder.lower()) for folder in classes):
        raise UserError(
            f"{path} has the folders {listed(sorted(set(classes)))}, which look like parts of one data set, not like "
            "classes. Use `--data.labels false` to train on all of them, or rename them to train, val and test."
        )
    for stage, name, folder in zip(stages, names, classes, strict=True):
        out.images.setdefault(stage, []).append((name, folder))
    if labels:
        for stage in ("val", "test"):
            if stage in out.images and "images" not in _classes_of(out.images["train"]):
                out.images[stage] = _annotated(out.images[stage], files, path, read, out)
        numbers = _of_dataset_tool(names, files, path, read, out)
        if numbers is not None:
            out.images = {
                stage: [(name, numbers.get(name, folder)) for name, folder in some]
                for stage, some in out.images.items()
            }
        known = _classes_of(out.images["train"])
        if shards > 1 and numbers is None:
            out.notes.append(
                f"the {shards} folders with numeric names are used as shards of one data set, not as classes. Rename "
                "the folders if they are classes."
            )
        if "" in known and len(known) > 1:
            loose = [name for name, folder in out.images["train"] if not folder]
            out.notes.append(
                f"{len(loose)} training images are in no class folder ({listed(loose)}), so folders are not used as "
                "classes."
            )
        elif len(known) > 1:
            numbered = numbers is not None and known <= set(numbers.values())
            out.classes = tuple(sorted(known, key=int if numbered else None))
    return out


def _folders(parts: Sequence[tuple[str, ...]], depth: int) -> list[str]:
    """The name of each file's folder at a depth; "" for files that are not that deep."""
    return [found[depth] if len(found) > depth + 1 else "" for found in parts]


def _shards(classes: Sequence[str], stages: Sequence[Stage | None], parts: Sequence[tuple[str, ...]]) -> int:
    """The number of shards if all folders are shards, else 0.

    The name of a shard has five digits, and its images are named by numbers that occur only once in the split.
    """
    folders = set(classes)
    if all(_SHARDS.fullmatch("/".join(found[-2:])) for found in parts):
        return len(folders)
    if not all(_SHARD.fullmatch(folder) for folder in folders):
        return 0
    numbers = [(stage, found[-1].rpartition(".")[0]) for stage, found in zip(stages, parts, strict=True)]
    through = all(_NUMBERED.fullmatch(number) for _, number in numbers) and len(set(numbers)) == len(numbers)
    return len(folders) if through else 0


def _words(folder: str) -> list[str]:
    """leftImg8bit -> left, img, bit"""
    return [word.lower() for word in _WORDS.findall(folder)]


def _refuse_like_splits(names: Sequence[str], parts: Sequence[tuple[str, ...]], path: Path) -> None:
    """Raise UserError if folders look like splits but were not recognized: all images would be trained on."""
    for depth in range(max(map(len, parts)) - 1):
        folders = _folders(parts, depth)
        every = sorted({*folders} - {""})
        matches = {folder: found for folder in every if (found := _LIKE_SPLIT.fullmatch(folder.lower()))}
        like = {folder: SPLIT_FOLDERS.get(found["word"]) or _ENDS[found["end"]] for folder, found in matches.items()}
        worded = like | {
            folder: found[0]
            for folder in every
            if (found := [_SPLIT_WORDS[w] for w in _words(folder) if w in _SPLIT_WORDS])
        }
        if 2 * len(worded) > len(every):  # else a class may have such a word in its name
            like = worded
        kinds = {*like.values()}
        if "train" in kinds and len(kinds) > 1:
            stray = next(
                (name for name, folder in zip(names, folders, strict=True) if folder.lower() not in SPLIT_FOLDERS),
                names[0],
            )
            raise UserError(
                f"{path} has the folders {' and '.join(like)}, which look like splits, but {stray} is not in a folder "
                "called train, val or test. Rename the folders to train, val and test, or use the path of one folder."
                + _domains_hint(like)
            )


def _refuse_no_train(names: Sequence[str], parts: Sequence[tuple[str, ...]], depth: int, path: Path) -> None:
    """Raise UserError if all folders at a depth are splits, or parts of splits, but none is the training split."""
    for level in range(depth, max(map(len, parts)) - 1):
        folders = sorted(set(_folders(parts, level)))
        if not all(_SPLIT_PART.fullmatch(folder.lower()) for folder in folders):
            continue
        stages = {SPLIT_FOLDERS.get(folder.lower()) for folder in folders}
        if stages != {"train"}:
            raise UserError(
                f"{path} has the folders {' and '.join(folders)}, which look like splits, but none is called train. "
                "Rename the training folder to train, or use the path of one folder." + _domains_hint(folders)
            )


def _domains_hint(folders: Iterable[str]) -> str:
    if all(_words(folder)[-1:] in (["a"], ["b"]) for folder in folders):
        return " For images of two domains use `--data UnpairedFolder` or `--data PairedFolder`."
    return ""


def _refuse_annotations(parts: Sequence[tuple[str, ...]], path: Path) -> None:
    """Raise UserError if a folder of masks is next to the folder of their images: masks would be trained on."""
    beside: dict[tuple[str, ...], set[str]] = {}
    for folders in {found[:-1] for found in parts}:
        beside.setdefault(folders, set()).add("")
        for k, folder in enumerate(folders):
            beside.setdefault(folders[:k], set()).add(folder)
    for parent, found in sorted(beside.items()):
        masks = sorted(folder for folder in found if _ANNOTATIONS & {*_words(folder)})
        others = sorted(found - {*masks})
        images = [folder for folder in others if _IMAGES & {*_words(folder)}]
        # the folders mask and nomask may be classes
        two = len(masks) == len(others) == 1 and masks[0].lower() not in others[0].lower()
        alike = two and _named_alike(parts, (*parent, others[0]), (*parent, masks[0]))
        if masks and (images or alike):
            image = "/".join((*parent, (images or others)[0])).rstrip("/") or "the others"
            mask = "/".join((*parent, masks[0]))
            raise UserError(
                f"{path} has the folders {image} and {mask}, which look like images and their annotations, not like "
                f"classes. Use only the path of {image}, or move {mask} out of {path}."
            )


def _named_alike(parts: Sequence[tuple[str, ...]], images: tuple[str, ...], masks: tuple[str, ...]) -> bool:
    """Whether at least half of the files in the folder of masks are named like files in the folder of images."""

    def stems(folder: tuple[str, ...]) -> set[str]:
        if not folder[-1]:  # files next to the folder of masks
            found = [names[-1] for names in parts if names[:-1] == folder[:-1]]
        else:
            found = [names[-1] for names in parts if names[: len(folder)] == folder and len(names) > len(folder)]
        return {_stem(name) for name in found}

    of_images, of_masks = stems(images), stems(masks)
    alike = [stem for stem in of_masks if stem in of_images or _base(stem) in of_images]
    return 2 * len(alike) >= len(of_masks)


def _stem(name: str) -> str:
    """A file's name in lower case, without its extension."""
    return name.lower().removesuffix(".gz").rpartition(".")[0]


def _base(stem: str) -> str | None:
    """The image's name in a mask's name: x for x_mask or mask_x, "" for mask; None for other names."""
    found = _MASK_LAST.fullmatch(stem) or _MASK_FIRST.fullmatch(stem)
    if found:
        return found["base"].strip(" _.-")
    return "" if stem in _ANNOTATIONS else None


def _without_mask_files(names: Sequence[str], out: Layout) -> list[str]:
    """Remove masks that are in the same folder as their images, such as x_mask.png next to x.png.

    For volumes, or if a third of all names match, this includes x_seg next to x_t1, mask_x next to image_x, and mask
    next to image.
    """
    if not _MASK_WORD.search("\n".join(names)):
        return list(names)
    places = [(name.rpartition("/")[0], _stem(name.rpartition("/")[2])) for name in names]
    bases = [_base(stem) for _, stem in places]
    images = {place for place, base in zip(places, bases, strict=True) if base is None}
    kin = {
        (folder, base) for folder, stem in images for part in (_LAST_PART, _FIRST_PART) for base in [part.sub("", stem)]
    }
    kin |= {(folder, "") for folder, stem in images if stem.isalpha()}
    keys = {name: (folder, base) for name, (folder, _), base in zip(names, places, bases, strict=True)}
    likely = {name for name, key in keys.items() if key in kin}
    many = 3 * len(likely) >= len(names)

    def is_mask(name: str) -> bool:
        return keys[name] in images or (name in likely and (many or name.lower().endswith((".nii", ".nii.gz"))))

    if masks := list(filter(is_mask, names)):
        out.notes.append(f"{len(masks)} masks next to their images are ignored: {listed(masks)}.")
    return list(filterfalse(is_mask, names))


def _without_masks(images: Sequence[str], out: Layout) -> list[str]:
    """Remove images in a folder `ground_truth` next to a folder `train` or `test`: these are the masks of MVTec."""
    if not any(f"{MASKS}/" in name for name in images):
        return list(images)
    found = [f"/{name}".partition(f"/{split}/") for name in images for split in ("train", "test")]
    parents = {before for before, split, _ in found if split}
    before_masks = [f"/{name}".partition(f"/{MASKS}/") for name in images]
    kept = [
        n for n, (before, folder, _) in zip(images, before_masks, strict=True) if not folder or before not in parents
    ]
    if len(kept) < len(images):
        out.notes.append(f"{len(images) - len(kept)} masks in folders `{MASKS}` are ignored.")
    return kept


def _annotated(
    some: list[tuple[str, str]], files: Sequence[str], path: Path, read: Callable[[str], bytes], out: Layout
) -> list[tuple[str, str]]:
    """The classes of a split whose images are all in one folder `images`: from a text file, or "" without one."""
    if _classes_of(some) != {"images"}:
        return some
    split = PurePosixPath(some[0][0]).parents[1]
    annotations = str(split / ANNOTATIONS)
    if annotations not in files:
        return [(name, "") for name, _ in some]
    out.used.append(annotations)
    # editors on Windows add a byte order mark
    rows = [line.split("\t") for line in read(annotations).decode("utf-8-sig", "replace").splitlines() if line.strip()]
    classes: dict[str, str] = {}
    for name, label in ((row[0], row[1].strip()) for row in rows if len(row) > 1):
        if classes.setdefault(name, label) != label:
            raise UserError(
                f"{annotations} in {path} has two classes for {name}, {classes[name]} and {label}. Remove one of them."
            )
    if missing := [name for name, _ in some if PurePosixPath(name).name not in classes]:
        raise UserError(
            f"{annotations} in {path} has no class for {listed(missing)}. Add the missing classes, or use "
            "`--data.labels false`."
        )
    return [(name, classes[PurePosixPath(name).name]) for name, _ in some]


def _of_dataset_tool(
    names: Sequence[str], files: Sequence[str], path: Path, read: Callable[[str], bytes], out: Layout
) -> dict[str, str] | None:
    """The class of each image, as text, from the dataset_tool's dataset.json files; None if there is no such file."""
    labels: dict[str, str] | None = None
    for file in files:
        if PurePosixPath(file).name != LABELS:
            continue
        try:
            found = json.loads(read(file))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{file} in {path} is not readable as JSON ({error}). Repair it, or use `--data.labels false`."
            ) from error
        if not isinstance(found, dict) or not isinstance(found.get("labels", 0), (list, dict, type(None))):
            continue  # a file with a different format
        folder = PurePosixPath(file).parent
        here = [name for name in names if folder in PurePosixPath(name).parents]
        if isinstance(found["labels"], dict):  # StyleGAN's reader also accepts a dict
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
    def refused(reason: str) -> UserError:
        return UserError(f"{file} {reason}. Correct the file, or use `--data.labels false` to train without classes.")

    labels: dict[str, str] = {}
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise refused(f"has the label entry {str(entry)[:80]}; expected a pair of name and label")
        name, label = str(folder / entry[0].replace("\\", "/")), entry[1]
        if isinstance(label, list):
            raise refused(
                f"has lists of {len(label)} numbers as labels, such as for {entry[0]}: these are attributes, not "
                "classes"
            )
        if isinstance(label, bool) or not isinstance(label, int) or label < 0:
            raise refused(f"has the label {label!r} for {entry[0]}; expected an integer of at least 0")
        if labels.setdefault(name, str(label)) != str(label):
            raise refused(f"has two labels for {entry[0]}, {labels[name]} and {label}")
    if missing := [name for name in here if name not in labels]:
        raise refused(f"has no label for {listed(missing)}")
    if gone := sorted(labels.keys() - set(here)):
        raise refused(f"has labels for missing images: {listed(gone)}")
    return labels
