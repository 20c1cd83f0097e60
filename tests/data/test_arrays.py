"""Arrays of images are read correctly, or rejected with a sentence."""

import io
import math
import os
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch

from genbench.core.errors import UserError
from genbench.data import ArrayImages
from genbench.data.array_file import ArrayFile
from genbench.evaluation.images import open_images


def gray(count=24, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)


def rgb(count=24, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def whole(data):
    """All images [N, C, H, W] and labels in the file's own order."""
    split, values = data.whole("x")
    rows = np.arange(split.length)
    levels = values.levels(split.pictures(rows), split.name)
    return levels, None if split.label is None else split.label.tolist()


def load(path, **kwargs):
    return ArrayImages(path=str(path), **kwargs)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def medmnist(path, labels=None, **more):
    parts = {"train": slice(0, 16), "val": slice(16, 20), "test": slice(20, 24)}
    labels = np.arange(24, dtype=np.uint8)[:, None] % 2 if labels is None else labels
    arrays = {f"{part}_images": gray()[rows] for part, rows in parts.items()}
    arrays |= {f"{part}_labels": labels[rows] for part, rows in parts.items()}
    return saved(path / "med.npz", **arrays | more)


# ---- formats of the field -------------------------------------------------------------------------------------------


def test_medmnist_has_its_own_three_splits_and_classes(tmp_path):
    data = load(medmnist(tmp_path))
    assert data.spec.shape == (1, 8, 8) and data.spec.classes == ("0", "1")
    for stage, rows in {"train": slice(0, 16), "val": slice(16, 20), "test": slice(20, 24)}.items():
        batch = data.source(stage).everything
        assert np.array_equal(batch.image[:, 0].numpy(), gray()[rows])
        assert batch.label.tolist() == (np.arange(24)[rows] % 2).tolist()


def test_several_labels_for_each_image_are_refused(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2, (24, 14), dtype=np.uint8)
    path = medmnist(tmp_path, labels)
    said = r"train_labels in .*med.npz is uint8 \[16, 14\]: an image with several labels .*`--data.labels false`"
    with pytest.raises(UserError, match=said):
        load(path)
    data = load(path, labels=False)
    assert data.spec.target == "none" and len(data.source("train")) == 16


@pytest.mark.parametrize(("size", "shape"), [(28, (1, 32, 32)), (64, (1, 64, 64)), (224, (1, 224, 224))])
def test_medmnist_is_read_in_its_official_sizes(tmp_path, size, shape):
    from tests.helpers.medmnist import write

    data = load(write(tmp_path / f"pneumoniamnist_{size}.npz", {"train": 6, "val": 2, "test": 4}, size))
    assert data.spec.shape == shape and data.spec.classes == ("0", "1")
    stored = np.load(tmp_path / f"pneumoniamnist_{size}.npz")["test_images"]
    image = data.source("test").batch(torch.arange(4)).image[:, 0].numpy()
    side = (shape[1] - size) // 2
    assert np.array_equal(image[:, side : side + size, side : side + size], stored)


def test_a_class_of_a_medmnist_set_can_be_trained_on_alone(tmp_path):
    data = load(medmnist(tmp_path), only_classes=[0])
    for stage, count in {"train": 8, "val": 2, "test": 2}.items():
        assert data.source(stage).everything.label.tolist() == [0] * count
    task = load(medmnist(tmp_path), only_classes=[1], task="inpaint")
    assert task.spec.source == (1, 8, 8) and len(task.source("train")) == 8


def test_color_medmnist_has_three_channels(tmp_path):
    images, labels = rgb(), np.arange(24, dtype=np.uint8)[:, None] % 9
    parts = {"train": slice(0, 16), "val": slice(16, 20), "test": slice(20, 24)}
    arrays = {f"{part}_images": images[rows] for part, rows in parts.items()}
    arrays |= {f"{part}_labels": labels[rows] for part, rows in parts.items()}
    data = load(saved(tmp_path / "pathmnist.npz", **arrays))
    assert data.spec.shape == (3, 8, 8) and len(data.spec.classes) == 9


def test_the_volumes_of_medmnist_are_refused_and_their_slices_are_images(tmp_path):
    volumes, labels = np.random.default_rng(0).integers(0, 256, (14, 28, 28, 28), dtype=np.uint8), np.arange(14) % 3
    arrays = {"train": slice(0, 6), "val": slice(6, 10), "test": slice(10, 14)}
    path = saved(
        tmp_path / "organmnist3d.npz",
        **{f"{part}_images": volumes[rows] for part, rows in arrays.items()},
        **{f"{part}_labels": labels[rows, None] for part, rows in arrays.items()},
    )
    with pytest.raises(UserError, match=r"For volumes, save their slices as images, such as train_images\[:, 14\]"):
        load(path)
    slices = {f"{part}_images": volumes[rows, 14] for part, rows in arrays.items()}
    with np.load(path) as file:
        sliced = saved(tmp_path / "slices.npz", **{name: slices.get(name, file[name]) for name in file.files})
    assert load(sliced).spec.shape == (1, 32, 32)


def test_imagenet32_is_stored_by_channel_and_counts_from_one(tmp_path):
    images, labels = rgb(), np.arange(24) % 3 + 1
    path = saved(
        tmp_path / "i.npz", data=images.transpose(0, 3, 1, 2).reshape(24, -1), labels=labels, mean=np.ones(192)
    )
    with pytest.warns(UserWarning, match="3 different labels from 1 to 3 are used as classes 0 to 2"):
        data = load(path)
    assert data.spec.shape == (3, 8, 8) and data.spec.classes == ("1", "2", "3")
    found, label = whole(data)
    assert np.array_equal(found, images) and label == (labels - 1).tolist()


def test_a_folder_of_batches_is_one_data_set_in_the_order_of_their_numbers(tmp_path):
    flat = rgb(36).transpose(0, 3, 1, 2).reshape(36, -1)
    labels = np.arange(36) % 2
    for k in range(12):  # 10 comes after 9
        part = slice(3 * k, 3 * k + 3)
        name = "val_data" if k == 11 else f"train_data_batch_{k}"
        np.savez(tmp_path / f"{name}.npz", data=flat[part], labels=labels[part])
    (tmp_path / "readme.txt").write_text("x")
    with pytest.warns(UserWarning, match="1 files that are not arrays are ignored: readme.txt"):
        data = load(tmp_path)
    assert data.own_splits == ("train", "val")
    split = data.split("train")
    assert np.array_equal(split.pictures(np.arange(33)), rgb(36)[:33]) and split.label.tolist() == labels[:33].tolist()
    assert np.array_equal(split.pictures(np.array([32, 0, 5, 0])), rgb(36)[[32, 0, 5, 0]])
    assert data.split("val").label.tolist() == labels[33:].tolist()


def test_files_of_a_folder_that_are_not_parts_of_one_set_are_refused(tmp_path):
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", images=gray())
    with pytest.raises(UserError, match="a.npz, b.npz all have an array images, but .* not look like numbered parts"):
        load(tmp_path)


def test_images_of_28_pixels_are_padded_like_mnist(tmp_path):
    np.save(tmp_path / "a.npy", gray(size=28))
    image = load(tmp_path / "a.npy").source("train").everything.image
    order = load(tmp_path / "a.npy")._training(load(tmp_path / "a.npy").split("train"))
    assert np.array_equal(image[:, 0, 2:30, 2:30].numpy(), gray(size=28)[order]) and image.shape[2:] == (32, 32)
    assert image[:, :, :2].max() == 0 and load(tmp_path / "a.npy", size=28).spec.shape == (1, 28, 28)


def test_dsprites_are_black_and_white_and_their_pickle_is_not_loaded(tmp_path):
    shapes = (gray() > 127).astype(np.uint8)
    np.savez_compressed(
        tmp_path / "d.npz", imgs=shapes, latents_values=np.ones((24, 6)), latents_classes=np.ones((24, 6), int),
        metadata=np.array(Trap(tmp_path), dtype=object),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="only the values 0 and 1"):
        found, label = whole(load(tmp_path / "d.npz"))
    assert np.array_equal(found, shapes * 255) and label is None
    assert not (tmp_path / "executed").exists()


def corrupted(folder):
    images = np.concatenate([rgb(10, seed=k) for k in range(5)])
    np.save(folder / "gaussian_noise.npy", images)
    np.save(folder / "labels.npy", np.tile(np.arange(10, dtype=np.uint8) % 5, 5))
    return images


@pytest.mark.parametrize("severity", [1, 5])
def test_one_severity_of_cifar10c_is_read(tmp_path, severity):
    images = corrupted(tmp_path)
    for path in (tmp_path / "gaussian_noise.npy", tmp_path):
        found, label = whole(load(path, severity=severity))
        assert np.array_equal(found, images[10 * severity - 10 : 10 * severity]) and label == [*range(5)] * 2


def test_cifar10c_without_a_severity_is_refused(tmp_path):
    corrupted(tmp_path)
    with pytest.raises(UserError, match="10 images at each of five severities. .* `--data.severity`, from 1 to 5"):
        load(tmp_path / "gaussian_noise.npy")
    for severity, bound in ((0, "least 1"), (6, "most 5")):
        with pytest.raises(UserError, match=f"data.severity is {severity}; it must be at {bound}"):
            load(tmp_path, severity=severity)
    np.save(tmp_path / "fog.npy", rgb(50))
    with pytest.raises(UserError, match="several arrays of images: fog .*gaussian_noise .* `--data.key fog`"):
        load(tmp_path, severity=1)
    assert len(whole(load(tmp_path, key="fog", severity=2))[0]) == 10
    np.save(tmp_path / "mine.npy", rgb(24))
    with pytest.raises(UserError, match="the 24 images of mine cannot be split into five equal parts"):
        load(tmp_path, key="mine", severity=2)


def test_adm_samples_have_labels_in_the_same_file(tmp_path):
    np.savez(tmp_path / "a.npz", rgb(), np.arange(24) % 2)
    found, label = whole(load(tmp_path / "a.npz"))
    assert np.array_equal(found, rgb()) and label == [0, 1] * 12


def test_arrays_of_splits_are_found_under_many_names(tmp_path):
    path = saved(tmp_path / "k.npz", x_train=gray(), y_train=np.arange(24) % 2, x_test=gray(6), y_test=np.arange(6) % 2)
    data = load(path)
    assert data.own_splits == ("train", "test") and data.split("test").label.tolist() == [0, 1] * 3
    assert len(data.source("val")) == 2 and len(data.source("train")) == 22
    for name, array in (("X-train", gray()), ("y-train", np.arange(24) % 2)):
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "k.npz").unlink()
    assert whole(load(tmp_path))[1] == [0, 1] * 12


