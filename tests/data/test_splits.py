"""Splits, subsets and limits work the same for all data sets and depend only on `split_seed`."""

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import genbench.data
from genbench.core.errors import UserError
from genbench.data import Digits, ImageData, Split
from genbench.data.loader import MemorySource
from genbench.data.streams import StreamSource

COUNTS = {"rare": 20, "some": 80, "many": 300}


class Numbered(ImageData):
    """Each image is its own number, in two pixels; the classes are of different sizes."""

    classes = tuple(COUNTS)
    native_size, native_channels = 2, 1

    def split(self, stage):
        number = np.arange(400 if stage == "train" else 50)
        pictures = np.stack([number // 256, number % 256], -1).astype(np.uint8)[:, None].repeat(2, 1)
        label = torch.arange(3).repeat_interleave(torch.tensor(list(COUNTS.values()))) if stage == "train" else None
        return Split(len(number), pictures.__getitem__, label=label)


class Unlabeled(Numbered):
    classes = ()

    def split(self, stage):
        split = super().split(stage)
        split.label = None
        return split


def numbers(data, stage="train"):
    source = data.source(stage)
    image = source.batch(torch.arange(len(source))).image[:, 0, 0].int()
    return (256 * image[:, 0] + image[:, 1]).tolist()


def test_validation_is_held_out_of_training():
    data = Numbered(val_size=70)
    train, val = numbers(data), numbers(data, "val")
    assert len(val) == 70
    assert sorted(train + val) == list(range(400))


def test_the_validation_split_has_a_tenth_of_a_small_set_and_five_thousand_of_a_large_one():
    assert len(numbers(Numbered(), "val")) == 40

    class Large(Numbered):
        def split(self, stage):
            return Split(60_000, lambda rows: np.zeros((len(rows), 2, 2), dtype=np.uint8))

    assert len(Large().source("val")) == 5000


def test_splits_depend_only_on_split_seed():
    one = Numbered(val_size=70)
    same = Numbered(val_size=70, batch_size=3, memory="no", subset=10)
    other = Numbered(val_size=70, split_seed=1)
    torch.manual_seed(123)
    assert numbers(one, "val") == numbers(same, "val") != numbers(other, "val")


def test_a_subset_is_drawn_evenly_over_the_classes_and_grows_by_adding():
    labels = Numbered(val_size=1).split("train").label
    small, large = (numbers(Numbered(val_size=70, subset=size)) for size in (30, 60))
    assert labels[small].bincount().tolist() == [10, 10, 10]
    assert set(small) < set(large)
    # once the rare class is used up, the others go on
    most = numbers(Numbered(val_size=70, subset=200))
    assert labels[most].bincount()[0] == labels[numbers(Numbered(val_size=70))].bincount()[0]
    assert not set(small) & set(numbers(Numbered(val_size=70), "val"))


def test_a_subset_may_be_a_percentage_of_the_training_images():
    every, tenth = numbers(Numbered(val_size=70)), numbers(Numbered(val_size=70, subset="10%"))
    assert tenth == numbers(Numbered(val_size=70, subset=round(len(every) / 10)))
    assert numbers(Numbered(val_size=70, subset="100%")) == every
    assert len(numbers(Numbered(val_size=70, subset="0.01%"))) == 1


def test_per_class_takes_the_same_number_of_each():
    data = Numbered(val_size=70, per_class=8)
    assert data.source("train").everything.label.bincount().tolist() == [8, 8, 8]
    assert len(numbers(Numbered(val_size=70, per_class=8, subset=5))) == 5
    assert len(numbers(data, "val")) == 70  # limits are for training only


def test_a_subset_of_unlabeled_images_is_drawn_at_random():
    chosen = numbers(Unlabeled(val_size=70, subset=30))
    assert len(set(chosen)) == 30
    assert max(chosen) > 200


def told(data):
    """The numbers of the training images whose label is given, and these labels."""
    label = data.source("train").target("label", torch.arange(len(data.source("train"))))
    known = (label >= 0).nonzero()[:, 0]
    return torch.tensor(numbers(data))[known].tolist(), label[known]


@pytest.mark.parametrize("memory", ["yes", "no"])
def test_labeled_keeps_the_same_number_of_labels_of_each_class_and_all_images(memory):
    data = Numbered(val_size=70, labeled=30, memory=memory)
    images, labels = told(data)
    assert labels.bincount().tolist() == [10, 10, 10]
    assert torch.equal(labels, Numbered().split("train").label[images])
    assert numbers(data) == numbers(Numbered(val_size=70))
    assert (data.source("val").target("label", torch.arange(70)) >= 0).all()  # for training only
    assert data.reference().labeled is None


def test_known_labels_depend_only_on_split_seed_and_grow_by_adding():
    some, more = (told(Numbered(val_size=70, labeled=count))[0] for count in (15, 30))
    assert set(some) < set(more)
    torch.manual_seed(123)
    assert told(Numbered(val_size=70, labeled=15, batch_size=3))[0] == some
    assert told(Numbered(val_size=70, labeled=15, split_seed=1))[0] != some
    assert set(told(Numbered(val_size=70, labeled=15, subset=200))[0]) == set(some)


@pytest.mark.parametrize("memory", ["yes", "no"])
def test_a_batch_has_as_many_labeled_images_as_images(memory):
    data = Numbered(val_size=70, labeled=6, batch_size=32, memory=memory, workers=0)
    plain = next(iter(Numbered(val_size=70, batch_size=32).train_dataloader()))
    assert plain.known_image is None and plain.known_label is None
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch.image, plain.image) and len(batch) == 32  # the same images in the same order
    assert torch.equal(batch.label[batch.label >= 0], plain.label[batch.label >= 0])
    assert batch.known_image.shape == batch.image.shape and batch.known_image.dtype == torch.float32
    number = (batch.known_image[:, 0, 0] * 127.5 + 127.5).round().long()
    number = (256 * number[:, 0] + number[:, 1]).tolist()
    images, labels = told(data)
    assert set(number) == set(images)
    assert batch.known_label.tolist() == [dict(zip(images, labels.tolist(), strict=True))[k] for k in number]


def test_labeled_is_refused_without_classes():
    with pytest.raises(UserError, match=r"data.labeled needs classes, but Unlabeled has none. Remove `--data.labeled`"):
        Unlabeled(labeled=3).source("train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_size": 400}, "none would be left to train on"),
        ({"subset": 361}, "data.subset is 361, but there are only 360 training images"),
        ({"per_class": 21}, "data.per_class is 21, but class `rare` has only"),
        ({"labeled": 63}, "data.labeled is 63, 21 of each class, but class `rare` has only"),
        ({"labeled": 31}, "data.labeled is 31, which is not divisible by the 3 classes of Numbered. Choose a multip"),
        ({"labeled": 0}, "data.labeled is 0; it must be at least 1"),
        ({"batch_size": 0}, "data.batch_size is 0; it must be at least 1"),
        ({"size": 0}, "data.size is 0"),
        ({"subset": -5}, "data.subset is -5"),
        ({"subset": "0%"}, "data.subset is '0%'; expected a number of images or a percentage such as 10%"),
        ({"subset": "110%"}, "data.subset is '110%'"),
        ({"subset": "few"}, "data.subset is 'few'"),
    ],
)
def test_impossible_sizes_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Numbered(**arguments).source("train")


