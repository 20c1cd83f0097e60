"""The page in a browser, opened from disk: it works, and nothing that a record says runs."""

import io
import json
import time
from dataclasses import replace

import pytest
from PIL import Image

from genbench.leaderboard.record import located, write
from genbench.report.page import report
from tests.helpers.browser import lacking, opened
from tests.helpers.records import entry, many, protocol, record
from tests.helpers.run_folders import SHEETS, leave

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(lacking()), reason=f"needs {lacking()} (apt-get install chromium chromium-driver)"),
]
EVIL = '</script><script>window.ran = 1</script><img src=x onerror="window.ran = 2"><a href="javascript:ran=3">x</a>'


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    records = many(10, 2, 1)
    records += [r for r in many(10, 3, 1) if r.run and r.run["name"] == "stylegan2-2"]  # so that it has an interval
    for k, made in enumerate(records):
        kinds = tuple(SHEETS) if "mse" in made.metrics else ("samples", "neighbors")
        leave(made, folder / "runs", curve=40, kinds=kinds if made.run else (), size=16, channels=1 + 2 * (k % 2))
    pairs = {"data": "Pairs", "metrics": {"translation_mse": entry("mse", 0.0335, track="translation")}}
    of = [protocol(reference={"hash": str(k) * 16}) for k in range(2)]
    for task, used in zip(("denoise", "super_resolve_4"), of, strict=True):
        made = record("UNet", run={"name": task}, protocol=used, **pairs)
        leave(
            replace(made, data=made.data | {"arguments": {"task": task}}), folder / "runs", kinds=("samples",), size=16
        )
    text = {"name": EVIL, "config": {EVIL: EVIL}, "command": EVIL}
    metrics = {"fid-mnistnet": entry("fid", 5.0, note=EVIL), "kid-mnistnet": entry("kid", None, note=EVIL)}
    bad = record(EVIL, run=text, metrics=metrics, protocol=records[0].protocol)
    bad = replace(bad, environment={"device": EVIL}, cost={EVIL: EVIL})
    path = leave(bad, folder / "runs", kinds=("samples",), size=16)
    (path.parents[1] / "metrics.csv").write_text(
        "images_seen,val/fid-mnistnet,a/<img src=x onerror=ran=4>\n1,2,3\n2,3,4\n"
    )
    (folder / "report.html").write_text(report(located([folder / "runs"])[0]).html)
    return folder / "report.html"


@pytest.fixture(scope="module")
def driver(page):
    with opened(page) as found:
        yield found


