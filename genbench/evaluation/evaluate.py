"""Evaluation: features are extracted once from the samples and once from the reference, and all scores use them."""

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
from genbench.core.capabilities import HasLikelihood, check_options
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
    """Evaluate a model, a set of images or the baseline. Returns a record with the scores and the full protocol.

    Every process returns the same record.

    Args:
        subject: A trained model, with the weights that are to be evaluated already loaded; a set of images; or None for
            the baseline, which is a different set of real images of the same data
        data: The data that the subject is compared with: a DataModule, a set of images, or feature statistics of
            images, with which only the Fréchet distance can be computed
        protocol: Name of a protocol, or a `Protocol`
        extractor: A built extractor. Default: the extractor that the protocol selects, or the default extractor of the
            data
        weights: File with the weights of the extractor, if they are not shipped with the package
        sampling: Sampling options of the model
        run, training: Facts about the model's training for the record. Default: read from the checkpoint that the model
            was loaded from
        name: Name of the subject in the record. Default: the title in its config, else the class of the model or the
            file of the images
        device: Device of the evaluation. Default: the device of the model
        batch_size: Number of images that the model generates at once. Default: one block of the protocol. Smaller
            batches use less memory
        progress: Wraps an iterable to show a progress bar with a title
        pictures: Gallery that collects example images. Either all processes pass one, or none
    """
    began = time.perf_counter()
    device = torch.device(device or getattr(subject, "device", None) or "cpu")
    protocol = protocols.load(protocol) if isinstance(protocol, str) else protocol
    if isinstance(subject, GenerativeModule):
        subject.to(device)
        if isinstance(subject, HasLikelihood):
            check_options(subject.log_likelihood, sampling or {})  # before long work
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
            f"{images.name} has images of {dimensions(shape)}. They are resized to {dimensions(reference.shape)}, the "
            "size of the reference images."
        )
    # only the results of the first process are used, so that all processes return the same record
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
    # the key is computed from the pixels of the data, not from its name or arguments
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
    """Both sides, with images from files resized and converted as the protocol specifies."""
    if not any(isinstance(side, FileImages) for side in (subject, data)):
        raise UserError(
            f"The protocol {protocol.name} sets {', '.join(protocol.preparation)}, which applies only to images read "
            "from files. Here no images are read from files: use the arguments of the data set, such as `--data.size`."
        )
    prepared = [side.at(**protocol.preparation) if isinstance(side, FileImages) else side for side in (subject, data)]
    return prepared[0], prepared[1]


def _resolved(protocol: Protocol, subject: Any, data: Any, of_model: str | None, weights: str | None) -> Protocol:
    """The protocol with the settings that result from these two sides.

    Args:
        of_model: the weights that the model uses: `ema`, `raw` or, for example, `ema 0.075`
        weights: File with the weights of the extractor
    """
    if of_model is not None:  # averages of all lengths are compared under one protocol
        protocol = protocol.changed(weights=of_model.partition(" ")[0])
    if isinstance(data, Statistics):
        if "fid" not in protocol.metrics:
            raise UserError(
                f"{data.name} contains feature statistics, which only the metric group `fid` can use, but the protocol "
                f"{protocol.name} computes {', '.join(protocol.metrics)}."
            )
        if subject is None:
            raise UserError("A baseline needs a data set with a second split. Use `--data` instead of `--reference`.")
        protocol = protocol.changed(metrics=("fid",))
    usual = getattr(data, "extractor", "inception")
    if protocol.extractor == usual and weights is None:  # the user named the default extractor
        protocol = replace(protocol, extractor="default", name=protocol.name.replace(f"+extractor={usual}", ""))
    if subject is None or isinstance(subject, GenerativeModule):
        return protocol
    return protocol.changed(generated=len(subject))


def _range_of(side: Any) -> dict[str, str]:
    """The stored values that are black and white, if they are not the whole range of the dtype."""
    found = "dtype"
    if isinstance(side, FileImages):
        found = str(side.range)
    elif isinstance(side, ImageData):
        found = side.written_range(side.ranges())
    return {} if found == "dtype" else {"range": found}


@contextmanager
def _measuring(subject: Any, device: torch.device):
    """Context with eval mode, full precision and no gradients. Modes and random state are restored afterwards."""
    model = subject if isinstance(subject, GenerativeModule) else None
    # of each module, since frozen parts are always in eval mode
    flags = {} if model is None else {module: module.training for module in model.modules()}
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
    """Arguments of a data set that differ from their defaults: the same from Python, a config or the command line."""
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
