"""A record is a JSON file of one evaluation of one model under one protocol. Leaderboards use only records."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from genbench.core import renamed
from genbench.core.errors import UserError
from genbench.core.files import near_by
from genbench.core.files import write as write_file

SCHEMA = 1
KINDS = ("model", "images", "baseline")  # baseline: real images compared with real images
LARGEST = 1e100  # limit of a number in a record: the square of a larger number could overflow
MEGABYTES = 16  # a larger file is not a record, and is not read
DEEPEST = 64  # limit of nesting levels; a record has fewer than 20


@dataclass(frozen=True)
class Record:
    """kind         model, images (a folder or archive instead of a model) or baseline (real against real images)
    model        name; for a model also class, arguments, parameters and players (parameters per optimizer)
    data         name and arguments of the data set
    run          name, config, seed, images seen and checkpoint of the training run; None if unknown. A resumed run has
                 `segments`: {"from", "to": images, "changed": {name: [old, new]}}
    training     device, speed, memory and hours of the training; None if unknown
    protocol     name, key and every setting that the scores depend on
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
        """Build a record from a parsed JSON file.

        Raises:
            UserError: `found` is not a record, is damaged, or has a newer schema.
        """
        if not isinstance(found, dict) or not {"schema", "kind"} <= found.keys():
            raise UserError("not a record of genbench")
        if type(found["schema"]) is int and found["schema"] > SCHEMA:
            raise UserError(f"a record of schema {found['schema']}, but this genbench reads {SCHEMA}: update genbench")
        renamed.record(found)
        fault = next(_faults(found), None)
        if fault is not None:
            raise UserError(f"a damaged record: {fault}")
        names = ("run", "training")  # these fields may be absent
        given: dict[str, Any] = {n: found.get(n) if n in names else found[n] for n in cls.__dataclass_fields__}
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON. Numbers that are not finite become null, and the note of a score has the number."""
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
    def segments(self) -> tuple[dict[str, Any], ...]:
        """Return the parts of a training that resumed with changed settings; empty if no setting was changed."""
        found: list[dict[str, Any]] = []
        for segment in (self.run or {}).get("segments") or ():
            if found and not segment["changed"]:  # resumed without a change
                found[-1] = found[-1] | {"to": segment.get("to")}
            else:
                found.append(segment)
        return tuple(found) if any(segment["changed"] for segment in found) else ()

    @property
    def source(self) -> tuple[Any, ...]:
        """Identify what was evaluated, without the seed and the checkpoint."""
        run = self.run or {}
        name = None if self.kind == "baseline" else self.model["name"]
        images = self.model.get("hash")  # hash of images evaluated in place of a model
        sampling = json.dumps(run.get("sampling") or {}, sort_keys=True)
        return self.kind, name, images, run.get("config_hash"), history(self.segments), run.get("weights"), sampling

    @property
    def identity(self) -> tuple[Any, ...]:
        """Identify what was evaluated: equal for all seeds of a config, but different for its best and last checkpoint.

        For best checkpoints the number of images seen is ignored, because it differs between seeds.
        """
        run = self.run or {}
        images = None if run.get("checkpoint") == "best" else run.get("images_seen")
        return *self.source, run.get("checkpoint"), images

    @property
    def seed(self) -> Any:
        """What distinguishes two runs of one config: the seed, or else the hash of the checkpoint."""
        run = self.run or {}
        return run.get("checkpoint_hash") if run.get("seed") is None else run["seed"]


def history(segments: Iterable[dict[str, Any]]) -> str:
    """Return which settings changed at how many images seen, as text that is equal for all checkpoints of a run."""
    changed = [[s["from"], s["changed"]] for s in segments]
    return json.dumps(changed, sort_keys=True) if changed else ""


def path_of(record: Record, folder: str | os.PathLike) -> Path:
    """Return the path of a record in a folder. The file name is derived from the contents."""
    run = record.run or {}
    parts = [record.model["name"], record.data["name"], record.protocol["name"], run.get("checkpoint", record.kind)]
    if run.get("seed") is not None:
        parts.append(f"seed{run['seed']}")
    parts = [re.sub(r"[^A-Za-z0-9._+]+", "-", str(part))[:40].strip("-.") or "x" for part in parts]
    return Path(folder) / f"{'-'.join(parts)}-{hashlib.sha256(_text(record)).hexdigest()[:8]}.json"


def write(record: Record, folder: str | os.PathLike) -> Path:
    """Write a record into a folder, completely or not at all, and return its path."""
    Record.from_dict(record.to_dict())
    path = path_of(record, folder)
    text = _text(record)
    write_file(path, lambda file: file.write(text))
    return path


def _text(record: Record) -> bytes:
    return (json.dumps(record.to_dict(), indent=1, allow_nan=False) + "\n").encode()


def read(path: str | os.PathLike) -> Record:
    """Read the record in a file.

    Raises:
        UserError: the file cannot be read, is not a record, is damaged, or has a newer schema.
    """
    most = MEGABYTES * 2**20
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a named pipe would block forever
            raise UserError("not a regular file")
        with open(path, "rb") as file:
            text = file.read(most + 1)
        if len(text) > most:
            raise UserError(f"not a record of genbench: larger than {MEGABYTES} MB")
        found = json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_unambiguous)
        if not isinstance(found, dict):
            raise UserError("not a record of genbench")
        if _is_deeper(found, DEEPEST):
            raise UserError(f"not a record of genbench: nested more than {DEEPEST} levels deep")
        return Record.from_dict(found)
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, since it is not JSON ({error})") from error


def collect(folders: Iterable[str | os.PathLike]) -> tuple[list[Record], list[tuple[Path, str]]]:
    """Like `located`, without the paths of the records."""
    found, skipped = located(folders)
    return [record for record, _ in found], skipped


def located(folders: Iterable[str | os.PathLike]) -> tuple[list[tuple[Record, Path]], list[tuple[Path, str]]]:
    """Return all records in the folders with their files, oldest first, and each skipped file with the reason.

    The `*.json` files in each folder are read, and those in every folder named `records` below it, at any depth. A
    file may be passed instead of a folder. Of two records of the same evaluation, only the newer is kept.

    Raises:
        UserError: a folder does not exist.
    """
    skipped: list[tuple[Path, str]] = []
    latest: dict[tuple[Any, ...], tuple[Record, Path]] = {}
    for path in _files(folders, skipped):
        try:
            record = read(path)
        except UserError as error:
            skipped.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        key = (record.data["name"], record.protocol["key"], record.seed, *record.identity)
        pair = (record, path)
        if key in latest:
            older, pair = sorted((latest[key], pair), key=lambda p: p[0].time)
            if not _same(older[0], pair[0]):
                skipped.append((older[1], f"an older record of the same name, config and seed as {pair[1]}"))
        latest[key] = pair
    return sorted(latest.values(), key=lambda pair: pair[0].time), skipped


def _same(a: Record, b: Record) -> bool:
    """Whether two records evaluate the same images or weights, so that the older one is superfluous."""
    if a.kind == "images":
        return a.model.get("hash") is not None  # the hash is part of `identity`, which is equal here
    return a.kind == "baseline" or bool(a.run and b.run and a.run["checkpoint_hash"] == b.run["checkpoint_hash"])


def _files(folders: Iterable[str | os.PathLike], skipped: list[tuple[Path, str]]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        skipped.append((Path(error.filename), f"not readable ({error.strerror})"))

    seen: set[tuple[str, str]] = set()  # folders may overlap
    for given in (os.fspath(folder) for folder in folders):
        if not os.path.exists(given):
            raise UserError(f"There is no folder {given}. Pass folders of runs or of records.{near_by(Path(given))}")
        if not os.path.isdir(given):
            yield Path(given)
            continue
        visited = set()  # symbolic links may form cycles
        for folder, below, files in os.walk(given, onerror=unreadable, followlinks=True):
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


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.40} is not a finite number")
    return value


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice:.40}' appears twice in one object")
    return found


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether a value has more levels. Recursion is avoided, because deep nesting would exceed its limit."""
    level = [value]
    for _ in range(levels):
        below = (x.values() if isinstance(x, dict) else x for x in level)
        level = [v for values in below for v in values if isinstance(v, (dict, list))]
        if not level:
            return False
    return True