def test_labels_are_found_in_a_file_with_a_matching_name_in_the_same_folder(tmp_path):
    for images, labels in (("X_train", "y_train"), ("x_test", "y_test"), ("c.1_v6_data", "c.1_v6_labels")):
        np.save(tmp_path / f"{images}.npy", rgb())
        np.save(tmp_path / f"{labels}.npy", np.arange(24) % (2 + len(labels) % 3))
    np.save(tmp_path / "labels.npy", np.arange(25) % 3)
    for images, labels in (("X_train", "y_train"), ("x_test", "y_test"), ("c.1_v6_data", "c.1_v6_labels")):
        with pytest.warns(UserWarning, match=rf"{labels}.npy is used as the labels of {images}.npy.* `--data.labels f"):
            found, label = whole(load(tmp_path / f"{images}.npy"))
        assert np.array_equal(found, rgb()) and label == (np.arange(24) % (2 + len(labels) % 3)).tolist()
        assert load(tmp_path / f"{images}.npy", labels=False).spec.target == "none"
    np.save(tmp_path / "fog.npy", rgb(25))
    with pytest.warns(UserWarning, match="labels.npy is used"):
        assert len(load(tmp_path / "fog.npy", severity=1, labels_key="labels").split("train").label) == 5
    np.save(tmp_path / "y_train.npy", np.arange(23))
    with pytest.raises(UserError, match="y_train in .*y_train.npy has 23 labels, but X_train has 24 images"):
        load(tmp_path / "X_train.npy")


