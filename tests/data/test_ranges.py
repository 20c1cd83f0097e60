"""The stored values that become black and white."""

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

from genbench.core.errors import UserError
from genbench.data.base import ImageData
from genbench.data.image_files import Fit
from genbench.data.ranges import DTYPE, Range, for_other_files, of_domain, refuse_unlike, stated
from genbench.data.streams import Split
from tests.helpers.image_files import everything, folder, load, same, stretched, truth


def tiffs(path, pictures, **kwargs):
    return folder(path, pictures, lambda file, picture: tifffile.imwrite(file, picture, **kwargs), ".tif")


def pngs(path, pictures):
    return folder(path, pictures, lambda file, picture: Image.fromarray(picture).save(file), ".png")


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("uint8", 0, 255),
        ("uint16", 0, 65535),
        ("int16", -32768, 32767),
        ("uint32", 0, 2**32 - 1),
        ("int32", -(2**31), 2**31 - 1),
    ],
)
def test_the_whole_range_of_a_type_is_used_if_images_fill_it(tmp_path, kind, low, high):
    data = load(tiffs(tmp_path, stretched(low, high, kind)))
    found, notes = everything(data)
    assert same(found, truth()) and not notes
    assert data.arguments["range"] == "dtype"


@pytest.mark.parametrize(("kind", "low", "high"), [("uint16", 0, 4095), ("int16", -1000, 3000), ("float32", -2, 7.5)])
def test_images_that_use_little_of_their_type_get_their_own_range_with_a_warning(tmp_path, kind, low, high):
    data = load(
        tiffs(tmp_path, stretched(low, high, kind) if kind != "float32" else truth() / np.float32(255) * 9.5 - 2)
    )
    found, (note,) = everything(data)
    assert same(found, truth())
    assert f"values from {low} to {high}" in note and f"The range {low},{high} is used" in note
    assert data.arguments["range"] == f"{low},{high}"


def test_masks_of_0_and_1_become_black_and_white(tmp_path):
    data = load(pngs(tmp_path, (truth() > 127).astype(np.uint8)))
    found, (note,) = everything(data)
    assert same(found, (truth() > 127) * 255)
    assert "8-bit images with only the values 0 and 1" in note
    assert set(np.unique(everything(load(tmp_path, range="dtype"))[0])) == {0, 1}


