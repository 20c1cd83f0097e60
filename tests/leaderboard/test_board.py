"""Boards rank what may be compared, and refuse the rest."""

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from scipy.special import expit, logit

from genbench.core.errors import UserError
from genbench.leaderboard.board import boards, rank
from genbench.leaderboard.columns import bound_sign, columns
from genbench.leaderboard.differences import difference
from genbench.leaderboard.formats import heading, notes, with_namesakes
from genbench.leaderboard.intervals import interval, t_quantile
from genbench.leaderboard.record import Record
from tests.helpers.records import entry, many, protocol, record


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
    expected = scipy.stats.t.interval(0.95, 3, loc=math.log(mean), scale=std / 2 / mean)
    assert (score.mean, score.std) == pytest.approx((mean, std))
    assert (score.low, score.high) == pytest.approx(tuple(np.exp(expected)))
    assert row.seeds == (0, 1, 2, 3) and score.seeds == 4


def of_the_mean(values, scale=lambda x: x, slope=1.0, back=lambda x: x):
    """Student's interval of the mean on another scale, by SciPy and the delta method."""
    mean, error = np.mean(values), scipy.stats.sem(values)
    return tuple(map(back, scipy.stats.t.interval(0.95, len(values) - 1, scale(mean), slope * error)))


@pytest.mark.parametrize("values", [[2.0, 3.5, 9.0], [0.25, 0.5, 0.5, 0.75], [1e-6, 0.125, 0.9375, 0.25, 0.5]])
def test_an_interval_is_that_of_scipy_on_the_scale_of_the_score(values):
    m = np.mean(values)
    assert interval(values, None, None) == pytest.approx(of_the_mean(values))
    assert interval(values, 0, None) == pytest.approx(of_the_mean(values, np.log, 1 / m, np.exp))
    by_log = of_the_mean(values, lambda x: -np.log(10 - x), 1 / (10 - m), lambda y: 10 - np.exp(-y))
    assert interval(values, None, 10) == pytest.approx(by_log)
    p = m / 10
    by_logit = of_the_mean(values, lambda x: logit(x / 10), 1 / (10 * p * (1 - p)), lambda y: 10 * expit(y))
    assert interval(values, 0, 10) == pytest.approx(by_logit)
    shifted = interval([v - 1 for v in values], -1, 9)
    assert shifted == pytest.approx([end - 1 for end in interval(values, 0, 10)])


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([87.0, 206.0, 421.0], 0, None),  # Student's own: -182 to 658
        ([0.0, 0.0, 1e-9], 0, None),
        ([1.0, 1.0, 0.98], 0, 1),
        ([0.0, 0.0, 1.0], 0, 1),
        ([1.0, 1.5, 1.0], 1, None),
        ([-1.0, 1.0, 0.999], -1, 1),
        ([0.999999, 1.0, 1.0, 1.0], 0, 1),
    ],
)
def test_an_interval_holds_the_mean_and_stays_within_the_range_with_values_on_a_bound(values, low, high):
    left, right = interval(values, low, high)
    assert low < left < np.mean(values) < right and (high is None or right < high)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([3.0], 0, None),
        ([3.0, 4.0], 0, None),
        ([1.0, 1.0, 1.0], 0, 1),
        ([0.0, 0.0, 0.0, 0.0], 0, None),
        ([0.1, 0.1, 0.1], 0, 1),  # whose sum is no multiple of 0.1
        ([1.0, 1.0, 1 - 2**-53], 0, 1),  # whose mean rounds to the bound
    ],
)
def test_there_is_no_interval_below_three_seeds_and_none_of_equal_values(values, low, high):
    assert interval(values, low, high) is None
    records = [record(run={"seed": k}, metrics=fid(v, low=low, high=high)) for k, v in enumerate(values)]
    score = rank(records).rows[0].scores["fid"]
    assert (score.low, score.high) == (None, None)
    assert (score.std == 0) == (len(values) > 1 and len(set(values)) == 1)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_of_many_intervals_near_95_percent_hold_the_mean_of_the_distribution(n):
    draw, times = np.random.default_rng(0), 3000
    cases = {
        "fid": (draw.normal(10, 2, (times, n)), 10, 0, None),
        "fid, skewed": (draw.lognormal(0, 0.3, (times, n)), math.exp(0.045), 0, None),
        "accuracy": (draw.beta(95, 5, (times, n)), 0.95, 0, 1),
        "ssim": (2 * draw.beta(2, 2, (times, n)) - 1, 0, -1, 1),
        "kid": (draw.normal(0, 1, (times, n)), 0, None, None),
    }
    for name, (values, mean, low, high) in cases.items():
        ends = np.array([interval(some, low, high) for some in values.tolist()])
        held = np.mean((ends[:, 0] <= mean) & (mean <= ends[:, 1]))
        assert held == pytest.approx(0.95, abs=0.015), name  # three standard errors and a little


