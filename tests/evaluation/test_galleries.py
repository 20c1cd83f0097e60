"""A gallery shows the evaluated images, without a second pass of the model, and does not change scores."""

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.batch import from_uint8
from genbench.core.image_grid import GAP
from genbench.core.noise import mix
from genbench.data import Digits
from genbench.evaluation import extractors
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.galleries import COLUMNS, Gallery, nearest, sheet
from genbench.evaluation.images import SplitImages, TensorImages
from tests.evaluation.test_evaluate import subject
from tests.helpers.abilities import SMALL, Coder, Giver, Independent, Obedient, assert_same, untimed
from tests.helpers.processes import two_processes

FEW = {"samples": 20, "searched": 3, "reconstructions": 5}


def seen(model, protocol=SMALL, data=None, **more):
    pictures = Gallery(**FEW | more)
    record = evaluate(model, data or Digits(), protocol, extractor=extractors.build("digitsnet"), pictures=pictures)
    return pictures, record


@pytest.fixture(scope="module")
def vae():
    return seen(subject("vae"), data=Digits(size=16))


def test_a_gallery_does_not_change_the_scores(vae):
    assert_same(untimed(evaluate(subject("vae"), Digits(size=16), SMALL)), untimed(vae[1]))


def test_the_model_samples_and_reconstructs_nothing_twice(extractor, monkeypatch):
    model, counts = subject("vae"), []
    for pictures in (None, Gallery(**FEW)):
        made = {"sample": 0, "reconstruct": 0}
        for name in made:

            def counted(x, *, made=made, name=name, method=getattr(type(model), name), **more):
                made[name] += len(x)
                return method(model, x, **more)

            monkeypatch.setattr(model, name, counted, raising=False)
        evaluate(model, Digits(size=16), SMALL, extractor=extractor, pictures=pictures)
        counts.append(made)
    assert counts[0] == counts[1] and counts[0]["sample"] == 80 and counts[0]["reconstruct"] == 112  # whole blocks


def test_samples_are_those_of_the_protocols_first_seeds():
    images = torch.randint(0, 256, (70, 1, 32, 32), dtype=torch.uint8)
    for block in (7, 16, 64):
        given = Giver(Digits().spec).give(from_uint8(images))
        pictures, _ = seen(given, SMALL.changed(block=block))
        assert torch.equal(pictures.found["samples"], images[:20])


def test_samples_of_a_conditional_model_have_the_classes_of_the_evaluation():
    data = Digits()
    model = Obedient(data.spec)
    pictures, _ = seen(model)
    labels = torch.cat(model.conditions)[:20]
    known = data.source("test").everything
    for image, label in zip(pictures.found["samples"], labels, strict=True):
        (matches,) = (known.image == image).flatten(1).all(1).nonzero(as_tuple=True)
        assert label in known.label[matches]


def test_each_sample_stands_before_the_training_images_nearest_to_it(extractor):
    train = SplitImages(Digits(), "train", SMALL.train)
    copies = train.images(torch.arange(40, 110))
    pictures, _ = seen(Giver(Digits().spec).give(from_uint8(copies)))
    rows = pictures.found["neighbors"].unflatten(0, (3, COLUMNS["neighbors"]))
    assert torch.equal(rows[:, 0], copies[:3]) and torch.equal(rows[:, 1], copies[:3])  # a copy is found
    features = extractor(train.images(torch.arange(len(train))))[0].double()
    order = torch.cdist(features[40:43], features).argsort(1)[:, :5]
    assert torch.equal(rows[:, 1:], train.images(order.flatten()).unflatten(0, (3, 5)))


def test_the_nearest_rows_are_found_among_all_distances():
    generator = torch.Generator().manual_seed(mix("nearest"))
    x, y = (torch.randn(n, 4, generator=generator) for n in (5, 33))
    assert torch.equal(nearest(x, y, 7, block=8), torch.cdist(x.double(), y.double()).argsort(1)[:, :7])
    assert nearest(x, y[:2], 7).shape == (5, 2)


def test_reference_images_stand_before_their_reconstructions(vae):
    pairs = vae[0].found["reconstructions"].unflatten(0, (5, 2))
    reference = SplitImages(Digits(size=16).reference(), "test", SMALL.real)
    everything = reference.images(torch.arange(len(reference)))
    for image in pairs[:, 0]:
        assert (everything == image).flatten(1).all(1).any()
    exact, _ = seen(Coder(Digits().spec))
    pairs = exact.found["reconstructions"].unflatten(0, (5, 2))
    assert torch.equal(pairs[:, 0], pairs[:, 1]) and exact.found.keys() == {"reconstructions"}


def test_there_are_images_only_of_capabilities_that_are_evaluated(vae):
    assert vae[0].found.keys() == {"samples", "neighbors", "reconstructions"}
    assert seen(subject("vae"), SMALL.changed(metrics=("fid",)))[0].found.keys() == {"samples"}
    assert not seen(Independent(Digits().spec))[0].found
    assert seen(None)[0].found.keys() == {"samples"}  # a baseline: real images


def test_shown_images_of_a_set_are_a_random_choice():
    images = torch.arange(70, dtype=torch.uint8)[:, None, None, None].expand(70, 1, 16, 16)
    shown = seen(TensorImages("x", images))[0].found["samples"][:, 0, 0, 0]
    assert len(shown) == 20 and shown.max() > 40 and (shown.diff() > 0).all()


def worker(rank, folder):
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    pictures, _ = seen(subject("vae"), data=Digits(size=16))
    torch.save(pictures.found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_show_what_one_does(vae, tmp_path):
    two_processes("tests.evaluation.test_galleries", tmp_path, GENBENCH_CACHE=str(tmp_path))
    found, one = torch.load(tmp_path / "0.pt"), vae[0].found
    assert found.keys() == one.keys()
    for name in one:  # pixels agree within a level, whatever the batch
        assert (found[name].int() - one[name].int()).abs().max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_holds_every_pixel_as_it_was(channels):
    images = torch.randint(0, 256, (11, channels, 5, 7), dtype=torch.uint8)
    picture, rows = sheet(images, 4)
    assert picture.size == (4 * 9 + 2, 3 * 7 + 2) and rows == 3
    array = np.array(picture).reshape(picture.height, picture.width, channels)
    for k, image in enumerate(images):
        top, left = GAP + k // 4 * 7, GAP + k % 4 * 9
        assert (array[top : top + 5, left : left + 7] == image.permute(1, 2, 0).numpy()).all()


def test_files_are_named_after_what_they_show_and_say_how_many_rows_they_have(vae, tmp_path):
    vae[0].write(tmp_path / "record")
    files = {path.name: Image.open(path) for path in (tmp_path / "record").iterdir()}
    assert {name: picture.text["rows"] for name, picture in files.items()} == {
        "samples.png": "3",
        "neighbors.png": "3",
        "reconstructions.png": "2",
    }
    assert {picture.text["gap"] for picture in files.values()} == {str(GAP)}
    assert files["samples.png"].size == (8 * (32 + GAP) + GAP, 3 * (32 + GAP) + GAP)  # as compared
