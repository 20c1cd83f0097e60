"""Boards rank what may be compared, and refuse the rest."""

import statistics
from dataclasses import replace

import pytest
import scipy.stats

from genbench.core.errors import UserError
from genbench.leaderboard.board import boards, difference, rank, t_quantile
from genbench.leaderboard.formats import columns, heading
from tests.leaderboard.records import entry, many, protocol, record


def fid(value, name="fid", **more):
    return {name: entry(name, value, **more)}


def test_students_quantiles_are_those_of_scipy():
    for df in (*range(1, 121), 1000):
        assert t_quantile(df) == pytest.approx(scipy.stats.t.ppf(0.975, df), rel=1e-10)


def test_seeds_of_one_config_are_one_row_with_mean_deviation_and_interval():
    values = [3.0, 3.5, 4.75, 2.875]
    (row,) = rank([record(run={"seed": k}, metrics=fid(v)) for k, v in enumerate(values)]).rows
    score = row.scores["fid"]
    mean, std = statistics.mean(values), statistics.stdev(values)
    interval = scipy.stats.t.interval(0.95, 3, loc=mean, scale=std / 2)
    assert (score.mean, score.std) == pytest.approx((mean, std)) and (score.low, score.high) == pytest.approx(interval)
    assert row.seeds == (0, 1, 2, 3) and score.seeds == 4


def test_one_seed_has_no_deviation_and_no_interval():
    score = rank([record(metrics=fid(3.0, std=0.25))]).rows[0].scores["fid"]
    assert (score.mean, score.std, score.low, score.high, score.within) == (3.0, None, None, None, 0.25)


def test_best_and_last_raw_and_averaged_other_samplings_and_lengths_are_rows_of_their_own():
    runs = ({}, {"checkpoint": "best"}, {"weights": "raw"}, {"sampling": {"steps": 9}}, {"images_seen": 5})
    board = rank([record(run=run, metrics=fid(k)) for k, run in enumerate(runs)])
    assert [row.rank for row in board.rows] == [1, 2, 3, 4, 5]
    assert [row.checkpoint for row in board.rows] == ["last", "best", "last", "last", "last"]


def test_the_direction_decides_who_is_first():
    records = [record(name, metrics=fid(v) | fid(v, "is")) for name, v in (("a", 1.0), ("b", 2.0))]
    assert [row.name for row in rank(records, "fid").rows] == ["a", "b"]
    assert [row.name for row in rank(records, "is").rows] == ["b", "a"]


def test_equal_means_share_their_rank():
    records = [record(name, metrics=fid(v)) for name, v in (("a", 1), ("b", 1), ("c", 2))]
    assert [row.rank for row in rank(records).rows] == [1, 1, 3]


def test_a_model_without_the_score_is_blank_and_has_no_rank():
    note = "needs 1,000 images, got 64"
    records = [record("a", metrics=fid(None, note=note)), record("b", metrics=fid(3.0) | fid(9.0, "is"))]
    first, second = rank(records, "fid").rows
    assert (first.name, first.rank, second.name, second.rank) == ("b", 1, "a", None)
    assert second.scores["fid"].note == note and second.scores["is"].mean is None


def test_a_model_stands_on_the_tracks_of_its_abilities():
    records = [record("GAN", metrics=fid(3.0)), record("VAE", metrics=fid(4.0) | fid(-97.0, "nats"))]
    found = {board.track: [row.name for row in board.rows] for board in boards(records)}
    assert found == {"generation": ["GAN", "VAE"], "likelihood": ["VAE"]}


def test_the_floor_comes_last_and_has_no_rank():
    board = rank([record("real", "floor", metrics=fid(0.1)), record(metrics=fid(3.0))])
    assert [(row.kind, row.rank) for row in board.rows] == [("model", 1), ("floor", None)]


def test_images_stand_among_models():
    board = rank([record("theirs", "images", metrics=fid(1.0)), record(metrics=fid(3.0))])
    assert [(row.name, row.rank, row.images_seen) for row in board.rows] == [("theirs", 1, None), ("DCGAN", 2, 1000000)]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"name": "fid50k-train", "split": "train"},
            r"those of fid10k-test on MNIST, fid50k-train .* split \(test, train\)",
        ),
        ({"images": 50000}, r"images \(10,000, 50,000\)"),
        ({"extractor": {"name": "inception", "hash": "e0" * 8}}, r"differ in extractor.name \(mnistnet, inception\)\."),
        ({"pixels": {"crop": "centre"}}, r"pixels.crop \(nothing, centre\)"),
    ],
)
def test_rows_of_different_protocols_are_refused_with_what_differs(other, message):
    with pytest.raises(UserError, match=message):
        rank([record(), record("VAE", protocol=protocol(**other))])


def test_rows_of_different_data_are_refused():
    with pytest.raises(UserError, match="fid10k-test on MNIST, fid10k-test on CIFAR10"):
        rank([record(), record(data="CIFAR10")])


def test_each_data_set_and_protocol_has_a_board_of_its_own_unless_two_are_asked_for_together():
    records = [record(), record(protocol=protocol("other")), record(protocol=protocol(seed=1)), record(data="Shapes")]
    assert len(boards(records)) == 4
    assert len(boards(records, protocols=["fid10k-test"])) == 3
    assert len(boards(records, data="MNIST", protocols=[protocol()["key"]])) == 1
    with pytest.raises(UserError, match="not ranked together"):
        boards(records, protocols=["fid10k-test", "other"])


