"""reconstruct: a PNG for each image, a grid, and the error of each."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genbench
from genbench.analysis.latents import decode, encode
from genbench.core.batch import DataSpec, to_uint8
from genbench.data import Digits
from genbench.models import (
    DCGAN,
    Autoencoder,
    ConditionalVAE,
    DenoisingAutoencoder,
    Pix2Pix,
    SegmentationUNet,
)
from tests.helpers.small import untrained

SPEC = DataSpec((1, 16, 16), "label", tuple("0123456789"))
DATA = ("--data", "Digits", "--data.size", "16")


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_digits(folder, n=6, names=None):
    """The first digits of the test split as PNGs; returns uint8 [n, 1, 16, 16]."""
    data = Digits(size=16)
    images = data.source("test").batch(torch.arange(n)).image
    for k, image in enumerate(images):
        path = Path(folder, names[k] if names else f"{k}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)
    return images


@pytest.fixture
def autoencoder(cli):
    return untrained(Autoencoder(SPEC), Path("model.ckpt"))


def test_every_image_gets_its_reconstruction_and_its_error_under_its_own_name(cli, autoencoder):
    names = ["a.png", "b, c.png", 'say "x".png', "sub/a.png", "sub/d.bmp", "é.png"]
    images = write_digits("in", names=names)
    status, out, _ = cli("reconstruct", "--ckpt", autoencoder, "--images", "in", "--out", "out", "--batch-size", 4)
    assert status == 0 and "6 images of in -> out" in out
    rows = {row["file"]: row for row in table("out/errors.csv")}
    assert set(rows) == set(names)
    model = genbench.load(autoencoder)
    for name, image in zip(names, images, strict=True):
        real = image.float() / 127.5 - 1
        expected = to_uint8(model.reconstruct(real[None]))[0, 0].numpy().astype(int)
        written = np.asarray(Image.open(Path("out", name).with_suffix(".png"))).astype(int)
        assert abs(written - expected).max() <= 1
        error = ((written / 127.5 - 1 - real[0].numpy()) ** 2).mean()
        assert float(rows[name]["mse"]) == pytest.approx(error, rel=1e-4)
        assert float(rows[name]["psnr"]) == pytest.approx(10 * np.log10(4 / error), rel=1e-4)
        assert -1 <= float(rows[name]["ssim"]) <= 1
    means = {name: np.mean([float(row[name]) for row in rows.values()]) for name in ("mse", "psnr", "ssim")}
    assert f"mean MSE {means['mse']:.4g}, PSNR (dB) {means['psnr']:.4g}, SSIM {means['ssim']:.4g}" in out
    assert Image.open("out/grid.png").width > 8 * 16


def test_images_of_a_data_set_are_named_by_their_number_in_it(cli, autoencoder):
    assert cli("reconstruct", "--ckpt", autoencoder, *DATA, "--n", 3, "--out", "out")[0] == 0
    numbers = [int(row["file"]) for row in table("out/errors.csv")]
    assert {f"{k:06d}.png" for k in numbers} | {"errors.csv", "grid.png"} == {p.name for p in Path("out").iterdir()}
    model, images = genbench.load(autoencoder), Digits(size=16).source("test")
    x = images.batch(torch.tensor(numbers)).image.float() / 127.5 - 1
    first = np.asarray(Image.open(f"out/{numbers[0]:06d}.png")).astype(int)
    assert abs(first - to_uint8(model.reconstruct(x))[0, 0].numpy()).max() <= 1


def test_images_of_an_array_and_small_images_have_no_name_and_no_ssim(cli):
    ckpt = untrained(Autoencoder(DataSpec((1, 8, 8))), Path("model.ckpt"))
    np.save("in.npy", np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8))
    status, out, _ = cli("reconstruct", "--ckpt", ckpt, "--images", "in.npy", "--out", "out")
    assert status == 0 and "SSIM needs images of at least 11×11" in out
    assert {p.name for p in Path("out").iterdir()} == {*(f"{k:06d}.png" for k in range(5)), "errors.csv", "grid.png"}
    assert list(table("out/errors.csv")[0]) == ["file", "reconstruction", "mse", "psnr"]


def test_a_conditional_model_uses_the_labels_of_the_images_or_one_label(cli):
    ckpt = untrained(ConditionalVAE(SPEC, latent_dim=3, width=4), Path("model.ckpt"))
    assert cli("reconstruct", "--ckpt", ckpt, *DATA, "--n", 4, "--out", "a")[0] == 0
    assert cli("reconstruct", "--ckpt", ckpt, *DATA, "--n", 4, "--label", "7", "--out", "b")[0] == 0
    model, split = genbench.load(ckpt), Digits(size=16).source("test")
    numbers = torch.tensor([int(row["file"]) for row in table("a/errors.csv")])
    x, label = split.batch(numbers).image.float() / 127.5 - 1, split.target("label", numbers)
    for folder, condition in (("a", label), ("b", torch.full((4,), 7))):
        expected = to_uint8(decode(model, encode(model, x, condition), condition))
        for k, number in enumerate(numbers.tolist()):
            found = np.asarray(Image.open(f"{folder}/{number:06d}.png")).astype(int)
            assert abs(found - expected[k, 0].numpy()).max() <= 1


def test_a_conditional_model_refuses_images_without_labels_and_unknown_classes(cli):
    ckpt = untrained(ConditionalVAE(SPEC, latent_dim=3, width=4), Path("model.ckpt"))
    write_digits("in")
    status, _, err = cli("reconstruct", "--ckpt", ckpt, "--images", "in", "--out", "out")
    assert status == 2 and "has no labels of the model's classes" in err and "--label" in err
    status, _, err = cli("reconstruct", "--ckpt", ckpt, "--images", "in", "--label", "cat", "--out", "out")
    assert status == 2 and "there is no class 'cat'" in err and not Path("out").exists()


def test_a_denoising_autoencoder_says_what_its_errors_mean(cli):
    ckpt = untrained(DenoisingAutoencoder(SPEC, width=4), Path("model.ckpt"))
    status, out, _ = cli("reconstruct", "--ckpt", ckpt, *DATA, "--n", 3, "--out", "out")
    assert status == 0 and "removes noise" in out and "`validate --ckpt" in out


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: DCGAN(DataSpec((1, 16, 16)), width=4), "can: Autoencoder, ConditionalVAE, ConvAutoencoder"),
        (lambda: Pix2Pix(DataSpec((1, 32, 32), "image", source=(1, 32, 32)), width=4, depth=5), "Use `translate"),
        (
            lambda: SegmentationUNet(DataSpec((1, 16, 16), "mask", ("a", "b")), width=4, depth=2),
            "predicts masks",
        ),
        (lambda: Autoencoder(DataSpec((2,))), "trained on points"),
    ],
)
def test_other_models_are_refused_with_what_to_use(cli, model, words):
    ckpt = untrained(model(), Path("model.ckpt"))
    status, _, err = cli("reconstruct", "--ckpt", ckpt, "--out", "out")
    assert status == 2 and words in err and "Traceback" not in err and not Path("out").exists()


def test_bad_input_is_refused_before_anything_is_written(cli, autoencoder):
    write_digits("in", 2)
    Path("used").mkdir()
    Path("used/file").write_text("")
    Path("empty").mkdir()
    for flags, words in (
        (("--out", "used"), "contains files already"),
        (("--out", "out", "--lable", "3"), "no option --lable"),
        (("--out", "out", "--label", "3"), "takes no labels"),
        (("--out", "out", "--images", "empty"), "empty"),
        (("--out", "out", "--images", "missing"), "does not exist"),
        (("--out", "out", "--n", "0"), "--n is 0"),
    ):
        images = () if "--images" in flags else ("--images", "in")
        status, _, err = cli("reconstruct", "--ckpt", autoencoder, *images, *flags)
        assert status == 2 and words in err and "Traceback" not in err, (flags, err)
        assert not Path("out").exists()
    assert cli("reconstruct", "--ckpt", autoencoder, "--images", "in", "--out", "used", "--overwrite")[0] == 0
    assert Path("used/file").exists()


def test_overwriting_removes_the_reconstructions_of_the_earlier_call_and_no_other_file(cli, autoencoder):
    write_digits("in", 4, ["0.png", "sub/1.png", "sub/2.png", "gone/with/3.png"])
    write_digits("less", 2, ["sub/1.png", "4.png"])
    command = ("reconstruct", "--ckpt", autoencoder, "--out", "out", "--images")
    assert cli(*command, "in")[0] == 0
    for name in ("mine.png", "sub/mine.png", "000000.png"):
        Path("out", name).write_bytes(b"mine")
    assert cli(*command, "less", "--overwrite")[0] == 0
    assert [row["reconstruction"] for row in table("out/errors.csv")] == ["4.png", "sub/1.png"]
    found = {path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()}
    mine = {"mine.png", "sub/mine.png", "000000.png"}
    assert found == {"4.png", "sub/1.png", "errors.csv", "grid.png"} | mine
    assert not Path("out/gone").exists() and all(Path("out", name).read_bytes() == b"mine" for name in mine)


@pytest.mark.parametrize("listed", ["../safe.png", "/{here}/safe.png", "notes.txt", "", "x\0.png"])
def test_a_foreign_table_in_the_output_folder_deletes_nothing_outside_and_no_other_kind_of_file(
    cli, autoencoder, listed
):
    write_digits("in", 2)
    Path("safe.png").write_bytes(b"safe")
    Path("out").mkdir()
    Path("out/notes.txt").write_text("notes")
    Path("out/errors.csv").write_text(f"file,reconstruction\na,{listed.format(here=Path.cwd())}\n")
    assert cli("reconstruct", "--ckpt", autoencoder, "--images", "in", "--out", "out", "--overwrite")[0] == 0
    assert Path("safe.png").exists() and Path("out/notes.txt").exists()


def test_a_link_in_the_output_folder_deletes_nothing_outside_and_no_new_file(cli, autoencoder):
    write_digits("in", 2, ["sub/0.png", "1.png"])
    for name in ("outside", "out/sub"):
        Path(name).mkdir(parents=True)
    Path("outside/x.png").write_bytes(b"safe")
    Path("out/link").symlink_to(Path("outside").resolve())
    Path("out/same").symlink_to("sub")
    Path("out/loop").symlink_to("loop")
    listed = ["link/x.png", "same/0.png", "loop/x.png", "x\0/x.png", "old.png"]
    Path("out/errors.csv").write_text("file,reconstruction\n" + "".join(f"a,{name}\n" for name in listed))
    Path("out/old.png").write_bytes(b"old")
    assert cli("reconstruct", "--ckpt", autoencoder, "--images", "in", "--out", "out", "--overwrite")[0] == 0
    assert Path("outside/x.png").read_bytes() == b"safe"
    assert Path("out/sub/0.png").exists() and not Path("out/old.png").exists()


@pytest.mark.parametrize("name", ["errors.csv", "grid.png", "0.png"])
@pytest.mark.parametrize("kind", ["folder", "named pipe"])
def test_a_folder_or_pipe_with_the_name_of_a_result_is_refused_before_anything_is_written(cli, autoencoder, name, kind):
    write_digits("in", 2)
    Path("out").mkdir()
    Path("out", name).mkdir() if kind == "folder" else os.mkfifo(Path("out", name))
    status, _, err = cli("reconstruct", "--ckpt", autoencoder, "--images", "in", "--out", "out", "--overwrite")
    assert status == 2 and f"out/{name} is a {kind}, but a result has this name. Remove it" in err
    assert [path.name for path in Path("out").iterdir()] == [name]


def test_two_files_of_one_name_are_refused(cli, autoencoder):
    write_digits("in", 2, names=["a.png", "a.bmp"])
    status, _, err = cli("reconstruct", "--ckpt", autoencoder, "--images", "in", "--out", "out")
    assert status == 2 and "would both be written to a.png" in err and not Path("out").exists()
    shutil.rmtree("in")
    write_digits("in", 1, names=["grid.png"])
    status, _, err = cli("reconstruct", "--ckpt", autoencoder, "--images", "in", "--out", "out")
    assert status == 2 and "Rename one" in err


def test_a_damaged_image_leaves_nothing_half_written(cli, autoencoder):
    write_digits("in", 6)
    whole = Path("in/5.png").read_bytes()
    Path("in/5.png").write_bytes(whole[: len(whole) // 2])
    flags = ("--images", "in", "--batch-size", 2)
    status, _, err = cli("reconstruct", "--ckpt", autoencoder, *flags, "--out", "out")
    assert status == 2 and "5.png" in err and not Path("out").exists()
    Path("out").mkdir()
    Path("out/mine").write_text("mine")
    assert cli("reconstruct", "--ckpt", autoencoder, *flags, "--out", "out", "--overwrite")[0] == 2
    assert [p.name for p in Path("out").iterdir()] == ["mine"]


@pytest.mark.parametrize("verb", ["reconstruct", "vary", "latents interpolate", "latents traverse --directions pca"])
def test_a_model_of_nan_is_refused_and_nothing_is_written(cli, verb):
    model = Autoencoder(SPEC)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(float("nan"))
    ckpt = untrained(model, Path("nan.ckpt"))
    status, _, err = cli(*verb.split(), "--ckpt", ckpt, *DATA)
    assert status == 2 and "Autoencoder returned " in err and " that are NaN or infinite" in err
    assert [path.name for path in Path().iterdir()] == ["nan.ckpt"]


def test_a_checkpoint_that_does_not_record_its_data_needs_images_or_data(cli, autoencoder):
    status, _, err = cli("reconstruct", "--ckpt", autoencoder)
    assert status == 2 and "does not say which data it was trained on. Use `--images` or `--data`." in err


@pytest.mark.parametrize("flags", [["--images.labels", "false"], ["--images.labels_key", "classes"]])
def test_labels_that_are_no_classes_can_be_ignored_or_replaced(cli, autoencoder, flags):
    images = write_digits("in")[:, 0].numpy()
    np.savez("images.npz", images=images, labels=np.arange(6), classes=np.array([0, 1, 0, 1, 0, 1]))
    status, _, err = cli("reconstruct", "--ckpt", autoencoder, "--images", "images.npz")
    assert status == 2 and "Use `--images.labels false`" in err and "`--images.labels_key`" in err
    status, out, err = cli("reconstruct", "--ckpt", autoencoder, "--images", "images.npz", *flags)
    assert status == 0 and "6 images of images.npz" in out, err


@pytest.mark.parametrize(
    ("command", "images", "out"),
    [
        ("reconstruct", "in", "in"),
        ("reconstruct", "in", "other/../in/results"),
        ("anomaly", "in", "in"),
        ("latents cluster --k 2", "in", "in"),
        ("latents interpolate", "in", "in/results"),
        ("vary", "in/0.png", "in/0.png"),
        ("latents arithmetic --b images:in --c images:in --a", "images:in/0.png", "in/0.png"),
    ],
)
def test_results_never_mix_with_the_images_or_replace_them(cli, autoencoder, command, images, out):
    write_digits("in")
    before = {path: path.read_bytes() for path in Path("in").iterdir()}
    flags = [images] if "arithmetic" in command else ["--images", images]
    status, _, err = cli(*command.split(), *flags, "--ckpt", autoencoder, "--out", out, "--overwrite")
    assert status == 2 and f"error: --out {out} is " in err and "Use a different path." in err
    assert {path: path.read_bytes() for path in Path("in").iterdir()} == before


@pytest.mark.parametrize("command", ["reconstruct", "anomaly", "latents map", "latents project"])
def test_a_broken_link_as_output_is_refused_at_once(cli, command):
    Path("link").symlink_to("nowhere")
    status, _, err = cli(*command.split(), "--ckpt", "missing", "--out", "link")
    assert status == 2 and "--out link is a broken link; expected a folder." in err
