"""Pictures go into a page as they are, else smaller, and never beyond what it may hold."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genbench.report.page_images import fitted, read

GAP, SIDE, ROWS = 2, 32, 8


@pytest.fixture
def files(tmp_path):
    """Sheets of noise, each of 8 rows; returns their pictures."""
    found = []
    for k in range(30):
        array = np.random.default_rng(k).integers(0, 256, (ROWS * (SIDE + GAP) + GAP, 70, 3), dtype=np.uint8)
        about = PngInfo()
        about.add_text("rows", str(ROWS))
        about.add_text("gap", str(GAP))
        Image.fromarray(array).save(tmp_path / f"{k}.png", pnginfo=about)
        found.append(read(tmp_path / f"{k}.png"))
    return found


def decoded(shown):
    return Image.open(io.BytesIO(base64.b64decode(shown.uri.partition(",")[2])))


def test_images_that_fit_are_unchanged(files):
    for picture, shown in zip(files, fitted(files), strict=True):
        assert base64.b64decode(shown.uri.removeprefix("data:image/png;base64,")) == picture.data
        assert (shown.width, shown.height, shown.rows) == (70, 274, 8)


@pytest.mark.parametrize("part", [0.5, 0.2, 0.05, 0.01])
def test_other_images_are_compressed_to_the_budget(files, part):
    budget = int(part * sum(len(p.data) for p in files) * 4 / 3)
    shown = fitted(files, budget)
    kept = [s for s in shown if s is not None]
    assert sum(len(s.uri) for s in kept) <= budget and (part < 0.05 or len(kept) == len(files))
    for s in kept:
        image = decoded(s)
        assert image.format == "WEBP" and image.size == (s.width, s.height)
        assert s.height == s.rows * (SIDE + GAP) + GAP and s.rows <= s.of_rows == ROWS  # whole rows
    assert shown == fitted(files, budget)


def test_other_files_than_png_are_an_error_and_missing_ones_are_none(tmp_path, files):
    assert read(tmp_path / "none.png") is None
    (tmp_path / "cut.png").write_bytes(files[0].data[:500])
    Image.new("L", (4, 4)).save(tmp_path / "photo.png", "JPEG")
    (tmp_path / "text.png").write_text("<svg>")
    for name in ("cut.png", "photo.png", "text.png"):
        with pytest.raises(OSError, match="not a PNG, or damaged"):
            read(tmp_path / name)


def test_an_image_without_metadata_is_one_row(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    assert read(tmp_path / "x.png").rows == 1