def test_one_seed_has_no_deviation_and_no_interval():
    score = rank([record(metrics=fid(3.0, std=0.25))]).rows[0].scores["fid"]
    assert (score.mean, score.std, score.low, score.high, score.within) == (3.0, None, None, None, 0.25)


def test_checkpoints_weights_sampling_options_and_images_seen_make_separate_rows():
    runs = (
        {}, {"checkpoint": "best"}, {"weights": "raw"}, {"sampling": {"steps": 9}}, {"images_seen": 5},
        {"weights": "ema 0.05"}, {"weights": "ema 0.1"},
    )  # fmt: skip
    board = rank([record(run=run, metrics=fid(k)) for k, run in enumerate(runs)])
    assert [row.rank for row in board.rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row.checkpoint for row in board.rows] == ["last", "best", *["last"] * 5]
    cells = ["last", "best", "last (raw)", "last", "last", "last (ema 0.05)", "last (ema 0.1)"]
    assert columns(board)[2].cells == cells


def test_labels_have_the_options_that_differ_and_no_empty_ones():
    plain, guided = {"guidance": 1.0, "guide": ""}, {"guidance": 2.0, "guide": "runs/weak"}
    board = rank([record("EDM", run={"sampling": one}, metrics=fid(k)) for k, one in enumerate((plain, guided))])
    assert [row.label for row in board.rows] == ["EDM (guidance=1.0)", "EDM (guidance=2.0, guide=runs/weak)"]


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


def test_a_model_is_on_the_tracks_of_its_capabilities():
    records = [record("GAN", metrics=fid(3.0)), record("VAE", metrics=fid(4.0) | fid(-97.0, "nats"))]
    found = {board.track: [row.name for row in board.rows] for board in boards(records)}
    assert found == {"generation": ["GAN", "VAE"], "likelihood": ["VAE"]}


def test_the_baseline_comes_last_and_has_no_rank():
    board = rank([record("real", "baseline", metrics=fid(0.1)), record(metrics=fid(3.0))])
    assert [(row.kind, row.rank) for row in board.rows] == [("model", 1), ("baseline", None)]


def test_images_are_ranked_among_models():
    board = rank([record("theirs", "images", metrics=fid(1.0)), record(metrics=fid(3.0))])
    assert [(row.name, row.rank, row.images_seen) for row in board.rows] == [("theirs", 1, None), ("DCGAN", 2, 1000000)]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"name": "fid50k-train", "split": "train"},
            r"together: fid10k-test on MNIST, fid50k-train .* split \(test, train\)",
        ),
        ({"images": 50000}, r"images \(10,000, 50,000\)"),
        ({"extractor": {"name": "inception", "hash": "e0" * 8}}, r"differ in extractor.name \(mnistnet, inception\)\."),
        ({"pixels": {"crop": "center"}}, r"pixels.crop \(nothing, center\)"),
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


