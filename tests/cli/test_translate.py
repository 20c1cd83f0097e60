"""translate: a folder in, a folder out, under the same names and in the same sizes."""

import os
import warnings
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from genbench.core.batch import DataSpec, from_uint8, to_uint8
from genbench.models import VAE, CycleGAN, Pix2Pix, SegmentationUNet, UNet

PAIRS = DataSpec((3, 16, 16), "image", source=(1, 16, 16))
DOMAINS = DataSpec((3, 16, 16), "domain", source=(3, 16, 16))


def checkpoint(model, path="model.ckpt"):
    """What a run of no steps would leave."""
    from genbench.callbacks import EMA, Checkpoint
    from tests.helpers.small import run

    run(model, 8, [EMA(), Checkpoint()], folder=Path("run"))
    Path("run/checkpoints/last.ckpt").rename(path)
    return path


@pytest.fixture
def photos(cli):
    """A folder of gray and colored pictures of odd sizes and kinds, in an empty working folder."""
    draw = np.random.default_rng(0)
    for name, size in {"a.png": (16, 16), "deep/er/b.jpg": (37, 21), "c.JPEG": (5, 9), "d.bmp": (24, 70)}.items():
        path = Path("in", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)
    Image.fromarray(draw.integers(0, 256, (20, 20), dtype=np.uint8)).save("in/gray.png")
    return Path("in")


def give(monkeypatch, **targets):
    """Gives the images of `small.run` sources or masks."""
    from tests.helpers import small

    monkeypatch.setattr(small.RandomImages, "targets", targets)


@pytest.fixture
def unet(photos, monkeypatch):
    give(monkeypatch, source=torch.zeros(64, 1, 16, 16, dtype=torch.uint8))
    return checkpoint(UNet(PAIRS, width=2, depth=2))


def test_names_and_sizes_are_kept_and_the_pixels_are_the_models(cli, unet, photos):
    import genbench

    status, out, _ = cli("translate", "--ckpt", unet, "--input", "in", "--output", "out")
    assert status == 0 and "5 images of UNet at 8 images seen -> out" in out
    names = sorted(p.relative_to("out").as_posix() for p in Path("out").rglob("*.*"))
    assert names == ["a.png", "c.JPEG", "d.bmp", "deep/er/b.jpg", "gray.png"]
    for name in names:
        made, shown = Image.open(f"out/{name}"), Image.open(f"in/{name}")
        assert made.size == shown.size and made.mode == "RGB" and made.format == shown.format
    model = genbench.load(unet)
    gray = torch.from_numpy(np.array(Image.open("in/a.png").convert("L")))[None, None]
    with torch.no_grad():
        wanted = to_uint8(model.translate(from_uint8(gray)))[0].permute(1, 2, 0).numpy()
    assert abs(np.asarray(Image.open("out/a.png")).astype(int) - wanted).max() <= 1


