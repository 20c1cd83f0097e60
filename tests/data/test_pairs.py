"""Folders and zips of pairs, and of two domains."""

import io

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from genbench.core.errors import UserError
from genbench.data import PairedFolder, Shapes, UnpairedFolder
from genbench.data.loader import TrainLoader, Unpaired

SIZE = 8


def picture(number, width=SIZE, height=SIZE):
    return Image.new("RGB", (width, height), (number, 0, 0))


def side_by_side(a, b, width=2 * SIZE):
    both = Image.new("RGB", (width, SIZE), (a, 0, 0))
    both.paste(picture(b), (SIZE, 0))
    return both


def load(kind, path, **kwargs):
    return kind(path=path, **{"size": SIZE, "workers": 0, **kwargs})


def numbers(batch):
    return [x[:, 0, SIZE // 2, SIZE // 2].tolist() for x in (batch.source, batch.image)]


def read(data, stage):
    source = data.source(stage)
    return numbers(source.batch(torch.arange(len(source))))


BOTH = [(d, s, k, k + 100 * (d == "B")) for d in "AB" for s in ("train", "test") for k in range(4)]
SETS = {
    "side by side": {f"{stage}/{k}.png": side_by_side(k, 100 + k) for stage in ("train", "test") for k in range(4)},
    "train in A and B": {f"{d}/{s}/{k}.png": level for d, s, k, level in BOTH},
    "A and B in train": {f"{s}/{d}/{k}.png": level for d, s, k, level in BOTH},
    "trainA": {f"set/{s}{d}/{k}.png": level for d, s, k, level in BOTH},
}


@pytest.mark.parametrize("layout", SETS)
def test_pairs_are_found_in_every_layout_and_in_both_directions(make, layout):
    path = make(SETS[layout])
    data = load(PairedFolder, path)
    assert data.spec.target == "image" and data.spec.source == data.spec.shape == (3, SIZE, SIZE)
    assert read(data, "test") == [[0, 1, 2, 3], [100, 101, 102, 103]]
    assert read(load(PairedFolder, path, direction="BtoA"), "test") == [[100, 101, 102, 103], [0, 1, 2, 3]]
    batch = next(iter(load(PairedFolder, path, batch_size=2, memory="no").train_dataloader()))
    shown, wanted = (((x + 1) * 127.5).round()[:, 0, 0, 0] for x in (batch.source, batch.image))
    assert torch.equal(shown + 100, wanted)


def test_missing_test_pairs_are_held_out_of_the_training_pairs(make):
    path = make({f"{d}/{k}.png": k + 100 * (d == "B") for d in "AB" for k in range(20)})
    data = load(PairedFolder, path)
    sizes = {stage: len(data.source(stage)) for stage in ("train", "val", "test")}
    assert sizes == {"train": 16, "val": 2, "test": 2}
    for stage in sizes:
        shown, wanted = read(data, stage)
        assert [k + 100 for k in shown] == wanted


def test_images_without_a_partner_are_named(make):
    files = {f"A/{k}.png": k for k in range(9)} | {"B/2.png": 2, "B/x/3.jpg": 3}
    with pytest.raises(
        UserError, match=r"9 images in .* no partner .*: A/0.png, A/1.png.* and 4 more\. Add the missing"
    ):
        load(PairedFolder, make(files)).source("train")


def test_partners_may_have_a_different_file_type_but_there_must_be_only_one(make):
    files = {"A/1.png": 1, "A/2.png": 2, "B/1.bmp": 101, "B/2.bmp": 102}
    data = load(PairedFolder, make(files), val_size=1, test_size=0)
    assert len(data.source("train")) == 1
    with pytest.raises(UserError, match=r"A/1.bmp and A/1.png have the same name. Rename one"):
        load(PairedFolder, make({"A/1.bmp": 1})).source("train")


def test_halves_that_differ_in_size_are_named(make):
    path = make({"train/1.png": side_by_side(1, 2), "train/2.png": side_by_side(1, 2, width=2 * SIZE + 1)})
    with pytest.raises(UserError, match=r"train/2.png is 17×8, so its halves would differ in size"):
        load(PairedFolder, path, val_size=1, test_size=0).source("train")


def test_partners_with_different_aspect_ratios_are_reported_if_they_would_be_cropped_differently(make):
    rest = {f"{domain}/train/{k}.png": 0 for domain in "AB" for k in range(2)}
    scaled = {"A/test/1.png": picture(1), "B/test/1.png": picture(2, 2 * SIZE, 2 * SIZE)}
    path = make({**rest, **scaled, "A/test/2.png": picture(3, 3 * SIZE), "B/test/2.png": picture(4, 2 * SIZE)})
    with pytest.raises(UserError, match="B/test/2.png is 16×8, but its partner A/test/2.png is 24×8: their square cr"):
        load(PairedFolder, path, val_size=1)
    assert read(load(PairedFolder, path, val_size=1, resize_mode="stretch"), "test") == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    ("test", "sentence"),
    [
        ({"testA/1.png": 1, "testA/2.png": 1, "testB/1.png": 1}, "testA/2.png"),
        ({"testA/1.png": 1}, "no image of domain B for `test`: the folder testB"),
        ({"testA/1.png": 1, "testB/1.png": picture(2, 3 * SIZE)}, "testB/1.png is 24×8, but its partner"),
    ],
)
def test_errors_in_test_pairs_are_raised_before_training(make, test, sentence):
    rest = {f"train{domain}/{k}.png": 0 for domain in "AB" for k in range(3)}
    with pytest.raises(UserError, match=sentence):
        load(PairedFolder, make({**rest, **test}), val_size=1)


def test_an_odd_width_among_test_images_is_refused_before_training(make):
    path = make({"train/1.png": side_by_side(1, 2), "val/2.png": side_by_side(1, 2, width=2 * SIZE + 1)})
    with pytest.raises(UserError, match=r"val/2.png is 17×8, so its halves would differ in size"):
        load(PairedFolder, path, val_size=1)


def test_halves_that_are_not_square_are_warned_about(make):
    wide = Image.new("RGB", (6 * SIZE, SIZE))
    with pytest.warns(UserWarning, match="read as pairs side by side.*in train/0.png a half is 24×8"):
        load(PairedFolder, make({f"train/{k}.png": wide for k in range(3)}))


def test_the_error_for_a_half_that_is_too_small_says_which_half(make):
    data = load(PairedFolder, make({f"train/{k}.png": side_by_side(1, 2) for k in range(4)}), val_size=1, size=2 * SIZE)
    with pytest.raises(UserError, match=r"half of train/\d.png is 8×8"):
        data.source("train")


def test_partners_are_compared_upright(make):
    exif, lying = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # turned a quarter
    picture(100, SIZE, 2 * SIZE).save(lying, "jpeg", exif=exif, quality=100)
    rest = {f"{domain}/train/{k}.png": 0 for domain in "AB" for k in range(2)}
    path = make({**rest, "A/test/1.jpg": lying.getvalue(), "B/test/1.png": picture(2, 2 * SIZE)})
    assert read(load(PairedFolder, path, val_size=1), "test")[1] == [2]


def test_images_beside_folders_for_a_and_b_are_named(make):
    with pytest.raises(
        UserError, match=r"folders for A and B, such as A/1.png, but also images elsewhere, such as 3.png"
    ):
        load(PairedFolder, make({"A/1.png": 1, "B/1.png": 1, "3.png": 3})).source("train")
    with pytest.raises(UserError, match=r"folders for test and train, but 3.png is in none"):
        load(PairedFolder, make({"train/1.png": 1, "test/1.png": 1}))


def test_folders_that_are_not_domains_are_named(make):
    with pytest.raises(
        UserError, match=r"several folders .* neither splits nor called A and B, such as input/1.png and target/1.png"
    ):
        load(PairedFolder, make({f"{d}/{k}.png": 1 for d in ("input", "target") for k in range(1, 2)})).source("train")


def test_images_of_no_domain_are_named(make):
    files = {f"train{d}/1.png": 1 for d in "AB"} | {"train/2.png": 2}
    with pytest.raises(UserError, match=r"train/2.png is not in a folder called A or B .or trainA"):
        load(UnpairedFolder, make(files))


def test_a_task_for_pairs_is_refused(make):
    with pytest.raises(UserError, match="data.task is denoise, but does not apply to pairs or to two domains"):
        load(PairedFolder, make(SETS["trainA"]), task="denoise")


def test_domains_of_different_length_are_each_read_in_their_own_order(make):
    files = {f"trainA/{k}.png": 10 + k for k in range(3)} | {f"trainB/{k}.png": 100 + k for k in range(5)}
    files |= {f"testA/{k}.png": 50 + k for k in range(2)} | {f"testB/{k}.png": 150 for k in range(3)}
    path = make(files)
    for memory in ("yes", "no"):
        data = load(UnpairedFolder, path, batch_size=5, val_size=1, memory=memory, hflip=False)
        assert data.spec.target == "domain" and isinstance(data.source("train"), Unpaired)
        seen = []
        for batch, _ in zip(data.train_dataloader(), range(8), strict=False):
            shown, wanted = (((x + 1) * 127.5).round()[:, 0, 0, 0].int().tolist() for x in (batch.source, batch.image))
            seen += list(zip(shown, wanted, strict=True))
        assert len({a for a, _ in seen}) == 2 and len({b for _, b in seen}) == 4  # one each is cut off for validation
        assert len(set(seen)) == 8  # every one meets every other
        assert read(data, "test") == [[50, 51, 50], [150, 150, 150]]
    turned = load(UnpairedFolder, path, direction="BtoA", val_size=1)
    assert read(turned, "test")[1] == [50, 51]


@pytest.mark.parametrize("memory", ["yes", "no"])
def test_domains_are_the_same_on_two_processes_and_after_resuming(make, memory):
    files = {f"train{d}/{k}.png": k + 100 * (d == "B") for d in "AB" for k in range(9 if d == "A" else 12)}
    data = load(UnpairedFolder, make(files), val_size=1, test_size=1, memory=memory, hflip=True, random_crop=2)
    source = data.source("train")

    def batches(position, world, count):
        loaders = [
            TrainLoader(source, 4, seed=3, position=position, hflip=True, random_crop=2, rank=r, world=world)
            for r in range(world)
        ]
        steps = [[batch for batch, _ in zip(loader, range(count), strict=False)] for loader in loaders]
        return [
            [torch.cat([getattr(b, name) for b in step]) for name in ("source", "image")]
            for step in zip(*steps, strict=True)
        ]

    alone, two, later = batches(0, 1, 8), batches(0, 2, 8), batches(12, 1, 5)
    for mine, theirs in [*zip(alone, two, strict=True), *zip(alone[3:], later, strict=True)]:
        assert all(torch.equal(x, y) for x, y in zip(mine, theirs, strict=True))


def test_a_val_split_without_a_test_split_is_used_as_test(make):
    data = load(PairedFolder, make({f"{s}/{k}.png": side_by_side(k, k) for s in ("train", "val") for k in range(9)}))
    assert len(data.source("test")) == 9 and len(data.source("val")) == 1 and len(data.source("train")) == 8


def test_a_missing_domain_folder_is_named(make):
    with pytest.raises(UserError, match=r"no image of domain B for `train`: the folder trainB \(or B/train\) is"):
        load(UnpairedFolder, make({"trainA/1.png": 1}))
    with pytest.raises(UserError, match=r"no image of domain A for `test`"):
        load(UnpairedFolder, make({"trainB/1.png": 1, "testB/1.png": 1}))


def test_pairs_are_augmented_together_and_domains_independently(make):
    ramp = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
    files = {f"{d}/{k}.png": Image.fromarray(np.stack([ramp] * 3, 2)) for d in "AB" for k in range(8)}
    path = make(files)
    changed = {"hflip": True, "random_crop": 4, "batch_size": 6, "val_size": 1, "test_size": 1}
    batch = next(iter(load(PairedFolder, path, **changed).train_dataloader()))
    assert torch.equal(batch.source, batch.image) and batch.image.shape == (6, 3, SIZE, SIZE)
    assert len({tuple(x.flatten().tolist()) for x in batch.image}) > 3
    assert {bool(x[0, 0, 0] > x[0, 0, -1]) for x in batch.image} == {True, False}
    apart = next(iter(load(UnpairedFolder, path, **changed).train_dataloader()))
    assert not torch.equal(apart.source, apart.image)


def test_random_crop_crops_anywhere_and_only_in_training(make):
    wide = np.stack([*np.mgrid[:12, :12], np.zeros((12, 12))], 2).astype(np.uint8)  # red is the row, green the column
    wide = Image.fromarray(wide)
    data = load(PairedFolder, make({f"{d}/{k}.png": wide for d in "AB" for k in range(9)}), random_crop=4, batch_size=7)
    corners = set()
    for batch, _ in zip(data.train_dataloader(), range(60), strict=False):
        assert torch.equal(batch.source, batch.image)
        corners |= {tuple(c) for c in ((batch.image[:, :2, 0, 0] + 1) * 127.5).round().int().tolist()}
    assert corners == {(top, left) for top in range(5) for left in range(5)}
    assert data.source("val").batch(torch.arange(1)).image.shape[-1] == SIZE
    with pytest.raises(UserError, match=r"12×12, smaller than data.size \(13\)"):
        load(PairedFolder, str(data.path), random_crop=4, size=13).source("train")
    with pytest.raises(UserError, match="data.random_crop scales training images up, but data.resize_mode is `none`"):
        load(PairedFolder, make({}), random_crop=4, resize_mode="none")


def test_outlines_show_the_same_shapes_and_the_other_domain_shows_different_shapes():
    with pytest.raises(UserError, match="data.labeled is 10, but does not apply to pairs or to two domains"):
        Shapes(target="domain", labeled=10)
    data = Shapes(size=32, target="outline", train_images=40, val_images=8, test_images=8, batch_size=16)
    for batch in (next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))):
        # where the outline is darker than paper, all around, the shape is or begins
        line = (batch.source < 0.7).any(1)
        filled = (batch.image > -0.3).any(1)
        inside = (line & filled).flatten(1).sum(1) / line.flatten(1).sum(1)
        assert inside.min() > 0.3
    domain = Shapes(size=32, target="domain", train_images=40, val_images=8, test_images=8, batch_size=16)
    assert isinstance(domain.source("train"), Unpaired) and domain.spec.target == "domain"
    known = domain.source("val").target("source", torch.arange(8))
    assert known.shape == (8, 3, 32, 32)
    a, b = domain.source("train"), data.source("train")
    assert torch.equal(a.image.everything.image, b.everything.image)
    assert not torch.equal(a.source.everything.image, b.everything.source)
    with pytest.raises(UserError, match="data.random_crop does not work with Shapes"):
        Shapes(random_crop=2)