def test_labels_in_a_folder_of_arrays_are_those_with_the_name_of_the_images(tmp_path):
    for version, count in (("v4", 3), ("v6", 2)):
        np.save(tmp_path / f"c.1_{version}_data.npy", rgb())
        np.save(tmp_path / f"c.1_{version}_labels.npy", np.arange(24) % count)
    for version, count in (("v4", 3), ("v6", 2)):
        with pytest.warns(UserWarning, match=f"c.1_{version}_labels is used as the labels of c.1_{version}_data"):
            assert whole(load(tmp_path, key=f"c.1_{version}_data"))[1] == (np.arange(24) % count).tolist()


def test_fine_labels_are_used_by_default_and_coarse_ones_with_a_flag(tmp_path):
    parts = {
        f"{s}_{kind}_labels": np.arange(24) % n for s in ("train", "test") for kind, n in (("fine", 4), ("coarse", 2))
    }
    path = saved(tmp_path / "c.npz", train_images=rgb(), test_images=rgb(), **parts)
    with pytest.warns(UserWarning, match="train_fine_labels is used .* `--data.labels_key train_coarse_labels` for"):
        data = load(path)
    assert data.split("train").label.tolist() == data.split("test").label.tolist() == [0, 1, 2, 3] * 6
    data = load(path, labels_key="coarse_labels")
    assert data.split("train").label.tolist() == data.split("test").label.tolist() == [0, 1] * 12
    assert load(path, labels=False).spec.target == "none"


