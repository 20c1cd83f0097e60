"""Checks before training: data, scores, disk, and whether `test` can evaluate the model.

All checks are fast and use no GPU. They read what training reads anyway, and a few files of each split.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from genbench.callbacks import Checkpoint, MaxImages, ValidationMetrics
from genbench.cli import disk
from genbench.cli.run_folders import is_first_process
from genbench.core.capabilities import Classifies
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.data.base import ImageData
from genbench.data.layouts import listed
from genbench.data.loader import Unpaired, finish
from genbench.data.module import DataModule
from genbench.data.ranges import Range, Seen
from genbench.data.streams import StreamSource
from genbench.evaluation import extractor_weights, extractors
from genbench.evaluation import protocol as protocols
from genbench.evaluation.evaluator import Held
from genbench.evaluation.evaluators import expected
from genbench.evaluation.extractor import Extractor
from genbench.evaluation.protocol import Protocol
from genbench.objectives.augment import augmented

FILES = 64  # maximum number of files checked per split
SECONDS = 0.2  # time limit per split; at least one file is checked


def check(trainer: Trainer, model: GenerativeModule, data: LightningDataModule, protocol: str) -> None:
    """Run all checks, and print notes to standard error.

    Args:
        trainer: The trainer with its callbacks; not changed
        model: The model, on the CPU
        data: The training data; downloaded if missing
        protocol: Name or file of the protocol that `test` will use

    Raises:
        UserError: training would fail later.
    """
    test_protocol = protocols.load(protocol)
    if len(model.spec.shape) == 1:  # an error must be raised before the run's folder changes, not in the first step
        for changes in (getattr(getattr(model, "adversarial", None), "augment", ()), getattr(model, "transforms", ())):
            augmented(torch.zeros(1, *model.spec.shape), changes, model.draw)
    if not is_first_process():
        return  # the other processes would print the same notes
    folder = Path(trainer.default_root_dir)
    disk.refuse_unwritable(folder)
    notes = disk.room(trainer, model, folder)
    if isinstance(data, DataModule):
        with torch.random.fork_rng([]):  # building a feature extractor draws random weights
            notes += _check_data(trainer, model, data, test_protocol)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _check_data(trainer: Trainer, model: GenerativeModule, data: DataModule, test_protocol: Protocol) -> list[str]:
    data.prepare_data()
    print(what_is_read(data, validated=bool(trainer.limit_val_batches)), file=sys.stderr)
    training_images(model, data)
    budget = next((c.max_images for c in trainer.callbacks if isinstance(c, MaxImages)), None)
    if budget is not None and -(-budget // data.batch_size) < model.accumulate:
        raise UserError(
            f"model.accumulate is {model.accumulate}: a step takes {model.accumulate * data.batch_size:,} images, but "
            f"`max_images` is {budget:,}, so the model would never be updated. Use a smaller `--model.accumulate` or "
            "a larger `--max_images`."
        )
    notes = look_at_files(data)
    notes += validation(trainer, model, data) if trainer.limit_val_batches else []
    why, flags = testing(test_protocol, model, data)
    if why:
        notes.append(f"`test` cannot evaluate this model under {test_protocol.name}: {why}. Use `test {flags}`.")
    if isinstance(data, ImageData):
        data._streams.pop("test", None)  # training does not read the test split
    return notes


def what_is_read(data: DataModule, *, validated: bool = True) -> str:
    """Return a line with the number of images per split and the classes. No image is decoded.

    Args:
        data: Data after `prepare_data`
        validated: Whether validation will read the validation split
    """
    path = getattr(data, "path", getattr(getattr(data, "file", None), "path", None))
    name = f"{data.name} {Path(path).resolve().name}" if isinstance(path, str | Path) else data.name
    stages = {"train": "training", "val": "validation", "test": "test"}
    if not validated:
        del stages["val"]
    counts, others, paired = [], [], False
    for stage, word in stages.items():
        published = None if getattr(data, "only_classes", None) else getattr(data, "test_images", None)
        try:
            if stage == "test" and isinstance(published, int) and "test" in getattr(data, "own_splits", ("test",)):
                held = Held(published)
            else:
                held = _held(data, stage)
        except UserError:
            if stage == "train":
                raise
            continue  # the check that needs the split reports the error
        paired = paired or held.paired
        counts.append(f"{held.images:,} {word}")
        others += [f"{held.others:,} {word}"] if held.others else []
    points = len(data.spec.shape) == 1
    word = "points" if points else "pairs" if paired and getattr(data, "task", "none") == "none" else "images"
    line = f"{name}: {', '.join(counts)} {word}"
    if others:
        wanted, shown = getattr(data, "wanted", "B"), getattr(data, "shown", "A")
        line += f" of domain {wanted}; {', '.join(others)} of domain {shown}"
    if not data.classes:
        return line
    if kept := data.arguments.get("only_classes"):
        word = "class" if len(kept) == 1 else "classes"
        return f"{line}; only {word} {_enumerated(kept)} of the classes {_enumerated(data.classes)}"
    return f"{line}; {len(data.classes)} classes: {listed(data.classes, 8)}"


def _enumerated(names: Sequence[object], most: int = 8) -> str:
    """`0, 1 and 2`, or the first `most` names and the number of the others."""
    if not 1 < len(names) <= most:
        return listed(names, most)
    return f"{listed(names[:-1], most)} and {names[-1]}"


def training_images(model: GenerativeModule, data: DataModule) -> None:
    """Raise UserError if there are fewer training images than a batch, if a label is out of range, or if the model
    learns classes and a class has no images."""
    held, classes = _held(data, "train"), data.classes
    for count, domain in ((held.images, "B"), (held.others, "A")):
        which = f" of domain {domain}" if held.others else ""
        if 0 < count < data.batch_size:
            raise UserError(
                f"data.batch_size is {data.batch_size}, but {data.name} has only {count} training images{which}. Use "
                f"`--data.batch_size {count}` or less, or add images."
            )
    label = held.label
    if label is None or not classes:
        return
    least = -1 if getattr(data, "labeled", None) is not None else 0
    if int(label.min()) < least or int(label.max()) >= len(classes):
        raise UserError(
            f"{data.name} has {len(classes)} classes, but the labels of its training images go from {int(label.min())} "
            f"to {int(label.max())}; they must go from 0 to {len(classes) - 1}."
        )
    if model.spec.target == "label" and (model.conditional or isinstance(model, Classifies)):
        counts = label[label >= 0].bincount(minlength=len(classes))
        if missing := [classes[k] for k in (counts == 0).nonzero()[:, 0].tolist()]:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise UserError(
                f"{type(model).__name__} learns classes, but no training image has the class "
                f"{', '.join(missing[:5])}{more}. "
                + (
                    "Remove `--data.only_classes`, or use a model without labels."
                    if getattr(data, "only_classes", None)
                    else "Add such images, or use a larger `--data.subset`."
                )
            )


def look_at_files(data: DataModule) -> list[str]:
    """Decode a few images of each split, and return notes on values that will be clipped.

    Raises:
        UserError: a split is missing or has different classes, or a file cannot be read.
    """
    if not isinstance(data, ImageData):
        return []
    notes: list[str] = []
    for stage in ("train", "val", "test"):
        own = stage in data.own_splits and stage != "train"
        if own and hasattr(data, "missing"):
            if data.missing():  # reading a downloaded data set would take too long
                data.split(stage)  # raises an error with the missing file and its source
            continue
        if data.streams("train")[0].split.names is None and stage not in data.own_splits:
            continue
        for k, stream in enumerate(_parts(data, stage)):
            began = time.monotonic()
            # index in `data.ranges()` -> images or source images whose range was found from the training images
            splits = {k: stream.split} if stream.split.source is None else {k: stream.split, 1: stream.split.source}
            splits = {which: split for which, split in splits.items() if own and data.range_was_found(which)}
            seen: dict[int, list[Seen]] = {which: [] for which in splits}
            for row in torch.linspace(0, len(stream) - 1, min(FILES, len(stream))).long().unique():
                if (stream.split.names is None and not splits) or time.monotonic() - began > SECONDS:
                    break
                stream.batch(row[None])
                for which, split in splits.items():
                    seen[which] += split.look(stream.rows[row[None]].numpy())
            notes += [note for which, some in seen.items() if (note := _outside(data, stage, which, some))]
    return notes


def _outside(data: ImageData, stage: str, which: int, seen: list[Seen]) -> str | None:
    """Return a note if values lie outside the range by more than a twentieth of its width, else None."""
    found = list(data.ranges())
    low, high = found[which].low, found[which].high
    margin = (high - low) / 20
    outside = [one for one in seen if one.low < low - margin or one.high > high + margin]
    if not outside:
        return None
    least, most = min(one.low for one in outside), max(one.high for one in outside)
    note = (
        f"{len(outside)} of the {len(seen)} `{stage}` images of {data.kinds[which]} that were checked, such as "
        f"{outside[0].first}, have values from {least:.10g} to {most:.10g}: values outside {found[which]}, the range "
        "of the training images, are clipped. "
    )
    found[which] = Range(min(low, least), max(high, most))
    return f"{note}`--data.range {data.written_range((found[0], found[1]))}` includes all values."


def _parts(data: ImageData, stage: str) -> list[StreamSource]:
    """Return the images of a stage, per domain. A validation split taken from the training split is not read again."""
    if stage == "train" or stage in data.own_splits:
        return data.streams(stage)
    found = [copy.copy(stream) for stream in data.streams("train")]
    for stream in found:
        stream.split, stream.rows = data._rows(stage, stream.split)
    return found


def _held(data: DataModule, stage: str) -> Held:
    """Return the sizes and labels of a split. Raises UserError if it is empty."""
    if isinstance(data, ImageData):
        parts: list[Any] = _parts(data, stage)
        label = parts[0].split.targets(parts[0].rows).get("label")
        paired = parts[0].split.source is not None or data.task != "none"
    else:
        source = data.source(stage)
        parts = [source.image, source.source] if isinstance(source, Unpaired) else [source]
        label, paired = source.target("label", torch.arange(len(source))), False
    counts = [len(part) for part in parts]
    if not min(counts):
        raise UserError(f"{data.name} has no images for `{stage}`.")
    return Held(counts[0], counts[1] if len(counts) > 1 else 0, label, paired)


# ---- scores ---------------------------------------------------------------------------------------------------------


def validation(trainer: Trainer, model: GenerativeModule, data: DataModule) -> list[str]:
    """Choose the score that selects the best checkpoint, and return a note if it is not the default score.

    Raises:
        UserError: validation cannot compute the chosen score, or computes no score that can select a checkpoint.
    """
    quality = next((c for c in trainer.callbacks if isinstance(c, ValidationMetrics)), None)
    saver = next((c for c in trainer.callbacks if isinstance(c, Checkpoint)), None)
    if quality is None or saver is None:
        return []
    held = _held(data, "val")
    scores = {f"val/{name}": why for name, why in quality.expected(model, data, held).items()}
    given = [name for name, why in scores.items() if why is None]
    more = "hold out more images with `--data.val_size`"
    if "val" in getattr(data, "own_splits", ()):
        more = "add images to the validation split"
    counted = f"{held.images} image{'s' if held.images > 1 else ''}"
    if held.others:
        counted = f"{counted} of one domain and {held.others} of the other"
    if saver.monitor is None:
        usual = [f"val/{name}" for name in quality.usual(model)]
        chosen = next((name for name in usual if name in given), None)
        why = scores.get(usual[0]) or f"the protocol {quality.protocol.name} does not include it"
        if chosen is None:
            raise UserError(
                f"Validation on {counted} cannot compute {usual[0]}, which selects the best checkpoint: {why}. Choose "
                f"a different score with `--checkpoint.monitor`, or {more}."
            )
        quality.deciding(model, given, mode=saver.mode)
        if chosen == usual[0]:
            return []
        return [
            f"validation on {counted} cannot compute {usual[0]}: {why}. {chosen} selects the best checkpoint instead. "
            f"To use {usual[0]}, {more}."
        ]
    if saver.monitor in scores and saver.monitor not in given:
        raise UserError(
            f"checkpoint.monitor is {saver.monitor}, which validation cannot compute: {scores[saver.monitor]}. Choose "
            f"a different score, or {more}."
        )
    if saver.monitor not in given and is_overridden("validation_step", model, GenerativeModule):
        own = own_scores(model, data)
        if own is None:
            return []  # its `validation_step` fails outside training
        given += own
    quality.deciding(model, given, saver.monitor, saver.mode)
    return []


def own_scores(model: GenerativeModule, data: DataModule) -> list[str] | None:
    """Call the model's own `validation_step` with two images; return the names of its scores, or None if it fails.

    Weights, buffers, modes and random states are restored.
    """
    source = _parts(data, "val")[0] if isinstance(data, ImageData) else data.source("val")
    batch = source.batch(torch.arange(2))
    modes = {part: part.training for part in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.eval()
    model.draw.seed("validation", 0)
    try:
        with torch.no_grad(), torch.random.fork_rng([]):
            return [f"val/{name}" for name in model.validation_step(finish(batch), 0) or {}]
    except Exception:  # the user's code may need a trainer, and the model has none yet
        return None
    finally:
        for part, training in modes.items():
            part.training = training
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def testing(protocol: Protocol, model: GenerativeModule, data: DataModule) -> tuple[str, str]:
    """Return why `test` cannot evaluate the model under the protocol, and flags with which it can.

    Both are empty if `test` can. Weights are looked for only on this machine, although `test` may download them.
    """
    name = data.extractor if protocol.extractor == "default" else protocol.extractor
    reasons, flags = [], []
    if split_fault := _split_fault(protocol, model, data):
        reasons.append(split_fault)
        flags.append("--protocol quick")
        name = data.extractor
    if (name in extractors.POINTS) != (len(model.spec.shape) == 1):
        reasons.append(f"the extractor {name} takes {'points' if name in extractors.POINTS else 'images'}")
        flags.append(f"--extractor {data.extractor}")
    elif not extractors.at_hand(name, data.root):
        fetched = f" (`python -m genbench fetch {name}` downloads them)" if name in extractor_weights.PUBLISHED else ""
        reasons.append(f"the weights of the extractor {name} are missing{fetched}")
        flags.append("--extractor vgg-random")
    return " and ".join(reasons), " ".join(flags)


def _split_fault(protocol: Protocol, model: GenerativeModule, data: DataModule) -> str | None:
    stage = protocol.split
    try:
        if isinstance(data, ImageData) and stage in data.own_splits and stage != "train" and hasattr(data, "missing"):
            held = Held(2, label=torch.zeros(2, dtype=torch.long) if data.classes else None)
        else:
            held = _held(data, stage)
        blank = Extractor("any", torch.nn.Identity(), lambda network, x: (x.flatten(1), None), "none", hash="none")
        scores = expected(model, data, protocol, blank, held)
    except UserError as error:
        return str(error).rstrip(".")
    return None if None in scores.values() else next(iter(scores.values()))
