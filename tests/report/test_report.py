"""The page: one file, the same for the same records, that shows every text as text."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from genbench.core.errors import UserError
from genbench.leaderboard.record import located, write
from genbench.report.page import report
from tests.helpers.records import entry, many, protocol, record
from tests.helpers.run_folders import SHEETS, leave

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`&amp;{{7*7}}\u2028<!--"


class Page(HTMLParser):
    """Elements with their attributes, scripts, and all text that is shown."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.scripts, self.text, self._inside = [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text.append(data)

    @property
    def shown(self):
        return " ".join(self.text)

    @property
    def data(self):
        return json.loads(self.scripts[0])


def page(*records, folder=None, **more):
    """The page of records that lie nowhere, or in a folder with what `leave` makes beside them."""
    if folder is None:
        return report([(made, Path(f"runs/{k}/records/{k}.json")) for k, made in enumerate(records)]).html
    for made in records:
        leave(made, folder, **more)
    return report(located([folder])[0]).html


def cells(html, column):
    """Of the first board what a column sorts by, baseline included."""
    found = Page(html)
    columns = [a["title"].removeprefix("Sort by ") for t, a in found.elements if t == "button" and "title" in a]
    values = [a["data-sort"] for t, a in found.elements if "data-sort" in a]
    return values[columns.index(column) :: len(columns)]


def test_every_board_is_there_with_its_heading_notes_and_baseline():
    found = Page(page(*many(10, 2, 2)))
    headings = [text for text in found.text if " · fid" in text and text.count("·") == 2]
    for name in ("fid10k-test", "fid1k-val"):
        for track in ("generation", "reconstruction", "likelihood"):
            assert f"MNIST · {name} · {track}" in headings
    assert "— fid-mnistnet: needs 2,048 images, got 1,000" in found.shown
    assert [a for t, a in found.elements if t == "tbody" and a.get("class") == "baseline"]
    assert "10 models, 20 runs" in found.shown


def test_cells_are_sorted_by_the_numbers_that_they_round():
    values = (3.0, 3.123456789, 3.0625)
    records = [record(run={"seed": k}, metrics={"fid": entry("fid", v)}) for k, v in enumerate(values)]
    html = page(*records, record("real", "baseline", metrics={"fid": entry("fid", 0.5)}))
    assert cells(html, "fid ↓") == [repr(sum(values) / 3), "0.5"]
    assert cells(html, "parameters") == ["1230000.0", ""] and cells(html, "updates") == ["15600.0", ""]
    assert cells(html, "model") == ["DCGAN", "real"] and cells(html, "rank") == ["1.0", ""]
    assert "standard deviation 0.06173 over 3 seeds, 95% interval of the mean 2.9" in html
    assert "95% interval" not in page(*records[:2])


def test_best_values_are_marked_and_the_baseline_never_is():
    html = page(record("a", metrics={"fid": entry("fid", 1.0)}), record("b", metrics={"fid": entry("fid", 2.0)}),
                record("real", "baseline", metrics={"fid": entry("fid", 0.1)}))  # fmt: skip
    marked = [a["data-sort"] for _, a in Page(html).elements if "best" in a.get("class", "").split()]
    assert marked == ["1.0"]


def evil(where):
    """A record with that text in one place."""
    made = record(metrics={"fid": entry("fid", 3.0)})
    if where == "metric":
        return replace(made, metrics={EVIL: entry("fid", 3.0)})
    if where == "note":
        return replace(made, metrics={"fid": entry("fid", None, note=EVIL), "is": entry("is", 2.0)})
    if where == "track":
        return replace(made, metrics={"fid": entry("fid", 3.0) | {"track": EVIL}})
    if where == "protocol":
        return replace(made, protocol=protocol(EVIL, **{EVIL: EVIL}))
    if where == "extractor":
        return replace(made, protocol=protocol(extractor={"name": EVIL}))
    if where == "segments":
        segments = [{"from": 0, "to": 1, "changed": {}}, {"from": 1, "to": None, "changed": {EVIL: [EVIL, {EVIL: 1}]}}]
        return replace(made, run=made.run | {"segments": segments})
    place = {
        "model": ("model", {"name": EVIL}), "data": ("data", {"name": EVIL}), "run": ("run", {"name": EVIL}),
        "checkpoint": ("run", {"checkpoint": EVIL}), "weights": ("run", {"weights": EVIL}),
        "command": ("run", {"command": EVIL}), "config": ("run", {"config": {EVIL: {"value": [EVIL]}}}),
        "sampling": ("run", {"sampling": {EVIL: EVIL}}), "players": ("run", {"updates": {EVIL: 3, "b": 4}}),
        "training": ("training", {"device": EVIL, EVIL: EVIL}), "cost": ("cost", {EVIL: EVIL}),
        "environment": ("environment", {"device": EVIL, EVIL: EVIL}),
    }  # fmt: skip
    name, values = place[where]
    return replace(made, **{name: getattr(made, name) | values})


