"""The page in a browser, at the width of a desktop and of a phone: it works, and asks no other machine for anything."""

import json
import time
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")

from genbench.core.batch import DataSpec
from genbench.data import Digits
from genbench.evaluation.images import SplitImages
from genbench.models import VAE, VQVAE, ConditionalVAE
from genbench.play import server
from genbench.play.actions import Loaded
from tests.helpers.browser import lacking, opened

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(lacking()), reason=f"needs {lacking()} (apt-get install chromium chromium-driver)"),
]
NAME = "${window.ran = 1}{{window.ran}}<img src=x onerror='window.ran = 2'>"
WIDTHS = [1280, 390]


@pytest.fixture(scope="module")
def address():
    spec = DataSpec((1, 16, 16), "label", tuple("0123456789"))
    models = {
        NAME: VAE(spec, width=4, latent_dim=6, decoder="gaussian"), "conditional": ConditionalVAE(spec, width=4),
        "indices": VQVAE(spec, width=8),
    }  # fmt: skip
    trained_on = {"class": "genbench.data.digits.Digits", "arguments": {"size": 16}}
    shown = [
        Loaded(name, type(m).__name__, m.eval().requires_grad_(False), trained_on,
               lambda: SplitImages(Digits(size=16), "train"))
        for name, m in models.items()
    ]  # fmt: skip
    with server.served(shown) as found:
        yield found


@pytest.fixture(scope="module")
def browser(address):
    with opened(address) as driver:
        yield driver


@pytest.fixture(params=WIDTHS)
def driver(browser, address, request):
    """Loaded anew; afterwards: no error on the console, no request to another address, nothing wider than the page."""
    phone = request.param < 700
    screen = {"width": request.param, "height": 844 if phone else 900, "deviceScaleFactor": 1, "mobile": phone}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get("about:blank")
    browser.get_log("browser")  # leaving a page ends its open connections, which it reports
    browser.get(address)
    awaited(browser, "return document.querySelectorAll('section.gb img').length >= 2")
    yield browser
    assert browser.execute_script("return document.documentElement.scrollWidth") == request.param
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    events = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    asked |= {e["params"]["url"] for e in events if e["method"] == "Network.webSocketCreated"}
    assert all(url.startswith((f"{address}/", "data:", "blob:", "chrome:", "about:")) for url in asked), asked
    assert browser.execute_script("return window.ran") is None


def awaited(driver, script, *arguments):
    """What a script returns, once that is true."""
    for _ in range(100):
        if found := driver.execute_script(script, *arguments):
            return found
        time.sleep(0.1)
    raise TimeoutError(f"not true within 10 seconds: {script}")


SHOWN = """return [...document.querySelectorAll('section.gb')].filter((c) => c.offsetParent !== null)"""

COUNTS = SHOWN + ".map((c) => c.querySelectorAll('img').length).join()"


def columns(driver):
    """name -> sources of the images, of the visible columns"""
    script = (
        SHOWN + ".map((c) => [c.querySelector('h3').textContent, [...c.querySelectorAll('img')].map((i) => i.src)])"
    )
    return dict(driver.execute_script(script))


@contextmanager
def changing(driver, *names):
    """The images of these models change meanwhile."""
    before = columns(driver)
    yield
    for _ in range(200):
        now = columns(driver)
        if all(now.get(name) and now[name] != before.get(name) for name in names):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing changed in {names}")


def go(driver, name):
    """To a tab, which on a narrow page is in a menu."""
    script = """const found = [...document.querySelectorAll('button')].filter(
      (b) => b.textContent.trim() === arguments[0] && b.offsetParent !== null && !b.closest('.visually-hidden'));
    if (found.length) found[0].click(); else document.querySelector('.overflow-menu > button').click();
    return found.length > 0"""
    awaited(driver, script, name)


def set_number(driver, label, value):
    script = """const label = [...document.querySelectorAll('label, .block')].find(
      (l) => l.offsetParent !== null && l.textContent.trim().startsWith(arguments[0]) && l.querySelector('input'));
    const input = label.querySelector('input[type=number]');
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(input, arguments[1]);
    input.dispatchEvent(new Event('input', {bubbles: true})); input.dispatchEvent(new Event('change', {bubbles: true}));
    """
    driver.execute_script(script, label, value)