def _scalar(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value  # a scalar of NumPy or torch


def _plain(value: Any) -> Any:
    """Convert to dicts, lists, strings and finite numbers."""
    value = _scalar(value)
    if isinstance(value, dict):
        return {str(name): _plain(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


TEXT, NUMBER, OBJECT, NUMBERS = "text", "a finite number", "an object", "an object of numbers"
SEGMENTS = "a list of objects with from, to and changed"
# Fields that leaderboards read: name -> kind, or the fields of an object. A field with ? may be null or absent.
_FIELDS: dict[str, Any] = {
    "schema": NUMBER,
    "kind": TEXT,
    "created": TEXT,
    "model": {"name": TEXT, "parameters?": NUMBER, "players?": NUMBERS, "hash?": TEXT},
    "data": {"name": TEXT},
    "run?": {
        "name": TEXT,
        "config_hash": TEXT,
        "seed?": NUMBER,
        "images_seen": NUMBER,
        "updates?": NUMBERS,
        "checkpoint": TEXT,
        "checkpoint_hash": TEXT,
        "weights": TEXT,
        "sampling?": OBJECT,
        "grid?": OBJECT,
        "tried?": NUMBER,
        "segments?": SEGMENTS,
    },
    "training?": {"device?": TEXT, "images_per_second?": NUMBER, "device_hours?": NUMBER},
    "protocol": {"name": TEXT, "key": TEXT},
    "cost": {"network_evaluations_per_image?": NUMBER, "sampling_seconds_per_image?": NUMBER},
    "environment": {"device?": TEXT},
    "metrics": OBJECT,
}
_NUMBERS_OF_A_METRIC = {"value?": NUMBER, "std?": NUMBER, "low?": NUMBER, "high?": NUMBER}
_METRIC = _NUMBERS_OF_A_METRIC | {"better?": TEXT, "track": TEXT, "note?": TEXT, "bound?": TEXT}


def _faults(found: dict[str, Any]) -> Iterator[str]:
    """Describe what is wrong with a record, in the order of its fields."""
    yield from _wrong_fields(found, _FIELDS)
    if found["kind"] not in KINDS:
        yield f"kind is '{found['kind']}'; expected one of {', '.join(KINDS)}"
    if found["schema"] != SCHEMA:
        yield f"schema is {found['schema']}; expected {SCHEMA}"
    try:
        datetime.fromisoformat(found["created"]).timestamp()
    except (ValueError, OverflowError, OSError):
        yield f"created is '{found['created']}'; expected a time"
    for name, entry in found["metrics"].items():
        yield from _wrong_fields({name: entry}, {name: _METRIC}, "metrics.")
        low, high, value = (entry.get(field) for field in ("low", "high", "value"))
        if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
            yield f"metrics.{name}.value is {value}, outside of its range from {low} to {high}"
        if entry.get("better") not in ("lower", "higher", None):
            yield f"metrics.{name}.better is '{entry['better']}'; expected lower, higher or null"


def _wrong_fields(holder: dict[str, Any], fields: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, kind in fields.items():
        name, optional, _ = name.partition("?")
        path, value = prefix + name, holder.get(name)
        if value is None:
            if not optional:
                yield f"{path} is missing"
        elif isinstance(kind, dict) and isinstance(value, dict):
            yield from _wrong_fields(value, kind, f"{path}.")
        elif isinstance(kind, dict) or not _KINDS[kind](value):
            yield f"{path} is {value!r:.40}; expected {OBJECT if isinstance(kind, dict) else kind}"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def _segment(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _number(value.get("from"))
        and (value.get("to") is None or _number(value["to"]))
        and isinstance(value.get("changed"), dict)
        and all(isinstance(pair, list) and len(pair) == 2 for pair in value["changed"].values())
    )


_KINDS = {
    TEXT: lambda value: isinstance(value, str),
    NUMBER: _number,
    OBJECT: lambda value: isinstance(value, dict),
    NUMBERS: lambda value: isinstance(value, dict) and all(map(_number, value.values())),
    SEGMENTS: lambda value: isinstance(value, list) and all(map(_segment, value)),
}