PLACES = ("metric", "note", "track", "protocol", "extractor", "model", "data", "run", "checkpoint", "weights",
          "command", "config", "sampling", "players", "training", "cost", "environment", "segments")  # fmt: skip


@pytest.mark.parametrize("where", PLACES)
def test_text_that_is_html_is_shown_as_text(where):
    other = record("other", run={"sampling": {}}, metrics={"fid": entry("fid", 4.0)})
    harmless, found = Page(page(record(metrics={"fid": entry("fid", 3.0)}), other)), Page(page(evil(where), other))
    assert len(found.scripts) == len(harmless.scripts) == 3
    assert found.scripts[1:] == harmless.scripts[1:] and found.data
    kinds = [{tag for tag, _ in p.elements} - {"h3", "option"} for p in (found, harmless)]
    assert kinds[0] <= kinds[1] | {"pre"} and not [a for _, a in found.elements if any(n.startswith("on") for n in a)]
    assert "alert(1)" in found.shown and "{{7*7}}" in found.shown


def test_a_curve_and_a_file_named_like_html_are_text_too(tmp_path):
    run = {"name": "<b>bold<"}
    path = leave(record(run=run), tmp_path / "runs")
    (path.parents[1] / "metrics.csv").write_text("images_seen,a/</script><script>\n1,2\n2,3\n")
    found = Page(report(located([tmp_path])[0]).html)
    assert len(found.scripts) == 3 and found.data["runs"][0]["series"] == {"a/</script><script>": [0, [2, 3]]}


