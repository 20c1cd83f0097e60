"""Images are at the right place in a grid, and points in a plot."""

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.image_grid import arranged, enlarged, grid, scatter, titled


@pytest.mark.parametrize(("n", "columns", "rows"), [(1, 1, 1), (5, 3, 2), (64, 8, 8), (10, 4, 3)])
def test_a_grid_is_as_square_as_it_can_be(n, columns, rows):
    sheet = grid(torch.zeros(n, 1, 3, 4))
    assert sheet.mode == "L" and sheet.size == (2 + columns * (4 + 2), 2 + rows * (3 + 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_in_its_place_rounded_to_bytes(channels):
    images = torch.rand(5, channels, 3, 4) * 2.4 - 1.2  # a little out of range, as networks are
    sheet = np.array(grid(images)).reshape(12, 20, channels)
    expected = ((images.double() + 1) * 127.5).round().clamp(0, 255).numpy()
    empty = np.ones((12, 20), dtype=bool)
    for k in range(5):
        top, left = 2 + k // 3 * 5, 2 + k % 3 * 6
        assert np.array_equal(sheet[top : top + 3, left : left + 4].transpose(2, 0, 1), expected[k])
        empty[top : top + 3, left : left + 4] = False
    assert (sheet[empty] == 40).all()


def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_are_not():
    small = Image.fromarray(np.arange(100 * 50, dtype=np.uint8).reshape(50, 100))
    large = enlarged(small, side=700)
    assert large.size == (700, 350)
    assert np.array_equal(np.array(large)[3::7, 3::7], np.array(small))
    assert enlarged(large, side=300).size == (700, 350)


def test_a_plot_has_every_point_in_its_place_and_fixed_axes():
    point = torch.tensor([[1.0, -0.5]])
    image = np.asarray(scatter(point.repeat(20, 1))).astype(int)
    rows, columns = np.nonzero(image[:, :, 2] - image[:, :, 0] > 80)
    # the square from -1.5 to 1.5 is 0.9 of 480 pixels, from 0.08 and (0.07 from below) on
    assert columns.mean() == pytest.approx(480 * (0.08 + 0.9 * 2.5 / 3), abs=1.5)
    assert rows.mean() == pytest.approx(480 * (1 - 0.07 - 0.9 * 1 / 3), abs=1.5)
    assert np.asarray(scatter(torch.zeros(3, 1))).shape == (480, 480, 3)  # one number: along the axis


@pytest.mark.parametrize("side", [20, 200])
def test_titles_stand_above_their_columns_and_beside_their_rows_and_do_not_cover_the_picture(side):
    tiles = torch.randint(0, 200, (6, 1, side, side), dtype=torch.uint8)
    plain = arranged(tiles, 3)
    sheet = titled(plain, ["image", "error"], ["cluster 0", "cluster 1"])
    left, top = sheet.width - plain.width, sheet.height - plain.height
    assert np.array_equal(np.asarray(sheet.convert("L").crop((left, top, *sheet.size))), np.asarray(plain))
    dark = np.asarray(sheet.convert("L")) < 128
    above, beside = dark[:top, left:], dark[top:, :left]
    for columns in np.array_split(above, 2, 1):
        assert columns.any() and not columns[:, 0].any() and not columns[0].any()
    half = plain.height // 2
    assert beside[:half].any() and beside[half:].any() and not beside[half - 1 : half + 1].any()
    assert not beside[:, 0].any() and not beside[:, -1].any()


def test_a_grid_without_titles_stays_as_it_is():
    plain = arranged(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), 2)
    assert np.array_equal(np.asarray(titled(plain)), np.asarray(plain))
