"""Points have the documented distribution, and are loaded like images."""

import itertools

import pytest
import torch
from scipy.stats import chisquare, kstest

import genbench.models
from genbench.core.batch import DataSpec, from_stored, to_stored
from genbench.core.errors import UserError
from genbench.data import Grid, Ring
from genbench.data.loader import TrainLoader


def everything(data, stage="train"):
    return data.source(stage).everything


@pytest.mark.parametrize(("cls", "count"), [(Ring, 8), (Grid, 25)])
def test_points_are_a_mixture_of_equal_round_gaussians(cls, count):
    data = cls()
    found, modes = everything(data), torch.tensor(data.modes)
    assert found.image.shape == (100_000, 2) and found.image.dtype == torch.float32 and modes.shape == (count, 2)
    assert chisquare(found.label.bincount(minlength=count)).pvalue > 1e-3
    noise = (found.image - modes[found.label]) / data.std
    assert kstest(noise.flatten(), "norm").pvalue > 1e-3
    assert torch.corrcoef(noise.T)[0, 1].abs() < 0.02


def test_the_modes_of_ring_and_grid():
    ring = torch.tensor(Ring.modes)
    assert torch.allclose(ring.norm(dim=1), torch.ones(8)) and torch.pdist(ring).min() == pytest.approx(
        0.76537, abs=1e-4
    )
    grid = torch.tensor(Grid.modes)
    assert sorted(set(grid.flatten().tolist())) == [-1, -0.5, 0, 0.5, 1] and torch.pdist(grid).min() == 0.5


def test_points_depend_on_split_and_seed():
    data = Ring()
    firsts = [everything(data, stage).image[0].tolist() for stage in ("train", "val", "test")]
    firsts.append(everything(Ring(seed=1)).image[0].tolist())
    assert len(set(map(tuple, firsts))) == 4
    assert torch.equal(everything(Ring(batch_size=8)).image, everything(data).image)
    assert [len(Ring(train_images=7, val_images=5, test_images=3).source(s)) for s in ("train", "val", "test")] == [
        7,
        5,
        3,
    ]


def test_the_target_is_none_or_the_label():
    assert Ring().spec == DataSpec((2,))
    assert Grid(target="label").spec == DataSpec((2,), "label", tuple(map(str, range(25))))
    assert Grid(target="label", seed=3).arguments == {"target": "label", "seed": 3}


def test_the_reference_does_not_depend_on_training_settings():
    data = Ring(batch_size=8, eval_batch_size=3, seed=2)
    assert data.reference().arguments == {"seed": 2}
    assert torch.equal(everything(data.reference(), "test").image, everything(data, "test").image)


def test_training_resumes_and_is_the_same_on_any_number_of_processes():
    source = Ring(train_images=11).source("train")

    def taken(n, **more):
        return torch.cat([batch.image for batch in itertools.islice(TrainLoader(source, 4, seed=7, **more), n)])

    whole = taken(8)
    assert torch.equal(taken(5, position=12), whole[12:])
    parts = torch.stack([taken(8, rank=rank, world=2).view(8, 2, 2) for rank in (0, 1)], 1)
    assert torch.equal(parts.reshape(32, 2), whole)
    assert torch.equal(whole[:11].sort(0).values, source.everything.image.sort(0).values)  # each once a pass


def test_loaders_give_points_unchanged():
    data = Ring(test_images=10, eval_batch_size=4)
    assert torch.equal(torch.cat([b.image for b in data.test_dataloader()]), everything(data, "test").image)
    far = torch.tensor([[-7.5, 3.25]])
    assert torch.equal(from_stored(to_stored(far)), far)


def test_a_batch_size_that_is_not_divisible_is_refused():
    with pytest.raises(UserError, match=r"data\.batch_size is 6.*divisible by 4 devices"):
        Ring(batch_size=6).check_divisible(4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_images": 0}, "data.train_images is 0; it must be at least 1"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"target": "mask"}, "data.target is mask; Ring supports only none and label"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Ring(**arguments)


def test_a_model_of_images_refuses_points():
    with pytest.raises(UserError, match="needs images, but the data has points of 2 numbers"):
        genbench.models.DCGAN(Ring().spec)