def test_deep_pictures_are_shown_in_the_range_of_training(cli, config):
    import genbench
    from genbench.core import checkpoint_io

    levels = np.random.default_rng(0).integers(0, 256, (12, 16, 16), dtype=np.uint8)
    levels[:, 0, 0], levels[:, 0, 1] = 0, 255
    for domain, low, high in (("A", -1000, 3080), ("B", 0, 255)):
        Path("pairs", domain).mkdir(parents=True)
        for k, level in enumerate(levels):
            values = np.rint(level / 255 * (high - low) + low).astype(np.int16)
            tifffile.imwrite(f"pairs/{domain}/{k}.tif", values)
    path = config(
        model={"class_path": "genbench.models.UNet", "init_args": {"width": 2, "depth": 2}},
        data={"class_path": "genbench.data.PairedFolder", "init_args": {"path": "pairs", "size": 16, "channels": 1}},
        max_images=10,
        validation={"every_images": 10, "extractor": "mnistnet"},
    )
    flags = ("--data.batch_size", 5, "--data.val_size", 1, "--data.test_size", 1, "--name", "x")
    assert cli("fit", "--config", path, *flags)[0] == 0
    last = "runs/x/checkpoints/last.ckpt"
    assert checkpoint_io.read(last)["data"]["arguments"]["range"] == "-1000,3080/0,255"
    assert cli("translate", "--ckpt", last, "--input", "pairs/A", "--output", "out")[0] == 0
    with torch.no_grad():
        wanted = to_uint8(genbench.load(last).translate(from_uint8(torch.from_numpy(levels[:1, None]))))[0, 0].numpy()
    assert abs(np.asarray(Image.open("out/0.tif")).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("frames", "names", "said"),
    [
        (
            None,
            ["a-0000.png", "a-0001.png", "a-0002.png", "film-0000.png", "film-0001.png", "film-0002.png"],
            "each is",
        ),
        ("first", ["a.png", "film.tif"], None),
        ("channels", ["a.png", "film.tif"], "they are used as the channels of one image"),
    ],
)
def test_each_frame_of_a_file_is_an_image_by_default(cli, unet, seen, frames, names, said):
    films = [Image.new("L", (16, 16), k * 80) for k in range(3)]
    Path("films").mkdir()
    for name in ("a.png", "film.tif"):
        films[0].save(f"films/{name}", save_all=True, append_images=films[1:])
    flags = () if frames is None else ("--frames", frames)
    with warnings.catch_warnings(record=True) as told:
        assert cli("translate", "--ckpt", unet, "--input", "films", "--output", "out", *flags)[0] == 0
    notes = [str(one.message) for one in told]
    if said is None:  # it was asked for
        assert not notes
    else:
        assert [f"2 files have several frames (a.png has 3 frames): {said}" in note for note in notes] == [True]
        assert "To change this, set `--frames first|each|channels`" in notes[0]
    assert written("out") == names
    luma = [[0], [80], [160]] if frames is None else [[0]] if frames == "first" else [[65]]  # of (0, 80, 160)
    assert [np.unique(shown).tolist() for shown in seen] == luma * 2


# ---- values of more or of less than 8 bits: what reaches the model -----------------------------------------------

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.fixture
def seen(monkeypatch):
    """What is shown to UNets, as uint8 [H, W], in order."""
    shown, whole = [], UNet.translate

    def noted(self, x, **options):
        shown.append(to_uint8(x)[0, 0].numpy())
        return whole(self, x, **options)

    monkeypatch.setattr(UNet, "translate", noted)
    return shown


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.*"))


def trained(monkeypatch, value, **more):
    """Lets checkpoints say that such a range was found in training."""
    from genbench.core import checkpoint_io

    read = checkpoint_io.read
    data = {"data": {"class": "x", "arguments": {"range": value, **more}}}
    monkeypatch.setattr(checkpoint_io, "read", lambda path: read(path) | data)


def stretched(low, high, kind, levels=LEVELS):
    values = levels / 255 * (high - low) + low
    return (np.rint(values) if np.dtype(kind).kind in "ui" else values).astype(kind)


def saved(name, values):
    """A file of one picture [H, W] by the extension of its name."""
    path = Path("in", name)
    path.parent.mkdir(exist_ok=True, parents=True)
    if name.endswith(".tif"):
        tifffile.imwrite(path, values)
    elif name.endswith(".npy"):
        np.save(path, values[None])
    elif name.endswith(".nii.gz"):  # of which slices are seen turned by a quarter
        nibabel.save(nibabel.Nifti1Image(np.rot90(values, -1)[..., None], np.eye(4)), path)
    elif name.endswith((".dcm", "IM0001")):
        dicom(path, values)
    else:
        Image.fromarray(values).save(path)


def dicom(path, values, **more):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    out = Dataset()
    out.file_meta, out.SOPClassUID = meta, meta.MediaStorageSOPClassUID
    out.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    out.Rows, out.Columns, out.SamplesPerPixel, out.PhotometricInterpretation = *values.shape, 1, "MONOCHROME2"
    out.BitsAllocated = out.BitsStored = values.dtype.itemsize * 8
    out.HighBit, out.PixelRepresentation = out.BitsStored - 1, int(values.dtype.kind == "i")
    out.PixelData = values.tobytes()
    for name, value in more.items():
        setattr(out, name, value)
    out.save_as(path, enforce_file_format=True)


