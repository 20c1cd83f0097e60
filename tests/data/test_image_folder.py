"""Folders and zips of images."""

import itertools
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, features

from genbench.core.errors import UserError
from genbench.data import ImageFolder

SIZE = 8


def picture(number, size=SIZE, mode="RGB"):
    """A picture whose color is its number."""
    return Image.new(mode, (size, size), (number, 0, 0) if mode == "RGB" else number)


def load(path, **kwargs):
    return ImageFolder(path=path, **{"size": SIZE, "workers": 0, **kwargs})


def numbers(data, stage):
    source = data.source(stage)
    return source.batch(torch.arange(len(source))).image[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("ending", "saved", "within"),
    [
        (".jfif", {"format": "JPEG", "validation": 100}, 2),
        (".jpe", {"format": "JPEG", "validation": 100}, 2),
        (".tga", {}, 0),
        (".pnm", {}, 0),
        (".avif", {"validation": 100}, 2),
    ],
)
def test_other_names_and_formats_of_images_are_read(tmp_path, ending, saved, within):
    if ending == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    for k in range(4):
        picture(60 * k).save(tmp_path / f"{k}{ending}", **saved)
    data = load(str(tmp_path))
    reds = sorted(number for stage in ("train", "val", "test") for number in numbers(data, stage))
    assert len(reds) == 4 and max(abs(red - 60 * k) for k, red in enumerate(reds)) <= within


def test_class_folders_are_labels_in_alphabetical_order(make):
    files = {f"{name}/{k}.png": 40 * c + k for c, name in enumerate(["ant", "bee", "cow"]) for k in range(10)}
    data = load(make(files))
    assert data.spec.classes == ("ant", "bee", "cow")
    assert data.spec.target == "label"
    for stage, count in {"train": 24, "val": 3, "test": 3}.items():
        source = data.source(stage)
        batch = source.batch(torch.arange(count))
        assert len(source) == count
        assert (batch.image[:, 0, 0, 0] // 40).tolist() == batch.label.tolist()
    together = sorted(number for stage in ("train", "val", "test") for number in numbers(data, stage))
    assert together == sorted(files.values())


def test_a_flat_folder_has_no_labels(make):
    data = load(make({f"{k}.png": k for k in range(20)}))
    assert data.spec.target == "none"
    assert len(numbers(data, "train")) == 16


def test_labels_can_be_disabled(make):
    data = load(make({f"{name}/{k}.png": k for name in "ab" for k in range(5)}), labels=False)
    assert data.spec.target == "none"
    assert data.source("train").everything.label is None


def test_split_folders_are_used_as_splits(make):
    files = {
        f"{part}/{name}/{k}.png": base + k
        for base, part in {0: "Train", 50: "valid", 100: "test"}.items()
        for name in "ab"
        for k in range(4)
    }
    data = load(make(files))
    assert sorted(set(numbers(data, "train"))) == [0, 1, 2, 3]
    assert sorted(set(numbers(data, "val"))) == [50, 51, 52, 53]
    assert sorted(set(numbers(data, "test"))) == [100, 101, 102, 103]
    assert data.spec.classes == ("a", "b")


def test_validation_is_held_out_if_there_are_only_train_and_test_folders(make):
    files = {f"train/{name}/{k}.png": k for name in "ab" for k in range(10)} | {"test/9.png": 99}
    data = load(make(files))
    assert (len(numbers(data, "train")), len(numbers(data, "val"))) == (18, 2)
    assert numbers(data, "test") == [99]
    assert data.source("test").everything.label is None  # test images often come without


def test_a_single_top_level_folder_is_ignored(make):
    data = load(make({f"download/cifar/train/{name}/{k}.png": k for name in "ab" for k in range(10)}))
    assert data.spec.classes == ("a", "b")


def test_a_class_may_be_named_train(make):
    data = load(make({f"{name}/{k}.png": k for name in ("bus", "train") for k in range(10)}))
    assert data.spec.classes == ("bus", "train")


def test_images_beside_the_split_folders_are_refused(make):
    with pytest.raises(UserError, match=r"folders for train and test, but more/1.png is in none of them"):
        load(make({"train/1.png": 1, "test/1.png": 2, "more/1.png": 3}))


def test_held_out_test_images_do_not_depend_on_other_settings(make):
    path = make({f"{k:03d}.png": k for k in range(100)})
    cuts = [numbers(load(path, **kwargs), "test") for kwargs in ({}, {"val_size": 40}, {"subset": 3})]
    assert cuts[0] == cuts[1] == cuts[2]
    assert len(cuts[0]) == 10
    assert len(numbers(load(path, test_size=25), "test")) == 25
    data = load(path)
    assert sorted(number for stage in ("train", "val", "test") for number in numbers(data, stage)) == list(range(100))


def test_extensions_count_in_any_case_and_other_files_are_noted(make):
    files = {"a.PNG": 1, "b.Jpg": 2, "c.png": 3, "notes.txt": b"hello", "list.csv": b"1,2"}
    hidden = {".DS_Store": b"x", "__MACOSX/._a.png": b"x", "._c.png": b"x"}
    with pytest.warns(UserWarning, match="2 files that are not images are ignored: list.csv, notes.txt"):
        data = load(make(files | hidden))
    assert len(data.images["train"]) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_images_of_large_folders_equal_images_in_memory(make, workers):
    path = make({f"{name}/{k}.png": 10 * k for name in "ab" for k in range(12)})
    memory, stream = load(path, batch_size=5), load(path, batch_size=5, memory="no", workers=workers)
    for one, other in itertools.islice(zip(memory.train_dataloader(), stream.train_dataloader(), strict=False), 8):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.label, other.label)
    for one, other in zip(memory.val_dataloader(), stream.val_dataloader(), strict=True):
        assert torch.equal(one.image, other.image)