def upload(driver, path):
    fields = driver.find_elements("css selector", "input[type=file]")
    shown = [f for f in fields if driver.execute_script("return arguments[0].closest('.tabitem').offsetParent", f)]
    shown[0].send_keys(str(path))


def text(driver):
    return driver.execute_script(SHOWN + ".map((c) => c.textContent).join(' ')")


def test_models_that_sample_are_side_by_side_with_the_same_seed(driver):
    found = columns(driver)
    assert list(found) == [NAME, "conditional"]  # a VQVAE has no samples
    with changing(driver, NAME, "conditional"):
        set_number(driver, "Seed", "7")
    with changing(driver, "conditional"):  # back, and both are again as before
        set_number(driver, "Seed", "0")
    awaited(driver, "return true")
    time.sleep(1)
    assert columns(driver) == found


def test_a_slider_changes_the_pictures(driver):
    go(driver, "Latent sliders")
    awaited(driver, COUNTS + " === '1,1'")
    before = columns(driver)
    slider = driver.find_element("css selector", "input[type=range][aria-label*='Dimension 4']")
    with changing(driver, NAME, "conditional"):
        driver.execute_script(
            "arguments[0].value = 3; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))", slider
        )
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
    top = driver.execute_script(SHOWN + "[0].querySelector('img').getBoundingClientRect().top")
    assert 0 <= top < 300  # the picture is in view while the slider is moved, on a phone too
    with changing(driver, NAME):
        go(driver, "All back to 0")
    time.sleep(1)
    assert columns(driver) == before


def test_seeds_are_interpolated_and_added(driver):
    go(driver, "Interpolate")
    awaited(driver, COUNTS + " === '1,1'")
    with changing(driver, NAME):
        set_number(driver, "To seed", "5")
    go(driver, "Arithmetic")
    awaited(driver, COUNTS + " === '4,4'")
    found = driver.execute_script(
        SHOWN + ".map((c) => [...c.querySelectorAll('figcaption')].map((f) => f.textContent))"
    )
    assert found == [["a", "b", "c", "a − b + c"]] * 2


def test_a_picture_is_uploaded_and_every_model_shows_what_it_makes_of_it(driver, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(tmp_path / "mine.png")
    go(driver, "Upload an image")
    with changing(driver, NAME, "conditional", "indices"):
        upload(driver, tmp_path / "mine.png")
    found = {name: len(images) for name, images in columns(driver).items()}
    assert found == {NAME: 4, "conditional": 3, "indices": 4}  # input, reconstruction, code, neighbors
    said = text(driver)
    assert "40×50 RGB converted as in training to 16×16 gray (crop)." in said and "nearest training images" in said
    assert "8×8" not in said and "code, 4×4 codebook indices" in said


def test_an_upload_that_is_no_image_is_a_sentence(driver, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    go(driver, "Upload an image")
    upload(driver, tmp_path / "text.png")
    awaited(driver, SHOWN + ".filter((c) => c.querySelector('[role=alert]')).length === 3")
    assert "text.png is not an image that can be read. Upload one of: BMP, GIF" in text(driver)


def test_an_upload_that_is_too_large_is_a_sentence(driver, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(11 * 2**20))
    go(driver, "Upload an image")
    upload(driver, tmp_path / "large.png")
    found = awaited(driver, "return document.querySelector('.toast-body')?.textContent")
    assert "10" in found and "size" in found.lower()
    driver.get_log("browser")  # the answer 413 is an error on the console


def test_a_digit_is_drawn(driver):
    from selenium.webdriver.common.action_chains import ActionChains

    go(driver, "Draw")
    board = driver.find_element("css selector", ".board canvas")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", board)
    pen = ActionChains(driver).move_to_element_with_offset(board, 0, -60)
    with changing(driver, NAME, "conditional", "indices"):
        pen.click_and_hold().move_by_offset(0, 120).release().perform()
    assert "280×280 gray converted as in training to 16×16 gray" in text(driver)
    with changing(driver, NAME):  # a second stroke is added to the first
        ActionChains(driver).move_to_element_with_offset(board, -60, 0).click_and_hold().move_by_offset(
            120, 0
        ).release().perform()
    go(driver, "Clear")
    awaited(driver, COUNTS + " === '0,0,0'")