@pytest.fixture
def bare(cli, monkeypatch):
    """A UNet of 8-bit images, in an empty working folder."""
    give(monkeypatch, source=torch.zeros(64, 1, 16, 16, dtype=torch.uint8))
    return checkpoint(UNet(PAIRS, width=2, depth=2))


PARTLY_FILLED = [
    ("a.png", "u2", 0, 4095, "a.png"),
    ("a.tif", "i2", -1000, 3000, "a.tif"),
    ("a.tif", "f4", -2.0, 7.5, "a.tif"),
    ("deep/a.dcm", "u2", 0, 4095, "deep/a.png"),
    ("IM0001", "i2", -1000, 3000, "IM0001.png"),
    ("a.nii.gz", "i2", -1000, 3000, "a.png"),
    ("a.npy", "u2", 0, 4095, "a-0000.png"),
]


@pytest.mark.parametrize(("name", "kind", "low", "high", "place"), PARTLY_FILLED)
@pytest.mark.parametrize("many", [False, True], ids=["folder", "file"])
def test_values_that_use_little_of_their_type_are_stretched_with_a_note(
    cli, bare, seen, name, kind, low, high, place, many
):
    saved(name, stretched(low, high, kind))
    given = f"in/{name}" if many and name.endswith((".tif", ".dcm", ".nii.gz", ".npy")) else "in"
    with pytest.warns(UserWarning) as told:
        assert cli("translate", "--ckpt", bare, "--input", given, "--output", "out")[0] == 0
    (said,) = {str(one.message) for one in told}
    assert (
        f"values from {low:g} to {high:g}" in said and f"The range {low:g},{high:g} is used, as with `--range" in said
    )
    (shown,) = seen
    assert np.array_equal(shown, LEVELS)
    want = Path(place).name if given.startswith("in/") else place
    assert written("out") == [want] and Image.open(f"out/{want}").size == (16, 16)


def test_the_extremes_are_those_of_the_whole_folder(cli, bare, seen):
    for k, half in enumerate((LEVELS[:8], LEVELS[8:])):
        saved(f"{k}.png", stretched(0, 4080, "u2", half))
    with pytest.warns(UserWarning, match="values from 0 to 4080"):
        assert cli("translate", "--ckpt", bare, "--input", "in", "--output", "out")[0] == 0
    assert np.array_equal(np.concatenate([shown[:8] for shown in seen]), LEVELS)  # without what is padded