def test_a_model_of_an_unknown_run_has_blanks():
    (row,) = rank([replace(record(), run=None, training=None)]).rows
    assert (row.rank, row.seeds, row.checkpoint, row.images_seen) == (1, (), None, None)


def test_fid_finds_the_only_metric_that_begins_so_and_two_are_an_error():
    one = [record(metrics=fid(3.0, "fid-mnistnet"))]
    assert rank(one, "fid").by == boards(one, "fid")[0].by == "fid-mnistnet"
    two = [record(metrics=fid(3.0, "fid-mnistnet") | fid(2.0, "fid-dinov2"))]
    with pytest.raises(UserError, match="several metrics of one table: fid-mnistnet, fid-dinov2"):
        boards(two, "fid")
    assert rank([record(metrics=fid(3.0) | fid(2.0, "fid-dinov2"))], "fid").by == "fid"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"by": "fud"}, "Unknown metric 'fud'. Choose from: fid, is, mse. Did you mean 'fid'?"),
        ({"by": "nearest_train"}, "lower or higher is better, so it cannot rank rows. Choose from: fid, is."),
        ({"data": "MINST"}, "data set 'MINST'. Choose from: MNIST."),
        ({"protocol": "x"}, "protocol 'x'. Choose from: fid10k-test."),
        ({"track": "x"}, "track 'x'. Choose from: generation, reconstruction."),
    ],
)
def test_an_unknown_name_is_an_error_with_the_known_names(asked, message):
    metrics = fid(1.0) | fid(2.0, "is") | fid(3.0, "nearest_train") | fid(0.1, "mse")
    asked = {"protocols": [asked["protocol"]]} if "protocol" in asked else asked
    with pytest.raises(UserError) as error:
        boards([record(metrics=metrics)], **asked)
    assert message in str(error.value)


def test_leaderboards_without_the_ranking_metric_are_omitted():
    records = [record("VAE", metrics=fid(4.0) | fid(-97.0, "nats"))]
    assert [board.track for board in boards(records, "nats")] == ["likelihood"]


def test_rows_of_one_name_are_distinguished_by_runs_and_options():
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


def test_rows_of_a_grid_are_distinguished_by_the_varied_settings_and_count_the_tried_ones():
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


def titles(*records):
    return [heading(board, namesakes)[0] for board, namesakes in with_namesakes(boards(records))]


def of(protocol, **arguments):
    return replace(record(protocol=protocol), data={"name": "MNIST", "arguments": arguments})


def test_titles_have_the_fewest_settings_that_distinguish_boards_of_one_name():
    one, two, three = (protocol(reference={"hash": str(k) * 16, "shape": [3, 32, 32]}) for k in (1, 2, 3))
    found = titles(of(one, task="denoise", size=32), of(two, task="deblur", size=32, val_size=9), of(three, size=32))
    assert {title.partition(" · ")[0] for title in found} == {
        "MNIST (task=denoise)", "MNIST (task=deblur)", "MNIST (task=default)"
    }  # fmt: skip
    found = titles(of(one, a=1, b=1), of(two, a=1, b=2), of(three, a=2, b=2))
    assert {title.partition(" · ")[0] for title in found} == {
        "MNIST (a=1, b=1)",
        "MNIST (a=1, b=2)",
        "MNIST (a=2, b=2)",
    }
    large = protocol(reference={"hash": "4" * 16, "shape": [3, 64, 48]})
    assert {title.partition(" · ")[0] for title in titles(of(one), of(large, size=64))} == {
        "MNIST (reference.shape=32×32×3)", "MNIST (reference.shape=48×64×3)"
    }  # fmt: skip
    assert titles(of(one, task="denoise")) == ["MNIST · fid10k-test · generation"]