def test_an_array_named_like_labels_with_one_value_per_image_has_the_labels(tmp_path):
    names = {"label_names": np.array(["a", "b"]), "bbox_labels": np.zeros((24, 4), int), "center_y": np.arange(24) % 9}
    with pytest.warns(UserWarning, match="digit_labels is used as the labels of images. Use `--data.labels false`"):
        assert whole(load(saved(tmp_path / "a.npz", images=gray(), digit_labels=np.arange(24) % 2, **names)))[1]
    assert load(saved(tmp_path / "b.npz", images=gray(), **names)).spec.target == "none"
    path = saved(tmp_path / "c.npz", images=gray(), digit_labels=np.arange(24) % 2, color_labels=np.arange(24) % 3)
    with pytest.raises(UserError, match="digit_labels, color_labels. Choose one: .*, or use `--data.labels false`"):
        load(path)


@pytest.mark.parametrize("labels", [np.arange(24), np.arange(24) * 7 - 50, np.array([f"id{k}" for k in range(24)])])
def test_labels_that_differ_for_every_image_are_rejected(tmp_path, labels):
    path = saved(tmp_path / "a.npz", images=gray(), labels=labels)
    with pytest.raises(
        UserError, match="Each of the 24 training images in .*a.npz has a different label.*labels false"
    ):
        load(path)
    assert load(path, labels=False).spec.target == "none"
    labels[-1] = labels[0]
    assert len(load(saved(tmp_path / "b.npz", images=gray(), labels=labels)).spec.classes) == 23


# ---- which array ----------------------------------------------------------------------------------------------------


def test_a_key_chooses_images_with_the_labels_of_their_split(tmp_path):
    data = load(medmnist(tmp_path), key="test_images", val_size=1, test_size=1)
    found, label = whole(data)
    assert np.array_equal(found, gray()[20:]) and label == [0, 1, 0, 1] and data.own_splits == ("train",)