@pytest.fixture(autouse=True)
def silent(driver, page):
    """Loaded anew; no error on the console, no request beyond the file, and no script of a record's."""
    driver.get(page.as_uri())
    yield
    messages = [line for line in driver.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]
    assert not messages
    events = [json.loads(line["message"])["message"] for line in driver.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert all(url.startswith(("file://", "data:", "blob:", "chrome:", "about:")) for url in asked), asked
    assert driver.execute_script("return window.ran") is None


def column(driver, name, table=0):
    script = """const table = document.querySelectorAll('table')[arguments[0]];
    const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.replace('\\n', '') === arguments[1]);
    return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[at].dataset.sort);"""
    return driver.execute_script(script, table, name)


def click(driver, name, table=0):
    script = """const cells = [...document.querySelectorAll('table')[arguments[0]].tHead.rows[0].cells];
    const cell = cells.find((cell) => cell.textContent.replace('\\n', '') === arguments[1]);
    cell.firstElementChild.click(); return cell.getAttribute('aria-sort');"""
    return driver.execute_script(script, table, name)


def awaited(driver, script, *arguments):
    """What a script returns, once that is true: events of the page are handled a moment after what caused them."""
    for _ in range(100):
        if found := driver.execute_script(script, *arguments):
            return found
        time.sleep(0.1)
    raise TimeoutError(f"not true within 10 seconds: {script}")


def drawn(driver, name):
    """The traces of a chart, once it is scrolled to and drawn."""
    driver.execute_script("document.getElementById(arguments[0]).scrollIntoView()", name)
    script = """const chart = document.getElementById(arguments[0]);
    return chart.data && [chart.data.length, chart.layout.yaxis.title.text]"""
    return awaited(driver, script, name)


def choose(driver, name, value):
    script = (
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
    )
    driver.execute_script(script, name, value)


def test_a_header_sorts_by_number_best_first_and_then_the_other_way(driver):
    assert click(driver, "fid-mnistnet ↓") == "ascending"
    found = [float(v) for v in column(driver, "fid-mnistnet ↓")]
    assert found == sorted(found) and len(found) == 21
    assert click(driver, "fid-mnistnet ↓") == "descending"
    assert [float(v) for v in column(driver, "fid-mnistnet ↓")] == found[::-1]
    assert click(driver, "is-mnistnet ↑") == "descending"
    found = column(driver, "is-mnistnet ↑")
    assert found[-1] == "" and [float(v) for v in found[:-1]] == sorted(map(float, found[:-1]), reverse=True)
    assert click(driver, "model") == "ascending"
    assert column(driver, "model") == sorted(column(driver, "model"), key=str.lower)
    baseline = driver.execute_script(
        "return document.querySelector('tbody.baseline').previousElementSibling.rows.length"
    )
    assert baseline == 21  # which stays below


def test_a_header_is_reached_and_pressed_by_key(driver):
    from selenium.webdriver.common.keys import Keys

    button = driver.find_element("css selector", "thead button")
    button.send_keys(Keys.ENTER)
    assert button.find_element("xpath", "..").get_attribute("aria-sort") in ("ascending", "descending")


def test_the_filter_applies_to_all_sections(driver):
    from selenium.webdriver.common.keys import Keys

    box, count = (driver.find_element("id", name) for name in ("filter", "count"))
    box.send_keys("beta-vae BEST")
    assert column(driver, "model") == ["beta-VAE"] and count.text.startswith("3 of")  # on three tracks
    shown = "return [...document.querySelectorAll(arguments[0])].filter((e) => !e.hidden).map((e) => e.dataset.find)"
    for kind in (".gallery figure", "#boards tr[data-find]"):
        found = driver.execute_script(shown, kind)
        assert len(found) == 3 and all("beta-vae" in text and "best" in text for text in found)
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys("nothing like this")
    assert driver.execute_script("return [...document.querySelectorAll('.board')].every((e) => e.hidden)")
    box.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    assert len(column(driver, "model")) == 21 and count.text == ""


def test_charts_are_drawn_when_visible_and_follow_their_selectors(driver):
    assert drawn(driver, "by-time")[1] == "fid-mnistnet ↓" and drawn(driver, "by-size")[0] == 11
    choose(driver, "quality-metric", "is-mnistnet")
    assert drawn(driver, "by-time") == [10, "is-mnistnet ↑"]  # one model has no such score
    choose(driver, "quality-board", "1")
    assert drawn(driver, "by-size")[1] == "mse ↓"
    assert drawn(driver, "curves-chart") == [22, "val/fid-mnistnet"]
    choose(driver, "curves-metric", "generator/adversarial")
    assert drawn(driver, "curves-chart") == [21, "generator/adversarial"]
    choose(driver, "curves-metric", "a/<img src=x onerror=ran=4>")
    assert drawn(driver, "curves-chart") == [1, "a/&lt;img src=x onerror=ran=4&gt;"]
    text = driver.find_element("id", "curves-chart").text
    assert "a/<img src=x onerror=ran=4>" in text and "</script><script>window" in text
    driver.execute_script("document.getElementById('quality-log').click()")
    assert driver.execute_script("return document.getElementById('by-time').layout.yaxis.type") == "log"


def test_images_of_best_or_last_checkpoints_are_shown_at_a_chosen_size(driver):
    shown = "return [...document.querySelectorAll('#samples figure')].filter((e) => e.offsetParent)"
    shown += ".map((e) => e.dataset.of)"
    button = "document.querySelector('#samples button[data-{}=\"{}\"]').click()"
    assert {of for of in driver.execute_script(shown) if of} == {"best"}
    for checkpoint, expected in (("last", {"last"}), ("", {"best", "last"}), ("best", {"best"})):
        driver.execute_script(button.format("checkpoint", checkpoint))
        assert {of for of in driver.execute_script(shown) if of} == expected
    image = "const i = [...document.querySelectorAll('#samples img')].find((e) => e.offsetParent);"
    size = f"{image} return i.getBoundingClientRect().width"
    assert driver.execute_script(size) == 8 * 18 + 2
    driver.execute_script(button.format("zoom", 2))
    assert driver.execute_script(size) == 2 * (8 * 18 + 2)
    driver.execute_script(f"{image} i.scrollIntoView()")
    assert awaited(driver, f"{image} return i.naturalWidth") == 8 * 18 + 2
    assert driver.execute_script(f"{image} return getComputedStyle(i).imageRendering") == "pixelated"


def test_the_button_switches_between_light_and_dark_with_the_charts(driver):
    drawn(driver, "curves-chart")
    colors = """const paper = getComputedStyle(document.body).backgroundColor;
    return [paper, document.getElementById('curves-chart').layout.xaxis.gridcolor]"""
    light = driver.execute_script(colors)
    driver.find_element("id", "theme").click()
    dark = driver.execute_script(colors)
    driver.find_element("id", "theme").click()
    assert light == driver.execute_script(colors) and all(a != b for a, b in zip(light, dark, strict=True))
    assert sum(map(int, dark[0][4:-1].split(", "))) < 150 < 600 < sum(map(int, light[0][4:-1].split(", ")))


def test_the_system_that_prefers_dark_gets_dark(driver):
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = driver.execute_script(paper)
    for value in ("dark", "light"):
        features = [{"name": "prefers-color-scheme", "value": value}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        assert (driver.execute_script(paper) == light) == (value == "light")


def test_a_model_links_to_its_run_which_opens(driver):
    link = driver.find_element("css selector", "tbody th a")
    driver.execute_script("arguments[0].click()", link)
    name = link.get_attribute("href").partition("#")[2]
    assert awaited(driver, "return document.getElementById(arguments[0]).open", name)
    assert "class_path: genbench.models." in driver.find_element("id", name).text


def test_a_phone_scrolls_tables_and_never_the_page(driver):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        widths = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert widths == [390, 390]
        assert driver.execute_script(
            "const s = document.querySelector('.scroll'); return s.scrollWidth > s.clientWidth"
        )
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("width", [360, 375, 400])
def test_a_phone_shows_name_and_score_of_every_row_without_scrolling(driver, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    script = """const box = (e) => [e.getBoundingClientRect().left, e.getBoundingClientRect().right, e.textContent];
    return [...document.querySelectorAll('.board tbody tr')].map((row) => {
        const scroll = row.closest('.scroll').getBoundingClientRect();
        return [scroll.left, scroll.right, box(row.querySelector('th.model')), box(row.querySelector('td.by')),
            row.querySelector('.under').offsetHeight, row.querySelector('.minor').offsetHeight];
    });"""
    try:
        rows = driver.execute_script(script)
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert len(rows) > 25
    for left, right, name, score, under, minor in rows:
        assert 0 <= left <= name[0] < name[1] <= score[0] + 1 and score[1] <= right <= width, (name, score)
        assert name[2].strip() and score[2].strip() and under > 0 and minor == 0
    wide = driver.execute_script(script)
    assert all(under == 0 and minor > 0 for *_, under, minor in wide)


@pytest.mark.parametrize("width", [320, 360, 390])
@pytest.mark.parametrize("scroll_bar", [0, 15])
def test_a_phone_cuts_no_digit_and_no_name_of_a_column(driver, width, scroll_bar):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    script = """document.body.style.marginRight = `${arguments[0]}px`; // as much as a scroll bar takes
    let seen = 0;
    const cut = [];
    for (const board of document.querySelectorAll('.board')) {
        const edge = board.querySelector('.scroll').getBoundingClientRect().right;
        const texts = document.createTreeWalker(board.querySelector('table'), NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {
            const range = document.createRange();
            range.selectNodeContents(texts.currentNode);
            const own = texts.currentNode.parentElement.closest('th.by, td.by');
            for (const box of range.getClientRects()) {
                if (!box.width || (!own && box.left >= edge - 0.5)) continue;
                seen += Boolean(own);
                if (box.right > edge + 0.5) cut.push(texts.currentNode.data);
            }
        }
    }
    return [seen, cut];"""
    try:
        seen, cut = driver.execute_script(script, scroll_bar)
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert seen > 50 and not cut


def test_one_point_has_an_axis_around_it_that_stays_in_the_range_of_its_score(driver):
    found = driver.execute_script("return [...document.getElementById('quality-board').options].map((o) => o.text)")
    named = [title.partition(" · ")[0] for title in found]
    assert {"Pairs (task=denoise)", "Pairs (task=super_resolve_4)"} < set(named)
    choose(driver, "quality-board", str(named.index("Pairs (task=denoise)")))
    assert drawn(driver, "by-size") == [1, "translation_mse ↓"]
    axis = "return document.getElementById('by-size')._fullLayout.yaxis.range"
    low, high = driver.execute_script(axis)
    assert 0.02 < low < 0.0335 < high < 0.05
    choose(driver, "quality-board", "0")  # of fids, the baseline among them
    assert drawn(driver, "by-size")[1] == "fid-mnistnet ↓"
    low, high = driver.execute_script(axis)
    lowest = "return Math.min(...data.boards[0].points.map((p) => p.scores['fid-mnistnet']?.[0] ?? Infinity))"
    assert 0 <= low <= driver.execute_script(lowest) < high


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    """The page of a model evaluated at two numbers of steps, and of a model of one step and a baseline."""
    import torch

    from genbench.core.batch import DataSpec
    from genbench.data import Digits
    from genbench.evaluation.evaluate import evaluate
    from tests.helpers.abilities import SMALL, Diffusion

    folder = tmp_path_factory.mktemp("costs")
    torch.manual_seed(0)
    model, one, data = Diffusion(DataSpec((1, 8, 8))), Diffusion(DataSpec((1, 8, 8))), Digits()
    small = SMALL.changed(metrics=("fid",))
    run = record().run
    found = [evaluate(model, data, small, run=run, sampling={"steps": steps}, name="EDM") for steps in (50, 5)]
    found.append(evaluate(one, data, small, run=run | {"config_hash": "1"}, sampling={"steps": 1}, name="MeanFlow"))
    found.append(evaluate(None, data, small))
    for made in found:
        write(made, folder / "records")
    (folder / "report.html").write_text(report(located([folder])[0]).html)
    return folder / "report.html"


LINES = """return document.getElementById('by-sampling').data.map(
    (trace) => [trace.name, trace.mode, [...trace.text], trace.x.length, trace.hovertext[0]])"""


@pytest.mark.parametrize("width", [390, 1280])
def test_rows_of_two_numbers_of_steps_are_joined_by_a_line(driver, costs, width):
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        driver.get(costs.as_uri())
        assert drawn(driver, "by-sampling") == [2, "fid-digitsnet ↓"]
        (edm, mean_flow) = sorted(driver.execute_script(LINES))
        assert edm[:4] == ["EDM", "markers+text+lines", ["5", "50"], 2]
        assert mean_flow[:4] == ["MeanFlow", "markers+text", ["1"], 1]
        assert edm[4].startswith("EDM (steps=5), last: fid-digitsnet ") and edm[4].endswith(" s per image, NFE 5")
        axes = "const l = document.getElementById('by-sampling')._fullLayout; return [l.xaxis.type, l.showlegend]"
        assert driver.execute_script(axes) == ["log", True]
        shown = """const chart = document.getElementById('by-sampling').getBoundingClientRect();
            const found = ':is(.points path, .textpoint, .legendtext, .scatterlayer .js-line)';
            const parts = document.querySelectorAll(`#by-sampling ${found}`);
            const boxes = [...parts].map((part) => part.getBoundingClientRect());
            return [parts.length, boxes.every((box) => box.left >= 0 && box.right <= chart.right && box.width > 0),
                document.documentElement.scrollWidth]"""
        parts, inside, page_width = driver.execute_script(shown)
        assert parts == 3 + 3 + 2 + 1 and inside and page_width == width  # marks, numbers, names, one line
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_scores_over_decades_are_logarithmic_and_a_board_without_sampling_has_no_such_chart(driver):
    assert drawn(driver, "by-sampling")[1] == "fid-mnistnet ↓"
    axis = "const l = document.getElementById(arguments[0])._fullLayout; return [l.xaxis.type, l.yaxis.type]"
    for scale, kind in ((1, "linear"), (100, "log")):  # less and more than a factor of 20 between the scores
        script = """const scores = data.boards[0].points.filter((p) => p.seconds).map((p) => p.scores['fid-mnistnet']);
            for (const score of scores) score[0] = 10;
            scores[0][0] *= arguments[0];
            redraw()"""
        driver.execute_script(script, scale)
        assert driver.execute_script(axis, "by-sampling") == ["log", kind]
        assert driver.execute_script(axis, "by-size")[1] == "linear"
    hidden = "return document.getElementById('by-sampling').parentElement.hidden"
    assert driver.execute_script(hidden) is False
    choose(driver, "quality-board", "1")  # of reconstructions
    assert driver.execute_script(hidden) is True
    choose(driver, "quality-board", "0")
    assert driver.execute_script(hidden) is False
    size = "return document.querySelector('#by-sampling svg').getBoundingClientRect().width"
    assert driver.execute_script(size) > 1000


@pytest.mark.parametrize("width", [360, 768, 1000, 1200])
def test_a_linked_heading_is_below_the_bar(driver, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    measured = """const bar = document.querySelector('.bar');
        return document.documentElement.style.getPropertyValue('--bar') === `${bar.offsetHeight}px`"""
    below = """const top = document.querySelector(`${location.hash} h2`).getBoundingClientRect().top;
        const bar = document.querySelector('.bar').getBoundingClientRect().bottom;
        return location.hash === `#${arguments[0]}` && bar <= top && top <= bar + 40 && scrollY > 100"""
    try:
        awaited(driver, measured)
        for name in ("quality", "samples", "curves"):
            driver.execute_script("document.querySelector(`nav a[href='#${arguments[0]}']`).click()", name)
            assert awaited(driver, below, name)
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_scripts_everything_but_the_charts_is_there(page, driver):
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get(page.as_uri())
        text = driver.find_element("tag name", "body").text
        assert "StyleGAN2" in text and "95% interval" in text and "logarithmic" not in text
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_screenshot_is_not_blank(driver):
    driver.execute_script("scrollTo(0, 0)")
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("L")
    dark, light = picture.getextrema()
    assert picture.size[0] >= 1200 and dark < 60 and light > 220
