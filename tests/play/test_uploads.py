"""Uploads that are no images, damaged or too large are sentences."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.errors import UserError
from genbench.play import uploads


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(50), b"GIF89a\x01", b"<svg></svg>"])
def test_what_is_no_image_is_a_sentence(tmp_path, content):
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"photo.png is not an image that can be read. Upload one of: BMP, GIF, JPEG"):
        uploads.read(path)


def test_a_truncated_image_is_a_sentence(tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "JPEG")
    (tmp_path / "half.jpg").write_bytes(file.getvalue()[:900])
    with pytest.raises(UserError, match=r"half.jpg is not an image that can be read"):
        uploads.read(tmp_path / "half.jpg")


def test_nothing_is_unpickled(tmp_path):
    torch.save({"a": 1}, tmp_path / "model.png")
    with pytest.raises(UserError, match="is not an image"):
        uploads.read(tmp_path / "model.png")


@pytest.mark.parametrize("side", [7000, 14000])  # a small file of many pixels; Pillow refuses the second itself
def test_too_many_pixels_are_refused_from_the_header(tmp_path, side):
    Image.new("1", (side, side)).save(tmp_path / "huge.png")
    assert (tmp_path / "huge.png").stat().st_size < 100_000
    with pytest.raises(
        UserError, match=r"huge.png has ([\d,]+×[\d,]+|too many) pixels; the page accepts at most 40 million"
    ):
        uploads.read(tmp_path / "huge.png")


def test_images_are_read_upright_with_their_transparency_on_white(tmp_path):
    turned = Image.new("RGB", (8, 4))
    exif = turned.getexif()
    exif[274] = 6  # rotated by 90 degrees
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert uploads.read(tmp_path / "turned.jpg").size == (4, 8)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (np.asarray(uploads.read(tmp_path / "clear.png")) == 255).all()


@pytest.mark.parametrize("ending", ["png", "gif", "webp"])
def test_of_an_animation_the_first_frame_is_read(tmp_path, ending):
    frames = [Image.new("RGB", (8, 8), color) for color in ("white", "black")]
    path = tmp_path / f"film.{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert (np.asarray(uploads.read(path)) == 255).all()


def test_a_drawing_is_read_from_its_address_and_nothing_else_is():
    ink = Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8))
    file = io.BytesIO()
    ink.save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    assert np.array_equal(np.asarray(uploads.drawn(f"data:image/png;base64,{text}")), np.asarray(ink))
    for wrong in (text, "data:image/png;base64,AAAA", "data:image/png;base64,!", "file:///etc/hostname", "x" * 10**7):
        with pytest.raises(UserError, match="The drawing could not be read"):
            uploads.drawn(wrong)