def test_folders_are_found_below_the_data_root_too(tmp_path, monkeypatch):
    (tmp_path / "cats").mkdir()
    picture(1).save(tmp_path / "cats" / "1.png")
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path))
    assert load("cats").path == tmp_path / "cats"


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "pictures").mkdir()
    for k in range(4):
        picture(k).save(tmp_path / "real" / f"{k}.png")
    os.symlink(tmp_path / "real", tmp_path / "pictures" / "linked")
    os.symlink(tmp_path / "pictures", tmp_path / "real" / "round")
    assert len(load(str(tmp_path / "pictures")).images["train"]) == 4


# ---- files of several frames ----------------------------------------------------------------------------------------


def films(tmp_path, suffix, films=6, frames=4, **saving):
    """A folder of films, of which frame 3 of film 2 has the level 23."""
    (tmp_path / "films").mkdir()
    for k in range(films):
        first, *others = [Image.new("L", (SIZE, SIZE), 10 * k + j) for j in range(frames)]
        first.save(tmp_path / "films" / f"{k}.{suffix}", save_all=True, append_images=others, **saving)
    return str(tmp_path / "films")


def levels(data, stage):
    source = data.source(stage)
    return sorted(source.batch(torch.arange(len(source))).image[:, 0, 0, 0].tolist())