def test_nearly_black_8_bit_images_are_kept_with_a_warning(tmp_path):
    numbers = (truth() // 64).astype(np.uint8)  # of classes, from 0 to 3
    found, (note,) = everything(load(pngs(tmp_path, numbers)))
    assert same(found, numbers)
    assert "8-bit images with values only from 0 to 3" in note and "`--data.range data`" in note
    assert same(everything(load(tmp_path, range="data"))[0], numbers * 85)


@pytest.mark.parametrize("given", ["-1000,3000", [-1000, 3000], "[-1000, 3000]", "-1e3,3e3"])
def test_a_given_range_is_used_without_a_warning(tmp_path, given):
    data = load(tiffs(tmp_path, stretched(-1000, 3000, np.int16)), range=given)
    found, notes = everything(data)
    assert same(found, truth()) and not notes
    assert data.arguments["range"] == "-1000,3000"


def test_values_outside_a_range_are_clipped():
    values = np.array([[[-9, 0, 5, 10, 99]]], np.int16)
    assert Range(0, 10).levels(values, str).tolist() == [[[0, 0, 128, 255, 255]]]
    assert Range(0, 10).levels(values.astype(np.float64), str).tolist() == [[[0, 0, 128, 255, 255]]]


def test_a_window_is_a_range_around_its_center(tmp_path):
    data = load(tiffs(tmp_path, stretched(-160, 240, np.int16)), window="40,400")
    assert same(everything(data)[0], truth())
    assert data.arguments["range"] == "-160,240" and "window" not in data.arguments


def test_dtype_is_used_if_given_even_if_images_use_little_of_it(tmp_path):
    found, notes = everything(load(tiffs(tmp_path, stretched(0, 4095, np.uint16)), range="dtype"))
    assert found.max() == round(4095 / 257) and not notes


def test_the_range_is_that_of_the_training_split_and_applies_to_all_splits(tmp_path):
    for part, values in {"train": [10, 20, 30], "val": [0, 30], "test": [20, 60]}.items():
        tiffs(tmp_path / part, [np.full((8, 8), value, np.uint16) for value in values])
    for memory in ("yes", "no"):
        data = load(tmp_path, range="data", memory=memory)
        levels = {s: everything(data, [s])[0][:, 0, 0, 0].tolist() for s in ("test", "val", "train")}
        assert levels == {"train": [0, 128, 255], "val": [0, 255], "test": [128, 255]}
        assert data.arguments["range"] == "10,30"


def test_a_subset_has_the_range_of_the_whole_training_set(tmp_path):
    path = tiffs(tmp_path, [np.full((8, 8), 100 * k, np.uint16) for k in range(1, 25)])
    few, all_of_it = load(path, subset=2, range="data"), load(path, range="data")
    for data in (few, all_of_it):
        data.source("train")
    assert few.arguments["range"] == all_of_it.arguments["range"]


def test_the_stored_arguments_and_the_reference_give_the_same_pixels(tmp_path):
    data = load(tiffs(tmp_path, stretched(0, 4095, np.uint16)))
    expected = everything(data)[0]
    kept = yaml.safe_load(yaml.safe_dump(data.arguments))
    assert np.array_equal(everything(type(data)(**kept))[0], expected)
    other = load(tmp_path)  # whose training split nobody has read
    assert other.compared()["range"] == "0,4095"
    assert np.array_equal(everything(other.reference())[0], expected)


def test_one_ordinary_8_bit_image_decides_the_range(tmp_path):
    class Counting:
        rows = 0

        def __call__(self, rows):
            Counting.rows += len(rows)
            return truth()[rows]

    class Embedded(ImageData):
        def split(self, stage):
            return Split(24, Counting())

    assert Embedded(size=8).compared()["range"] == "dtype"
    assert Counting.rows == 1


def test_booleans_and_arrays_with_opacity_are_converted():
    assert DTYPE.levels(np.array([[[True, False]]]), str).tolist() == [[[255, 0]]]
    half = np.array([[[[0, 32768], [65535, 65535], [1000, 0]]]], np.uint16)  # over white
    assert DTYPE.levels(half, str)[0, 0, :, 0].tolist() == [127, 255, 255]


def test_arrays_of_any_type_are_resized_like_images():
    wide = np.arange(6 * 4 * 3, dtype=np.uint16).reshape(1, 6, 4, 3)
    assert Fit(4, 3, range=Range(0, 71))(wide, str).shape == (1, 3, 4, 4)
    gray = np.arange(24, dtype=np.int16).reshape(1, 6, 4, 1)
    assert np.array_equal(Fit(4, 1, range=Range(0, 23))(gray, str), Fit(4, 1, range=Range(0, 23))(gray[..., 0], str))


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("full", "data.range is full; expected `dtype`"),
        ("1,2,3", "data.range is 1,2,3; expected `dtype`"),
        ([5], "data.range is 5; expected `dtype`"),
        ("0,nan", "data.range is 0,nan; expected `dtype`"),
        ("0,inf", "data.range is 0,inf; expected `dtype`"),
        ("5,5", r"data.range is 5,5; the first value \(black\) must be less"),
        ("9,5", r"the first value \(black\)"),
    ],
)
def test_invalid_ranges_are_refused(given, sentence):
    with pytest.raises(UserError, match=sentence):
        stated(given)