def test_images_masks_and_labels_are_distinguished_by_name(tmp_path):
    path = saved(
        tmp_path / "a.npz", masks=gray(seed=1), images=gray(), label=np.arange(24) % 2, other=np.arange(24) % 3
    )
    found, label = whole(load(path))
    assert np.array_equal(found, gray()) and label == [0, 1] * 12
    assert whole(load(path, labels_key="other"))[1] == [0, 1, 2] * 8
    assert np.array_equal(whole(load(path, key="masks", labels=False))[0], gray(seed=1))


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"a": gray(), "b": gray()}, {}, r"several arrays of images: a \(uint8 \[24, 8, 8\]\), b .* `--data.key a`"),
        ({"arr_0": rgb(), "arr_1": rgb()}, {}, "several arrays of images"),
        ({"val_images": gray(), "test_images": gray()}, {}, "no training images. Choose .* `--data.key`: val_images"),
        ({"images": gray()}, {"key": "x"}, r"has no array x. Choose from: images \(uint8 \[24, 8, 8\]\)"),
        ({"images": gray(), "labels": np.arange(24), "y": np.arange(24)}, {}, "may be labels: labels, y. Choose one"),
        ({"images": gray()}, {"labels_key": "z"}, "has no array z"),
        ({"images": gray()}, {"labels_key": "z", "labels": False}, "data.labels_key is z, but data.labels is false"),
        ({"images": gray(), "labels": np.arange(23)}, {}, "has 23 labels, but images has 24 images"),
        ({"images": gray(), "labels": np.arange(24) / 2}, {}, "labels in .* holds float64; labels must be integers"),
        ({"images": gray(), "labels": np.ones((24, 2, 2), int)}, {}, "several labels|one per image"),
        ({"images": gray(), "labels": np.array(3)}, {}, "one per image"),
        ({"images": gray(), "labels": np.arange(24) % 3 - 1}, {}, "contains -1 as well as 0"),
        ({"images": gray(), "labels": np.array([None] * 24)}, {}, "is a pickle.*`--data.labels false`"),
        ({"mu": np.zeros(3), "sigma": np.eye(3)}, {}, "no array of images.* mean and covariance of features"),
        ({"names": np.array(["a", "b"])}, {}, "no array of images"),
        ({"images": np.array([None] * 3)}, {}, "images.npy in .* is a pickle, which is not loaded because"),
        ({"images": gray() + 0j}, {}, "no array of images"),
        ({"images": gray() + 0j}, {"key": "images"}, "images in .* holds complex128"),
        ({"images": np.zeros((3,), dtype="u1,u1")}, {"key": "images"}, r"holds \[\('f0'"),
        ({"images": gray(0)}, {}, "contains no images"),
        ({"images": np.array(3)}, {"key": "images"}, "images must be"),
        ({"images": np.zeros((4, 8, 8, 8), "u1")}, {}, "with 1 or 3 channels"),
        ({"z": np.zeros((9, 4, 8, 8))}, {}, "z in .* with 1 or 3 channels"),
        ({"images": np.zeros((4, 3, 8, 3), "u1")}, {}, "may be NHWC or NCHW. Choose one: `--data.layout NHWC`"),
        ({"images": np.zeros((10, 8, 3), "u1")}, {}, "one image or several gray images. Use `--data.layout NHW`"),
        ({"images": np.zeros((3, 8, 8), "u1")}, {}, "one image or several gray images"),
        ({"images": rgb()}, {"layout": "NCHW"}, "data.layout is NCHW, but images in .* Use NHWC"),
        ({"images": rgb()}, {"layout": "CHW"}, "data.layout is CHW; choose from: NHW, NHWC, NCHW"),
        ({"images": rgb().reshape(24, -1)}, {}, "may be NHWC or NCHW"),
        ({"images": np.zeros((24, 64))}, {}, "no array of images"),
        ({"images": np.zeros((24, 64))}, {"key": "images"}, "may be points"),
        ({"images": np.zeros((24, 65), "u1")}, {}, "no array of images"),
    ],
)  # fmt: skip
def test_the_error_for_ambiguous_or_invalid_arrays_has_a_fix(tmp_path, arrays, options, message):
    path = saved(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        load(path, **options)


def test_a_test_class_without_training_images_is_refused_before_training(tmp_path):
    labels = np.arange(24) % 2
    labels[21] = 7
    with pytest.raises(UserError, match="The labels for `test` in .* include 7, which no training image has"):
        load(medmnist(tmp_path, labels))


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (np.array([30, 10, 20] * 8, dtype=">i2"), ("10", "20", "30"), [2, 0, 1] * 8),
        (np.array([-5, 5] * 12), ("-5", "5"), [0, 1] * 12),
        (np.array(["cat", "ant"] * 12), ("ant", "cat"), [1, 0] * 12),
        (np.array([b"cat", b"ant"] * 12), ("ant", "cat"), [1, 0] * 12),
        (np.array([True, False] * 12), ("0", "1"), [1, 0] * 12),
        (np.eye(3, dtype=np.float32)[[2, 0, 1] * 8].astype(np.uint8), ("0", "1", "2"), [2, 0, 1] * 8),
        (np.zeros(24, int), (), None),
    ],
)
def test_labels_that_start_at_any_number_are_classes_in_sorted_order(tmp_path, labels, classes, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = load(saved(tmp_path / "a.npz", images=gray(), labels=labels))
    found = data.split("train").label
    assert data.spec.classes == classes and (None if found is None else found.tolist()) == expected


# ---- types and layouts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stored",
    [
        lambda x: x,
        lambda x: x.transpose(0, 3, 1, 2),
        np.asfortranarray,
        lambda x: x.astype(">u2") * 257,
        lambda x: x / np.float32(255),
        lambda x: (x.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float64),
        lambda x: x.astype(">f8"),
        lambda x: x.astype(np.int64),
        lambda x: np.concatenate([x, np.full_like(x[..., :1], 255)], -1),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_every_type_and_layout_gives_the_same_images(tmp_path, stored, compressed):
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", images=stored(rgb()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = load(tmp_path / "a.npz", memory="no", workers=0)
        found = data.source("train").batch(torch.arange(20)).image
    order = data.source("train").rows
    assert data.spec.shape == (3, 8, 8) and np.array_equal(found.numpy(), rgb()[order].transpose(0, 3, 1, 2))


def test_booleans_are_black_and_white(tmp_path):
    np.save(tmp_path / "a.npy", gray() > 127)
    assert np.array_equal(whole(load(tmp_path / "a.npy"))[0], (gray() > 127) * 255)


@pytest.mark.parametrize(("layout", "axes"), [("NHWC", (0, 1, 2, 3)), ("NCHW", (0, 3, 1, 2))])
def test_flattened_images_are_read_by_the_given_layout(tmp_path, layout, axes):
    np.save(tmp_path / "a.npy", rgb().transpose(axes).reshape(24, -1))
    assert np.array_equal(whole(load(tmp_path / "a.npy", layout=layout))[0], rgb())
    np.save(tmp_path / "b.npy", gray().reshape(24, 64) / 255)
    assert np.array_equal(whole(load(tmp_path / "b.npy", layout="NHW"))[0], gray())


def test_images_that_are_not_square_are_cropped_to_their_shorter_side(tmp_path):
    images = gray(size=12)[:, 2:10]
    np.save(tmp_path / "a.npy", images)
    data = load(tmp_path / "a.npy")
    image = data.source("train").everything.image
    assert data.spec.shape == (1, 8, 8) and np.array_equal(
        image[0, 0].numpy(), images[data._training(data.split("train"))[0], :, 2:10]
    )


def test_the_image_with_a_nan_is_named(tmp_path):
    images = gray() / 255
    images[17, 3, 3] = np.nan
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(UserError, match="Image 17 of a in .*a.npy has pixels that are NaN or infinite"):
        load(tmp_path / "a.npy").source("train")


# ---- files ----------------------------------------------------------------------------------------------------------


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return open, (str(self.folder / "executed"), "w")


@pytest.mark.parametrize(
    "kind", ["npz", "npy", "pickle", "cut npy", "cut npz", "flipped", "stored", "text", "empty", "short", "header"]
)
def test_an_invalid_array_file_is_refused_and_never_unpickled(tmp_path, kind):
    path = tmp_path / ("a.npz" if kind in ("npz", "cut npz", "flipped", "stored", "short") else "a.npy")
    if kind == "npz":
        np.savez(path, images=np.array([Trap(tmp_path)], dtype=object))
    elif kind == "npy":
        np.save(path, np.array([Trap(tmp_path)], dtype=object))
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(gray()))
    elif kind == "cut npy":
        np.save(path, gray())
        path.write_bytes(path.read_bytes()[:-1])
    elif kind in ("cut npz", "flipped"):
        np.savez_compressed(path, images=gray(), labels=np.arange(24) % 2)
        data = bytearray(path.read_bytes())
        if kind == "flipped":
            data[400] ^= 255
        path.write_bytes(data[: -40 if kind == "cut npz" else None])
    elif kind == "stored":
        np.savez(path, images=gray())
        data = bytearray(path.read_bytes())
        data[600] ^= 1  # in the pixels
        path.write_bytes(data)
    elif kind == "header":
        np.save(path, gray())
        path.write_bytes(path.read_bytes().replace(b"'shape'", b"'shape#"))
    elif kind == "short":  # a header that says more than there is
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8)})
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", file.getvalue() + bytes(64))
    else:
        path.write_bytes(b"words" if kind == "text" else b"")
    with pytest.raises(
        UserError,
        match="is not a readable array of numbers|is a pickle, which is not loaded because it could run any code",
    ):
        load(path).split("train")
    assert not (tmp_path / "executed").exists()