# ---- stored values ------------------------------------------------------------------------------------------------


def deep(tmp_path, kind, low_a, high_a, low_b, high_b, count=6):
    """Pairs of the same picture, A and B each in a range and type of its own."""
    from tests.helpers.image_files import truth

    for domain, low, high, dtype in (("A", low_a, high_a, kind[0]), ("B", low_b, high_b, kind[1])):
        (tmp_path / domain).mkdir()
        for k, values in enumerate(truth(count)):
            found = np.rint(values / 255 * (high - low) + low).astype(dtype)
            tifffile.imwrite(tmp_path / domain / f"{k}.tif", found)
    return str(tmp_path)


@pytest.mark.parametrize(("given", "found"), [("-2000,2000/", "-2000,2000/0,900"), ("/0,450", "-1000,3000/0,450")])
def test_a_range_may_be_set_for_one_domain_and_found_for_the_other(tmp_path, given, found):
    data = load(PairedFolder, deep(tmp_path, ("i2", "u2"), -1000, 3000, 0, 900), channels=1, range=given, test_size=1)
    with pytest.warns(UserWarning, match=f"Domain {'B' if given.endswith('/') else 'A'} of .* no range is set"):
        data.source("train")
    assert data.arguments["range"] == found


@pytest.mark.parametrize("kind", [PairedFolder, UnpairedFolder])
@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_each_domain_has_a_range_of_its_own(tmp_path, kind, direction):
    path = deep(tmp_path, ("i2", "u2"), -1000, 3000, 0, 900)
    data = load(kind, path, channels=1, direction=direction, test_size=1, val_size=1)
    with pytest.warns(UserWarning, match="Domain A of .* int16 images with values from -1000 to 3000"):
        source = data.source("train")
    batch = source.batch(torch.arange(4))
    assert data.arguments["range"] == "-1000,3000/0,900"
    for image in (batch.image, batch.source):
        assert image.amin((1, 2, 3)).tolist() == [0] * 4 and image.amax((1, 2, 3)).tolist() == [255] * 4
    if kind is PairedFolder:
        assert torch.equal(batch.image, batch.source)
    again = kind(**data.arguments)
    assert torch.equal(again.source("train").batch(torch.arange(4)).source, batch.source)


