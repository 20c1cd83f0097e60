"""latents map: a plot, a page and a table of the codes of images."""

import csv
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genbench
from genbench.analysis import embedding, map_page
from genbench.analysis.embedding import embed
from genbench.core.batch import DataSpec
from genbench.data import Digits
from genbench.models import DCGAN, VQVAE, Autoencoder, ConditionalVAE
from tests.helpers.browser import lacking, opened
from tests.helpers.small import untrained

SPEC = DataSpec((1, 16, 16), "label", tuple("0123456789"))
SPRITE = '"uri": "data:image/png'
DATA = ("--data", "Digits", "--data.size", "16")


@pytest.fixture
def mapped(cli):
    """Runs `latents map`; returns (exit status, standard output, standard error)."""
    return partial(cli, "latents", "map")


@pytest.fixture
def autoencoder(cli):
    return untrained(Autoencoder(SPEC), Path("model.ckpt"))


def table(path="map/map.csv"):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_map_of_codes_is_a_plot_a_page_and_a_table(mapped, autoencoder):
    status, out, _ = mapped("--ckpt", autoencoder, *DATA, "--n", 50, "--method", "pca", "--batch-size", 16)
    assert status == 0 and "PCA of 50 images of Digits test: codes of Autoencoder (32 numbers) -> map" in out
    assert re.search(r"encoding [\d.]+ s, PCA [\d.]+ s", out)
    assert {p.name for p in Path("map").iterdir()} == {"map.png", "map.html", "map.csv"}
    rows, split = table(), Digits(size=16).source("test")
    numbers = torch.tensor([int(row["file"]) for row in rows])
    codes = genbench.load(autoencoder).encode(split.batch(numbers).image.float() / 127.5 - 1)
    found = torch.tensor([[float(row["x"]), float(row["y"])] for row in rows])
    assert torch.allclose(found, embed(codes, "pca"), atol=1e-3)
    assert [row["label"] for row in rows] == [str(k) for k in split.target("label", numbers).tolist()]
    colors = {tuple(c) for c in np.asarray(Image.open("map/map.png")).reshape(-1, 3)[::7]}
    assert len(colors) > 20


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_seed_decides_the_map_and_the_batch_size_does_not(mapped, autoencoder, method):
    flags = ("--ckpt", autoencoder, *DATA, "--n", 40, "--method", method)
    flags += ("--perplexity", 5) if method == "tsne" else ()
    for out, more in (("a", ()), ("b", ())):
        assert mapped(*flags, "--out", out, *more)[0] == 0
    assert Path("a/map.csv").read_text() == Path("b/map.csv").read_text()


def test_pixels_need_no_encoder_and_points_need_no_thumbnails(mapped):
    ckpt = untrained(DCGAN(SPEC, width=4), Path("a.ckpt"))
    status, out, _ = mapped("--ckpt", ckpt, *DATA, "--n", 20, "--method", "pca", "--on", "pixels")
    assert status == 0 and "pixels (256 numbers)" in out and SPRITE in Path("map/map.html").read_text()
    ckpt = untrained(Autoencoder(DataSpec((2,)), latent_dim=1), Path("b.ckpt"))
    status, out, _ = mapped("--ckpt", ckpt, "--data", "Ring", "--n", 20, "--method", "pca", "--out", "points")
    assert status == 0 and "codes of Autoencoder (1 number)" in out
    assert SPRITE not in Path("points/map.html").read_text()


def test_a_conditional_model_encodes_with_the_labels(mapped):
    ckpt = untrained(ConditionalVAE(SPEC, latent_dim=3, width=4), Path("model.ckpt"))
    assert mapped("--ckpt", ckpt, *DATA, "--n", 20, "--method", "pca")[0] == 0
    rows, split, model = table(), Digits(size=16).source("test"), genbench.load(ckpt)
    numbers = torch.tensor([int(row["file"]) for row in rows])
    x = split.batch(numbers).image.float() / 127.5 - 1
    codes = model.encode(x, condition=split.target("label", numbers))
    found = torch.tensor([[float(row["x"]), float(row["y"])] for row in rows])
    assert torch.allclose(found, embed(codes, "pca"), atol=1e-3)