def test_pipes_and_devices_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    for path in (tmp_path / "pipe.npy", "/dev/zero"):
        with pytest.raises(UserError, match="is a (named pipe|device). Use a file or a folder"):
            load(path)


def test_the_error_for_image_files_names_the_data_set_that_reads_them(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(UserError, match="There is no .npy or .npz file in .*use `ImageFolder`"):
        load(tmp_path)
    with pytest.raises(UserError, match="a.png is not an .npy or .npz file.*use `ImageFolder`"):
        load(tmp_path / "a.png")
    with pytest.raises(UserError, match="There is no file or folder `nowhere`: looked at"):
        load("nowhere")


CONVERT = r"save its content as an .npz, with `numpy.savez\('data.npz', images=..., labels=...\)`"
UNREAD = [
    ("x.mat", f"x.mat is a MATLAB file, a format that genbench cannot read: {CONVERT}"),
    ("train_32x32.mat", f"use the built-in data set SVHN, or {CONVERT}"),
    ("x.h5", f"an HDF5 file.*: {CONVERT}"),
    ("x.HDF5", f"an HDF5 file.*: {CONVERT}"),
    ("x.parquet", f"a Parquet file.*: {CONVERT}"),
    ("x.pt", f"a PyTorch file.*: {CONVERT}"),
    ("x.tar", "a tar archive.*: unpack it, and use the path of the unpacked folder or file"),
    ("cifar-10-python.tar.gz", "a tar archive.*: use the built-in data set CIFAR10, or unpack it"),
    ("x.npy.gz", "a gzip file.*: unpack it"),
    ("x.idx.gz", f"an IDX file.*: {CONVERT}"),
    ("emnist-letters-train-images-idx3-ubyte.gz", "an IDX file.*: use the built-in data set EMNIST, or save"),
    ("train-images-idx3-ubyte", "built-in data set MNIST, FashionMNIST or KMNIST, or save"),
    ("data_batch_1", "data_batch_1 is a pickle.*: use the built-in data set CIFAR10, or save"),
    ("cifar-100-python/train", "train is a pickle.*: use the built-in data set CIFAR100, or save"),
    (
        "train_data_batch_1",
        f"a pickle, a format that genbench cannot read: {CONVERT}, or with `mu=..., sigma=...` if it",
    ),
    ("data.mdb", f"data.mdb is part of an LMDB database.*: {CONVERT}"),
]


@pytest.mark.parametrize(("name", "message"), UNREAD)
@pytest.mark.parametrize("whole_folder", [False, True])
def test_the_error_for_an_unsupported_format_has_its_name_and_a_fix(tmp_path, name, message, whole_folder):
    path = tmp_path / "given" / name
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:  # as PyTorch keeps tensors
        archive.writestr("data.pkl", "x")
    if not path.suffix and "ubyte" not in name:
        path.write_bytes(pickle.dumps({"data": gray()}, protocol=2))
    path = path.parent if whole_folder else path
    for read in (lambda: load(path), lambda: open_images(path)):
        with pytest.raises(UserError, match=message):
            read()


def test_scans_and_folders_with_images_are_not_refused_as_unread_formats(tmp_path):
    (tmp_path / "x.nii.gz").write_bytes(b"x")
    with pytest.raises(UserError, match="x.nii.gz is not an .npy or .npz file.*use `ImageFolder`"):
        load(tmp_path / "x.nii.gz")
    (tmp_path / "x.tar").write_bytes(b"x")
    with pytest.raises(UserError, match="There is no .npy or .npz file in .*use `ImageFolder`"):
        (tmp_path / "a.png").write_bytes(b"x")
        load(tmp_path)


def test_uncompressed_arrays_stay_on_disk_and_workers_open_them_themselves(tmp_path):
    images = rgb()
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(24) % 2)
    data = load(tmp_path / "a.npz", memory="no", workers=2, batch_size=4)
    pictures = data.split("train").pictures
    base = pictures.members[0].array()
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    again = pickle.loads(pickle.dumps(pictures))
    assert len(pickle.dumps(pictures)) < 2000 and np.array_equal(again(np.arange(24)), images)
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (4, 3, 8, 8) and not math.isnan(batch.image.mean())


