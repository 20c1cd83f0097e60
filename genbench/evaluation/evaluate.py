"""The ruler: one pass over the samples, one over the reference, and every score that follows from them."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from genbench.core import machine, ranks
from genbench.core.errors import UserError, dimensions
from genbench.core.module import GenerativeModule
from genbench.data.base import ImageData
from genbench.data.module import DataModule
from genbench.evaluation import checkpoint_facts, extractors
from genbench.evaluation import protocol as protocols
from genbench.evaluation.extractors import Extractor
from genbench.evaluation.features import Progress
from genbench.evaluation.galleries import Gallery
from genbench.evaluation.images import FileImages, ImageSet, SplitImages, at_most
from genbench.evaluation.measurement import Measurement
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.statistics import Statistics
from genbench.leaderboard.record import Record


def silent(items: Iterable, title: str) -> Iterable:
    return items


def evaluate(
    subject: GenerativeModule | ImageSet | None,
    data: DataModule | ImageSet | Statistics,
    protocol: str | Protocol,
    *,
    extractor: Extractor | None = None,
    weights: str | None = None,
    sampling: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    name: str | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    progress: Progress = silent,
    pictures: Gallery | None = None,
) -> Record:
    """Measure a model, or images in its place, and say exactly how; the same record on every process.

    Args:
        subject: A trained model, in whichever of its weights are measured; a set of images; or None for the baseline,
            which is other real images of the same data
        data: What it is compared with: a DataModule, a set of images, or statistics of the features of images, with
            which the Fréchet distance alone is computed
        protocol: Its name, or a `Protocol`
        extractor: Ready made; by default the protocol's, else the data's own
        weights: File of the extractor's weights, where they do not ship
        sampling: The model's own sampling options
        run, training: What the record says of the model's training. Default: what the checkpoint says that it was
            loaded from
        name: What the subject is called. Default: the title in its config, else the model's class, or the images' file
        device: Where it happens; by default where the model is
        batch_size: Images that a model makes at once; by default a block of the protocol. Fewer take less memory
        progress: Wraps an iterable to show a bar with a title
        pictures: Fills with images that the evaluation comes by; where one process has it, all must
    """
    began = time.perf_counter()
    protocol = protocols.load(protocol) if isinstance(protocol, str) else protocol
    device = torch.device(device or getattr(subject, "device", "cpu"))
    if isinstance(subject, GenerativeModule):
        subject.to(device)
        if run is None:
            run, training = checkpoint_facts.facts_of(subject, protocol.weights)
            protocol = protocol.changed(weights=run["weights"])
    if protocol.preparation:
        subject, data = _prepared(subject, protocol), _prepared(data, protocol)
        if not any(isinstance(side, FileImages) for side in (subject, data)):
            raise UserError(
                f"The protocol {protocol.name} says {', '.join(protocol.preparation)} of images that are read from "
                "files, and here are none. A data set has arguments of its own, such as `--data.size`."
            )
    given, judged = data, _range_of(subject)
    if isinstance(data, DataModule):
        data = data.reference()
        ranks.first_alone(data.prepare_data)
        reference: ImageSet | Statistics = SplitImages(data, protocol.split, protocol.real)
    elif isinstance(data, Statistics):
        if "fid" not in protocol.metrics:
            raise UserError(
                f"{data.name} has statistics of features, which only the group `fid` compares with; the protocol "
                f"{protocol.name} asks for {', '.join(protocol.metrics)}."
            )
        if subject is None:
            raise UserError("A baseline needs a data set with a second split: give `--data`, not `--reference`.")
        protocol = protocol.changed(metrics=("fid",))
        shape = subject.spec.shape if isinstance(subject, GenerativeModule) else subject.shape
        reference = replace(data, shape=tuple(shape))
    else:
        reference = at_most(data, protocol.real)
    usual = getattr(data, "extractor", "inception")
    if protocol.extractor == usual and weights is None:  # named, and no other than it would have been
        name_of_it = protocol.name.replace(f"+extractor={usual}", "")
        protocol = replace(protocol, extractor="default", name=name_of_it)
    if extractor is None:
        chosen = usual if protocol.extractor == "default" else protocol.extractor
        root = getattr(data, "root", None)
        extractor = ranks.first_alone(lambda: extractors.build(chosen, weights, root))
    extractor.to(device)
    if isinstance(subject, GenerativeModule) or subject is None:
        generated = protocol.generated
    else:
        subject = at_most(subject, protocol.generated)
        generated = len(subject)
        protocol = protocol.changed(generated=generated)
        if len(subject.shape) == 3 and tuple(subject.shape) != tuple(reference.shape):
            rank_zero_warn(
                f"{subject.name} has images of {dimensions(subject.shape)}: they are brought to "
                f"{dimensions(reference.shape)}, as those that they are compared with."
            )
    # only what the first process computes is used, so that all have one record
    with _measuring(subject, device):
        at_once = min(batch_size or protocol.block, protocol.block)
        measurement = Measurement(
            subject, data, reference, given, protocol, extractor, device, sampling or {}, at_once, progress,
            pictures or Gallery(samples=0, searched=0, reconstructions=0),
        )  # fmt: skip
        measurement.take(generated)
    scores = measurement.scores
    # what the data is follows from its pixels: however it was named or asked for, one key
    resolved = protocol.resolved(
        split=protocol.split if isinstance(data, DataModule) else "all",
        extractor={"name": extractor.name, "hash": extractor.hash, "resize": extractor.resize},
        reference=_facts_of(reference, measurement) | _range_of(data),
        searched=measurement.train_hash,
        pixels=measurement.pixels,
        **({"real": None} if isinstance(reference, Statistics) else {}),
    )
    record = Record(
        kind="model" if isinstance(subject, GenerativeModule) else "baseline" if subject is None else "images",
        model=_describe(subject, name or ((run or {}).get("config") or {}).get("title")) | measurement.judged | judged,
        data={"name": Path(data.name).name, "arguments": _own_arguments(data)},
        run=None if run is None else run | {"sampling": sampling or {}},
        training=training,
        protocol=resolved,
        metrics=scores,
        cost=measurement.cost
        | {
            "evaluation_seconds": time.perf_counter() - began,
            "peak_memory": max(ranks.gather([machine.peak_memory(device)])),
        },
        environment={
            "device": machine.device_name(device),
            "world_size": ranks.world(),
            "git": machine.git_commit(),
            **machine.versions(),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return ranks.from_first(record)


def _prepared(side: Any, protocol: Protocol) -> Any:
    return side.at(**protocol.preparation) if isinstance(side, FileImages) else side


def _range_of(side: Any) -> dict[str, str]:
    """Which of the stored values are black and white, where it is not the whole range of their type."""
    found = "dtype"
    if isinstance(side, FileImages):
        found = str(side.range)
    elif isinstance(side, ImageData):
        found = side.written_range(side.ranges())
    return {} if found == "dtype" else {"range": found}


def _facts_of(reference: ImageSet | Statistics, measurement: Measurement) -> dict[str, Any]:
    """What a protocol says of the reference."""
    if isinstance(reference, Statistics):
        return {"kind": "statistics", "images": None, "features": len(reference.mu), "hash": reference.hash}
    facts = {"images": len(reference), "shape": list(reference.shape), "hash": measurement.reference_hash}
    return facts | ({"made_from": measurement.shown_hash} if measurement.shown_hash else {})


@contextmanager
def _measuring(subject: Any, device: torch.device):
    """Eval mode, full precision, no gradients, and the random state as it was before."""
    model = subject if isinstance(subject, GenerativeModule) else None
    flags = {} if model is None else {module: module.training for module in model.modules()}  # some may be frozen
    if model is not None:
        model.eval()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices), extractors.full_precision(device):
            yield
    finally:
        for module, training in flags.items():
            module.training = training


def _own_arguments(data: Any) -> dict[str, Any]:
    """What makes a data set another one than its plain self: the same from Python, a config and a command line."""
    usual = {
        name: parameter.default
        for cls in reversed(type(data).__mro__)
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
    }
    given = getattr(data, "arguments", {})
    return {name: value for name, value in given.items() if name != "download" and value != usual.get(name)}


def _describe(subject: Any, name: str | None) -> dict[str, Any]:
    if subject is None:
        return {"name": "real images"}
    if not isinstance(subject, GenerativeModule):
        return {"name": name or Path(subject.name).name}
    cls = type(subject)
    return {
        "name": name or cls.__name__,
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "arguments": {k: v for k, v in dict(subject.hparams).items() if k != "spec"},
        "parameters": sum(p.numel() for p in subject.parameters()),
        "players": {player: sum(p.numel() for p in subject.parameters_of(player)) for player in subject.players},
    }