@pytest.mark.parametrize(
    ("model", "flags", "words"),
    [
        (lambda: DCGAN(DataSpec((1, 16, 16)), width=4), (), "DCGAN cannot encode images"),
        (lambda: VQVAE(SPEC, width=8), (), "codebook indices"),
        (lambda: Autoencoder(SPEC), ("--n", "3"), "at least 5 images; got 3"),
        (lambda: Autoencoder(SPEC), ("--n", "10"), "--perplexity is 30; for 10 images"),
        (lambda: Autoencoder(SPEC), ("--perplexity", "0"), "--perplexity is 0"),
        (lambda: Autoencoder(SPEC), ("--perplexity", "5", "--method", "pca"), "--perplexity is for `--method tsne`"),
        (lambda: Autoencoder(SPEC), ("--out", "used"), "contains files already"),
        (lambda: Autoencoder(SPEC), ("--label", "3"), "takes no labels"),
        (lambda: Autoencoder(SPEC), ("--on", "pixels", "--label", "3"), "Remove one of the two"),
        (lambda: Autoencoder(SPEC), ("--methode", "pca"), "no option --methode"),
    ],
)
def test_bad_input_is_a_sentence_and_writes_nothing(mapped, model, flags, words):
    Path("used").mkdir()
    Path("used/file").write_text("")
    ckpt = untrained(model(), Path("model.ckpt"))
    status, _, err = mapped("--ckpt", ckpt, *DATA, *flags)
    assert status == 2 and words in err and "Traceback" not in err
    assert not Path("map").exists() and len(list(Path("used").iterdir())) == 1


def test_a_missing_umap_is_a_sentence(mapped, autoencoder, monkeypatch):
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    status, _, err = mapped("--ckpt", autoencoder, *DATA, "--method", "umap")
    assert status == 2 and 'pip install "genbench[umap]"' in err


class Noise:
    """Images that do not compress."""

    name, label = "noise", None

    def __init__(self, count, side=64, channels=3):
        self.shape, self.count = (channels, side, side), count

    def __len__(self):
        return self.count

    def images(self, rows):
        return torch.randint(0, 256, (len(rows), *self.shape), dtype=torch.uint8)


def test_a_page_leaves_out_what_would_be_too_large_and_says_so(monkeypatch):
    monkeypatch.setattr(map_page, "MOST", 50)
    monkeypatch.setattr(map_page, "LARGEST", 100_000)
    points = torch.randn(60, 2)
    html, notes = map_page.page(points, torch.full((60,), -1), (), [f"image {k}" for k in range(60)], "t", Noise(60))
    assert SPRITE not in html and sum(f'"image {k}"' in html for k in range(60)) == 50
    assert "map.html shows 50 of the 60 images" in notes[0] and "no thumbnails" in notes[1]


def test_thumbnails_have_at_most_32_pixels_per_side():
    html, _ = map_page.page(torch.randn(9, 2), torch.zeros(9).long(), ("a",), list("abcdefghi"), "t", Noise(9))
    assert '"columns": 3, "height": 32' in html and '"width": 32' in html


EVIL = "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'> & <b>$x$</b>"


@pytest.mark.browser
@pytest.mark.skipif(bool(lacking()), reason=f"no {lacking()}")
def test_the_page_shows_the_image_of_a_point_and_runs_no_text(tmp_path):
    label = torch.tensor([0] * 10 + [1] * 10 + [-1] * 5)
    html, _ = map_page.page(torch.randn(25, 2), label, ("first", EVIL), [EVIL] * 25, EVIL, Noise(25))
    (tmp_path / "map.html").write_text(html)
    assert not re.search(r"(src|href)=.?https?:", html.split("<script id")[0])
    with opened(tmp_path / "map.html") as driver:
        from selenium.webdriver import ActionChains
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(driver, 30).until(lambda d: d.execute_script("return document.documentElement.dataset.ready"))
        points = driver.find_elements("css selector", ".points path")
        assert len(points) == 25 and not driver.find_element("id", "image").is_displayed()
        ActionChains(driver).move_to_element(points[12]).perform()
        WebDriverWait(driver, 30).until(lambda d: d.find_element("id", "image").is_displayed())
        assert driver.find_element("id", "name").text == EVIL and driver.title == EVIL
        assert driver.find_element("id", "label").text in ("first", EVIL, "unlabeled")
        legend = driver.execute_script("return [...document.querySelectorAll('.legendtext')].map(e => e.textContent)")
        assert EVIL in legend
        drawn = driver.execute_script(
            "const c = document.getElementById('image'); return [...c.getContext('2d').getImageData(0, 0, 8, 8).data]"
        )
        assert len(set(drawn)) > 20
        assert [line for line in driver.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []
        requests = [line["message"] for line in driver.get_log("performance")]
        assert not [text for text in requests if "requestWillBeSent" in text and re.search(r'"url":"https?:', text)]


def test_a_plot_with_odd_class_names_and_without_labels_is_drawn():
    points = torch.randn(30, 2)
    for label, classes in ((torch.arange(30) % 2, ("$", "a$b$c\\")), (torch.full((30,), -1), ())):
        assert map_page.plot(points, label, classes, "t $ \\ x").width > 500


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_scikit_learn_does_not_take_is_refused_before_anything_is_read(cli, seed):
    status, _, err = cli("latents", "map", "--ckpt", "nowhere", f"--seed={seed}")
    assert status == 2 and f"--seed is {seed}; it must be from 0 to 4294967295." in err
