"""What can be known before a model is trained, checked before it is: data, scores, disk, and what `test` will want.

Everything here is bounded: it reads what training reads anyway, looks at a few files of each split, and never at a GPU.
"""

from __future__ import annotations

import copy
import sys
import time
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
from genbench.data.streams import Split, StreamSource
from genbench.evaluation import extractor_weights, extractors
from genbench.evaluation import protocol as protocols
from genbench.evaluation.evaluator import Held
from genbench.evaluation.evaluators import expected
from genbench.evaluation.extractor import Extractor
from genbench.evaluation.protocol import Protocol
from genbench.objectives.augment import augmented

FILES = 64  # of each split that are looked at
SECONDS = 0.2  # for the files of a split, at most; one file is looked at in any case


def check(
    trainer: Trainer,
    model: GenerativeModule,
    data: LightningDataModule,
    protocol: str,
) -> None:
    """Look ahead; notes go to standard error.

    Args:
        trainer: With its callbacks; nothing is attached to it, and nothing run
        model: As it was built, on the CPU
        data: What it is to be trained on; it is fetched, if it is not there
        protocol: What `test` will measure by, a name or a file

    Raises:
        UserError: training could not go on to its end as it was asked for.
    """
    measured_by = protocols.load(protocol)
    if len(model.spec.shape) == 1:  # a step would refuse augmentation, after the run's folder has changed
        for changes in (getattr(getattr(model, "adversarial", None), "augment", ()), getattr(model, "transforms", ())):
            augmented(torch.zeros(1, *model.spec.shape), changes, model.draw)
    if not is_first_process():
        return  # the others would say the same
    folder = Path(trainer.default_root_dir)
    disk.refuse_unwritable(folder)
    notes = disk.room(trainer, model, folder)
    if isinstance(data, DataModule):
        with torch.random.fork_rng([]):  # networks that judge draw their first weights
            notes += _look_ahead(trainer, model, data, measured_by)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _look_ahead(trainer: Trainer, model: GenerativeModule, data: DataModule, measured_by: Protocol) -> list[str]:
    data.prepare_data()
    print(what_is_read(data, validated=bool(trainer.limit_val_batches)), file=sys.stderr)
    training_images(model, data)
    budget = next((c.max_images for c in trainer.callbacks if isinstance(c, MaxImages)), None)
    if budget is not None and -(-budget // data.batch_size) < model.accumulate:
        raise UserError(
            f"model.accumulate is {model.accumulate}: a step takes {model.accumulate * data.batch_size:,} images, and "
            f"`max_images` is {budget:,}, so the model would never be updated. Give a smaller `--model.accumulate` or "
            "a larger `--max_images`."
        )
    notes = look_at_files(data)
    notes += validation(trainer, model, data) if trainer.limit_val_batches else []
    why, flags = testing(measured_by, model, data)
    if why:
        notes.append(f"`test` cannot measure this model by {measured_by.name}: {why}. What can is `test {flags}`.")
    if isinstance(data, ImageData):
        data._streams.pop("test", None)  # which training does not read
    return notes


def what_is_read(data: DataModule, *, validated: bool = True) -> str:
    """The numbers of images and the classes of the data, as a line: no image is decoded for it.

    Args:
        data: Prepared
        validated: Whether a validation split is read anyway
    """
    path = getattr(data, "path", getattr(getattr(data, "file", None), "path", None))
    name = f"{data.name} {Path(path).resolve().name}" if isinstance(path, str | Path) else data.name
    counts, others, paired = [], [], False
    for stage, word in (("train", "training"), ("val", "validation"), ("test", "test")):
        if stage == "val" and not validated:
            continue
        published = getattr(data, "test_images", None)
        if stage == "test" and isinstance(published, int) and "test" in getattr(data, "own_splits", ("test",)):
            held = Held(published)
        else:
            try:
                held = _held(data, stage)
            except UserError:
                if stage == "train":
                    raise
                continue  # said where it matters
        paired = paired or held.paired
        counts.append(f"{held.images:,} {word}")
        others += [f"{held.others:,} {word}"] if held.others else []
    points = len(data.spec.shape) == 1
    word = "points" if points else "pairs" if paired and getattr(data, "task", "none") == "none" else "images"
    said = f"{name}: {', '.join(counts)} {word}"
    if others:
        said += (
            f" of domain {getattr(data, 'wanted', 'B')}; {', '.join(others)} of domain {getattr(data, 'shown', 'A')}"
        )
    return f"{said}; {len(data.classes)} classes: {listed(data.classes, 8)}" if data.classes else said


def training_images(model: GenerativeModule, data: DataModule) -> None:
    """Raise UserError where the training images are fewer than a batch, or lack a class, or have a label of none."""
    held, classes = _held(data, "train"), data.classes
    for count, domain in ((held.images, "B"), (held.others, "A")):
        which = f" of domain {domain}" if held.others else ""
        if 0 < count < data.batch_size:
            raise UserError(
                f"data.batch_size is {data.batch_size}, and {data.name} has {count} images{which} to train on. Give "
                f"`--data.batch_size {count}` or less, or more images."
            )
    label = held.label
    if label is None or not classes:
        return
    least = -1 if getattr(data, "labeled", None) is not None else 0
    if int(label.min()) < least or int(label.max()) >= len(classes):
        raise UserError(
            f"{data.name} has {len(classes)} classes, and the labels of its training images go from {int(label.min())} "
            f"to {int(label.max())}; they must go from 0 to {len(classes) - 1}."
        )
    if model.spec.target == "label" and (model.conditional or isinstance(model, Classifies)):
        counts = label[label >= 0].bincount(minlength=len(classes))
        if missing := [classes[k] for k in (counts == 0).nonzero()[:, 0].tolist()]:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise UserError(
                f"{type(model).__name__} learns classes, and no training image is of the class "
                f"{', '.join(missing[:5])}{more}. Add some, or give a larger `--data.subset`."
            )


def look_at_files(data: DataModule) -> list[str]:
    """What a user must know of values that will be clipped.

    Raises UserError for a split that is not there or has classes of its own, and for a file that cannot be read.
    """
    if not isinstance(data, ImageData):
        return []
    notes = []
    for stage in ("train", "val", "test"):
        if stage in data.own_splits and stage != "train" and hasattr(data, "missing"):
            if data.missing():  # of a set that is fetched whole, since reading it takes long
                data.split(stage)  # which says what is missing, and where it comes from
            continue
        if data.streams("train")[0].split.names is None and stage not in data.own_splits:
            continue
        for k, stream in enumerate(_parts(data, stage)):
            began = time.monotonic()
            kinds = _found_ranges(data, stream, k) if stage in data.own_splits and stage != "train" else []
            seen: list[list[Seen]] = [[] for _ in kinds]
            for row in torch.linspace(0, len(stream) - 1, min(FILES, len(stream))).long().unique():
                if (stream.split.names is None and not kinds) or time.monotonic() - began > SECONDS:
                    break
                stream.batch(row[None])
                for (split, _), some in zip(kinds, seen, strict=True):
                    some += split.look(stream.rows[row[None]].numpy())
            notes += [
                note
                for (_, which), some in zip(kinds, seen, strict=True)
                if (note := _outside(data, stage, which, some)) is not None
            ]
    return notes


def _found_ranges(data: ImageData, stream: StreamSource, k: int) -> list[tuple[Split, int]]:
    """The k-th stream's pictures, and what they are made from, whose range was found from the training images; each
    with its place in `data.ranges()`."""
    source = stream.split.source
    splits = [(stream.split, k), *([(source, 1)] if source is not None else [])]
    return [(split, which) for split, which in splits if data.range_was_found(which)]


def _outside(data: ImageData, stage: str, which: int, seen: list[Seen]) -> str | None:
    """What to say where values lie outside a range by more than a twentieth of it."""
    found = list(data.ranges())
    low, high = found[which].low, found[which].high
    margin = (high - low) / 20
    outside = [one for one in seen if one.low < low - margin or one.high > high + margin]
    if not outside:
        return None
    least, most = min(one.low for one in outside), max(one.high for one in outside)
    said = (
        f"{len(outside)} of the {len(seen)} `{stage}` images of {data.kinds[which]} that were looked at, as "
        f"{outside[0].first}, have values from {least:.10g} to {most:.10g}: what lies outside {found[which]}, "
        "the range of the training images, is clipped. "
    )
    found[which] = Range(min(low, least), max(high, most))
    return f"{said}`--data.range {data.written_range((found[0], found[1]))}` has room for all."


def _parts(data: ImageData, stage: str) -> list[StreamSource]:
    """The pictures of a stage, of each domain; those that are cut off the training split from what was read of it."""
    if stage == "train" or stage in data.own_splits:
        return data.streams(stage)
    found = [copy.copy(stream) for stream in data.streams("train")]
    for stream in found:
        stream.split, stream.rows = data._rows(stage, stream.split)
    return found


def _held(data: DataModule, stage: str) -> Held:
    """What is known of a split. Raises UserError where it is empty."""
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
    """What a user must know of the score that will tell which checkpoint is best.

    Raises:
        UserError: validation cannot give the score that was asked for, or none that could tell.
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
        why = scores.get(usual[0]) or f"the protocol {quality.protocol.name} does not ask for it"
        if chosen is None:
            raise UserError(
                f"Validation on {counted} cannot give {usual[0]}, which tells which checkpoint is best: {why}. Choose "
                f"another score with `--checkpoint.monitor`, or {more}."
            )
        quality.deciding(model, given, mode=saver.mode)
        if chosen == usual[0]:
            return []
        return [
            f"validation on {counted} cannot give {usual[0]}: {why}. In its place {chosen} tells which checkpoint is "
            f"best; to have {usual[0]}, {more}."
        ]
    if saver.monitor in scores and saver.monitor not in given:
        raise UserError(
            f"checkpoint.monitor is {saver.monitor}, which validation cannot give: {scores[saver.monitor]}. Choose "
            f"another score, or {more}."
        )
    if saver.monitor not in given and is_overridden("validation_step", model, GenerativeModule):
        own = own_scores(model, data)
        if own is None:
            return []  # it needs what there is in training alone
        given += own
    quality.deciding(model, given, saver.monitor, saver.mode)
    return []


def own_scores(model: GenerativeModule, data: DataModule) -> list[str] | None:
    """The names that the model's own `validation_step` gives, from two images; None where it does not run by itself.

    Weights, buffers, modes and random states are as before.
    """
    if isinstance(data, ImageData):
        batch = _parts(data, "val")[0].batch(torch.arange(2))
    else:
        batch = data.source("val").batch(torch.arange(2))
    modes = {part: part.training for part in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.eval()
    model.draw.seed("validation", 0)
    try:
        with torch.no_grad(), torch.random.fork_rng([]):
            return [f"val/{name}" for name in model.validation_step(finish(batch), 0) or {}]
    except Exception:  # of a user's own code, which may ask for its trainer
        return None
    finally:
        for part, training in modes.items():
            part.training = training
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def testing(protocol: Protocol, model: GenerativeModule, data: DataModule) -> tuple[str, str]:
    """Why `test` cannot measure the model by the protocol, and the flags with which it can; both empty where it can.

    Weights are looked for on this machine alone: `test` may fetch them, where there is a network.
    """
    name = data.extractor if protocol.extractor == "default" else protocol.extractor
    reasons, flags = [], []
    split_fault = _split_fault(protocol, model, data)
    if split_fault:
        reasons.append(split_fault)
        flags.append("--protocol quick")
        name = data.extractor
    if (name in extractors.POINTS) != (len(model.spec.shape) == 1):
        reasons.append(f"the extractor {name} looks at {'points' if name in extractors.POINTS else 'images'}")
        flags.append(f"--extractor {data.extractor}")
    elif not extractors.at_hand(name, data.root):
        fetched = f", which `python -m genbench fetch {name}` brings" if name in extractor_weights.PUBLISHED else ""
        reasons.append(f"the weights of the extractor {name} are not at hand{fetched}")
        flags.append("--extractor vgg-random")
    return " and ".join(reasons), " ".join(flags)


def _split_fault(protocol: Protocol, model: GenerativeModule, data: DataModule) -> str | None:
    stage = protocol.split
    if isinstance(data, ImageData) and stage in data.own_splits and stage != "train" and hasattr(data, "missing"):
        held = Held(2, label=torch.zeros(2, dtype=torch.long) if data.classes else None)
    else:
        try:
            held = _held(data, stage)
        except UserError as error:
            return str(error).rstrip(".")
    try:
        blank = Extractor("any", torch.nn.Identity(), lambda network, x: (x, None), "none", hash="none")
        scores = expected(model, data, protocol, blank, held)
    except UserError as error:
        return str(error).rstrip(".")
    return None if None in scores.values() else next(iter(scores.values()))