def test_a_setting_that_differs_within_a_board_does_not_distinguish_it():
    one, two = (protocol(reference={"hash": str(k) * 16}) for k in (1, 2))
    mixed = [of(one, workers=1), replace(of(one, workers=2), model=record("VAE").model), of(two, workers=3)]
    assert sorted(titles(*mixed)) == sorted(f"MNIST · fid10k-test [{p['key']}] · generation" for p in (one, two))


def test_a_board_of_likelihoods_has_the_kind_of_pixels():
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


def costs(*records):
    """Cells of the columns of the sampling cost."""
    return {c.name: c.cells for c in columns(rank(records)) if c.name in ("NFE", "sampling s/image")}


def test_sampling_cost_is_beside_the_scores_and_a_record_without_it_is_ranked_with_a_blank():
    made = [
        record("GAN", metrics=fid(1.0), evaluations=1, seconds=0.00025),
        record("PixelCNN", metrics=fid(2.0), evaluations=1024, seconds=1.5),
        record("EDM", metrics=fid(3.0), evaluations=17.5, seconds=0.0625),
        replace(record("old", metrics=fid(4.0)), cost={}),
    ]
    assert costs(*made) == {
        "NFE": ["1", "1,024", "17.5", "—"],
        "sampling s/image": ["0.00025", "1.5", "0.0625", "—"],
    }
    assert [row.rank for row in rank(made).rows] == [1, 2, 3, 4]
    assert costs(made[3]) == {}
    (likelihood,) = (b for b in boards([record(metrics=fid(-9.0, "nats"), evaluations=1)]) if b.track == "likelihood")
    assert "NFE" not in [column.name for column in columns(likelihood)]
    speed = made[0].to_dict() | {"cost": {"sampling_images_per_second": 160.0}}
    assert costs(Record.from_dict(speed)) == {"sampling s/image": ["0.00625"]}


def test_seconds_are_averaged_over_one_kind_of_device_and_evaluations_over_all_seeds():
    made = [record(run={"seed": k}, evaluations=10 + k, seconds=1.0 + k) for k in range(3)]
    made[0] = replace(made[0], environment={"device": "H100", "world_size": 1}, created="2026-01-01")
    assert costs(*made) == {"NFE": ["11"], "sampling s/image": ["2.5"]}


def checkpoints(*seeds, **more):
    """Best and last of each seed: (images, hash, score) of the one and of the other."""
    found = []
    for seed, both in enumerate(seeds):
        for checkpoint, (images, digest, value) in zip(("last", "best"), reversed(both), strict=True):
            run = {"seed": seed, "checkpoint": checkpoint, "images_seen": images, "checkpoint_hash": digest}
            found.append(record(run=run | more, metrics=fid(value)))
    return found


SAME, AGAIN = ((9, "a", 2.0), (9, "a", 2.0)), ((9, "b", 3.0), (9, "c", 3.0))  # one file; one moment, saved twice
OTHER = ((5, "d", 2.5), (9, "e", 3.5))


def test_equal_best_and_last_checkpoints_share_one_row_and_rank():
    board = rank([*checkpoints(SAME, AGAIN), record("VAE", metrics=fid(4.0))])
    assert [(row.name, row.checkpoint, row.rank) for row in board.rows] == [
        ("DCGAN", "best = last", 1),
        ("VAE", "last", 2),
    ]
    row = board.rows[0]
    assert (row.seeds, row.images_seen, row.scores["fid"].mean, row.scores["fid"].seeds) == ((0, 1), 9, 2.5, 2)
    assert [[r.run["checkpoint"] for r in seed] for seed in row.records] == [["best", "last"]] * 2


def test_best_and_last_are_two_rows_as_soon_as_they_differ_for_one_seed():
    rows = rank(checkpoints(SAME, OTHER)).rows
    assert [(row.checkpoint, row.scores["fid"].mean) for row in rows] == [("best", 2.25), ("last", 2.75)]
    without = [r for r in checkpoints(SAME, AGAIN) if (r.run["seed"], r.run["checkpoint"]) != (1, "last")]
    assert [row.checkpoint for row in rank(without).rows] == ["last", "best"]  # of seed 1 nobody knows