LOSSLESS = {"gif": {}, "tif": {}, "webp": {"lossless": True}}


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_each_frame_is_an_image_and_films_are_held_out_as_a_whole(tmp_path, suffix):
    path = films(tmp_path, suffix, **LOSSLESS[suffix])
    with pytest.warns(
        UserWarning, match=rf"6 files have several frames \(0.{suffix} has 4 frames\): each is used as an image"
    ):
        data = load(path)
    parts = {stage: levels(data, stage) for stage in ("train", "val", "test")}
    assert {stage: len(part) for stage, part in parts.items()} == {"train": 16, "val": 4, "test": 4}
    assert sorted(level for part in parts.values() for level in part) == [
        10 * k + j for k in range(6) for j in range(4)
    ]
    films_of = [{level // 10 for level in part} for part in parts.values()]
    assert sum(map(len, films_of)) == 6


def test_only_the_first_frame_can_be_used(tmp_path):
    data = load(films(tmp_path, "gif"), frames="first")
    assert sorted(levels(data, "train") + levels(data, "val") + levels(data, "test")) == [0, 10, 20, 30, 40, 50]


def test_frames_can_be_channels(tmp_path):
    path = films(tmp_path, "tif", frames=3)
    with pytest.warns(UserWarning, match="they are used as the channels of one image"):
        data = load(path, frames="channels")
    image = data.source("train").everything.image[:, :, 0, 0]
    assert len(image) == 4 and (image - image[:, :1]).tolist() == [[0, 1, 2]] * 4
    with pytest.raises(UserError, match=r"0.tif has 4 frames, but data.frames `channels` needs 1 or 3"):
        (tmp_path / "four").mkdir()
        load(films(tmp_path / "four", "tif"), frames="channels")


def test_an_animated_png_is_not_silently_read_as_its_first_frame(tmp_path):
    path = films(tmp_path, "png")
    with pytest.raises(UserError, match=r"\d.png is an animation of 4 frames. Use `--data.frames first`"):
        load(path).source("train")
    assert len(load(path, frames="each").source("train")) == 16
    assert len(load(path, frames="first").source("train")) == 4


def test_pages_of_several_sizes_need_a_setting_but_thumbnails_are_ignored(tmp_path):
    import tifffile

    for name, kind in {"sizes": 0, "thumbnails": 1}.items():
        (tmp_path / name).mkdir()
        for k in range(6):
            with tifffile.TiffWriter(tmp_path / name / f"{k}.tif") as film:
                film.write(np.full((8, 8), 10 * k, np.uint8))
                film.write(np.full((4, 4), 255, np.uint8), subfiletype=kind)
    with pytest.raises(UserError, match=r"0.tif has 2 frames of several sizes. Use `--data.frames first`"):
        load(str(tmp_path / "sizes"))
    assert len(load(str(tmp_path / "sizes"), frames="each", enlarge=True).source("train")) == 8
    assert levels(load(str(tmp_path / "thumbnails")), "train")[-1] <= 50


def test_a_single_film_may_be_a_data_set(tmp_path):
    path = films(tmp_path, "gif", films=1, frames=10)
    for place in (path, f"{path}/0.gif"):
        with pytest.warns(UserWarning, match="test and val images are frames of the same file as the training images"):
            data = load(place)
        assert len(levels(data, "train")) == 8


def test_a_broken_frame_is_named_with_its_number(tmp_path):
    path = films(tmp_path, "tif", films=1, frames=12)
    whole = (tmp_path / "films" / "0.tif").read_bytes()
    data = load(path)
    (tmp_path / "films" / "0.tif").write_bytes(whole[:100])
    with pytest.raises(UserError, match=r"0.tif frame \d+ cannot be read as an image"):
        data.source("train")


# ---- what a picture may be ----------------------------------------------------------------------------------------


def read(tmp_path, image, suffix="png", channels=3, **saving):
    (tmp_path / "one").mkdir(exist_ok=True)
    for k in range(3):
        image.save(tmp_path / "one" / f"{k}.{suffix}", **saving)
    return load(str(tmp_path / "one"), size=min(image.size), channels=channels).source("test").everything.image[0]


def test_transparent_images_are_composited_over_white(tmp_path):
    half = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    half.paste((200, 0, 0, 255), (0, 0, 2, 4))
    for image in (half, half.convert("LA").convert("RGBA"), half.quantize()):
        found = read(tmp_path, image)
        assert found[:, :, 3].tolist() == [[255] * 4] * 3
        assert found[0, 0, 0] < 255
    assert read(tmp_path, half, channels=1)[0, 0, 3] == 255


def test_palettes_are_converted_to_rgb(tmp_path):
    image = Image.new("P", (4, 4), 5)
    image.putpalette([k for index in range(256) for k in (index, 10, 20)])
    assert read(tmp_path, image)[:, 0, 0].tolist() == [5, 10, 20]


def test_sixteen_bits_of_gray_become_eight_and_are_not_clipped(tmp_path):
    ramp = (np.arange(16, dtype=np.uint16) * 4369).reshape(4, 4)  # 0 to 65,535
    expected = (np.arange(16) * 17).reshape(4, 4)  # 0 to 255
    for suffix in ("png", "tif"):
        found = read(tmp_path, Image.fromarray(ramp), suffix, channels=1)
        assert found[0].tolist() == expected.tolist()


def test_bitmaps_of_one_bit_are_black_and_white(tmp_path):
    checks = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).convert("1")
    assert read(tmp_path, checks, channels=1)[0].tolist() == [[0, 255], [255, 0]]


def test_cmyk_is_converted_to_rgb(tmp_path):
    found = read(tmp_path, Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "jpg")[:, 0, 0]
    assert found[0] > 200 > 60 > found[1]


def test_photos_are_rotated_upright(tmp_path):
    upright = np.zeros((8, 8, 3), dtype=np.uint8)
    upright[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn the picture a quarter clockwise
    on_its_side = Image.fromarray(np.rot90(upright))
    found = read(tmp_path, on_its_side, exif=exif)
    assert torch.equal(found, torch.from_numpy(upright).permute(2, 0, 1))


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_a_broken_image_is_named(make):
    path = make({"0.png": 1, "sub/broken.jpg": b"\xff\xd8\xff\xe0 not much of a picture", "2.png": 2})
    data = load(path, val_size=1, test_size=1)
    with pytest.raises(UserError, match=r"sub/broken.jpg.* cannot be read as an image .*Replace it or remove it"):
        for stage in ("train", "val", "test"):
            data.source(stage)


def test_a_file_that_is_no_image_is_named_without_a_python_object(make):
    data = load(make({"0.png": 1, "sub/text.jpg": b"nothing", "2.png": 2}), val_size=1, test_size=1)
    with pytest.raises(UserError, match=r"text.jpg.* cannot be read as an image \(its format is not known\)\. Replace"):
        for stage in ("train", "val", "test"):
            data.source(stage)


def test_a_truncated_image_is_named(make, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8))
    noise.save(tmp_path / "whole.jpg")
    cut = (tmp_path / "whole.jpg").read_bytes()[:1500]
    with pytest.raises(UserError, match=r"cut.jpg.* cannot be read as an image"):
        load(make({"train/cut.jpg": cut, "test/a.png": 1, "val/a.png": 1})).source("train")


def test_a_broken_image_is_named_by_a_worker_too(make):
    data = load(make({f"train/{k}.png": b"nothing" for k in range(8)}), memory="no", workers=2)
    with pytest.raises(UserError, match=r"^\S*train/\d.png.* cannot be read as an image"):
        next(iter(data.train_dataloader()))


def test_a_decompression_bomb_is_named(make):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(UserError, match=r"bomb.png.* cannot be read as an image"):
        load(make({"train/bomb.png": bomb, "test/a.png": 1, "val/a.png": 1})).source("train")


def test_small_images_are_named_with_their_size(make):
    data = load(make({f"{k}.png": k for k in range(5)}), size=16)
    with pytest.raises(UserError, match=r"\d.png is 8×8, smaller than data.size .16."):
        data.source("train")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("pictures to come")
    with pytest.raises(UserError, match=r"There is no image in .*empty among its 1 files"):
        load(str(tmp_path / "empty"))


def test_a_folder_without_files_is_said_to_be_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty is empty\. Expected images \(\.jpg, \.jpeg, .*\.nii\.gz\)\.$"):
        load(str(tmp_path / "empty"))


def test_the_error_for_a_missing_folder_lists_the_paths_that_were_tried(tmp_path):
    with pytest.raises(UserError, match=r"There is no file or folder `nowhere`: looked at .*nowhere and .*nowhere"):
        load("nowhere", root=str(tmp_path))


def test_a_truncated_zip_is_refused(make, tmp_path):
    half = tmp_path / "half.zip"
    half.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match=r"half.zip is not a folder, a complete zip file"):
        load(str(half))