def test_invalid_windows_are_refused(tmp_path):
    pngs(tmp_path, truth())
    for given, sentence in {"40": "expected CENTER,WIDTH", "40,0": "its width must be above 0"}.items():
        with pytest.raises(UserError, match=sentence):
            load(tmp_path, window=given)
    with pytest.raises(UserError, match=r"data.range and data.window both set"):
        load(tmp_path, window="40,400", range="0,1")


def test_images_of_several_types_need_a_given_range(tmp_path):
    path = pngs(tmp_path, truth())
    Image.fromarray(truth()[0].astype(np.uint16) * 16).save(path / "deep.png")
    with pytest.raises(
        UserError, match=r"deep.png has values of type uint16, but other images have type uint8. .*range dtype"
    ):
        everything(load(path))
    assert len(everything(load(path, range="dtype"))[0]) == 25


def test_floating_point_images_have_no_range_of_their_type(tmp_path):
    with pytest.raises(UserError, match=r"values of type float32, which `--data.range dtype` does not support"):
        everything(load(tiffs(tmp_path, truth().astype(np.float32)), range="dtype"))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(np.nan, r"\d\d.tif has values that are not a number"), (np.inf, r"\d\d.tif has infinite values")],
)
def test_images_with_nan_are_named(tmp_path, value, sentence):
    with pytest.raises(UserError, match=sentence):
        everything(load(tiffs(tmp_path, [np.full((8, 8), value, np.float32)] * 4)))


def test_images_of_one_value_have_no_range(tmp_path):
    path = tiffs(tmp_path, [np.full((8, 8), 7, np.uint16)] * 4)
    assert everything(load(path))[0].max() == 0  # of 65,535
    with pytest.raises(UserError, match="have the same value 7, so no range can be found"):
        everything(load(path, range="data"))


def test_too_many_channels_are_refused():
    with pytest.raises(UserError, match="5 channels; an image must have 1"):
        DTYPE.levels(np.zeros((1, 4, 4, 5), np.uint8), str)


def test_a_range_is_checked_by_torch_streams_too(tmp_path):
    data = load(pngs(tmp_path, (truth() > 127).astype(np.uint8)), memory="no", workers=2, batch_size=4)
    assert set(next(iter(data.train_dataloader())).image.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(
        data.source("val").batch(torch.arange(1)).image.unique(), torch.tensor([0, 255], dtype=torch.uint8)
    )


@pytest.mark.parametrize(
    ("picture", "trained", "said"),
    [
        (np.uint8([[9, 90]]), Range(0, 4095), "values of type uint8, which end at 255, but the range .* is 0,4095"),
        (Image.new("L", (2, 1), 9), Range(0, 4095), "values of type uint8, which end at 255"),
        (np.uint8([[9, 90]]), Range(-1, 1), "integer values up to 90, but the range of the training images is -1,1"),
        (np.uint8([[9, 90]]), Range(-300, 300), None),
        (np.uint8([[0, 1]]), Range(0, 1), None),
        (np.float32([[0, 90]]), Range(0, 4095), None),
        (np.uint16([[0, 90]]), Range(0, 4095), None),
        (np.uint8([[9, 90]]), DTYPE, None),
    ],
)
def test_an_image_that_would_be_black_or_white_in_the_training_range_is_rejected(picture, trained, said):
    if said is None:
        return refuse_unlike(picture, trained, "x.png")
    with pytest.raises(UserError, match=f"x.png has {said}"):
        refuse_unlike(picture, trained, "x.png")


def test_only_numeric_stored_ranges_are_used_for_other_files():
    stored = {None: None, "dtype": None, "0,9": "0,9", "0,9/dtype": "0,9/", "dtype/0,9": "/0,9", "dtype/dtype": None}
    assert {value: for_other_files(value) for value in stored} == stored
    assert [of_domain("0,9/dtype", domain) for domain in "AB"] == [Range(0, 9), None]
    assert [of_domain("0,9", domain) for domain in "AB"] == [Range(0, 9)] * 2
