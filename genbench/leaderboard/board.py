"""Leaderboards: records of one data set and protocol, ranked on one track, with one row for all seeds of a config."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genbench.core.errors import UserError, did_you_mean
from genbench.leaderboard.differences import T, as_text, listed, refuse_mixture, unique
from genbench.leaderboard.intervals import Score, mean_of, score
from genbench.leaderboard.record import Record, history

CHECKPOINTS = ("best", "last")  # listed first, in this order
TRACKS = ("generation", "reconstruction", "likelihood", "translation", "segmentation", "classification")


@dataclass(frozen=True)
class Row:
    """The scores of one config over its seeds. Best and last checkpoint, and raw and EMA weights,
    and averages of different lengths, have separate rows.

    checkpoint  `best = last` if both have the same weights for every seed
    segments    parts of the training with different settings, see `Record.segments`
    grid        settings that a suite varied
    tried       number of configs of this model that the suite tried on this data set
    records     for each seed, the records of its checkpoint, newest first; only the newest counts
    """

    rank: int | None
    label: str  # name, and what distinguishes rows of the same name
    name: str
    kind: str
    runs: tuple[str, ...]
    seeds: tuple[int | None, ...]
    config_hash: str | None
    checkpoint: str | None
    weights: str | None
    sampling: dict[str, Any]
    segments: tuple[dict[str, Any], ...]
    grid: dict[str, Any]
    tried: int | None
    images_seen: int | None
    parameters: int | None
    updates: dict[str, float]
    training_images_per_second: float | None
    network_evaluations_per_image: float | None
    sampling_seconds_per_image: float | None
    device_hours: float | None
    device: str | None
    scores: dict[str, Score]
    records: tuple[tuple[Record, ...], ...]


@dataclass(frozen=True)
class Board:
    """A leaderboard. `metrics` maps each metric to its better direction.

    `rows` are ordered by rank, then rows without a rank, then the baseline.
    """

    data: dict[str, Any]
    protocol: dict[str, Any]
    track: str
    by: str | None
    metrics: dict[str, str | None]
    rows: tuple[Row, ...]


def rank(records: Sequence[Record], by: str | None = None, track: str = "generation") -> Board:
    """Rank records of one protocol by a metric; by default, the first of the track with a direction and a value.

    Raises:
        UserError: the records are from several protocols, or cannot be ranked by this metric.
    """
    refuse_mixture(records)
    records = [record for record in records if any(e["track"] == track for e in record.metrics.values())]
    if not records:
        raise UserError(f"None of the records has a score of the track '{track}'.")
    metrics = _metrics(records, track)
    rows = [_row(seeds, metrics) for seeds in _by_checkpoint(records)]
    if by is None:
        valued = (m for m, better in metrics.items() if better and any(r.scores[m].mean is not None for r in rows))
        by = next(valued, None)
    else:
        by = _ranking(by, metrics)
    sign = -1 if by and metrics[by] == "higher" else 1

    def place(row: Row) -> tuple[bool, float, str]:
        mean = row.scores[by].mean if by else None
        return row.kind == "baseline", math.inf if mean is None else sign * mean, row.label

    rows = _ranked(sorted(_labeled(rows), key=place), by)
    newest = max(records, key=lambda r: r.time)
    return Board(newest.data, newest.protocol, track, by, metrics, tuple(rows))


def boards(
    records: Sequence[Record],
    by: str | None = None,
    data: str | None = None,
    protocols: Sequence[str] = (),
    track: str | None = None,
) -> list[Board]:
    """Return a leaderboard for each data set, protocol and track of the records.

    Args:
        by: Metric to rank by; leaderboards without it are omitted. `fid` means `fid-mnistnet` if only one FID is there
        data: Only this data set
        protocols: Names or keys of the only protocol to include; several different protocols are an error
        track: Only this track

    Raises:
        UserError: there are no records of a requested name, or several protocols were requested.
    """
    if data is not None:
        records = _named(records, [data], "data set", lambda r: (r.data["name"],))
    if protocols:
        records = _named(records, protocols, "protocol", lambda r: (r.protocol["name"], r.protocol["key"]))
        if len(set(protocols)) > 1:
            refuse_mixture(records)
    groups = _grouped(records, lambda r: (r.data["name"], r.protocol["name"], r.protocol["key"]))
    tables = [
        (group, t, metrics)
        for _, group in sorted(groups.items())
        for t in sorted({entry["track"] for record in group for entry in record.metrics.values()}, key=_place)
        if (metrics := _metrics(group, t))
    ]
    if track is not None:
        known = unique(t for _, t, _ in tables)
        tables = [table for table in tables if table[1] == track]
        if not tables:
            raise UserError(f"No score has the track '{track}'. Choose from: {listed(known)}.")
    if by is not None:
        known = unique(m for *_, metrics in tables for m, better in metrics.items() if better)
        tables = [table for table in tables if _find(by, table[2])]
        if not tables:
            raise _no_metric(by, known)
    return [rank(group, by, t) for group, t, _ in tables]


def _by_checkpoint(records: Sequence[Record]) -> list[list[list[Record]]]:
    """Group records into rows. For each seed of a row, list the records of its checkpoint, newest first.

    Two checkpoints of a config, such as best and last, form one row if they are the same for every seed.
    """
    rows = []
    groups = _grouped(records, lambda r: r.identity).values()
    for same in _grouped(groups, lambda group: group[0].source).values():
        found: list[list[list[Record]]] = []
        for group in sorted(same, key=lambda group: _order((group[0].run or {}).get("checkpoint"))):
            row = [[record] for record in sorted(group, key=lambda r: str(r.seed).zfill(20))]
            twins = (other for other in found if len(other) == len(row) and all(map(_is_one_state, other, row)))
            if twin := next(twins, None):
                for others, own in zip(twin, row, strict=True):
                    others.extend(own)
            else:
                found.append(row)
        rows += found
    return [[sorted(seed, key=lambda r: -r.time) for seed in row] for row in rows]


def _is_one_state(a: Sequence[Record], b: Sequence[Record]) -> bool:
    """Whether two checkpoints of a seed have the same weights: the same file, or equal images seen and scores."""
    one, other = a[0], b[0]
    if not (one.run and other.run) or one.seed != other.seed:
        return False
    if one.run["checkpoint_hash"] == other.run["checkpoint_hash"]:
        return True
    values, others = ({name: e.get("value") for name, e in r.metrics.items()} for r in (one, other))
    return one.run["images_seen"] == other.run["images_seen"] and values == others and set(values.values()) != {None}


def _order(checkpoint: str | None) -> tuple[int, str]:
    return CHECKPOINTS.index(checkpoint) if checkpoint in CHECKPOINTS else len(CHECKPOINTS), str(checkpoint)


def _row(seeds: Sequence[Sequence[Record]], metrics: Iterable[str]) -> Row:
    """Build a row from the records of each seed."""
    records = sorted((of[0] for of in seeds), key=lambda r: r.time)
    first = records[0]
    runs = [record.run or {} for record in records]
    # speeds are averaged only over records from the same kind of machine
    trained = [r.training for r in records if r.training]
    trained = [t for t in trained if _where(t) == _where(trained[-1])]
    measured = [r for r in records if _where(r.environment) == _where(records[-1].environment)]
    seen = [run["images_seen"] for run in runs if run.get("images_seen") is not None]
    own = first.model.get("hash") if first.kind == "images" else None
    checkpoints = {record.run["checkpoint"] for record in seeds[0] if record.run}
    return Row(
        rank=None,
        label=first.model["name"],
        name=first.model["name"],
        kind=first.kind,
        runs=(own[:6],) if own else tuple(unique(run["name"] for run in runs if run)),
        seeds=tuple(of[0].run.get("seed") for of in seeds if of[0].run),
        config_hash=own or runs[0].get("config_hash"),
        checkpoint=" = ".join(sorted(checkpoints, key=_order)) or None,
        weights=runs[0].get("weights"),
        sampling=runs[0].get("sampling") or {},
        segments=first.segments,
        grid=runs[0].get("grid") or {},
        tried=max((run["tried"] for run in runs if run.get("tried")), default=None),
        images_seen=round(sum(seen) / len(seen)) if seen else None,  # differs between best checkpoints
        parameters=first.model.get("parameters"),
        updates=runs[0].get("updates") or {},
        training_images_per_second=mean_of(t.get("images_per_second") for t in trained),
        network_evaluations_per_image=mean_of(r.cost.get("network_evaluations_per_image") for r in records),
        sampling_seconds_per_image=mean_of(r.cost.get("sampling_seconds_per_image") for r in measured),
        device_hours=mean_of(t.get("device_hours") for t in trained),
        device=(trained[-1] if trained else records[-1].environment).get("device"),
        scores={metric: score([r.metrics[metric] for r in records if metric in r.metrics]) for metric in metrics},
        records=tuple(map(tuple, seeds)),
    )


def _where(facts: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(facts.get(name) for name in ("device", "world_size", "precision"))


def _labeled(rows: Sequence[Row]) -> list[Row]:
    """Add labels that distinguish rows of the same name by run, changed settings and sampling options."""
    labeled = []
    for same in _grouped(rows, lambda row: (row.kind, row.name)).values():
        configs = unique(row.config_hash for row in same)
        options = unique(option for row in same for option in row.sampling)
        varied = [o for o in options if any(row.sampling.get(o) != same[0].sampling.get(o) for row in same)]
        names = {
            config: _common([run for row in same if row.config_hash == config for run in row.runs])
            for config in configs
        }
        points = {row.config_hash: _point(row, same) for row in same}
        if all(points.values()) and len(set(points.values())) == len(configs):
            names = points
        for row in same:
            more = [f"{o}={row.sampling[o]}" for o in varied if row.sampling.get(o, "") != ""]
            if row.segments:
                own = history(row.segments)
                others = {history(r.segments) for r in same if len(r.segments) == len(row.segments)}
                alike = f" [{hashlib.sha256(own.encode()).hexdigest()[:4]}]" if len(others) > 1 else ""
                more.insert(0, f"{len(row.segments)} segments{alike}")
            if len(configs) > 1:
                run = names[row.config_hash]
                shared = list(names.values()).count(run) > 1
                more.insert(0, f"{run}, {(row.config_hash or '')[:6]}" if shared else run)
            labeled.append(replace(row, label=f"{row.name} ({', '.join(more)})" if more else row.name))
    return labeled


def _point(row: Row, same: Sequence[Row]) -> str:
    """Return the settings that distinguish a row from others in the grid of a suite: `lr=0.0001`."""
    varied = [key for key in row.grid if any(other.grid.get(key) != row.grid[key] for other in same)]
    return ", ".join(f"{key.rpartition('.')[2]}={as_text(row.grid[key])}" for key in varied)


def _ranked(rows: Sequence[Row], by: str | None) -> list[Row]:
    """Add ranks to rows. Equal means have equal ranks; the baseline and rows without a value have no rank."""
    done: list[Row] = []
    for row in rows:
        place = None
        if by is not None and row.kind != "baseline" and (mean := row.scores[by].mean) is not None:
            place = done[-1].rank if done and done[-1].scores[by].mean == mean else len(done) + 1
        done.append(replace(row, rank=place))
    return done


def _metrics(records: Sequence[Record], track: str) -> dict[str, str | None]:
    """Return every metric of a track with its direction, in the order of the record with the most metrics."""
    found: dict[str, str | None] = {}
    for record in sorted(records, key=lambda r: (-len(r.metrics), -r.time)):
        for name, entry in record.metrics.items():
            if entry["track"] == track:
                found.setdefault(name, entry.get("better"))
    return found


def _place(track: str) -> tuple[int, str]:
    """Return the sort key of a track: known tracks come first."""
    return TRACKS.index(track) if track in TRACKS else len(TRACKS), track


def _find(by: str, metrics: Iterable[str]) -> str | None:
    """Return the metric named `by`, or the only one whose name up to the first hyphen is `by`; else None."""
    names = list(metrics)
    stems = [name for name in names if name.partition("-")[0] == by]
    if by in names or len(stems) < 2:
        return by if by in names else next(iter(stems), None)
    raise UserError(f"'{by}' matches several metrics of one table: {listed(stems)}. Use the full name of one.")


def _ranking(by: str, metrics: dict[str, str | None]) -> str:
    found = _find(by, metrics)
    known = [name for name, better in metrics.items() if better]
    if found is None:
        raise _no_metric(by, known)
    if metrics[found] is None:
        raise UserError(
            f"'{found}' does not define whether lower or higher is better, so it cannot rank rows. Choose from: "
            f"{listed(known)}."
        )
    return found


def _no_metric(by: str, known: Iterable[str]) -> UserError:
    known = list(known)
    near = did_you_mean(by, [*known, *(name.partition("-")[0] for name in known)])  # `fid` means `fid-mnistnet` too
    return UserError(f"Unknown metric '{by}'. Choose from: {listed(known)}.{near}")


def _named(
    records: Sequence[Record], asked: Sequence[str], what: str, names: Callable[[Record], Sequence[str]]
) -> list[Record]:
    """Return the records that have one of the names."""
    for name in asked:
        if not any(name in names(record) for record in records):
            known = listed(unique(names(record)[0] for record in records))
            raise UserError(f"No record has the {what} '{name}'. Choose from: {known}.")
    return [record for record in records if set(names(record)) & set(asked)]


def _common(runs: Sequence[str]) -> str:
    """Return the common beginning of a config's run names: `wide` for wide-0 and wide-1, or wide-s0 and wide-s1."""
    if len(runs) == 1:
        return runs[0]
    begin = "".join(c[0] for c in itertools.takewhile(lambda c: len(set(c)) == 1, zip(*runs, strict=False)))
    return re.sub(r"[-_. ]+(seed|s)?[-_. ]*\d*$|\d+$", "", begin) or ", ".join(runs)


def _grouped(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