def test_the_error_for_a_damaged_zip_has_the_name_of_the_damaged_file(tmp_path):
    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("train", "val", "test"):
            picture(1).save(tmp_path / "one.png")
            archive.write(tmp_path / "one.png", f"{part}/one.png")
    content = bytearray(path.read_bytes())
    start = content.index(b"IHDR")
    content[start + 4 : start + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"one.png in .*damaged.zip cannot be read as an image .*CRC"):
        data = load(str(path))
        for stage in ("train", "val", "test"):
            data.source(stage)


def test_a_zip_never_writes_to_the_disk(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    picture(7).save(tmp_path / "one.png")
    with zipfile.ZipFile(inside / "evil.zip", "w") as archive:
        for name in ("../escaped.png", "/absolute.png", "plain.png"):
            archive.write(tmp_path / "one.png", name)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    data = load(str(inside / "evil.zip"), val_size=1, test_size=0)
    assert set(numbers(data, "train")) == {7}
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_pipes_and_devices_are_never_opened(tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    for k in range(4):
        picture(k).save(folder / f"{k}.png")
    os.mkfifo(folder / "pipe.png")
    os.symlink("/dev/zero", folder / "endless.png")
    os.symlink(tmp_path / "nowhere", folder / "gone.png")
    with pytest.warns(UserWarning, match="3 entries that are not regular files .*: endless.png, gone.png, pipe.png"):
        data = load(str(folder))
    assert len(data.images["train"]) == 4
    with pytest.raises(UserError, match="pipe.png is a named pipe; expected a file"):
        load(str(folder / "pipe.png"))


def test_a_zip_with_a_password_is_named(tmp_path):
    path = tmp_path / "secret.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dataset.json", "{}")
        archive.writestr("00000/img00000000.png", b"")
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the bit that says so, in both headers
        start = content.index(mark)
        content[start + place] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"dataset.json in .*secret.zip cannot be read .*password"):
        load(str(path))


def test_a_test_class_without_training_images_is_refused(make):
    files = {"train/a/1.png": 1, "train/b/1.png": 2, "train/b/2.png": 2, "test/c/1.png": 3}
    with pytest.raises(UserError, match=r"Images for `test` in .* are in the class folder `c`, but no training image"):
        load(make(files)).source("test")


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(UserError, match="data.path is empty"):
        ImageFolder(path="")
