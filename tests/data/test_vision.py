"""Data sets that torchvision reads, from small files in their official formats.

The files are written here; where torchvision compares checksums, its lists are given those of the written files, so
that its own integrity checks and parsers still run.
"""

import gzip
import hashlib
import os
import pickle
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
import torchvision.datasets as tv
from PIL import Image
from scipy.io import savemat

from genbench.core.errors import UserError
from genbench.data import CIFAR10, CIFAR100, EMNIST, KMNIST, MNIST, STL10, SVHN, CelebA, FashionMNIST

TRAIN, TEST = 24, 12


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def labels(rng, count, classes):
    return rng.permutation(np.arange(count) % classes)


def whole(data, stage):
    """All images of a split, uint8 [N, C, H, W], and their labels."""
    source = data.source(stage)
    batch = source.batch(torch.arange(len(source)))
    return batch.image.numpy(), batch.label


def agrees(data, stage, images, labels):
    """The split holds these images [N, C, H, W] and labels, in this order."""
    found, found_labels = whole(data, stage)
    assert np.array_equal(found, images)
    assert found_labels.tolist() == labels.tolist()


def train_and_validation_hold(data, images, labels):
    """The training set was shuffled and cut in two; put together again it is the one that was written."""
    parts = [whole(data, stage) for stage in ("train", "val")]
    assert {len(part) for part, _ in parts} == {TRAIN - TRAIN // 10, TRAIN // 10}
    found = {image.tobytes(): int(label) for part, given in parts for image, label in zip(part, given, strict=True)}
    assert found == {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}


# ---- idx ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST, KMNIST])
def test_idx_files_are_read_and_padded(dataset, tmp_path, rng):
    written = {}
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        written[part] = rng.integers(256, size=(count, 28, 28), dtype=np.uint8), labels(rng, count, 10)
        write_idx(tmp_path / dataset.__name__ / "raw" / f"{part}-images-idx3-ubyte", written[part][0])
        write_idx(tmp_path / dataset.__name__ / "raw" / f"{part}-labels-idx1-ubyte", written[part][1])
    data = dataset(root=str(tmp_path))
    data.prepare_data()  # all is there: nothing is fetched
    padded = {part: np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, None] for part, (images, _) in written.items()}
    train_and_validation_hold(data, padded["train"], written["train"][1])
    agrees(data, "test", padded["t10k"], written["t10k"][1])
    assert len(data.spec.classes) == 10


@pytest.mark.parametrize(("split", "classes"), [("letters", 26), ("balanced", 47), ("byclass", 62), ("digits", 10)])
def test_emnist_images_are_transposed_and_labels_count_from_zero(split, classes, tmp_path, rng):
    first = 1 if split == "letters" else 0
    for part, count in (("train", TRAIN), ("test", classes)):
        images = rng.integers(256, size=(count, 28, 28), dtype=np.uint8)
        stem = tmp_path / "EMNIST" / "raw" / f"emnist-{split}-{part}"
        write_idx(stem.with_name(stem.name + "-images-idx3-ubyte"), images.transpose(0, 2, 1))
        write_idx(stem.with_name(stem.name + "-labels-idx1-ubyte"), np.arange(count) % classes + first)
    data = EMNIST(split=split, root=str(tmp_path), size=28)
    agrees(data, "test", images[:, None], np.arange(classes))
    assert len(data.spec.classes) == classes
    if split != "letters":
        assert data.spec.classes == tuple(tv.EMNIST.classes_split_dict[split])


# ---- CIFAR --------------------------------------------------------------------------------------------------------


def write_cifar(folder, names, key, rng, classes):
    """Batches as Krizhevsky pickled them: rows of 1,024 red, 1,024 green, 1,024 blue."""
    folder.mkdir(parents=True, exist_ok=True)
    per_file = TRAIN // len(names)
    rows, numbers = rng.integers(256, size=(TRAIN, 3072), dtype=np.uint8), labels(rng, TRAIN, classes)
    for k, name in enumerate(names):
        part = slice(k * per_file, (k + 1) * per_file)
        (folder / name).write_bytes(pickle.dumps({"data": rows[part], key: numbers[part].tolist()}))
    return rows.reshape(-1, 3, 32, 32), numbers, [[name, md5(folder / name)] for name in names]


def test_cifar10_batches_are_read(tmp_path, rng, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    images, numbers, train = write_cifar(folder, [f"data_batch_{k}" for k in (1, 2, 3, 4)], "labels", rng, 10)
    tested, tested_numbers, test = write_cifar(folder, ["test_batch"], "labels", rng, 10)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10.classes)}))
    monkeypatch.setattr(tv.CIFAR10, "train_list", train)
    monkeypatch.setattr(tv.CIFAR10, "test_list", test)
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(folder / "batches.meta")}
    monkeypatch.setattr(tv.CIFAR10, "meta", meta)
    data = CIFAR10(root=str(tmp_path))
    train_and_validation_hold(data, images, numbers)
    agrees(data, "test", tested, tested_numbers)
    assert data.hflip