def test_nothing_is_loaded_from_the_network(tmp_path):
    html = page(*many(4, 2, 1), folder=tmp_path, curve=20, kinds=tuple(SHEETS))
    for tag, attributes in Page(html).elements:
        assert tag not in ("iframe", "object", "embed", "base", "audio", "video", "form"), tag
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    style = re.search(r"<style>(.*?)</style>", html, re.S)[1]
    assert "url(" not in style and "@import" not in style
    (policy,) = [a["content"] for _, a in Page(html).elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "http" not in policy


def test_the_same_records_give_the_same_bytes(tmp_path):
    first = page(*many(4, 2, 1), folder=tmp_path, curve=20, kinds=tuple(SHEETS))
    assert report(located([tmp_path])[0]).html == first


def test_every_run_is_shown_once_with_command_config_costs_and_versions():
    records = [
        record(run={"checkpoint": c, "command": "python -m genbench fit --name 'a b'"}) for c in ("best", "last")
    ]
    html = page(*records, record("VAE"), record("real", "baseline"))
    found = Page(html)
    ids = [a["id"] for t, a in found.elements if a.get("class") == "run"]
    assert ids == ["run-0", "run-1", "run-2"]
    assert {a["href"] for t, a in found.elements if t == "a"} >= {f"#{name}" for name in ids}
    assert "python -m genbench fit --name 'a b'" in found.shown and "class_path: genbench.models.DCGAN" in found.shown
    for text in ("277.2", "python", "3.11.7", "device_hours", "evaluation_seconds", "fid10k-test, best at 1,000,000"):
        assert text in found.shown, text


def test_a_line_joins_rows_that_differ_in_the_number_of_steps_alone():
    def of(model="EDM", checkpoint="best", seed=0, seconds=0.1, **sampling):
        run = {"checkpoint": checkpoint, "seed": seed, "sampling": sampling, "images_seen": 1000 + seed}
        return record(model, run=run, evaluations=sampling.get("steps"), seconds=seconds)

    steps = [of(steps=n, guidance=2.0, seconds=n / 100, seed=seed) for n in (5, 10, 25) for seed in (0, 1)][:-1]
    others = [
        of(steps=5, guidance=1.0), of(steps=5, guidance=2.0, sampler="heun"), of("DDPM", steps=5, guidance=2.0),
        of(checkpoint="last", steps=5, guidance=2.0), of(checkpoint="last", steps=5, guidance=2.0, seed=1),
    ]  # fmt: skip
    points = Page(page(*steps, *others)).data["boards"][0]["points"]
    lines = {}
    for point in points:
        lines.setdefault(point["line"], []).append((point["evaluations"], point["seconds"]))
    assert sorted(map(len, lines.values())) == [1, 1, 1, 1, 1, 3]
    assert sorted(max(lines.values(), key=len)) == [(5, 0.05), (10, 0.1), (25, 0.25)]


def test_sampling_time_is_charted_for_generation_alone():
    made = record(metrics={"fid-mnistnet": entry("fid", 3.0), "nats": entry("nats", -80.0)}, seconds=0.5)
    by_track = {board["by"]: board["points"][0]["seconds"] for board in Page(page(made)).data["boards"]}
    assert by_track == {"fid-mnistnet": 0.5, "nats": None}


def test_curves_come_from_the_runs_and_may_be_missing(tmp_path):
    leave(record(run={"name": "a"}), tmp_path, curve=30)
    leave(record("VAE", run={"name": "b"}), tmp_path)
    leave(record("theirs", "images"), tmp_path)
    made = report(located([tmp_path])[0])
    runs = {run["name"]: run for run in Page(made.html).data["runs"]}
    assert {name for name, run in runs.items() if run["series"]} == {"a"} and made.skipped == []
    assert {"generator/adversarial", "val/fid-mnistnet"} < runs["a"]["series"].keys()
    at, values = runs["a"]["series"]["val/fid-mnistnet"]
    assert runs["a"]["at"][at] == [20000, 40000, 60000] and len(values) == 3


def test_images_of_the_first_seed_are_side_by_side_by_protocol(tmp_path):
    for name in ("DCGAN", "VAE"):
        for seed in (1, 0):
            for checkpoint in ("best", "last"):
                run = {"seed": seed, "checkpoint": checkpoint, "name": f"{name}-{seed}"}
                scores = {"fid": entry("fid", 1 + seed + 0.25 * (checkpoint == "last") + 9 * (name == "VAE"))}
                kinds = ("samples",) if name == "DCGAN" else tuple(SHEETS)
                leave(record(name, run=run, metrics=scores), tmp_path, kinds=kinds, size=8)
    found = Page(report(located([tmp_path])[0]).html)
    pictures = [a["alt"] for t, a in found.elements if t == "img"]
    assert sorted(pictures[:4]) == [f"Samples of {n}, {c} · seed 0" for n in ("DCGAN", "VAE") for c in ("best", "last")]
    assert pictures[4:] == [
        f"{kind} of VAE, {c} · seed 0"
        for kind in ("Nearest training images", "Reconstructions") for c in ("best", "last")
    ]  # fmt: skip
    assert [a.get("data-of") for t, a in found.elements if t == "figure" and "data-find" in a] == ["best", "last"] * 4


def test_a_caption_has_the_score_of_the_shown_seed_and_the_mean(tmp_path):
    for seed, (fid, mse) in enumerate(((2.0, 0.25), (3.0, 0.75))):
        scores = {"fid": entry("fid", fid), "mse": entry("mse", mse), "psnr": entry("psnr", 9.0)}
        run = {"seed": seed, "checkpoint": "best"}
        leave(record(run=run, metrics=scores), tmp_path, kinds=("samples", "reconstructions"), size=8)
    leave(record("VAE", metrics={"fid": entry("fid", 4.0)}), tmp_path, kinds=("samples",), size=8)
    html = report(located([tmp_path])[0]).html
    below = [" ".join(re.sub("<[^>]*>", " ", text).split()) for text in re.findall("<figcaption>(<b>.*?)</fig", html)]
    assert below == [
        "DCGAN best · seed 0 fid 2 (mean of 2 seeds: 2.5)",
        "VAE last · seed 0 fid 4",
        "DCGAN best · seed 0 mse 0.25 (mean of 2 seeds: 0.5)",
    ]


def test_a_shown_checkpoint_without_the_score_has_none(tmp_path):
    for seed, value in enumerate((None, 3.0)):
        scores = {"fid": entry("fid", value), "is": entry("is", 2.0)}
        leave(record(run={"seed": seed}, metrics=scores), tmp_path, kinds=("samples",), size=8)
    html = report(located([tmp_path])[0]).html
    assert re.search("<figcaption>(<b>.*?)</fig", html)[1] == "<b>DCGAN</b> last · seed 0"


def test_the_picture_of_a_checkpoint_that_is_best_and_last_is_shown_once_and_always(tmp_path):
    for checkpoint in ("best", "last"):
        run = {"checkpoint": checkpoint, "checkpoint_hash": "same"}
        leave(record(run=run), tmp_path, kinds=("samples",) if checkpoint == "best" else (), size=8)
    found = Page(report(located([tmp_path])[0]).html)
    assert [a["alt"] for t, a in found.elements if t == "img"] == ["Samples of DCGAN, best = last · seed 0"]
    assert [a.get("data-of") for t, a in found.elements if t == "figure" and "data-find" in a] == [None]
    assert "have no images" not in found.shown


def test_a_resumed_run_says_which_settings_were_changed_and_when():
    segments = [{"from": 0, "to": 5000, "changed": {}}, {"from": 5000, "to": None, "changed": {"a.lr": [0.5, "<b>"]}}]
    found = Page(page(record(run={"segments": segments}), record("VAE")))
    assert found.text.count("Settings changed on resume") == 1
    assert found.shown.count("a.lr 0.5 -> <b> from 5,000 images") == 2  # below the board, and at the run
    assert found.shown.count("DCGAN (2 segments)") == 3


def test_a_picture_or_curve_that_cannot_be_read_is_named_and_the_page_is_made(tmp_path):
    path = leave(record(), tmp_path, kinds=("samples", "neighbors"), size=8)
    picture = path.with_suffix("") / "samples.png"
    picture.write_bytes(picture.read_bytes()[:200])
    (path.with_suffix("") / "neighbors.png").write_text("<svg onload=alert(1)>")
    (path.parents[1] / "metrics.csv").write_text('images_seen,a/b\n1,"' + "x" * 200_000 + "\n")
    made = report(located([tmp_path])[0])
    assert {p.name for p, _ in made.skipped} == {"samples.png", "neighbors.png", "metrics.csv"}
    assert "<img" not in made.html and "1 of 1 rows have no images" in made.html


def test_records_and_protocols_of_one_name_are_separate():
    config = {"config_hash": "b" * 16}
    found = Page(page(record(), record(run=config | {"name": "wide"}), record(protocol=protocol(seed=1))))
    assert "DCGAN (wide)" in found.text and "DCGAN (dcgan-mnist)" in found.text
    assert "2 protocols have this name; they differ in seed (0, 1)" in found.shown


def test_images_of_protocols_of_one_name_are_separate(tmp_path):
    two = [record(), record(protocol=protocol(seed=1))]
    for one in two:
        leave(one, tmp_path, kinds=("samples",), size=8)
    html = report(located([tmp_path])[0]).html
    headings = [f"MNIST (seed={k}) · fid10k-test [{one.protocol['key']}]" for k, one in enumerate(two)]
    assert all(f"<h3>{heading}</h3>" in html for heading in headings)
    titles = [board["title"] for board in Page(html).data["boards"]]  # as the charts offer them
    assert sorted(titles) == [f"{heading} · generation" for heading in headings]


def test_unusual_records_are_shown(tmp_path):
    found = page(replace(record(), run=None, training=None), record("theirs", "images"),
                 record("VAE", metrics={"fid": entry("fid", None, note="too few")}))  # fmt: skip
    assert "theirs" in found and "too few" in found
    half = json.loads(json.dumps("half of a character \ud800"))
    write(record(run={"config": {"name": half}}), tmp_path / "records")
    report(located([tmp_path])[0]).html.encode("utf-8", "replace")


def test_records_without_scores_are_an_error():
    with pytest.raises(UserError, match="The records contain no scores"):
        page(replace(record(), metrics={}))