def test_a_compressed_array_larger_than_memory_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", images=gray())
    monkeypatch.setattr("genbench.data.array_members.free_memory", lambda: 1000)
    with pytest.raises(UserError, match="more than the free memory. Save it uncompressed"):
        load(tmp_path / "a.npz").split("train")


def test_only_headers_are_read_until_images_are_needed(tmp_path):
    file = ArrayFile(medmnist(tmp_path, extra=np.array([Trap(tmp_path)], dtype=object)))
    assert file.members["train_images"][0].shape == (16, 8, 8) and file.members["extra"][0].pickled
    assert all(member._array is None for members in file.members.values() for member in members)


def test_images_along_the_last_axis_are_refused(tmp_path):
    saved(tmp_path / "x.npz", images=np.zeros((8, 8, 24), np.uint8))
    with pytest.raises(UserError, match=r"may be \[N, H, W\] or \[H, W, N\]. If .* use `--data.layout NHW`"):
        load(tmp_path / "x.npz")
    assert sum(len(load(tmp_path / "x.npz", layout="NHW").source(s)) for s in ("train", "val", "test")) == 8


@pytest.mark.parametrize("shape", [(32, 48, 100), (40, 50, 20), (32, 48, 72)])
def test_sides_that_fit_images_along_the_last_axis_are_refused_without_a_layout(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    said = (
        rf"x in .*x.npy is uint8 \[{shape[0]}, {shape[1]}, {shape[2]}\], whose axes may be \[N, H, W\] or \[H, W, N\]"
    )
    with pytest.raises(UserError, match=said):
        load(tmp_path / "x.npy")
    assert load(tmp_path / "x.npy", layout="NHW").images["train"].shape == (*shape[1:], 1)


@pytest.mark.parametrize("shape", [(100, 32, 48), (24, 48, 32), (10, 32, 32), (1000, 16, 48)])
def test_arrays_whose_sides_fit_only_images_along_the_first_axis_are_read_that_way(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    images = load(tmp_path / "x.npy").images["train"]
    assert (len(images), *images.shape) == (*shape, 1)


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(UserError, match="data.path is empty"):
        load("")