def test_per_class_without_labels_is_refused():
    with pytest.raises(UserError, match=r"data.per_class needs labels, but Unlabeled has none. Use `--data.subset"):
        Unlabeled(per_class=3).source("train")


def test_memory_and_stream_hold_the_same_images():
    memory, stream = Numbered(memory="yes").source("train"), Numbered(memory="no").source("train")
    assert isinstance(memory, MemorySource)
    assert isinstance(stream, StreamSource)
    rows = torch.tensor([5, 0, 300])
    assert torch.equal(memory.batch(rows).image, stream.batch(rows).image)
    assert torch.equal(memory.batch(rows).label, stream.batch(rows).label)


def test_data_that_does_not_fit_in_memory_is_streamed(monkeypatch):
    monkeypatch.setattr("genbench.data.base.free_memory", lambda: 4 * 360 * 4)
    assert isinstance(Numbered().source("train"), StreamSource)
    monkeypatch.setattr("genbench.data.base.free_memory", lambda: 4 * 360 * 4 + 4)
    assert isinstance(Numbered().source("train"), MemorySource)


def test_a_selection_that_fits_in_memory_holds_the_images_of_the_stream_and_is_decoded_once(monkeypatch):
    monkeypatch.setattr("genbench.data.base.free_memory", lambda: 4 * 100 * 4)
    data, rows = Numbered(), torch.tensor([5, 0, 300])
    stream = data.source("train")
    assert isinstance(stream, StreamSource)
    some, own = data.selection(stream, rows, "three")
    assert isinstance(some, MemorySource) and own.tolist() == [0, 1, 2]
    assert torch.equal(some.batch(own).image, stream.batch(rows).image)
    assert torch.equal(some.batch(own).label, stream.batch(rows).label)
    assert data.selection(stream, rows.clone(), "three")[0] is some
    whole = torch.arange(len(stream))
    assert data.selection(stream, whole, "all") == (stream, whole)  # does not fit
    assert not isinstance(Numbered(memory="no").selection(stream, rows, "three")[0], MemorySource)


