"""TIFF and PNG files of scientific instruments, most of which Pillow would read with wrong values."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from genbench.core.errors import UserError
from genbench.data.image_files import read_picture
from genbench.data.ranges import Range, pixels
from genbench.data.tiff import upright
from tests.helpers.image_files import chunk, everything, folder, load, png16, same, stretched, truth


def stored(path, **writing):
    """What is read of a picture that tifffile writes."""
    pixels_of = writing.pop("pixels")
    tifffile.imwrite(path, pixels_of, **writing)
    return pixels(read_picture(path, path.name))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["i1", "u2", "i2", "u4", "i4", "u8", "f2", "f4", "f8"])
def test_every_type_keeps_its_values(tmp_path, kind, order, compression):
    expected = stretched(-100 if kind[0] != "u" else 0, 100, kind)[0]
    found = stored(tmp_path / "a.tif", pixels=expected, byteorder=order, compression=compression)
    assert found.dtype == np.dtype(kind) and np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "f4"])
def test_white_is_zero_is_inverted_within_the_range(tmp_path, kind):
    low, high = (0, 255) if kind == "u1" else (-1000, 3000) if kind != "u2" else (0, 4095)
    turned = stretched(low, high, kind) if kind != "f4" else truth().astype("f4") / 255 * 4000 - 1000

    def write(file, picture):
        tifffile.imwrite(file, picture, photometric="miniswhite")

    path = folder(tmp_path, turned, write, ".tif")
    assert same(everything(load(path, range=f"{low},{high}"))[0], 255 - truth())


def test_one_bit_images_are_black_and_white(tmp_path):
    bits = truth()[0] > 127
    for photometric in ("minisblack", "miniswhite"):
        tifffile.imwrite(tmp_path / "a.tif", bits, photometric=photometric)
        found = pixels(read_picture(tmp_path / "a.tif", "a.tif"))
        assert np.array_equal(found, (bits if photometric == "minisblack" else ~bits) * 255)


@pytest.mark.parametrize("kind", ["u2", "i4", "f4"])
def test_compressions_that_need_imagecodecs_are_read_by_pillow(tmp_path, kind):
    expected = stretched(0, 100, kind)[0]
    Image.fromarray(expected).save(tmp_path / "a.tif", compression="tiff_lzw")
    found = pixels(read_picture(tmp_path / "a.tif", "a.tif"))
    assert found.dtype == np.dtype(kind) and np.array_equal(found, expected)


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_deep_color_keeps_its_bits(tmp_path, planes):
    expected = stretched(0, 4095, "u2")[:3].transpose(1, 2, 0)
    given = expected if planes == "contig" else expected.transpose(2, 0, 1).copy()
    found = stored(tmp_path / "a.tif", pixels=given, photometric="rgb", planarconfig=planes)
    assert np.array_equal(found, expected)


def test_deep_color_with_opacity_is_composited_over_white(tmp_path):
    color = np.full((8, 8, 4), 20_000, np.uint16)
    color[..., 3] = 32_768  # half
    half = round((20_000 / 65535 + 1) / 2 * 255)
    for kind, pixels_of in {"unassalpha": color, "assocalpha": color // [2, 2, 2, 1]}.items():
        path = tmp_path / kind
        folder(
            path,
            [pixels_of.astype(np.uint16)] * 4,
            lambda file, x, kind=kind: tifffile.imwrite(file, x, photometric="rgb", extrasamples=[kind]),
            ".tif",
        )
        found = everything(load(path, channels=3, range="dtype"))[0]
        assert abs(found.astype(int) - half).max() <= 1
    path = folder(tmp_path / "png", [color] * 4, lambda file, x: Path(file).write_bytes(png16(x)), ".png")
    assert abs(everything(load(path, channels=3, range="dtype"))[0].astype(int) - half).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_of_a_png_are_kept(tmp_path, channels):
    expected = stretched(0, 4095, "u2")[:channels].transpose(1, 2, 0)
    (tmp_path / "a.png").write_bytes(png16(expected))
    assert np.array_equal(pixels(read_picture(tmp_path / "a.png", "a.png")).reshape(expected.shape), expected)


def test_one_value_of_a_deep_png_may_be_transparent(tmp_path):
    for channels in (1, 3):
        values = np.full((8, 8, channels), 500, np.uint16)
        values[0, 0] = 700
        clear = chunk(b"tRNS", np.full(channels, 700, ">u2").tobytes())
        folder(
            tmp_path / str(channels),
            [values] * 4,
            lambda file, x, clear=clear: Path(file).write_bytes(png16(x, clear)),
            ".png",
        )
        found = everything(load(tmp_path / str(channels), channels=channels, range="0,1000"))[0]
        assert (found[:, :, 0, 0] == 255).all() and (found[:, :, 0, 1] == 128).all()


def test_deep_grays_of_a_pgm_are_scaled_to_their_maximum(tmp_path):
    values = stretched(0, 4095, "u2")

    def write(file, picture):
        Path(file).write_bytes(b"P5\n8 8\n4095\n" + picture.astype(">u2").tobytes())

    assert same(everything(load(folder(tmp_path, values, write, ".pgm")))[0], truth(), within=1)


def netpbm(values, white, plain):
    """The bytes of a PGM or PPM with a comment in its header."""
    magic = {(2, True): "P2", (3, True): "P3", (2, False): "P5", (3, False): "P6"}[values.ndim, plain]
    head = f"{magic}\n# made by hand\n{values.shape[1]} {values.shape[0]}\n{white}\n".encode()
    if plain:
        return head + b"# more\n" + " ".join(map(str, values.ravel())).encode()
    return head + values.astype(">u2" if white > 255 else "u1").tobytes()


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("white", [1, 15, 200, 1023, 4095, 65535])
def test_pgm_and_ppm_keep_the_values_of_the_file(tmp_path, white, channels, plain):
    values = np.random.default_rng(0).integers(0, white + 1, (5, 7, 3), dtype=np.uint16)
    values = values[..., 0] if channels == 1 else values
    (tmp_path / "a.pnm").write_bytes(netpbm(values, white, plain))
    found = read_picture(tmp_path / "a.pnm", "a.pnm")
    assert np.array_equal(pixels(found), values)
    shown = np.asarray(Range().apply(found, "a.pnm"))
    assert np.array_equal(shown, np.rint(values * (255 / white)))
    most = min(white, 100)  # a stated range is in units of the file
    assert np.array_equal(
        np.asarray(Range(0, most).apply(found, "a.pnm")), np.rint(values.clip(0, most) * (255 / most))
    )


def test_a_4_bit_pgm_is_scaled_and_a_given_range_is_in_its_units(tmp_path):
    values = np.rint(truth() / 255 * 15).astype(np.uint8)
    path = folder(tmp_path, values, lambda file, x: Path(file).write_bytes(netpbm(x, 15, plain=False)), ".pgm")
    expected = values * 17
    for given in (None, "0,15"):
        found, notes = everything(load(path, range=given))
        assert same(found, expected) and notes == []


def test_a_truncated_pgm_is_named(tmp_path):
    (tmp_path / "a.pgm").write_bytes(netpbm(np.ones((5, 7), np.uint16), 4095, plain=False)[:-3])
    with pytest.raises(UserError, match="a.pgm cannot be read as an image"):
        read_picture(tmp_path / "a.pgm", "a.pgm")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_rotated_upright(orientation):
    expected = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    expected.getexif()[0x0112] = orientation
    given = np.asarray(expected)
    assert np.array_equal(upright(given, orientation), np.asarray(ImageOps.exif_transpose(expected)))


def test_three_channels_without_color_tags_are_read(tmp_path):
    expected = stretched(0, 4095, "u2")[:3].transpose(1, 2, 0)
    found = stored(tmp_path / "a.tif", pixels=expected, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(found, expected)


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "kind", "writing", "sentence"),
    [
        ((8, 8, 5), "u2", {"photometric": "minisblack", "planarconfig": "contig"}, "it has 5 channels"),
        ((8, 8, 2), "u1", {"photometric": "minisblack", "planarconfig": "contig"}, "it has 2 channels"),
        ((8, 8, 4), "u1", {"photometric": "rgb", "extrasamples": ["unspecified"]}, "it has 4 channels"),
        ((8, 8, 4), "u2", {"photometric": "rgb", "extrasamples": ["unspecified"]}, "it has 4 channels"),
        ((8, 8, 5), "u1", {"photometric": "rgb", "extrasamples": ["unassalpha", "unspecified"]}, "it has 5 channels"),
        ((8, 8, 4), "u2", {"photometric": "separated"}, "color space is SEPARATED; convert it to RGB or gray"),
        ((8, 8, 3), "u1", {"photometric": "cielab"}, "color space is CIELAB; convert it to RGB or gray"),
    ],
)
def test_images_that_are_neither_gray_nor_rgb_are_refused(tmp_path, shape, kind, writing, sentence):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, kind), **writing)
    with pytest.raises(UserError, match=f"a.tif cannot be read as an image .*{sentence}"):
        read_picture(tmp_path / "a.tif", "a.tif")


def test_an_unspecified_fourth_channel_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 4), "u1"), photometric="rgb", extrasamples=["unspecified"])
    whole = (tmp_path / "a.tif").read_bytes()
    tag = (338).to_bytes(2, "little")  # as another tag that says nothing
    assert whole.count(tag + b"\3\0") == 1
    (tmp_path / "a.tif").write_bytes(whole.replace(tag + b"\3\0", (60_000).to_bytes(2, "little") + b"\3\0"))
    with pytest.raises(UserError, match="it has 4 channels"):
        read_picture(tmp_path / "a.tif", "a.tif")


def test_truncated_deep_images_are_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stretched(0, 100, "u4")[0])
    (tmp_path / "a.png").write_bytes(png16(stretched(0, 4095, "u2")[:3].transpose(1, 2, 0)))
    for name in ("a.tif", "a.png"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) - 120])
        with pytest.raises(UserError, match=f"{name} cannot be read as an image"):
            read_picture(tmp_path / name, name)


def test_several_frames_in_one_page_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 8, 8), "u2"), truncate=True, metadata={"axes": "ZYX"})
    with pytest.raises(UserError, match=r"a.tif cannot be read .*several frames in one page"):
        load(tmp_path)


def test_deep_decompression_bombs_are_named(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((40, 40), "u4"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="a.tif cannot be read as an image"):
        read_picture(tmp_path / "a.tif", "a.tif")
