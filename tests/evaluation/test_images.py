"""The same images in any container are the same set, and an invalid set is an error with the reason."""

import io
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.errors import UserError
from genbench.data import Digits, ImageFolder, Shapes
from genbench.data.image_files import Fit
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.features import pixel_hash
from genbench.evaluation.images import SplitImages, TensorImages, bring, open_images, resizing_of
from tests.helpers.abilities import SMALL, assert_same, untimed


def random_images(count=40, size=16, channels=1):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array.squeeze()).save(file, "PNG")
    return file.getvalue()


def written(folder, kind, images):
    path = folder / f"images.{kind}"
    files = {f"{k // 10}/{k:03d}.png": png(image) for k, image in enumerate(images)}
    match kind:
        case "folder":
            for name, data in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)
            (path / "readme.txt").write_text("no image")
        case "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in reversed(files.items()):
                    archive.writestr(name, data)
                archive.writestr("__MACOSX/._x.png", b"no image")
        case "npy":
            np.save(path, images)
        case "npz":
            np.savez_compressed(path, labels=np.zeros(3), images=images)
        case "floats.npz":
            np.savez(path, images.astype(np.float64) / 255)
        case "half.npy":
            np.save(path, (images / 255).astype(np.float32).squeeze())
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_every_container_holds_the_same_images(tmp_path, channels):
    images = random_images(channels=channels)
    expected = TensorImages("all", torch.from_numpy(images).permute(0, 3, 1, 2))
    for kind in ("folder", "zip", "npy", "npz", "floats.npz", "half.npy"):
        found = open_images(written(tmp_path, kind, images))
        assert len(found) == 40 and tuple(found.shape) == expected.shape and found.label is None
        rows = torch.tensor([31, 2, 2])
        assert torch.equal(found.images(rows), expected.images(rows)), kind
        assert pixel_hash(found) == pixel_hash(expected), kind


def test_every_container_has_the_same_record(tmp_path, extractor):
    images, records = random_images(), []
    for kind in ("folder", "zip", "npy", "floats.npz"):
        found = evaluate(open_images(written(tmp_path, kind, images)), Digits(), SMALL, extractor=extractor, name="x")
        records.append(untimed(found))
    assert records[-1]["model"].pop("range") == "0,1"
    for other in records[1:]:
        assert_same(records[0], other)


def broken(folder, what):
    images, path = random_images(4), folder / "odd.npz"
    match what:
        case "nan" | "infinite":
            array = images / 255
            array[2, 0, 0] = {"nan": np.nan, "infinite": -np.inf}[what]
            np.savez(path, array)
        case "one value":
            np.savez(path, np.full((4, 8, 8, 1), 0.25))
        case "channels":
            np.savez(path, images.repeat(5, axis=3))
        case "several":
            np.savez(path, fakes=images, reals=images)
        case "splits":
            np.savez(path, train_images=images, test_images=images)
        case "severity":
            path = folder / "fog.npy"
            np.save(path, images.repeat(5, axis=0))
        case "statistics":
            np.savez(path, mu=np.zeros(4), sigma=np.eye(4))
        case "pipe":
            path = folder / "pipe.npz"
            os.mkfifo(path)
        case "none":
            np.savez(path, images[:0])
        case "no array":
            np.savez(path)
        case "pickle":
            path = folder / "odd.npy"
            np.save(path, np.array([Trap(folder)], dtype=object), allow_pickle=True)
        case "pickle in npz":
            np.savez(path, np.array([Trap(folder)], dtype=object))
        case "cut":
            path.write_bytes(written(folder, "npz", images).read_bytes()[:-40])
        case "flipped":
            data = bytearray(written(folder, "npz", images).read_bytes())
            for k in range(700, 760):  # in the compressed pixels
                data[k] ^= 255
            path.write_bytes(data)
        case "size" | "color":
            path = written(folder, "folder", images)
            other = random_images(1, 17) if what == "size" else random_images(1, 16, 3)
            (path / "0" / "007.png").write_bytes(png(other[0]))
        case "damaged":
            path = written(folder, "folder", images)
            (path / "0" / "002.png").write_bytes(png(images[2])[:40])
        case "empty":
            path = folder / "empty"
            path.mkdir()
        case "text":
            path = folder / "notes"
            path.mkdir()
            (path / "a.txt").write_text("no image")
        case "missing":
            path = folder / "nowhere"
        case "other file":
            path = folder / "model.ckpt"
            path.write_bytes(b"x")
        case "leaves" | "absolute" | "backwards":
            path = written(folder, "zip", images)
            name = {"leaves": "../../evil.png", "absolute": "/tmp/evil.png", "backwards": "a\\..\\..\\evil.png"}[what]
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(name, png(images[0]))
        case "empty zip":
            path = folder / "empty.zip"
            zipfile.ZipFile(path, "w").close()
        case "cut zip":
            path = written(folder, "zip", images)
            path.write_bytes(path.read_bytes()[:-60])
    return path