def trainer(**kwargs):
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    default = {"global_rank": 0, "world_size": 1, "num_devices": 1, "strategy": strategy, "lightning_module": None}
    return SimpleNamespace(**{**default, **kwargs})


def test_the_batch_is_divided_among_devices_and_must_be_divisible():
    data = Numbered(batch_size=10)
    data.trainer = trainer(world_size=3)
    with pytest.raises(
        UserError, match=r"data.batch_size is 10.*is not divisible by 3 devices. Choose a multiple of 3"
    ):
        data.train_dataloader()
    data.trainer = trainer(world_size=2, global_rank=1)
    assert len(next(iter(data.train_dataloader())).image) == 5


def test_training_resumes_at_the_images_seen():
    data = Numbered(batch_size=4)
    data.trainer = trainer(lightning_module=SimpleNamespace(seed=3, images_seen=8))
    resumed = next(iter(data.train_dataloader()))
    data.trainer = trainer(lightning_module=SimpleNamespace(seed=3, images_seen=0))
    batches = iter(data.train_dataloader())
    for _ in range(2):
        next(batches)
    assert torch.equal(next(batches).image, resumed.image)


def test_digits_are_enlarged_and_have_their_labels():
    data = Digits(size=16)
    sizes = [len(data.source(stage)) for stage in ("train", "val", "test")]
    assert sizes == [1350, 150, 297]
    image = next(iter(data.test_dataloader())).image
    assert image.shape == (256, 1, 16, 16)
    assert image.min() == -1
    assert image.max() == 1
    # scaled by two, the mean brightness stays
    from sklearn.datasets import load_digits

    assert image[:100].mean() == pytest.approx(load_digits().data[1500:1600].mean() / 8 - 1, abs=0.02)


def test_importing_the_data_sets_imports_none_of_the_libraries_that_read_them():
    for file in Path(genbench.data.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in named} & {"torchvision", "sklearn", "scipy"}, file


