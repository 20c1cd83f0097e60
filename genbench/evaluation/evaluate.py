"""Evaluation: one pass over the samples, one over the reference, and all scores from their features."""

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
from genbench.core.importing import source_hash
from genbench.core.module import GenerativeModule
from genbench.data.base import ImageData
from genbench.data.module import DataModule
from genbench.evaluation import checkpoint_facts, evaluators, extractors
from genbench.evaluation import protocol as protocols
from genbench.evaluation.comparison import Comparison
from genbench.evaluation.extractor import Extractor, full_precision
from genbench.evaluation.features import Progress
from genbench.evaluation.galleries import Gallery
from genbench.evaluation.images import FileImages, ImageSet, SplitImages, at_most
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.statistics import Statistics
from genbench.leaderboard.record import Record
from genbench.metrics.registry import REGISTERED


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
    device = torch.device(device or getattr(subject, "device", None) or "cpu")
    protocol = protocols.load(protocol) if isinstance(protocol, str) else protocol
    if isinstance(subject, GenerativeModule):
        subject.to(device)
        if run is None:
            run, training = checkpoint_facts.facts_of(subject, protocol.weights)
    if protocol.preparation:
        subject, data = _prepared(subject, data, protocol)
    given, measured_range = data, _range_of(subject)
    if isinstance(data, DataModule):
        data = data.reference()
        ranks.first_alone(data.prepare_data)
    shape: tuple[int, ...] = ()
    if isinstance(subject, GenerativeModule):
        shape = tuple(subject.spec.shape)
    elif subject is not None:
        subject = at_most(subject, protocol.generated)
        shape = tuple(subject.shape)
    protocol = _resolved(protocol, subject, data, (run or {}).get("weights"), weights)
    reference: ImageSet | Statistics
    if isinstance(data, DataModule):
        reference = SplitImages(data, protocol.split, protocol.real)
    elif isinstance(data, Statistics):
        reference = replace(data, shape=shape)
    else:
        reference = at_most(data, protocol.real)
    if extractor is None:
        chosen = getattr(data, "extractor", "inception") if protocol.extractor == "default" else protocol.extractor
        root = getattr(data, "root", None)
        extractor = ranks.first_alone(lambda: extractors.build(chosen, weights, root))
    extractor.to(device)
    images = None if isinstance(subject, GenerativeModule) else subject
    if images is not None and len(shape) == 3 and shape != tuple(reference.shape):
        rank_zero_warn(
            f"{images.name} has images of {dimensions(shape)}: they are brought to {dimensions(reference.shape)}, as "
            "those that they are compared with."
        )
    # only what the first process computes is used, so that all have one record
    with _measuring(subject, device):
        comparison = Comparison(
            subject, data, given, reference, protocol, extractor, device, sampling or {},
            min(batch_size or protocol.block, protocol.block), progress,
            pictures or Gallery(samples=0, searched=0, reconstructions=0),
        )  # fmt: skip
        found = evaluators.measure(comparison)
    facts: dict[str, Any]
    if isinstance(reference, Statistics):
        facts = {"kind": "statistics", "images": None, "features": len(reference.mu), "hash": reference.hash}
    else:
        facts = {"images": len(reference), "shape": list(reference.shape), "hash": comparison.reference_hash}
    own = [REGISTERED[name] for name in sorted(protocol.metrics) if name in REGISTERED]
    # the key follows from the pixels of the data, not from its name or its arguments
    resolved = protocol.resolved(
        split=protocol.split if isinstance(data, DataModule) else "all",
        extractor={"name": extractor.name, "hash": extractor.hash, "resize": extractor.resize},
        reference=facts | found.facts | _range_of(data),
        searched=comparison.train_hash,
        pixels=comparison.pixels,
        **({"real": None} if isinstance(reference, Statistics) else {}),
        **({"own_metrics": source_hash(*own)} if own else {}),
    )
    record = Record(
        kind="model" if isinstance(subject, GenerativeModule) else "baseline" if subject is None else "images",
        model=_describe(subject, name or ((run or {}).get("config") or {}).get("title"))
        | found.subject
        | measured_range,
        data={"name": Path(data.name).name, "arguments": _own_arguments(data)},
        run=None if run is None else run | {"sampling": sampling or {}},
        training=training,
        protocol=resolved,
        metrics=found.entries,
        cost=found.cost
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


def _prepared(subject: Any, data: Any, protocol: Protocol) -> tuple[Any, Any]:
    """Both sides, with images of files in the size and color that the protocol says."""
    if not any(isinstance(side, FileImages) for side in (subject, data)):
        raise UserError(
            f"The protocol {protocol.name} says {', '.join(protocol.preparation)} of images that are read from files, "
            "and here are none. A data set has arguments of its own, such as `--data.size`."
        )
    prepared = [side.at(**protocol.preparation) if isinstance(side, FileImages) else side for side in (subject, data)]
    return prepared[0], prepared[1]


def _resolved(protocol: Protocol, subject: Any, data: Any, of_model: str | None, weights: str | None) -> Protocol:
    """The protocol as it applies to these two sides.

    Args:
        of_model: `ema` or `raw`, whichever weights the model has
        weights: File of the extractor's weights
    """
    protocol = protocol.changed(weights=of_model)
    if isinstance(data, Statistics):
        if "fid" not in protocol.metrics:
            raise UserError(
                f"{data.name} has statistics of features, which only the group `fid` compares with; the protocol "
                f"{protocol.name} asks for {', '.join(protocol.metrics)}."
            )
        if subject is None:
            raise UserError("A baseline needs a data set with a second split: give `--data`, not `--reference`.")
        protocol = protocol.changed(metrics=("fid",))
    usual = getattr(data, "extractor", "inception")
    if protocol.extractor == usual and weights is None:  # named, and the one that `default` is
        protocol = replace(protocol, extractor="default", name=protocol.name.replace(f"+extractor={usual}", ""))
    if subject is None or isinstance(subject, GenerativeModule):
        return protocol
    return protocol.changed(generated=len(subject))


def _range_of(side: Any) -> dict[str, str]:
    """Which of the stored values are black and white, where it is not the whole range of their type."""
    found = "dtype"
    if isinstance(side, FileImages):
        found = str(side.range)
    elif isinstance(side, ImageData):
        found = side.written_range(side.ranges())
    return {} if found == "dtype" else {"range": found}


@contextmanager
def _measuring(subject: Any, device: torch.device):
    """Eval mode, full precision, no gradients, and the random state as it was before."""
    model = subject if isinstance(subject, GenerativeModule) else None
    flags = {} if model is None else {module: module.training for module in model.modules()}  # some may be frozen
    if model is not None:
        model.eval()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices), full_precision(device):
            yield
    finally:
        for module, training in flags.items():
            module.training = training


def _own_arguments(data: Any) -> dict[str, Any]:
    """What makes a data set another one than its plain self: the same from Python, a config and a command line."""
    usual = {
        name: parameter.default
        for cls in reversed(type(data).__mro__)
        if "__init__" in vars(cls)
        for name, parameter in inspect.signature(vars(cls)["__init__"]).parameters.items()
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
