"""translate: a folder in, a folder out, under the same names and in the same sizes."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from genbench.core.batch import DataSpec, from_uint8, to_uint8
from genbench.models import VAE, CycleGAN, Pix2Pix, SegmentationUNet, UNet

PAIRS = DataSpec((3, 16, 16), "image", source=(1, 16, 16))
DOMAINS = DataSpec((3, 16, 16), "domain", source=(3, 16, 16))


def checkpoint(model, path="model.ckpt"):
    """What a run of no steps would leave."""
    from small import run

    from genbench.callbacks import EMA, Checkpoint

    run(model, 8, [EMA(), Checkpoint()], folder=Path("run"))
    Path("run/checkpoints/last.ckpt").rename(path)
    return path


@pytest.fixture
def photos(cli):
    """A folder of grey and coloured pictures of odd sizes and kinds, in an empty working folder."""
    draw = np.random.default_rng(0)
    for name, size in {"a.png": (16, 16), "deep/er/b.jpg": (37, 21), "c.JPEG": (5, 9), "d.bmp": (24, 70)}.items():
        path = Path("in", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)
    Image.fromarray(draw.integers(0, 256, (20, 20), dtype=np.uint8)).save("in/grey.png")
    return Path("in")


def give(monkeypatch, **targets):
    """Gives the images of `small.run` sources or masks."""
    import small

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
    assert names == ["a.png", "c.JPEG", "d.bmp", "deep/er/b.jpg", "grey.png"]
    for name in names:
        made, shown = Image.open(f"out/{name}"), Image.open(f"in/{name}")
        assert made.size == shown.size and made.mode == "RGB" and made.format == shown.format
    model = genbench.load(unet)
    grey = torch.from_numpy(np.array(Image.open("in/a.png").convert("L")))[None, None]
    with torch.no_grad():
        wanted = to_uint8(model.translate(from_uint8(grey)))[0].permute(1, 2, 0).numpy()
    assert abs(np.asarray(Image.open("out/a.png")).astype(int) - wanted).max() <= 1


def test_deep_pictures_are_shown_in_the_range_of_training(cli, config):
    import genbench
    from genbench.core import checkpoint

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
        quality={"every_images": 10, "extractor": "mnistnet"},
    )
    flags = ("--data.batch_size", 5, "--data.val_size", 1, "--data.test_size", 1, "--name", "x")
    assert cli("fit", "--config", path, *flags)[0] == 0
    last = "runs/x/checkpoints/last.ckpt"
    assert checkpoint.read(last)["data"]["arguments"]["range"] == "-1000,3080/0,255"
    assert cli("translate", "--ckpt", last, "--input", "pairs/A", "--output", "out")[0] == 0
    with torch.no_grad():
        wanted = to_uint8(genbench.load(last).translate(from_uint8(torch.from_numpy(levels[:1, None]))))[0, 0].numpy()
    assert abs(np.asarray(Image.open("out/0.tif")).astype(int) - wanted).max() <= 1


def test_of_files_with_several_frames_the_first_is_taken_and_it_is_said(cli, unet):
    films = [Image.new("L", (16, 16), k * 80) for k in range(3)]
    films[0].save("in/film.tif", save_all=True, append_images=films[1:])
    status, out, _ = cli("translate", "--ckpt", unet, "--input", "in", "--output", "out")
    assert status == 0 and "note: of 1 files with several frames the first alone was taken: film.tif." in out


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


def test_a_pictures_colour_profile_goes_with_it(cli, photos, monkeypatch):
    give(monkeypatch, source=torch.zeros(64, 3, 16, 16, dtype=torch.uint8))
    path = checkpoint(CycleGAN(DOMAINS, width=2, blocks=1, discriminator_width=2, patch_layers=1))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name in ("p.png", "p.jpg"):
        Image.new("RGB", (20, 20)).save(f"in/{name}", icc_profile=profile)
    assert cli("translate", "--ckpt", path, "--input", "in", "--output", "out")[0] == 0
    assert all(Image.open(f"out/{name}").info["icc_profile"] == profile for name in ("p.png", "p.jpg"))
    assert "icc_profile" not in Image.open("out/a.png").info


def test_files_that_are_no_images_are_named_counted_and_skipped(cli, unet):
    Path("in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    Path("in/empty.jpg").write_bytes(b"")
    Path("in/notes.txt").write_text("mine")
    status, out, err = cli("translate", "--ckpt", unet, "--input", "in", "--output", "out")
    assert status == 1 and not err.strip()
    assert "skipped: in/broken.png cannot be read as an image" in out and "skipped: in/empty.jpg" in out
    assert "5 images of UNet" in out and "2 skipped" in out and "; no images: notes.txt" in out
    assert not Path("out/broken.png").exists() and Path("out/grey.png").exists()


def test_what_is_no_file_is_named_counted_and_skipped(cli, unet):
    os.mkfifo("in/pipe.png")
    Path("in/zero.jpg").symlink_to("/dev/zero")
    Path("in/gone.png").symlink_to("nowhere")
    status, out, _ = cli("translate", "--ckpt", unet, "--input", "in", "--output", "out")
    assert status == 1 and "5 images of UNet" in out and "3 skipped" in out
    assert "skipped: in/gone.png is a link to nothing" in out
    assert "skipped: in/pipe.png is a named pipe" in out and "skipped: in/zero.jpg is a device" in out


def test_a_full_disk_ends_it_with_what_was_made(cli, unet, full):
    full("out")
    status, out, err = cli("translate", "--ckpt", unet, "--input", "in", "--output", "out")
    assert status == 2 and "out/a.png could not be written: No space left on device. 0 of 5 images were made." in err
    assert "Traceback" not in err and not [p for p in Path("out").rglob("*") if p.is_file()]


def test_an_image_that_cannot_be_written_is_named_and_the_others_are_made(cli, unet):
    Image.new("RGB", (9000, 8)).save("in/wide.webp")
    status, out, err = cli("translate", "--ckpt", unet, "--input", "in", "--output", "out", "--side-by-side")
    assert status == 1 and "skipped: out/wide.webp cannot be written" in out and "Traceback" not in err
    assert Path("out/grey.png").exists()


def test_a_jpeg_keeps_its_colours_at_full_size(cli, unet):
    cli("translate", "--ckpt", unet, "--input", "in", "--output", "out")
    assert Image.open("out/c.JPEG").layer[0][1:3] == (1, 1)  # as many samples of colour as of brightness


def test_an_output_folder_that_holds_files_keeps_them_unless_told(cli, unet):
    Path("out").mkdir()
    Path("out/a.png").write_text("mine")
    status, _, err = cli("translate", "--ckpt", unet, "--input", "in", "--output", "out")
    assert status == 2 and "--output out holds files already, which are kept" in err and "--overwrite" in err
    assert Path("out/a.png").read_text() == "mine"
    assert cli("translate", "--ckpt", unet, "--input", "in", "--output", "out", "--overwrite")[0] == 0
    assert Image.open("out/a.png").size == (16, 16)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--input", "nowhere", "--output", "out"), "--input nowhere is no folder"),
        (("--input", "in", "--output", "in"), "is the input folder, whose images would be lost"),
        (("--input", "in", "--output", "in/out"), "lies in the input folder, and would be its input next time"),
        (("--input", "in/deep", "--output", "in"), "--input in/deep lies in the output folder"),
        (("--input", "in", "--output", "model.ckpt"), "--output model.ckpt is a file"),
        (("--input", "bare", "--output", "out"), "There is no image in bare among its 1 files"),
        (("--input", "in", "--output", "out", "--to", "A"), "--to A: this UNet translates one way. Leave `--to` out."),
        (("--input", "in", "--output", "out", "--sed", "1"), "UNet has no option --sed"),
        (("--input", "in", "--output", "out", "--tile", "8"), "--tile is 8; it must be at least 64"),
    ],
)
def test_mistakes_are_told_in_a_sentence(cli, unet, arguments, sentence):
    Path("bare").mkdir()
    Path("bare/notes.txt").write_text("")
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
    assert status == 0 and "in a mask a pixel's number is its class: 0 ground, 1 thing" in out
    mask = Image.open("out/deep/er/b.png")
    assert mask.size == (37, 21) and mask.mode == "P" and set(np.unique(np.asarray(mask))) <= {0, 1}
    given = ("translate", "--ckpt", path, "--input", "in", "--output", "x")
    assert "makes masks and knows no domains" in cli(*given, "--to", "B")[2]
    Image.new("RGB", (16, 16)).save("in/a.jpg")
    assert "a.jpg and a.png would both be written to" in cli(*given)[2]
    path = checkpoint(VAE(DataSpec((1, 16, 16)), width=4, latent_dim=2), "vae.ckpt")
    status, _, err = cli("translate", "--ckpt", path, "--input", "in", "--output", "z")
    assert status == 2 and "VAE cannot translate: it has no `translate` or `segment` method." in err