def test_masks_of_0_and_1_are_black_and_white(cli, bare, seen):
    saved("a.png", LEVELS // 128)
    with pytest.warns(UserWarning, match="8-bit images with only the values 0 and 1"):
        assert cli("translate", "--ckpt", bare, "--input", "in", "--output", "out")[0] == 0
    assert np.array_equal(seen[0], LEVELS // 128 * 255)


@pytest.mark.parametrize(
    ("flags", "low", "high"),
    [
        (("--range", "dtype"), 0, 65535),
        (("--range", "0,8190"), 0, 8190),
        (("--range", "-1000,3095"), -1000, 3095),
        (("--window", "2000,4000"), 0, 4000),
        (("--range", "data"), 0, 4095),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.npy"])
def test_the_range_is_a_flag_that_wins_over_the_training(cli, bare, seen, monkeypatch, name, flags, low, high):
    trained(monkeypatch, "0,100")
    saved(name, values := stretched(0, 4095, "u2"))
    with warnings.catch_warnings(record=True) as told:
        assert cli("translate", "--ckpt", bare, "--input", "in", "--output", "out", *flags)[0] == 0
    assert len(told) == ("data" in flags)
    assert np.array_equal(seen[0], np.rint((values.astype(float).clip(low, high) - low) / (high - low) * 255))


@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a.npy"])
def test_a_numeric_training_range_is_used_without_a_search(cli, bare, seen, monkeypatch, recwarn, name):
    trained(monkeypatch, "0,8190")
    saved(name, stretched(0, 4095, "u2"))
    assert cli("translate", "--ckpt", bare, "--input", "in", "--output", "out")[0] == 0
    assert abs(seen[0] - LEVELS / 2).max() <= 0.51 and not recwarn.list


@pytest.mark.parametrize(("direction", "most"), [("AtoB", 255), ("BtoA", 127)])
def test_a_domain_is_what_the_direction_of_training_says(cli, bare, seen, monkeypatch, direction, most):
    trained(monkeypatch, "0,4095/0,8190", direction=direction)
    saved("a.png", stretched(0, 4095, "u2"))
    assert cli("translate", "--ckpt", bare, "--input", "in", "--output", "out")[0] == 0
    assert abs(int(seen[0].max()) - most) <= 1


@pytest.mark.parametrize("name", ["a.png", "a.npy"])
def test_files_that_the_range_of_training_makes_black_or_white_are_skipped_and_named(cli, bare, monkeypatch, name):
    saved(name, LEVELS)
    for value, said in (
        ("0,4095", "type uint8, which end at 255, but the range of"),
        ("0,1", "integer values up to 255"),
    ):
        trained(monkeypatch, value)
        status, out, _ = cli("translate", "--ckpt", bare, "--input", "in", "--output", value)
        assert status == 1 and said in out and "set its black and white values with `--range`" in out


def test_two_types_without_a_range_are_refused_or_skipped_in_a_sentence(cli, bare, seen):
    saved("a.png", stretched(0, 4095, "u2"))
    saved("b.png", LEVELS)
    given = ("translate", "--ckpt", bare, "--input", "in", "--output")
    status, _, err = cli(*given, "x")
    assert status == 2 and "in/b.png has values of type uint8, but other images have type uint16" in err
    assert "`--range dtype` uses the whole range of each image's type" in err and not seen
    assert cli(*given, "y", "--range", "dtype")[0] == 0 and [shown.max() for shown in seen] == [16, 255]
    Path("in/a.png").rename("in/c.png")
    status, out, _ = cli(*given, "z")
    assert status == 1 and "skipped: in/c.png has values of type uint16, but other images have type uint8." in out
    assert "1 image of UNet" in out


def test_what_cannot_be_read_does_not_decide_the_range(cli, bare, seen):
    saved("b.tif", stretched(0, 1.5, "f4"))
    saved("a.tif", np.full((16, 16), np.nan, np.float32))
    saved("c.tif", np.full((16, 16), np.inf, np.float32))
    Path("in/d.tif").write_bytes(b"II*\0")
    with pytest.warns(UserWarning, match="values from 0 to 1.5"):
        status, out, _ = cli("translate", "--ckpt", bare, "--input", "in", "--output", "out")
    assert status == 1 and written("out") == ["b.tif"] and np.array_equal(seen[0], LEVELS)
    assert all(f"skipped: in/{k}.tif" in out for k in "acd") and "infinite values. Set `--range LOW,HIGH`" in out
    Path("in/b.tif").unlink()
    status, out, _ = cli("translate", "--ckpt", bare, "--input", "in", "--output", "none")
    assert status == 1 and "0 images of UNet" in out and "3 skipped" in out


def test_slope_and_intercept_of_a_dicom_are_applied(cli, bare, seen):
    Path("in").mkdir()
    dicom("in/a.dcm", stretched(0, 4080, "u2"), RescaleSlope=2, RescaleIntercept=-1024)
    assert cli("translate", "--ckpt", bare, "--input", "in", "--output", "out", "--window", "3056,8160")[0] == 0
    assert np.array_equal(seen[0], LEVELS)  # from -1024 to 7136


def test_each_slice_of_a_volume_is_an_image_in_order(cli, bare, seen):
    Path("in").mkdir()
    volume = np.stack([np.full((16, 8), k, np.uint8) for k in (0, 100, 255)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), "in/scan.nii.gz")
    with pytest.warns(UserWarning, match="scan.nii.gz has 3 slices.: each is used as an image"):
        assert cli("translate", "--ckpt", bare, "--input", "in", "--output", "out", "--side-by-side")[0] == 0
    assert written("out") == ["scan-0000.png", "scan-0001.png", "scan-0002.png"]
    assert [shown.mean() for shown in seen] == [0, 100, 255]
    assert np.asarray(Image.open("out/scan-0001.png"))[:, :16].mean() == 100  # 16 wide and 8 high


def test_arrays_are_read_as_flags_say(cli, bare, seen):
    images = np.stack([np.full((3, 8, 16), k, np.uint8) for k in (0, 100, 255)])
    np.savez("set.npz", train_images=images, test_images=images[1:])
    given = ("translate", "--ckpt", bare, "--input", "set.npz", "--output")
    status, _, err = cli(*given, "x")
    assert status == 2 and "images of several splits. Choose one: `--key train_images`, or test_images" in err
    assert cli(*given, "y", "--key", "test_images", "--layout", "NCHW")[0] == 0
    assert written("y") == ["set-0000.png", "set-0001.png"] and [shown.mean() for shown in seen] == [100, 255]
    assert Image.open("y/set-0001.png").size == (16, 8)
    Path("many").mkdir()
    for part in (1, 2):
        np.savez(f"many/train_batch_{part}.npz", data=images[part:])
    assert cli("translate", "--ckpt", bare, "--input", "many", "--output", "z", "--layout", "NCHW")[0] == 0
    assert written("z") == ["train_batch_1-0000.png", "train_batch_1-0001.png", "train_batch_2-0000.png"]
    np.save("fog.npy", images[:, 0, :, :].repeat(5, 0)[:10])
    flags = ("--severity", 2, "--layout", "NHW")
    assert cli("translate", "--ckpt", bare, "--input", "fog.npy", "--output", "f", *flags)[0] == 0
    assert written("f") == ["fog-0002.png", "fog-0003.png"]
    assert [shown.mean() for shown in seen[2:]] == [100, 255, 255, 0, 0]


def test_a_zip_is_read_and_one_that_leads_out_of_the_folder_is_refused(cli, bare, seen):
    saved("deep/a.png", LEVELS)
    with zipfile.ZipFile("in.zip", "w") as archive:
        archive.write("in/deep/a.png", "deep/a.png")
    assert cli("translate", "--ckpt", bare, "--input", "in.zip", "--output", "out")[0] == 0
    assert written("out") == ["deep/a.png"] and np.array_equal(seen[0], LEVELS)
    with zipfile.ZipFile("in.zip", "a") as archive:
        archive.write("in/deep/a.png", "../a.png")
    status, _, err = cli("translate", "--ckpt", bare, "--input", "in.zip", "--output", "x")
    assert status == 2 and "a path outside of the archive" in err and not Path("a.png").exists()


def test_masks_are_made_of_the_same_input_and_stand_beside_it(cli, monkeypatch):
    give(monkeypatch, mask=torch.zeros(64, 16, 16, dtype=torch.uint8))
    path = checkpoint(SegmentationUNet(DataSpec((1, 16, 16), "mask", ("ground", "thing")), width=2, depth=2))
    saved("a.png", stretched(0, 4095, "u2"))
    Path("eight").mkdir()
    Image.fromarray(LEVELS).save("eight/a.png")
    for folder, more in (("in", ()), ("eight", ()), ("in", ("--side-by-side",))):
        given = ("--input", folder, "--output", f"of-{folder}{len(more)}", *more)
        assert cli("translate", "--ckpt", path, *given)[0] == 0
    deep, flat = (np.asarray(Image.open(f"of-{folder}0/a.png")) for folder in ("in", "eight"))
    assert np.array_equal(deep, flat)
    assert np.array_equal(np.asarray(Image.open("of-in1/a.png"))[:, :16, 0], LEVELS)


def test_side_by_side_shows_what_was_given_on_the_left(cli, unet):
    assert cli("translate", "--ckpt", unet, "--input", "in", "--output", "out", "--side-by-side")[0] == 0
    both, given = np.asarray(Image.open("out/d.bmp")), np.asarray(Image.open("in/d.bmp").convert("L"))
    assert both.shape == (70, 48, 3) and np.array_equal(both[:, :24, 0], given)


def test_large_images_go_in_tiles(cli, unet, monkeypatch):
    seen, whole = [], UNet.translate

    def noted(self, x, **options):
        seen.append(max(x.shape[2:]))
        return whole(self, x, **options)

    monkeypatch.setattr(UNet, "translate", noted)
    Image.linear_gradient("L").crop((0, 0, 200, 90)).save("in/large.png")
    assert cli("translate", "--ckpt", unet, "--input", "in", "--output", "out", "--tile", "64")[0] == 0
    assert max(seen) <= 64 and Image.open("out/large.png").size == (200, 90)


def test_a_pictures_color_profile_goes_with_it(cli, photos, monkeypatch):
    give(monkeypatch, source=torch.zeros(64, 3, 16, 16, dtype=torch.uint8))
    path = checkpoint(CycleGAN(DOMAINS, width=2, blocks=1, discriminator_width=2, patch_layers=1))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name in ("p.png", "p.jpg"):
        Image.new("RGB", (20, 20)).save(f"in/{name}", icc_profile=profile)
    assert cli("translate", "--ckpt", path, "--input", "in", "--output", "out")[0] == 0
    assert all(Image.open(f"out/{name}").info["icc_profile"] == profile for name in ("p.png", "p.jpg"))
    assert "icc_profile" not in Image.open("out/a.png").info


def test_files_that_are_not_images_are_listed_counted_and_skipped(cli, unet):
    Path("in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    Path("in/empty.jpg").write_bytes(b"")
    Path("in/notes.txt").write_text("mine")
    status, out, err = cli("translate", "--ckpt", unet, "--input", "in", "--output", "out")
    assert status == 1 and not err.strip()
    assert "skipped: in/broken.png cannot be read as an image" in out and "skipped: in/empty.jpg" in out
    assert "5 images of UNet" in out and "2 skipped" in out and "; not images: notes.txt" in out
    assert not Path("out/broken.png").exists() and Path("out/gray.png").exists()


def test_paths_that_are_not_files_are_listed_counted_and_skipped(cli, unet):
    os.mkfifo("in/pipe.png")
    Path("in/zero.jpg").symlink_to("/dev/zero")
    Path("in/gone.png").symlink_to("nowhere")
    status, out, _ = cli("translate", "--ckpt", unet, "--input", "in", "--output", "out")
    assert status == 1 and "5 images of UNet" in out and "3 skipped" in out
    assert "skipped: in/gone.png is a broken link" in out
    assert "skipped: in/pipe.png is a named pipe" in out and "skipped: in/zero.jpg is a device" in out


def test_a_full_disk_ends_it_with_the_number_of_written_images(cli, unet, full):
    full("out")
    status, out, err = cli("translate", "--ckpt", unet, "--input", "in", "--output", "out")
    assert status == 2 and "out/a.png could not be written: No space left on device. 0 of 5 images were written." in err
    assert "Traceback" not in err and not [p for p in Path("out").rglob("*") if p.is_file()]


def test_an_image_that_cannot_be_written_is_named_and_the_others_are_made(cli, unet):
    Image.new("RGB", (9000, 8)).save("in/wide.webp")
    status, out, err = cli("translate", "--ckpt", unet, "--input", "in", "--output", "out", "--side-by-side")
    assert status == 1 and "skipped: out/wide.webp cannot be written" in out and "Traceback" not in err
    assert Path("out/gray.png").exists()


def test_a_jpeg_has_quality_95_and_color_at_full_size(cli, unet):
    cli("translate", "--ckpt", unet, "--input", "in", "--output", "out")
    image = Image.open("out/c.JPEG")
    assert image.layer[0][1:3] == (1, 1)  # as many samples of color as of brightness
    Image.new("RGB", (8, 8)).save("of_quality_95.jpg", quality=95)
    assert image.quantization == Image.open("of_quality_95.jpg").quantization


def test_files_in_the_output_folder_are_kept_without_overwrite(cli, unet):
    Path("out").mkdir()
    Path("out/a.png").write_text("mine")
    status, _, err = cli("translate", "--ckpt", unet, "--input", "in", "--output", "out")
    assert status == 2 and "--output out contains files already. Use a different folder" in err and "--overwrite" in err
    assert Path("out/a.png").read_text() == "mine"
    assert cli("translate", "--ckpt", unet, "--input", "in", "--output", "out", "--overwrite")[0] == 0
    assert Image.open("out/a.png").size == (16, 16)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--input", "nowhere", "--output", "out"), "--input nowhere does not exist"),
        (("--input", "in", "--output", "in"), "is the input folder, so its images would be lost"),
        (("--input", "in", "--output", "in/out"), "is inside the input folder, so it would be input next time"),
        (("--input", "in/deep", "--output", "in"), "--input in/deep is inside the output folder"),
        (("--input", "in", "--output", "model.ckpt"), "--output model.ckpt is a file"),
        (("--input", "bare", "--output", "out"), "There is no image in bare among its 1 files"),
        (("--input", "in/a.png", "--output", "out"), "in/a.png is not a folder, zip, .npz or .npy of images."),
        (("--input", "points.npy", "--output", "out"), "points.npy contains points; expected images."),
        (("--input", "in", "--output", "out", "--key", "x"), "--key is for arrays, .npy or .npz. Remove --key"),
        (("--input", "points.npy", "--output", "out", "--frames", "first"), "--frames is for files with several"),
        (
            ("--input", "in", "--output", "out", "--range", "9"),
            "error: --range is 9; expected `dtype` (the whole range",
        ),
        (("--input", "in", "--output", "out", "--window", "9,-1"), "error: --window is 9,-1; its width must be above"),
        (
            ("--input", "in", "--output", "out", "--to", "A"),
            "--to A: this UNet translates only one way. Remove `--to`.",
        ),
        (("--input", "in", "--output", "out", "--sed", "1"), "UNet has no option --sed"),
        (("--input", "in", "--output", "out", "--tile", "8"), "--tile is 8; it must be at least 64"),
    ],
)
def test_mistakes_are_told_in_a_sentence(cli, unet, arguments, sentence):
    Path("bare").mkdir()
    Path("bare/notes.txt").write_text("")
    np.save("points.npy", np.zeros((9, 2), np.float32))
    status, _, err = cli("translate", "--ckpt", unet, *arguments)
    assert status == 2 and sentence in err and "Traceback" not in err


def test_both_ways_of_a_cyclegan(cli, photos, monkeypatch):
    give(monkeypatch, source=torch.zeros(64, 3, 16, 16, dtype=torch.uint8))
    path = checkpoint(CycleGAN(DOMAINS, width=2, blocks=1, discriminator_width=2, patch_layers=1))
    for to in ("A", "B"):
        assert cli("translate", "--ckpt", path, "--input", "in", "--output", to, "--to", to)[0] == 0
    a, b = (np.asarray(Image.open(f"{to}/a.png")) for to in "AB")
    assert a.shape == b.shape and (a != b).any()


def test_the_seed_of_pix2pix_is_a_flag(cli, photos, monkeypatch):
    give(monkeypatch, source=torch.zeros(64, 1, 16, 16, dtype=torch.uint8))
    path = checkpoint(Pix2Pix(PAIRS, width=4, depth=3, discriminator_width=2, patch_layers=1))
    for seed in (1, 2):
        assert cli("translate", "--ckpt", path, "--input", "in", "--output", f"{seed}", "--seed", seed)[0] == 0
    assert (np.asarray(Image.open("1/a.png")) != np.asarray(Image.open("2/a.png"))).any()


def test_a_model_that_segments_writes_masks_and_one_that_does_neither_is_refused(cli, photos, monkeypatch):
    give(monkeypatch, mask=torch.zeros(64, 16, 16, dtype=torch.uint8))
    spec = DataSpec((3, 16, 16), "mask", ("ground", "thing"))
    path = checkpoint(SegmentationUNet(spec, width=2, depth=2))
    status, out, _ = cli("translate", "--ckpt", path, "--input", "in", "--output", "out")
    assert status == 0 and "in a mask, the value of a pixel is its class: 0 ground, 1 thing" in out
    mask = Image.open("out/deep/er/b.png")
    assert mask.size == (37, 21) and mask.mode == "P" and set(np.unique(np.asarray(mask))) <= {0, 1}
    given = ("translate", "--ckpt", path, "--input", "in", "--output", "x")
    assert "predicts masks and has no domains" in cli(*given, "--to", "B")[2]
    Image.new("RGB", (16, 16)).save("in/a.jpg")
    assert "in/a.jpg and in/a.png would both be written to" in cli(*given)[2]
    path = checkpoint(VAE(DataSpec((1, 16, 16)), width=4, latent_dim=2), "vae.ckpt")
    status, _, err = cli("translate", "--ckpt", path, "--input", "in", "--output", "z")
    assert status == 2 and "VAE cannot translate: it has no `translate` or `segment` method." in err