def test_cifar100_files_are_read(tmp_path, rng, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    images, numbers, train = write_cifar(folder, ["train"], "fine_labels", rng, 100)
    tested, tested_numbers, test = write_cifar(folder, ["test"], "fine_labels", rng, 100)
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list(CIFAR100.classes)}))
    monkeypatch.setattr(tv.CIFAR100, "train_list", train)
    monkeypatch.setattr(tv.CIFAR100, "test_list", test)
    meta = {"filename": "meta", "key": "fine_label_names", "md5": md5(folder / "meta")}
    monkeypatch.setattr(tv.CIFAR100, "meta", meta)
    data = CIFAR100(root=str(tmp_path))
    train_and_validation_hold(data, images, numbers)
    agrees(data, "test", tested, tested_numbers)
    assert len(data.spec.classes) == 100
    assert list(data.spec.classes) == sorted(data.spec.classes)


# ---- SVHN, STL10, CelebA ------------------------------------------------------------------------------------------


def test_svhn_matrices_are_read_and_label_10_is_0(tmp_path, rng, monkeypatch):
    written, lists = {}, {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        images, numbers = rng.integers(256, size=(count, 3, 32, 32), dtype=np.uint8), labels(rng, count, 10)
        path = tmp_path / f"{part}_32x32.mat"
        savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": np.where(numbers == 0, 10, numbers)[:, None]})
        written[part], lists[part] = (images, numbers), ["", path.name, md5(path)]
    monkeypatch.setattr(tv.SVHN, "split_list", lists)
    data = SVHN(root=str(tmp_path))
    train_and_validation_hold(data, *written["train"])
    agrees(data, "test", *written["test"])
    assert not data.hflip


def write_stl10(folder, rng, monkeypatch):
    folder.mkdir()
    written = {}
    for part, count in (("train", TRAIN), ("test", TEST), ("unlabeled", 16)):
        images, numbers = rng.integers(256, size=(count, 3, 96, 96), dtype=np.uint8), labels(rng, count, 10)
        (folder / f"{part}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())  # column by column
        if part != "unlabeled":
            (folder / f"{part}_y.bin").write_bytes((numbers + 1).astype(np.uint8).tobytes())
        written[part] = images, numbers
    sums = {name: [name, md5(folder / name)] for name in os.listdir(folder)}
    train = [sums[name] for name in ("train_X.bin", "train_y.bin", "unlabeled_X.bin")]
    monkeypatch.setattr(tv.STL10, "train_list", train)
    monkeypatch.setattr(tv.STL10, "test_list", [sums["test_X.bin"], sums["test_y.bin"]])
    return written


def test_stl10_binaries_are_read(tmp_path, rng, monkeypatch):
    written = write_stl10(tmp_path / "stl10_binary", rng, monkeypatch)
    data = STL10(root=str(tmp_path))
    train_and_validation_hold(data, *written["train"])
    agrees(data, "test", *written["test"])
    assert data.spec.shape == (3, 96, 96)


def test_stl10_trains_on_its_unlabeled_images_if_requested(tmp_path, rng, monkeypatch):
    written = write_stl10(tmp_path / "stl10_binary", rng, monkeypatch)
    data = STL10(root=str(tmp_path), unlabeled=True, val_size=1)
    images, label = whole(data, "train")
    assert label is None
    assert data.spec.target == "none"
    everything = {image.tobytes() for part in ("train", "unlabeled") for image in written[part][0]}
    assert len(images) == TRAIN + 16 - 1
    assert {image.tobytes() for image in images} < everything


def write_celeba(folder, monkeypatch):
    """12 faces of 178×218, each of one color with a dark rim above and below the central square."""
    faces = folder / "img_align_celeba"
    faces.mkdir(parents=True)
    names = [f"{k:06d}.jpg" for k in range(1, 13)]
    for k, name in enumerate(names):
        face = np.zeros((218, 178, 3), dtype=np.uint8)
        face[20:198] = 20 * k
        Image.fromarray(face).save(faces / name, quality=95)
    attributes = ["Male", "Smiling", "Young"]
    rows = {
        "list_eval_partition.txt": [f"{name} {min(k // 4, 2)}" for k, name in enumerate(names)],
        "identity_CelebA.txt": [f"{name} {k}" for k, name in enumerate(names)],
        "list_bbox_celeba.txt": ["12", "image_id x_1 y_1 width height", *(f"{name} 1 2 3 4" for name in names)],
        "list_landmarks_align_celeba.txt": ["12", "lefteye_x lefteye_y", *(f"{name} 69 109" for name in names)],
        "list_attr_celeba.txt": [
            "12",
            " ".join(attributes) + " ",
            *(f"{name} -1 {' 1' if k % 2 else '-1'} 1" for k, name in enumerate(names)),
        ],
    }
    for name, lines in rows.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    sums = [("", "", "img_align_celeba.zip")] + [("", md5(folder / name), name) for name in rows]
    monkeypatch.setattr(tv.CelebA, "file_list", sums)
    return faces


def test_celeba_is_cut_to_the_central_square_in_its_official_splits(tmp_path, monkeypatch):
    write_celeba(tmp_path / "celeba", monkeypatch)
    data = CelebA(root=str(tmp_path), attribute="Smiling")
    assert data.spec.classes == ("not Smiling", "Smiling")
    for k, stage in enumerate(("train", "val", "test")):
        images, label = whole(data, stage)
        assert images.shape == (4, 3, 64, 64)
        assert label.tolist() == [0, 1, 0, 1]
        expected = 20 * np.arange(4 * k, 4 * k + 4)[:, None, None, None]
        assert abs(images[:, :, 2:-2].astype(int) - expected).max() <= 3  # JPEG, and the rim's ringing


def test_celeba_without_an_attribute_has_no_labels_and_an_unknown_one_is_refused(tmp_path, monkeypatch):
    write_celeba(tmp_path / "celeba", monkeypatch)
    assert whole(CelebA(root=str(tmp_path)), "train")[1] is None
    with pytest.raises(UserError, match=r"data.attribute is Smile; choose from: Male, Smiling, Young"):
        CelebA(root=str(tmp_path), attribute="Smile").source("train")


def test_a_broken_face_is_named(tmp_path, monkeypatch):
    faces = write_celeba(tmp_path / "celeba", monkeypatch)
    (faces / "000002.jpg").write_bytes((faces / "000002.jpg").read_bytes()[:900])
    with pytest.raises(UserError, match=r"000002\.jpg cannot be read as an image"):
        CelebA(root=str(tmp_path)).source("train")


# ---- not there, not whole, not reachable --------------------------------------------------------------------------

SETS = [MNIST, FashionMNIST, KMNIST, EMNIST, CIFAR10, CIFAR100, SVHN, STL10, CelebA]


@pytest.mark.parametrize("dataset", SETS)
def test_missing_files_are_named_with_their_source_and_the_spec_needs_none(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(tv.celeba, "download_file_from_google_drive", urllib.request.urlopen)
    data = dataset(root=str(tmp_path / "nowhere"))
    assert data.spec.shape[-1] == data.size  # a model can be built
    with pytest.raises(UserError) as error:
        data.prepare_data()
    for part in (str(tmp_path / "nowhere"), "not be downloaded", data.files[0], data.source_page, "GENBENCH_DATA"):
        assert part in str(error.value)


@pytest.mark.parametrize("dataset", SETS)
def test_nothing_is_downloaded_if_download_is_false(dataset, tmp_path):
    data = dataset(root=str(tmp_path), download=False)
    data.prepare_data()
    with pytest.raises(UserError, match=r"and `data.download` is false\. Put .* there, from http"):
        data.source("train")


def test_the_data_root_is_the_argument_then_the_environment_then_a_folder_here(tmp_path, monkeypatch):
    monkeypatch.delenv("GENBENCH_DATA", raising=False)
    assert MNIST().root.as_posix() == "data"
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path))
    assert MNIST().root == tmp_path
    assert MNIST(root="elsewhere").root.as_posix() == "elsewhere"


def test_a_truncated_file_is_refused(tmp_path, rng):
    raw = tmp_path / "MNIST" / "raw"
    for part in ("train", "t10k"):
        write_idx(raw / f"{part}-images-idx3-ubyte", rng.integers(256, size=(TRAIN, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels(rng, TRAIN, 10))
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cannot be read .* Delete .* and download them again"):
        MNIST(root=str(tmp_path)).source("train")


def test_prepare_data_downloads_missing_files_once(tmp_path, rng, monkeypatch):
    fetched = []

    def serve(url, download_root, filename, md5):
        fetched.append(filename)
        name = filename.removesuffix(".gz")
        array = rng.integers(10, size=(TRAIN, 28, 28) if "images" in name else TRAIN)
        write_idx(tmp_path / "MNIST" / "raw" / name, array)
        (tmp_path / "MNIST" / "raw" / filename).write_bytes(gzip.compress(b""))

    monkeypatch.setattr(tv.mnist, "download_and_extract_archive", serve)
    data = MNIST(root=str(tmp_path))
    data.prepare_data()
    data.prepare_data()
    assert len(fetched) == 4
    assert len(data.source("test")) == TRAIN
