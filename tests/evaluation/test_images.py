"""The same images in any container are the same set, and what is odd about a set is named."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.errors import UserError
from genbench.data import Digits, Shapes
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.images import SplitImages, TensorImages, bring, open_images, pixel_hash
from tests.evaluation.abilities import SMALL, assert_same, untimed


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


def test_every_container_has_the_same_record(tmp_path, judge):
    images, records = random_images(), []
    for kind in ("folder", "zip", "npy", "floats.npz"):
        found = evaluate(open_images(written(tmp_path, kind, images)), Digits(), SMALL, extractor=judge, name="x")
        records.append(untimed(found))
    for other in records[1:]:
        assert_same(records[0], other)


def broken(folder, what):
    images, path = random_images(4), folder / "odd.npz"
    match what:
        case "nan" | "above" | "below":
            array = images / 255
            array[2, 0, 0] = {"nan": np.nan, "above": 1.01, "below": -0.01}[what]
            np.savez(path, array)
        case "integers":
            np.savez(path, images.astype(np.int64))
        case "shape":
            np.savez(path, images.transpose(0, 3, 1, 2))
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
        case "size" | "colour":
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
    """Makes a file where it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return open, (str(self.folder / "executed"), "w")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", r"odd.npz: image 2 has values that are not in \[0, 1\]"),
        ("above", "image 2 has values"),
        ("below", "image 2 has values"),
        ("integers", "holds int64; images are uint8, or floats"),
        ("shape", r"has the shape \[4, 1, 16, 16\]; images are \[N, H, W, C\]"),
        ("none", "odd.npz holds no image"),
        ("no array", "odd.npz holds no array"),
        ("pickle", "is not a readable array of numbers"),
        ("pickle in npz", "is not a readable array of numbers"),
        ("cut", "is not a readable array|is no folder"),
        ("flipped", "is not a readable array"),
        ("size", "0/007.png is 17×17 grey, and 0/000.png is 16×16 grey. All images must have one size"),
        ("colour", "0/007.png is 16×16 RGB, and 0/000.png is 16×16 grey"),
        ("damaged", "002.png"),
        ("empty", "no image in .*empty. The names of images end in .jpg"),
        ("text", "no image in .*notes"),
        ("missing", "nowhere is not there"),
        ("other file", "model.ckpt is no folder, zip, .npz or .npy"),
        ("leaves", r"'\.\./\.\./evil.png', which leads out of the archive"),
        ("absolute", "'/tmp/evil.png', which leads out of the archive"),
        ("backwards", "evil.png', which leads out of the archive"),
        ("empty zip", "no image in .*empty.zip"),
        ("cut zip", "is no folder, zip, .npz or .npy"),
    ],
)
def test_what_is_odd_about_a_set_is_said_in_a_sentence(tmp_path, judge, what, message):
    path = broken(tmp_path, what)
    with pytest.raises(UserError, match=message):
        evaluate(open_images(path), Digits(), SMALL, extractor=judge)
    assert not (tmp_path / "executed").exists() and not list(tmp_path.parent.glob("evil.png"))


def test_a_choice_of_a_split_is_always_the_same_and_a_fair_one():
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


def test_the_hash_of_pixels_tells_every_set_from_another():
    images = torch.from_numpy(random_images(1200, 4)).permute(0, 3, 1, 2)
    one, moved = images.clone(), images.flip(0)
    one[1100, 0, 3, 3] ^= 1
    sets = [images, one, moved, images[:-1], images.reshape(1200, 1, 2, 8)]
    hashes = [pixel_hash(TensorImages("x", x)) for x in sets]
    labels = torch.arange(1200)
    hashes += [pixel_hash(TensorImages("x", images), label) for label in (labels, labels.flip(0))]
    assert len(set(hashes)) == 7 and pixel_hash(TensorImages("y", images.clone())) == hashes[0]


def test_images_of_the_references_size_and_colour_are_left_as_they_are():
    images = torch.from_numpy(random_images(3)).permute(0, 3, 1, 2)
    assert bring(images, (1, 16, 16)) is images


def test_other_images_are_brought_to_the_references_as_pillow_does_it():
    colour = random_images(1, 24, 3)
    tensor = torch.from_numpy(colour).permute(0, 3, 1, 2)
    for size in (12, 40):
        for channel, found in enumerate(bring(tensor, (3, size, size))[0]):
            exact = Image.fromarray(colour[0, :, :, channel].astype(np.float32))  # in bytes it clips between two passes
            expected = np.asarray(exact.resize((size, size), Image.BICUBIC)).clip(0, 255)
            assert abs(found.numpy() - expected).max() < 0.51
    grey = np.asarray(Image.fromarray(colour[0]).convert("L")).astype(int)
    assert abs(bring(tensor, (1, 24, 24))[0, 0].numpy().astype(int) - grey).max() <= 1
    assert torch.equal(bring(tensor[:, :1], (3, 24, 24)), tensor[:, :1].expand(-1, 3, -1, -1))
