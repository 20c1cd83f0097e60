"""Networks that need certain sizes accept any size, and an image processed in tiles equals the whole image."""

import pytest
import torch
from torch import nn

from genbench.core.errors import UserError
from genbench.core.tiles import in_tiles


def strided(stride):
    def make(x):
        assert not x.shape[2] % stride and not x.shape[3] % stride
        return x * 2

    return make


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (16, 16), (33, 47), (100, 64)])
@pytest.mark.parametrize("stride", [1, 4, 32])
def test_any_size_is_padded_to_the_stride_and_cropped(size, stride):
    x = torch.rand(1, 3, *size)
    assert torch.equal(in_tiles(strided(stride), x, stride), 2 * x)


@pytest.mark.parametrize("size", [(200, 90), (64, 300), (129, 131)])
def test_tiles_of_a_pixelwise_function_equal_the_whole_image(size):
    x = torch.rand(2, 1, *size)
    assert torch.allclose(in_tiles(strided(16), x, 16, tile=64), 2 * x, atol=1e-6)


@pytest.mark.parametrize("size", [(200, 90), (129, 131), (64, 300)])
def test_tiles_of_a_blockwise_network_equal_the_whole_image(size):
    def blocks(x):
        return nn.functional.interpolate(nn.functional.avg_pool2d(x, 16), scale_factor=16)

    x = torch.rand(2, 1, *size)
    assert torch.allclose(in_tiles(blocks, x, 16, tile=64), in_tiles(blocks, x, 16), atol=1e-6)


def test_tiles_of_one_stride_overlap():
    seen = []

    def noted(x):
        seen.append(x.shape[2:])
        return x

    x = torch.rand(1, 1, 128, 64)
    assert torch.allclose(in_tiles(noted, x, 64, tile=64), x) and len(seen) == 3


def test_tiles_are_not_larger_than_requested_and_are_blended_at_their_seams():
    x, seen = torch.rand(1, 1, 200, 200), []

    def blurred(x):
        seen.append(x.shape[2:])
        return nn.functional.avg_pool2d(x, 9, stride=1, padding=4, count_include_pad=False)

    tiled, whole = in_tiles(blurred, x, tile=64), in_tiles(blurred, x)
    assert max(max(size) for size in seen[:-1]) <= 64 and len(seen) > 9
    # without the fade 0.058 and 0.0019
    assert (tiled - whole).abs().max() < 0.03 and (tiled - whole).abs().mean() < 0.001


def test_smaller_tiles_are_tried_if_memory_is_short():
    tried = []

    def greedy(x):
        tried.append(max(x.shape[2:]))
        if tried[-1] > 70:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x

    x = torch.rand(1, 1, 256, 256)
    assert torch.allclose(in_tiles(greedy, x, stride=8), x, atol=1e-6)
    assert tried[:3] == [256, 128, 64]

    def hopeless(x):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with pytest.raises(UserError, match="64×64 pixels do not fit in memory"):
        in_tiles(hopeless, x)
    with pytest.raises(RuntimeError, match="shapes"):  # a bug stays one
        in_tiles(lambda x: torch.rand(2, 3) @ torch.rand(2, 3), x)
