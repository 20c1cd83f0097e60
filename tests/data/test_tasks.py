"""Inputs of tasks are correct and mirrored with their images, and noise is drawn at the right time."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from genbench.core.batch import from_uint8, to_uint8
from genbench.core.errors import UserError
from genbench.core.noise import per_seed
from genbench.data import Digits, Shapes, tasks

DRAW = lambda draw, *shape: per_seed(draw, torch.arange(4), shape)  # noqa: E731


@pytest.fixture
def images():
    return from_uint8(torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8))


def shown(task, images):
    return tasks.make(task, images, DRAW)


def test_gray_is_pillows_gray(images):
    gray = to_uint8(shown("colorize", images))
    pillow = [np.array(Image.fromarray(x.permute(1, 2, 0).numpy()).convert("L")) for x in to_uint8(images)]
    assert np.abs(gray[:, 0].numpy().astype(int) - np.stack(pillow)).max() <= 1
    assert gray.shape == (4, 1, 16, 16)


def test_edges_are_scipys_sobel(images):
    gray = images[:, :1]
    slopes = [[ndimage.sobel(x, axis=axis, mode="nearest") / 4 for axis in (0, 1)] for x in gray[:, 0].numpy()]
    expected = np.stack([np.hypot(*both) * 2 - 1 for both in slopes])[:, None]
    assert shown("edges", gray).numpy() == pytest.approx(expected.clip(-1, 1), abs=1 / 127)


def test_blur_is_scipys_gaussian(images):
    expected = ndimage.gaussian_filter(images.numpy(), (0, 0, tasks.BLUR, tasks.BLUR), mode="mirror", radius=4)
    reach = round(3 * tasks.BLUR)
    assert reach == 4 and shown("deblur", images).numpy() == pytest.approx(expected, abs=1 / 127)


def test_noise_has_its_standard_deviation_and_holes_their_area():
    black = torch.zeros(4, 3, 64, 64)
    assert shown("denoise", black).std().item() == pytest.approx(tasks.NOISE, rel=0.05)
    holes = shown("inpaint", black + 1) < 0.5
    assert holes.flatten(1).sum(1).tolist() == [3 * 32 * 32] * 4
    assert len({tuple(hole[0].nonzero()[0].tolist()) for hole in holes}) > 1


@pytest.mark.parametrize("factor", [2, 4])
def test_super_resolution_inputs_depend_only_on_block_means(images, factor):
    mean = torch.nn.functional.avg_pool2d(images, factor)
    same_means = images - torch.nn.functional.interpolate(mean, scale_factor=factor) * 0
    other = torch.nn.functional.interpolate(mean, scale_factor=factor)
    task = f"super_resolve_{factor}"
    assert (shown(task, same_means) - shown(task, other)).abs().max() <= 2 / 127
    assert shown(task, images).shape == images.shape


def test_every_input_has_256_levels(images):
    for task in tasks._TASKS:
        x = shown(task, images)
        levels = (x + 1) * 127.5
        assert (levels - levels.round()).abs().max() < 1e-3 and x.abs().max() <= 1


def test_noise_of_held_out_images_is_drawn_once_and_training_noise_each_time():
    data = Digits(size=16, task="denoise", batch_size=8, memory="yes")
    stream = Digits(size=16, task="denoise", batch_size=8, memory="no", workers=0)
    held = [next(iter(d.val_dataloader())).source for d in (data, data, stream)]
    assert torch.equal(held[0], held[1]) and torch.equal(held[0], held[2])
    source = data.source("val")
    assert torch.equal(from_uint8(source.target("source", torch.arange(5))), held[0][:5])
    length = len(data.source("train"))
    loader = data.train_dataloader()
    first = next(iter(loader))
    again = next(iter(data.train_dataloader()))
    assert torch.equal(first.source, again.source) and not torch.equal(first.source, first.image)
    later = data.train_dataloader()
    later.position = length - length % 8
    assert not torch.equal(next(iter(later)).source[:4], first.source[:4])


def test_training_noise_is_the_same_on_any_number_of_processes():
    from genbench.data.loader import TrainLoader

    source = Digits(size=16).source("train")
    whole = next(iter(TrainLoader(source, 8, seed=3, task="inpaint"))).source
    parts = [next(iter(TrainLoader(source, 8, seed=3, task="inpaint", rank=r, world=2))).source for r in (0, 1)]
    assert torch.equal(whole, torch.cat(parts))


def test_the_source_is_mirrored_with_its_image():
    from genbench.data.loader import TrainLoader

    source = Shapes(train_images=64).source("train")
    batch = next(iter(TrainLoader(source, 16, seed=3, hflip=True, task="colorize")))
    assert torch.equal(batch.source, tasks.make("colorize", batch.image, None))


def test_a_task_changes_the_spec():
    spec = Shapes(task="edges", size=32).spec
    assert spec.target == "image" and spec.source == (1, 32, 32) and spec.shape == (3, 32, 32) and not spec.classes
    reference = Digits(size=16, task="denoise").reference()
    assert reference.task == "denoise" and reference.size == 16  # compared at the size that it was trained at


def test_tasks_that_do_not_apply_are_refused():
    with pytest.raises(UserError, match="data.task is colorize, but these images are gray"):
        Digits(task="colorize")
    with pytest.raises(
        UserError, match=r"data.task is super_resolve_4, but data.size is 18, which is not divisible by 4"
    ):
        Digits(size=18, task="super_resolve_4")
