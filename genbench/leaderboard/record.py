"""A record: one evaluation of one model under one protocol, as one JSON file. Boards derive from records alone."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from genbench.core.errors import UserError
from genbench.core.files import kind_of
from genbench.core.files import write as write_file

SCHEMA = 1
KINDS = ("model", "images", "floor")  # floor: real images against real images
LARGEST = 1e100  # beyond it no score is meant, and squares overflow
MEGABYTES = 16  # a file beyond this is no record, and is not read


@dataclass(frozen=True)
class Record:
    """kind         model, images (a folder or archive in the model's place) or floor (real against real)
    model        name; class, arguments, parameters and players where there is a model
    data         name and arguments of the data set
    run          what was trained, how far, from which seed, and which of its checkpoints this is; None where unknown
    training     device, speed, memory and hours of the training; None where it is not known
    protocol     name, key and every field that decides what the numbers mean
    metrics      name -> value, std, better, low, high, n, track, note, and bound for a likelihood
    cost         of sampling and of this evaluation
    environment  device and versions
    created      ISO 8601
    """

    kind: str
    model: dict[str, Any]
    data: dict[str, Any]
    run: dict[str, Any] | None
    training: dict[str, Any] | None
    protocol: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    cost: dict[str, Any]
    environment: dict[str, Any]
    created: str
    schema: int = SCHEMA

    @classmethod
    def from_dict(cls, found: Any) -> Record:
        """The record of a parsed JSON file.

        Raises:
            UserError: it is foreign, damaged or of a newer schema.
        """
        if not isinstance(found, dict) or not {"schema", "kind"} <= found.keys():
            raise UserError("not a record of genbench")
        if type(found["schema"]) is int and found["schema"] > SCHEMA:
            raise UserError(f"a record of schema {found['schema']}, and this genbench reads {SCHEMA}: update genbench")
        fault = next(_faults(found), None)
        if fault is not None:
            raise UserError(f"a damaged record: {fault}")
        names = ("run", "training")  # may be left out
        return cls(**{name: found.get(name) if name in names else found[name] for name in cls.__dataclass_fields__})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: what is not finite is null, and a score that was not says so in its note."""
        metrics = {}
        for name, entry in self.metrics.items():
            value = _scalar(entry.get("value"))
            if isinstance(value, float) and not math.isfinite(value):
                entry = entry | {"note": "; ".join(filter(None, (entry.get("note"), f"the value was {value}")))}
            metrics[name] = entry
        return _plain({"schema": self.schema} | asdict(self) | {"metrics": metrics})

    @property
    def time(self) -> float:
        return datetime.fromisoformat(self.created).timestamp()

    @property
    def identity(self) -> tuple[Any, ...]:
        """What was measured: the same for two seeds of a config, not for its best and its last checkpoint.

        The best checkpoints of two seeds were found after different numbers of images: still one kind of row.
        """
        run = self.run or {}
        own = tuple(run.get(name) for name in ("config_hash", "checkpoint", "weights"))
        own += (None if run.get("checkpoint") == "best" else run.get("images_seen"),)
        name = None if self.kind == "floor" else self.model["name"]
        own += (self.model.get("hash"),)  # of images in a model's place
        return self.kind, name, *own, json.dumps(run.get("sampling") or {}, sort_keys=True)


def path_of(record: Record, folder: str | os.PathLike) -> Path:
    """Where a record is written to in a folder: its contents decide."""
    run = record.run or {}
    parts = [record.model["name"], record.data["name"], record.protocol["name"], run.get("checkpoint", record.kind)]
    if run.get("seed") is not None:
        parts.append(f"seed{run['seed']}")
    parts = [re.sub(r"[^A-Za-z0-9._+]+", "-", str(part))[:40].strip("-.") or "x" for part in parts]
    return Path(folder) / f"{'-'.join(parts)}-{hashlib.sha256(_text(record)).hexdigest()[:8]}.json"


def write(record: Record, folder: str | os.PathLike) -> Path:
    """Write a record into a folder, whole or not at all; returns its path.

    Raises:
        NotWritten: says where it was written instead.
    """
    Record.from_dict(record.to_dict())
    path = path_of(record, folder)
    write_file(path, lambda file: file.write(_text(record)))
    return path


def _text(record: Record) -> bytes:
    return (json.dumps(record.to_dict(), indent=1, allow_nan=False) + "\n").encode()


def read(path: str | os.PathLike) -> Record:
    """The record in a file.

    Raises:
        UserError: it is unreadable, foreign, damaged or of a newer schema.
    """
    try:
        if not os.path.isfile(path) and os.path.exists(path):  # a named pipe would be waited for
            raise UserError(f"not a file: it is {kind_of(path)}")
        if os.path.getsize(path) > MEGABYTES * 2**20:
            raise UserError(f"not a record of genbench: larger than {MEGABYTES} MB")
        with open(path, "rb") as file:
            found = json.loads(file.read(), parse_constant=_finite, parse_float=_finite)
        return Record.from_dict(found)
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, since it is not JSON ({error})") from error


def collect(folders: Iterable[str | os.PathLike]) -> tuple[list[Record], list[tuple[Path, str]]]:
    """As `located`, without the paths of the records."""
    found, skipped = located(folders)
    return [record for record, _ in found], skipped


def located(folders: Iterable[str | os.PathLike]) -> tuple[list[tuple[Record, Path]], list[tuple[Path, str]]]:
    """All records of some folders with their files, oldest first, and the files that were skipped with the reason.

    Of a folder its own `*.json` are read and those of every folder called `records` in it, at any depth: other JSON in
    runs is nobody's record. A file may stand in a folder's place. Of two records of one measurement the newer stands.

    Raises:
        UserError: a folder is not there.
    """
    skipped: list[tuple[Path, str]] = []
    latest: dict[tuple[Any, ...], tuple[Record, Path]] = {}
    for path in _files(folders):
        try:
            record = read(path)
        except UserError as error:
            skipped.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        run = record.run or {}
        seed = run.get("seed") if run.get("seed") is not None else run.get("checkpoint_hash")
        key = (record.data["name"], record.protocol["key"], seed, *record.identity)
        pair = (record, path)
        if key in latest:
            older, pair = sorted((latest[key], pair), key=lambda p: p[0].time)
            if not _same(older[0], pair[0]):
                skipped.append((older[1], f"an older record of the same name, config and seed as {pair[1]}"))
        latest[key] = pair
    return sorted(latest.values(), key=lambda pair: pair[0].time), skipped


def _same(a: Record, b: Record) -> bool:
    """Whether one thing was measured twice, so that nothing is lost with the older record."""
    if a.kind == "images":
        return a.model.get("hash") is not None  # which is part of what makes them one
    return a.kind == "floor" or bool(a.run and b.run and a.run["checkpoint_hash"] == b.run["checkpoint_hash"])


def _files(folders: Iterable[str | os.PathLike]) -> Iterator[Path]:
    seen = set()  # folders may overlap
    for given in map(os.fspath, folders):
        if os.path.isfile(given):
            yield Path(given)
        elif not os.path.isdir(given):
            raise UserError(f"There is no folder {given}. Give folders of runs or of records.")
        visited = set()  # links may lead in circles
        for folder, below, files in os.walk(given, followlinks=True):
            real = os.path.realpath(folder)
            if real in visited:
                below.clear()
                continue
            visited.add(real)
            below.sort()
            if folder == given or "records" in os.path.relpath(folder, os.path.join(given, "..")).split(os.sep):
                new = [name for name in sorted(files) if name.endswith(".json") and (real, name) not in seen]
                seen.update((real, name) for name in new)
                yield from (Path(folder, name) for name in new)


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _scalar(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value  # of NumPy or torch


def _plain(value: Any) -> Any:
    """Dicts, lists, strings and finite numbers."""
    value = _scalar(value)
    if isinstance(value, dict):
        return {str(name): _plain(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


# Where a board looks: path, what must be there, and whether it may be null or absent. A null parent has no children.
_FIELDS: tuple[tuple[str, str, bool], ...] = (
    ("schema", "a finite number", False),
    ("kind", "text", False),
    ("created", "text", False),
    ("model", "an object", False),
    ("model.name", "text", False),
    ("model.parameters", "a finite number", True),
    ("model.players", "an object of numbers", True),
    ("data", "an object", False),
    ("data.name", "text", False),
    ("run", "an object", True),
    ("run.name", "text", False),
    ("run.config_hash", "text", False),
    ("run.seed", "a finite number", True),
    ("run.images_seen", "a finite number", False),
    ("run.updates", "an object of numbers", True),
    ("run.checkpoint", "text", False),
    ("run.checkpoint_hash", "text", False),
    ("run.weights", "text", False),
    ("run.sampling", "an object", True),
    ("run.grid", "an object", True),
    ("run.tried", "a finite number", True),
    ("training", "an object", True),
    ("training.images_per_second", "a finite number", True),
    ("training.device_hours", "a finite number", True),
    ("protocol", "an object", False),
    ("protocol.name", "text", False),
    ("protocol.key", "text", False),
    ("cost", "an object", False),
    ("cost.sampling_images_per_second", "a finite number", True),
    ("environment", "an object", False),
    ("metrics", "an object", False),
)
_ENTRY: tuple[tuple[str, str, bool], ...] = (
    ("value", "a finite number", True),
    ("std", "a finite number", True),
    ("low", "a finite number", True),
    ("high", "a finite number", True),
    ("better", "text", True),
    ("track", "text", False),
    ("note", "text", True),
    ("bound", "text", True),
)


def _faults(found: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a record, in the order of its fields."""
    for path, kind, optional in _FIELDS:
        parent, _, name = path.rpartition(".")
        holder = found.get(parent) if parent else found
        if holder is not None:
            yield from _fault(path, holder.get(name), kind, optional)
    if found["kind"] not in KINDS:
        yield f"kind is '{found['kind']}'; it is one of {', '.join(KINDS)}"
    if found["schema"] != SCHEMA:
        yield f"schema is {found['schema']}; the only one is {SCHEMA}"
    try:
        datetime.fromisoformat(found["created"]).timestamp()
    except (ValueError, OverflowError, OSError):
        yield f"created is '{found['created']}'; a time was expected"
    for name, entry in found["metrics"].items():
        yield from _fault(f"metrics.{name}", entry, "an object", False)
        for field, kind, optional in _ENTRY:
            yield from _fault(f"metrics.{name}.{field}", entry.get(field), kind, optional)
        low, high, value = (entry.get(field) for field in ("low", "high", "value"))
        if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
            yield f"metrics.{name}.value is {value}, outside of its range from {low} to {high}"
        if entry.get("better") not in ("lower", "higher", None):
            yield f"metrics.{name}.better is '{entry['better']}'; it is lower, higher or null"


def _fault(path: str, value: Any, kind: str, optional: bool) -> Iterator[str]:
    if value is None:
        if not optional:
            yield f"{path} is missing"
    elif not _KINDS[kind](value):
        yield f"{path} is {value!r:.40}; {kind} was expected"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST < value < LARGEST


_KINDS = {
    "text": lambda value: isinstance(value, str),
    "a finite number": _number,
    "an object": lambda value: isinstance(value, dict),
    "an object of numbers": lambda value: isinstance(value, dict) and all(map(_number, value.values())),
}
