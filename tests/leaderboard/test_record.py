"""Records: written whole, read as written, and what is not one is named and skipped."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from genbench.core.errors import UserError
from genbench.leaderboard import record as module
from genbench.leaderboard.record import Record, collect, located, read, write
from tests.helpers.records import entry, protocol, record


def reasons(folder):
    return {path.name: reason for path, reason in collect([folder])[1]}


def test_a_record_is_read_as_it_was_written(tmp_path):
    for made in (record(), record("samples", "images"), record("real", "baseline")):
        assert read(write(made, tmp_path)) == made
        assert Record.from_dict(made.to_dict()) == made


def test_its_file_name_describes_it_and_stays_in_its_folder(tmp_path):
    assert write(record(), tmp_path).name.startswith("DCGAN-MNIST-fid10k-test-last-seed0-")
    odd = write(record("../../a b/ü", "images"), tmp_path)
    assert odd.parent == tmp_path and odd.name.startswith("a-b-MNIST-fid10k-test-images-")


def test_numbers_that_are_not_finite_are_null_with_a_note(tmp_path):
    values = {"fid": entry("fid", math.nan, high=math.inf), "kid": entry("kid", 0.1, std=math.inf)}
    path = write(record(metrics=values), tmp_path)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    found = read(path).metrics
    assert found["fid"]["value"] is None and found["fid"]["note"] == "the value was nan"
    assert found["fid"]["high"] is None and found["kid"]["value"] == 0.1 and found["kid"]["std"] is None


def test_scalars_of_numpy_and_torch_are_numbers(tmp_path):
    import numpy as np
    import torch

    values = {"fid": entry("fid", torch.tensor(1.5)), "kid": entry("kid", np.float32(0.25))}
    found = read(write(record(metrics=values), tmp_path)).metrics
    assert found["fid"]["value"] == 1.5 and found["kid"]["value"] == 0.25


def test_a_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        write(record(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_could_not_be_read_is_not_written(tmp_path):
    with pytest.raises(UserError, match=r"metrics.fid.value is 'good'; expected a finite number"):
        write(record(metrics={"fid": entry("fid", "good")}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def nested(levels):
    return {"x": nested(levels - 1)} if levels else {}


def test_damaged_foreign_and_newer_files_are_named_and_skipped(tmp_path):
    good = write(record(), tmp_path)
    found = json.loads(good.read_text())
    files = {
        "package.json": '{"name": "x", "version": "1"}',
        "list.json": "[1, 2]",
        "null.json": "null",
        "number.json": "3",
        "true.json": "true",
        "cut.json": good.read_text()[:300],
        "bytes.json": "\x00\x01",
        "deep.json": "[" * 100_000,
        "newer.json": json.dumps({"schema": 2, "kind": "model"}),
        "zero.json": json.dumps(found | {"schema": 0}),
        "keyless.json": json.dumps({k: v for k, v in found.items() if k != "metrics"}),
        "text.json": json.dumps(found | {"run": found["run"] | {"images_seen": "many"}}),
        "huge.json": json.dumps(found | {"run": found["run"] | {"images_seen": 10**400}}),
        "runless.json": json.dumps(found | {"run": {}}),
        "kind.json": json.dumps(found | {"kind": "dream"}),
        "time.json": json.dumps(found | {"created": "yesterday"}),
        "entry.json": json.dumps(found | {"metrics": {"fid": 3}}),
        "better.json": json.dumps(found | {"metrics": {"fid": entry("fid", 1, better="up")}}),
        "range.json": json.dumps(found | {"metrics": {"fid": entry("fid", 1) | {"low": "none"}}}),
        "beyond.json": json.dumps(found | {"metrics": {"fid": entry("fid", -5) | {"low": 0}}}),
        "twice.json": good.read_text().replace('"kind"', '"kind": "baseline", "kind"', 1),
        "nan.json": json.dumps(found | {"metrics": {"fid": entry("fid", math.nan)}}),
        "infinite.json": good.read_text().replace("3.25", "1e999"),
        "garbage.json": bytes(range(256)) * 100,
        "empty.json": "",
        "nested.json": json.dumps(found | {"cost": nested(200)}),
        "segments.json": json.dumps(found | {"run": found["run"] | {"segments": {"from": 0}}}),
        "segment.json": json.dumps(found | {"run": found["run"] | {"segments": [{"from": 0, "changed": {"lr": 1}}]}}),
        "device.json": json.dumps(found | {"environment": {"device": ["cpu"]}}),
    }
    for name, text in files.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "endless.json").symlink_to("/dev/zero")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "gone.json").symlink_to("nowhere")
    records, skipped = collect([tmp_path])
    assert len(records) == 1 and {path.name for path, _ in skipped} == {
        *files,
        "gone.json",
        "pipe.json",
        "endless.json",
    }
    said = {path.name: reason for path, reason in skipped}
    foreign = {said[f"{name}.json"] for name in ("package", "list", "null", "number", "true")}
    assert foreign == {"not a record of genbench"}
    assert "not JSON" in said["cut.json"] and "not JSON" in said["deep.json"]
    assert said["newer.json"].endswith("update genbench")
    assert said["keyless.json"] == "a damaged record: metrics is missing"
    assert said["text.json"] == "a damaged record: run.images_seen is 'many'; expected a finite number"
    assert "expected one of model, images, baseline" in said["kind.json"]
    assert said["beyond.json"].startswith("a damaged record: metrics.fid.value is -5, outside of its range from 0")
    assert said["range.json"] == "a damaged record: metrics.fid.low is 'none'; expected a finite number"
    assert "not readable" in said["gone.json"]
    assert said["pipe.json"] == said["endless.json"] == "not a regular file"
    assert "the key 'kind' appears twice in one object" in said["twice.json"]
    assert "NaN is not a finite number" in said["nan.json"] and "1e999 is not a finite number" in said["infinite.json"]
    assert said["nested.json"] == "not a record of genbench: nested more than 64 levels deep"
    assert "expected a list of objects with from, to and changed" in said["segments.json"]
    assert said["device.json"] == "a damaged record: environment.device is ['cpu']; expected text"
    assert collect([tmp_path / "pipe.json"]) == ([], [(tmp_path / "pipe.json", "not a regular file")])
    with pytest.raises(UserError, match=r"newer.json: a record of schema 2, but this genbench reads 1"):
        read(tmp_path / "newer.json")


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write(record(), tmp_path / "a/records")
    (tmp_path / "b/records").mkdir(parents=True)
    scan = os.scandir

    def refused(path):
        if str(path) == str(tmp_path / "b/records"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)  # root may read anywhere
    records, skipped = collect([tmp_path])
    assert len(records) == 1 and skipped == [(tmp_path / "b/records", "not readable (Permission denied)")]


def places(value, path=()):
    """The path of everything in a record."""
    yield path
    for name, below in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(below, (*path, name))


def test_any_json_is_refused_or_shown_in_every_table():
    from genbench.leaderboard import formats
    from genbench.leaderboard.board import boards
    from genbench.report.rows import Rows
    from genbench.report.run_pages import runs
    from genbench.report.tables import table

    segments = [{"from": 0, "to": 9, "changed": {}}, {"from": 9, "to": None, "changed": {"lr": [1, 2]}}]
    made = record(run={"segments": segments}, metrics={"nats": entry("nats", -80.0), "fid": entry("fid", 1.0)},
                  protocol=protocol(pixels="binary", reference={"shape": [1, 8, 8]})).to_dict()  # fmt: skip
    refused = shown = 0
    for path in list(places(made))[1:]:
        for other in (None, True, -1.5, "text", [], [[1]], {}, {"x": {"y": 1}}):
            found = json.loads(json.dumps(made))
            holder = found
            for name in path[:-1]:
                holder = holder[name]
            holder[path[-1]] = other
            try:
                changed = Record.from_dict(found)
            except UserError:
                refused += 1
                continue
            tables = boards([changed, record("VAE")])
            for text in formats.TEXTS.values():
                assert text(tables)
            formats.print_tables(tables[:1], 80)
            shown_records = [r for board in tables for row in board.rows for seed in row.records for r in seed]
            pairs = [(r, Path(f"{k}.json")) for k, r in enumerate(shown_records)]
            rows = Rows(pairs, tables)
            for board in tables:
                table(board, "", rows, {p: "" for _, p in pairs})
            runs(pairs, rows)
            shown += 1
    assert refused > 250 and shown > 250


def test_json_of_other_programs_among_runs_is_ignored(tmp_path):
    write(record(), tmp_path / "runs/a/records")
    write(record("VAE"), tmp_path / "runs/b/records/2026")
    (tmp_path / "runs/a/wandb").mkdir()
    (tmp_path / "runs/a/wandb/summary.json").write_text("{}")
    records, skipped = collect([tmp_path / "runs"])
    assert len(records) == 2 and skipped == []
    assert len(collect([tmp_path / "runs/a", tmp_path / "runs", tmp_path / "runs/a/records"])[0]) == 2
    assert len(collect([next((tmp_path / "runs/a/records").iterdir())])[0]) == 1


def test_each_record_is_known_with_its_file(tmp_path):
    paths = {write(record(name), tmp_path / name / "records") for name in ("a", "b")}
    found, _ = located([tmp_path])
    assert {path for _, path in found} == paths and all(read(path) == record for record, path in found)


def test_links_are_followed_and_circles_end(tmp_path):
    write(record("samples", "images"), tmp_path / "elsewhere/records")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/records/up").symlink_to(tmp_path / "runs")
    records, skipped = collect([tmp_path / "runs"])
    assert len(records) == 1 and skipped == []


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        collect([tmp_path / "none"])


def test_the_newer_of_two_records_of_one_checkpoint_is_kept(tmp_path):
    times = ("2026-01-01T12:00:00+00:00", "2026-01-01T12:30:00+01:00", "2025-12-31T00:00:00+00:00")
    for k, created in enumerate(times):  # the second is half an hour before the first
        write(record(metrics={"fid": entry("fid", k)}, created=created), tmp_path)
    records, skipped = collect([tmp_path])
    assert [r.metrics["fid"]["value"] for r in records] == [0] and skipped == []


def test_best_and_last_of_the_same_weights_are_both_kept(tmp_path):
    for checkpoint in ("best", "last"):
        write(record(run={"checkpoint": checkpoint, "checkpoint_hash": "same"}), tmp_path)
    assert len(collect([tmp_path])[0]) == 2


def test_a_seed_trained_again_replaces_the_older_run_with_a_note(tmp_path):
    write(record(run={"checkpoint_hash": "a"}), tmp_path)
    write(record(run={"checkpoint_hash": "b"}, created="2026-11-24T12:00:00+00:00"), tmp_path)
    write(record(run={"checkpoint_hash": "c"}, protocol=protocol("other")), tmp_path)
    write(record(run={"checkpoint_hash": "d", "seed": 1}), tmp_path)
    records, skipped = collect([tmp_path])
    assert sorted(r.run["checkpoint_hash"] for r in records) == ["b", "c", "d"]
    assert len(skipped) == 1 and "an older record of the same name, config and seed as" in skipped[0][1]


def test_a_file_too_large_for_a_record_is_not_read(tmp_path, monkeypatch):
    path = write(record(), tmp_path)
    monkeypatch.setattr(module, "MEGABYTES", 0)
    with pytest.raises(UserError, match="larger than"):
        read(path)


def test_two_seeds_share_an_identity_and_two_samplings_do_not():
    a, b = record(run={"seed": 0}), record(run={"seed": 1})
    assert a.identity == b.identity != record(run={"sampling": {"steps": 50}}).identity
    assert replace(a, metrics={}).identity == a.identity


def test_a_model_may_be_recorded_without_its_run(tmp_path):
    made = replace(record(), run=None)
    assert read(write(made, tmp_path)) == made and collect([tmp_path])[0] == [made]