def test_masks_of_0_and_1_beside_photographs_are_black_and_white(make):
    mask = Image.fromarray((np.arange(64).reshape(8, 8) % 2).astype(np.uint8))
    data = load(PairedFolder, make({f"{d}/{k}.png": mask if d == "A" else 40 * k for d in "AB" for k in range(6)}))
    batch = data.source("train").everything
    assert batch.source.unique().tolist() == [0, 255] and data.arguments["range"] == "0,1/dtype"


def test_halves_have_ranges_of_their_own(tmp_path):
    for k in range(6):
        both = np.concatenate([np.full((8, 8), 4000), np.full((8, 8), 90)], axis=1).astype(np.uint16)
        both[0, ::8] = 0
        tifffile.imwrite(tmp_path / f"{k}.tif", both)
    data = load(PairedFolder, str(tmp_path), channels=1)
    assert data.source("train").everything.image[0, 0, 1, 1] == 255
    assert data.arguments["range"] == "0,4000/0,90"


def test_frames_are_paired_with_the_frames_of_the_partner(tmp_path):
    for domain in "AB":
        (tmp_path / domain).mkdir()
        for k in range(6):
            frames = [Image.new("L", (8, 8), 10 * k + j + 100 * (domain == "B")) for j in range(3)]
            frames[0].save(tmp_path / domain / f"{k}.tif", save_all=True, append_images=frames[1:])
    data = load(PairedFolder, str(tmp_path))
    assert len(data.source("train")) == 12  # of 18, one file each held out
    shown, wanted = read(data, "train")
    assert [a + 100 for a in shown] == wanted
    assert len(load(PairedFolder, str(tmp_path), frames="first").source("train")) == 4
    Image.new("L", (8, 8)).save(tmp_path / "B" / "0.tif")
    with pytest.raises(UserError, match=r"A/0.tif frame 0"):
        load(PairedFolder, str(tmp_path))


@pytest.mark.parametrize("given", ["0,1/2,3/4,5", "0,1/x", "1,0/dtype"])
def test_invalid_ranges_of_two_domains_are_refused(tmp_path, given):
    with pytest.raises(UserError, match=r"data.range is "):
        load(PairedFolder, deep(tmp_path, ("u1", "u1"), 0, 255, 0, 255), range=given)