def test_a_difference_names_fields_and_not_the_name_that_follows_from_them():
    longer = record(protocol=protocol("longer", images=50000))
    assert difference([record(), longer]) == "images (10,000, 50,000)"


def test_a_difference_in_the_arguments_of_a_data_set_is_named():
    large = record(protocol=protocol() | {"key": "other"})
    large.data["arguments"]["size"] = 64
    assert difference([record(), large]) == "data.arguments.size (32, 64)"


def test_a_model_whose_run_is_unknown_stands_with_blanks():
    (row,) = rank([replace(record(), run=None, training=None)]).rows
    assert (row.rank, row.seeds, row.checkpoint, row.images_seen) == (1, (), None, None)


def test_fid_finds_the_only_metric_with_this_stem_and_asks_where_there_are_two():
    one = [record(metrics=fid(3.0, "fid-mnistnet"))]
    assert rank(one, "fid").by == boards(one, "fid")[0].by == "fid-mnistnet"
    two = [record(metrics=fid(3.0, "fid-mnistnet") | fid(2.0, "fid-dinov2"))]
    with pytest.raises(UserError, match="several metrics of one table: fid-mnistnet, fid-dinov2"):
        boards(two, "fid")
    assert rank([record(metrics=fid(3.0) | fid(2.0, "fid-dinov2"))], "fid").by == "fid"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"by": "fud"}, "no metric 'fud' to rank by; there are fid, is, mse."),
        ({"by": "nearest_train"}, "describes and does not judge, so nothing ranks by it; there are fid, is."),
        ({"data": "MINST"}, "data set 'MINST'; there are MNIST."),
        ({"protocol": "x"}, "protocol 'x'; there are fid10k-test."),
        ({"track": "x"}, "track 'x'; there are generation, reconstruction."),
    ],
)
def test_an_unknown_name_is_answered_with_those_there_are(asked, message):
    metrics = fid(1.0) | fid(2.0, "is") | fid(3.0, "nearest_train") | fid(0.1, "mse")
    asked = {"protocols": [asked["protocol"]]} if "protocol" in asked else asked
    with pytest.raises(UserError) as error:
        boards([record(metrics=metrics)], **asked)
    assert message in str(error.value)


def test_by_a_metric_boards_without_it_are_left_out():
    records = [record("VAE", metrics=fid(4.0) | fid(-97.0, "nats"))]
    assert [board.track for board in boards(records, "nats")] == ["likelihood"]


def test_rows_of_one_name_are_told_apart_by_runs_and_options():
    config = {"config_hash": "b" * 16}
    runs = [{"name": f"narrow-s{s}", "seed": s} for s in (0, 1)]
    runs += [config | {"name": "wide"}, config | {"name": "wide", "sampling": {"steps": 5}, "seed": 1}]
    board = rank([record(run=run, metrics=fid(k + 1)) for k, run in enumerate(runs)])
    assert [row.label for row in board.rows] == ["DCGAN (narrow)", "DCGAN (wide)", "DCGAN (wide, steps=5)"]
    same = [{"name": "a"}, config | {"name": "a"}]
    labels = [row.label for row in rank([record(run=run, metrics=fid(1.0)) for run in same]).rows]
    assert len(set(labels)) == 2 and all(label.startswith("DCGAN (a, ") for label in labels)


def test_realistic_records_make_boards_of_every_track():
    found = boards(many())
    assert [(b.protocol["name"], b.track) for b in found] == [
        (name, track)
        for name in ("fid10k-test", "fid1k-val")
        for track in ("generation", "reconstruction", "likelihood")
    ]
    assert all(len(row.seeds) == 3 for board in found for row in board.rows if row.kind == "model")


def test_rows_of_a_grid_are_told_apart_by_what_was_varied_and_say_how_many_were_tried():
    def at(lr, seed):
        grid = {"model.optimizer.lr": lr, "model.width": 32}
        return {"seed": seed, "config_hash": f"{lr}", "grid": grid, "tried": 2, "name": f"dcgan-{lr}-seed{seed}"}

    records = [record(run=at(lr, seed), metrics=fid(lr * 1e4)) for lr in (1e-4, 2e-4) for seed in (0, 1)]
    board = rank(records)
    assert [(row.label, row.tried, row.seeds) for row in board.rows] == [
        ("DCGAN (lr=0.0001)", 2, (0, 1)),
        ("DCGAN (lr=0.0002)", 2, (0, 1)),
    ]
    tried = next(column for column in columns(board) if column.name == "tried")
    assert tried.cells == ["2", "2"]


def test_a_board_of_likelihoods_says_of_which_pixels():
    nats = {"nats": entry("nats", -80.0)}
    of = protocol(pixels="binary", reference={"hash": "ab" * 16, "images": 10000, "shape": [1, 28, 28]})
    (board,) = boards([record(metrics=nats, protocol=of)], track="likelihood")
    assert "of binary pixels, 28×28×1" in heading(board)[1]
    own = {"nats-8x8x1": entry("nats-8x8x1", -80.0)}
    (board,) = boards([record(metrics=own, protocol=of | {"pixels": "8-bit"})], track="likelihood")
    assert "of 8-bit pixels," in heading(board)[1] and "28×28" not in heading(board)[1]


def test_a_column_without_a_number_is_left_out_first():
    (board,) = boards([record(metrics=fid(3.0) | {"kid": entry("kid", None, note="few")})], track="generation")
    priority = {column.name: column.priority for column in columns(board)}
    assert max(priority, key=priority.__getitem__).startswith("kid")