class Trap:
    """Creates a file if it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return open, (str(self.folder / "executed"), "w")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", "Image 2 of arr_0 in .*odd.npz has pixels that are NaN or infinite"),
        ("infinite", "Image 2 of arr_0 in .*odd.npz has pixels that are NaN or infinite"),
        ("one value", r"odd.npz have the same value 0.25, .* Set `--images.range LOW,HIGH`"),
        ("channels", r"is uint8 \[4, 16, 16, 5\]; images must be \[N, H, W\], \[N, H, W, C\]"),
        ("several", r"several arrays of images: fakes \(uint8 \[4, 16, 16, 1\]\), reals .* `--images.key fakes`"),
        ("splits", "images of several splits. Choose one: `--images.key train_images`, or test_images"),
        ("severity", "fog in .* contains 4 images at each of five severities. .* `--images.severity`, from 1 to 5"),
        ("statistics", "no array of images.* mean and covariance of features"),
        ("pipe", "pipe.npz is a named pipe"),
        ("none", "odd.npz contains no images"),
        ("no array", "odd.npz contains no arrays"),
        ("pickle", "odd.npy is a pickle, which is not loaded because it could run any code"),
        ("pickle in npz", "arr_0.npy in .*odd.npz is a pickle"),
        ("cut", "is not a readable array|is not a folder"),
        ("flipped", "is not a readable array"),
        ("size", "0/007.png is 17×17 gray, but 0/000.png is 16×16 gray. All images must have the same size"),
        ("color", "0/007.png is 16×16 RGB, but 0/000.png is 16×16 gray"),
        ("damaged", "002.png"),
        ("empty", r"empty is empty. Expected images \(.jpg"),
        ("text", "no image in .*notes"),
        ("missing", "nowhere does not exist. Use a folder, zip"),
        ("other file", "model.ckpt is not a folder, zip, .npz or .npy"),
        ("leaves", r"'\.\./\.\./evil.png', a path outside of the archive"),
        ("absolute", "'/tmp/evil.png', a path outside of the archive"),
        ("backwards", "evil.png', a path outside of the archive"),
        ("empty zip", "empty.zip is empty. Expected images"),
        ("cut zip", "is not a folder, zip, .npz or .npy"),
    ],
)
def test_an_invalid_set_of_images_is_an_error_with_the_reason(tmp_path, extractor, what, message):
    path = broken(tmp_path, what)
    with pytest.raises(UserError, match=message):
        evaluate(open_images(path), Digits(), SMALL, extractor=extractor)
    assert not (tmp_path / "executed").exists() and not list(tmp_path.parent.glob("evil.png"))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (lambda u8: u8.astype(np.int64), "0,255"),
        (lambda u8: u8.astype(np.float64), "0,255"),
        (lambda u8: u8 / np.float32(255), "0,1"),
        (lambda u8: u8.transpose(0, 3, 1, 2) / np.float32(127.5) - 1, "-1,1"),
        (lambda u8: u8.astype(np.uint16) * 257, "dtype"),
        (lambda u8: u8.astype(">u2") * 16, "0,4080"),
        (lambda u8: u8 / 255 * 1.01, "0,1.01"),
        (lambda u8: np.asfortranarray(u8), "dtype"),
    ],
)
def test_images_of_any_type_have_the_same_pixels(tmp_path, stored, expected):
    images = random_images()
    np.savez(tmp_path / "a.npz", stored(images))
    found = open_images(tmp_path / "a.npz")
    assert str(found.range) == expected
    assert torch.equal(found.images(torch.arange(40)), torch.from_numpy(images).permute(0, 3, 1, 2))


def test_resizing_images_to_the_size_of_the_reference_prints_a_warning(tmp_path, extractor):
    images = open_images(written(tmp_path, "npy", random_images()))
    with pytest.warns(UserWarning, match="npy has images of 16×16×1. They are resized to 32×32×1"):
        evaluate(images, Digits(), SMALL.changed(metrics=("fid",)), extractor=extractor)


def test_a_range_that_is_set_is_used(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[0, 100, 200, 4095]] * 4] * 2, dtype=np.uint16))
    found = open_images(tmp_path / "a.npy", range="100,200").images(torch.tensor([1]))
    assert found[0, 0, 0].tolist() == [0, 0, 255, 255]


def test_images_of_any_size_are_resized_for_a_model_as_its_training_images():
    folder, mnist = "genbench.data.folder.ImageFolder", "genbench.data.vision.MNIST"
    assert resizing_of({"class": mnist, "arguments": {}}) == ("pad", False)
    assert resizing_of({"class": mnist, "arguments": {"enlarge": True}}) == ("pad", True)
    assert resizing_of({"class": folder, "arguments": {"enlarge": False}}) == ("crop", True)
    assert resizing_of({"class": folder, "arguments": {"resize_mode": "stretch"}}) == ("stretch", True)
    assert resizing_of({"class": folder, "arguments": {"resize_mode": "none"}}) == ("crop", True)
    assert resizing_of({}) == ("crop", True)


def test_a_folder_of_mixed_sizes_and_colors_is_converted_as_in_training(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k, shape in enumerate([(20, 16, 3), (16, 16), (40, 64, 3)]):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{k}.png")
    rows = torch.arange(3)
    with pytest.raises(UserError, match="1.png is 16×16 gray, but .*0.png is 16×20 RGB.*`--size` and `--channels`"):
        open_images(folder).images(rows)
    with pytest.raises(UserError, match="1.png is 16×16 gray"):
        open_images(folder).at(size=16).images(rows)
    for channels, fit in ((3, "crop"), (1, "pad")):
        found = open_images(folder).at(size=16, channels=channels, resize_mode=fit)
        data = ImageFolder(path=str(folder), size=16, channels=channels, resize_mode=fit, labels=False)
        split = data.split("train")
        expected = Fit(16, channels, fit)(split.pictures(rows.numpy()), split.name)
        assert found.shape == (channels, 16, 16) and np.array_equal(found.images(rows).numpy(), expected)
    with pytest.raises(UserError, match="smaller than size .32.. Use `--enlarge` to"):
        open_images(folder).at(size=32, channels=3).images(rows)


def test_errors_contain_the_flags_of_the_right_path(tmp_path):
    folder = written(tmp_path / "a", "folder", random_images())
    with pytest.raises(UserError, match="^--images.range is 5; "):
        open_images(folder, range="5")
    with pytest.raises(UserError, match="^--reference.window is 1,-1; "):
        open_images(folder, "--reference", window="1,-1")


def test_a_covariance_without_a_mean_is_not_read_as_points(tmp_path):
    np.savez(tmp_path / "s.npz", sigma=np.eye(8))
    with pytest.raises(UserError, match=r"no array of images.* the file has sigma \(float64 \[8, 8\]\)"):
        open_images(tmp_path / "s.npz")


def test_a_protocol_contains_how_files_were_resized(tmp_path, extractor):
    a, b = (open_images(written(tmp_path / name, "folder", random_images())) for name in "ab")
    plain = evaluate(a, b, SMALL.changed(metrics=("fid",)), extractor=extractor).protocol
    sized = evaluate(a, b, SMALL.changed(metrics=("fid",), size=8, resize_mode="pad"), extractor=extractor).protocol
    assert sized["reference"]["shape"] == [1, 8, 8] and (sized["size"], sized["resize_mode"]) == (8, "pad")
    assert (
        "+metrics=fid+resize_mode=pad+size=8" in sized["name"] and "size" not in plain and plain["key"] != sized["key"]
    )
    with pytest.raises(UserError, match="small.size=8 sets size, which applies only to images read from files"):
        evaluate(None, Digits(), SMALL.changed(size=8), extractor=extractor)


def test_images_of_several_splits_are_one_set_and_zips_of_datasets_need_no_labels(tmp_path):
    images = random_images(6)
    for k, part in enumerate(["train/a", "train/b", "test/a"] * 2):
        (tmp_path / "all" / part).mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / part / f"{k}.png").write_bytes(png(images[k]))
    found = open_images(tmp_path / "all").images(torch.arange(6))[:, 0].numpy()
    assert np.array_equal(found, images[[2, 5, 0, 3, 1, 4], :, :, 0])


def test_the_choice_from_a_split_is_random_and_always_the_same():
    a, b = (SplitImages(Digits(batch_size=size, eval_batch_size=size), "train", 300) for size in (8, 64))
    assert torch.equal(a.rows, b.rows) and len(a) == 300 and len(a.rows.unique()) == 300
    assert (a.rows.diff() > 0).all()
    assert a.rows.float().mean().item() == pytest.approx(1350 / 2, rel=0.1)
    assert torch.equal(a.images(torch.tensor([5])), Digits().source("train").batch(a.rows[5:6]).image)
    assert torch.equal(a.label, Digits().source("train").everything.label[a.rows])
    whole = SplitImages(Digits(), "train", 5000)
    assert torch.equal(whole.rows, torch.arange(1350))


def test_targets_are_those_of_the_chosen_rows():
    images = SplitImages(Shapes(size=16, train_images=5, val_images=5, test_images=30, memory="no"), "test", 12)
    everything = Shapes(size=16, train_images=5, val_images=5, test_images=30).source("test").everything
    for name in ("label", "mask", "caption"):
        assert torch.equal(images.target(name), getattr(everything, name)[images.rows])
    assert SplitImages(Digits(), "test", 5).target("mask") is None


def test_the_pixel_hash_differs_between_different_sets():
    images = torch.from_numpy(random_images(1200, 4)).permute(0, 3, 1, 2)
    one, moved = images.clone(), images.flip(0)
    one[1100, 0, 3, 3] ^= 1
    sets = [images, one, moved, images[:-1], images.reshape(1200, 1, 2, 8)]
    hashes = [pixel_hash(TensorImages("x", x)) for x in sets]
    labels = torch.arange(1200)
    hashes += [pixel_hash(TensorImages("x", images), label) for label in (labels, labels.flip(0))]
    assert len(set(hashes)) == 7 and pixel_hash(TensorImages("y", images.clone())) == hashes[0]


def test_images_of_the_references_size_and_color_are_left_as_they_are():
    images = torch.from_numpy(random_images(3)).permute(0, 3, 1, 2)
    assert bring(images, (1, 16, 16)) is images


def test_images_are_resized_as_pillow_resizes():
    color = random_images(1, 24, 3)
    tensor = torch.from_numpy(color).permute(0, 3, 1, 2)
    for size in (12, 40):
        for channel, found in enumerate(bring(tensor, (3, size, size))[0]):
            # float32, since on bytes Pillow clips between its two passes
            exact = Image.fromarray(color[0, :, :, channel].astype(np.float32))
            expected = np.asarray(exact.resize((size, size), Image.BICUBIC)).clip(0, 255)
            assert abs(found.numpy() - expected).max() < 0.51
    gray = np.asarray(Image.fromarray(color[0]).convert("L")).astype(int)
    assert abs(bring(tensor, (1, 24, 24))[0, 0].numpy().astype(int) - gray).max() <= 1
    assert torch.equal(bring(tensor[:, :1], (3, 24, 24)), tensor[:, :1].expand(-1, 3, -1, -1))