# ---- only_classes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["yes", "no"])
@pytest.mark.parametrize("given", ["some", ["some"], 1, [1], "1"])
def test_only_classes_keeps_the_images_of_these_classes_and_their_labels(memory, given):
    whole, data = Numbered(val_size=70), Numbered(val_size=70, only_classes=given, memory=memory)
    assert data.spec == whole.spec and data.spec.classes == ("rare", "some", "many")
    of_class = set(range(20, 100))
    for stage in ("train", "val"):
        assert set(numbers(data, stage)) == set(numbers(whole, stage)) & of_class
        label = data.source(stage).target("label", torch.arange(len(data.source(stage))))
        assert label.unique().tolist() == [1]
    assert data.arguments["only_classes"] == ["some"]


def test_only_classes_restricts_the_test_images_and_the_images_that_samples_are_compared_with():
    data = Digits(only_classes=[3, "5"])
    label = data.source("test").target("label", torch.arange(len(data.source("test"))))
    every = Digits().source("test").target("label", torch.arange(297))
    assert label.bincount(minlength=10).tolist() == [
        0,
        0,
        0,
        int((every == 3).sum()),
        0,
        int((every == 5).sum()),
        0,
        0,
        0,
        0,
    ]
    reference = data.reference()
    assert reference.only_classes == ["3", "5"] and len(reference.source("test")) == len(label)
    assert data.compared() == Digits(only_classes=[5, 3]).compared() != Digits().compared()


def test_a_class_is_found_by_its_name_before_its_number():
    class Years(Numbered):
        classes = ("2", "1", "many")

    assert Years(only_classes=2).arguments["only_classes"] == ["2"]  # class number 0
    assert Years(only_classes=0).arguments["only_classes"] == ["2"]


def test_limits_apply_to_the_classes_that_are_used():
    assert len(numbers(Numbered(val_size=70, only_classes=["some", "many"], per_class=30))) == 60
    assert (
        len(numbers(Numbered(val_size=70, only_classes="some", subset="50%")))
        == len(numbers(Numbered(val_size=70, only_classes="some"))) / 2
    )
    assert len(told(Numbered(val_size=70, only_classes=["some", "many"], labeled=20))[0]) == 20


def test_the_range_does_not_depend_on_only_classes():
    def sixteen(split):
        return Split(split.length, lambda rows: split.pictures(rows).astype(np.uint16), label=split.label)

    class Deep(Numbered):
        def split(self, stage):
            return sixteen(super().split(stage))

    assert Deep(range="data").ranges()[0] == Deep(range="data", only_classes="rare").ranges()[0]


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (Numbered, {"only_classes": []}, "data.only_classes is an empty list. Add a class, or remove"),
        (Numbered, {"only_classes": ["rara"]}, "there is no class 'rara'. Choose from: rare, some, many. Did you mean"),
        (Numbered, {"only_classes": 3}, "data.only_classes: there is no class '3'"),
        (Numbered, {"only_classes": -1}, "data.only_classes is -1; it must be at least 0"),
        (Numbered, {"only_classes": "rare", "subset": 21}, "data.subset is 21, but there are only"),
        (Numbered, {"only_classes": "rare", "per_class": 21}, "but class `rare` has only"),
        (Unlabeled, {"only_classes": "rare"}, "data.only_classes needs classes, but Unlabeled has none"),
    ],
)
def test_impossible_classes_are_refused(data, arguments, message):
    with pytest.raises(UserError, match=message):
        data(**arguments).source("train")


def test_classes_without_an_image_in_a_split_are_refused():
    with pytest.raises(
        UserError, match=r"No image of Numbered for `val` is of data.only_classes: rare. Use other class"
    ):
        Numbered(val_size=1, only_classes="rare").source("val")
    with pytest.raises(UserError, match="needs the class of every image, but the images of Numbered for `test` have"):
        Numbered(only_classes="rare").source("test")


def test_only_classes_does_not_apply_to_pairs():
    with pytest.raises(UserError, match=r"data.only_classes is \[.a.\], but does not apply to pairs"):
        data = Numbered(only_classes="a")
        data.refuse_tasks()