def test_another_score_or_moment_is_another_state():
    for best, last in (((9, "a", 2.0), (9, "b", 2.5)), ((8, "a", 2.0), (9, "b", 2.0))):
        assert len(rank(checkpoints((best, last))).rows) == 2
    unknown = checkpoints(((9, "a", None), (9, "b", None)))  # without scores nothing says that they are the same
    assert len(rank([*unknown, record("VAE", metrics=fid(1.0))]).rows) == 3


def test_a_kept_checkpoint_that_is_the_best_says_so():
    kept = record(run={"checkpoint": "0000000009", "images_seen": 9, "checkpoint_hash": "a"}, metrics=fid(2.0))
    assert [row.checkpoint for row in rank([kept, *checkpoints(SAME)]).rows] == ["best = last = 0000000009"]


def test_the_newer_of_two_records_of_the_same_weights_counts():
    best, last = checkpoints(SAME)
    newer = replace(best, created="2026-11-24T12:00:00+00:00", metrics=fid(2.125))
    (row,) = rank([newer, last]).rows
    assert row.scores["fid"].mean == 2.125 and row.records[0][0] is newer


LOWER = [
    {"from": 0, "to": 50_000, "changed": {}},
    {"from": 50_000, "to": None, "changed": {"model.optimizer.lr": [0.001, 1e-05], "data.batch_size": [64, 1024]}},
]


def test_runs_with_different_histories_of_settings_are_separate_rows():
    earlier = [LOWER[0] | {"to": 20_000}, LOWER[1] | {"from": 20_000}]
    plain = [{"from": 0, "to": 50_000, "changed": {}}, {"from": 50_000, "to": None, "changed": {}}]
    histories = [None, [], plain[:1], plain, LOWER, LOWER, earlier]
    records = [
        record(run={"seed": k, "segments": segments}, metrics=fid(k + 1.0)) for k, segments in enumerate(histories)
    ]
    rows = rank(records).rows
    assert [row.seeds for row in rows] == [(0, 1, 2, 3), (4, 5), (6,)]
    assert [len(row.segments) for row in rows] == [0, 2, 2]
    labels = [row.label for row in rows]
    assert labels[0] == "DCGAN" and all(label.startswith("DCGAN (2 segments [") for label in labels[1:])
    assert len(set(labels)) == 3
    ended = [LOWER[0], LOWER[1] | {"to": 90_000}]  # the same history, of a later checkpoint
    assert records[4].identity == record(run={"seed": 4, "segments": ended}).identity


def test_a_row_of_several_segments_says_what_was_changed_and_when():
    board = rank([record(run={"segments": LOWER}, metrics=fid(2.0)), record("VAE", metrics=fid(3.0))])
    assert board.rows[0].label == "DCGAN (2 segments)"
    said = "DCGAN (2 segments): model.optimizer.lr 0.001 -> 1e-05, data.batch_size 64 -> 1,024 from 50,000 images"
    assert notes(board) == [said]


def test_the_ranking_score_is_the_first_column():
    metrics = fid(1.0) | fid(2.0, "kid") | fid(3.0, "is")
    names = [column.name for column in columns(rank([record(metrics=metrics)], "is"))]
    assert names[:7] == ["rank", "model", "checkpoint", "seeds", "is ↑", "fid ↓", "kid ↓"]


@pytest.mark.parametrize(
    ("bound", "sign"),
    [
        ("lower bound, 10 time steps", "≥ "),
        ("exact", ""),
        ("exact, 0 probes, 1e-05 tolerance", ""),
        ("estimate, 2 probes", ""),
        (None, ""),
    ],
)
def test_only_bounds_have_a_sign(bound, sign):
    assert bound_sign("higher", bound) == sign
