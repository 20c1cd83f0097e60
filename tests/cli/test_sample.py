"""sample: a checkpoint alone, and the path decides what is written."""

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genbench
from genbench.callbacks import EMA, Checkpoint
from genbench.core.batch import DataSpec
from genbench.models import VQVAE, Autoencoder, RealNVP
from tests.helpers.conditional import CAPTIONS, LABELS, Toned, tones
from tests.helpers.small import run, untrained


@pytest.fixture
def trained(cli, config):
    cli("fit", "--config", config("vae"), "--name", "run", "--max_images", "48")
    path = Path("model.ckpt")
    Path("runs/run/checkpoints/last.ckpt").rename(path)  # no config, no run folder
    return path


def test_the_path_decides_what_is_written_and_all_hold_the_same_images(cli, trained):
    for out in ("grid.png", "a.npy", "a.npz", "folder"):
        assert cli("sample", "--ckpt", trained, "--n", 5, "--seed", 3, "--out", out)[0] == 0
    array = np.load("a.npy")
    assert array.shape == (5, 16, 16, 1) and array.dtype == np.uint8
    assert np.array_equal(np.load("a.npz")["images"], array)
    files = sorted(Path("folder").iterdir())
    assert [f.name for f in files] == [f"{k:06d}.png" for k in range(5)]
    assert all(np.array_equal(np.asarray(Image.open(f)), array[k, :, :, 0]) for k, f in enumerate(files))
    assert Image.open("grid.png").size[0] >= 3 * 16


def test_seed_and_number_name_the_images_whatever_the_batch_size(cli, trained):
    cli("sample", "--ckpt", trained, "--n", 6, "--seed", 10, "--out", "a.npy", "--batch-size", 6)
    cli("sample", "--ckpt", trained, "--n", 2, "--seed", 12, "--out", "b.npy", "--batch-size", 1)
    a, b = np.load("a.npy").astype(int), np.load("b.npy").astype(int)
    assert abs(a[2:4] - b).max() <= 1


@pytest.mark.parametrize(("model", "density"), [(Autoencoder, "latent_mixture"), (VQVAE, "vq_prior")])
def test_an_autoencoder_names_the_config_of_a_prior_that_samples(cli, model, density):
    run(model(DataSpec((1, 8, 8))), 8, [EMA(), Checkpoint()], folder=Path("run"))
    status, _, err = cli("sample", "--ckpt", "run/checkpoints/last.ckpt", "--n", 2, "--out", "a.npy")
    assert status == 2 and f"Train a prior on its latents, which can sample: `fit --config {density}`" in err


def test_raw_weights_differ_from_averaged_ones(cli, trained):
    cli("sample", "--ckpt", trained, "--n", 2, "--out", "a.npy")
    cli("sample", "--ckpt", trained, "--n", 2, "--out", "b.npy", "--raw")
    assert (np.load("a.npy") != np.load("b.npy")).any()


def test_averages_of_all_lengths_between_those_that_a_run_kept_can_be_used(cli, config):
    power = {"enabled": True, "every_images": 16, "snapshot_every": 16}
    cli("fit", "--config", config("vae", power_ema=power), "--name", "run", "--max_images", "160")
    assert len(list(Path("runs/run/ema").iterdir())) == 10
    Path("runs/run").rename("runs/renamed")
    images = {}
    for flags in ((), ("--raw",), ("--ema", 0.05), ("--ema", 0.075), ("--ema", 0.1)):
        out = f"{len(images)}.npy"
        assert cli("sample", "--ckpt", "runs/renamed", "--n", 4, "--out", out, *flags)[0] == 0
        images[flags] = np.load(out)
    assert len({array.tobytes() for array in images.values()}) == 5
    assert cli("reconstruct", "--ckpt", "runs/renamed", "--n", 4, "--ema", 0.075, "--out", "rec")[0] == 0
    for flags, message in (
        (("--ema", 0.2), "kept averages of the lengths 0.05 and 0.1; expected a length between them"),
        (("--ema", "nan"), "expected a length between them"),
    ):
        status, _, err = cli("sample", "--ckpt", "runs/renamed", "--n", 4, "--out", "no.npy", *flags)
        assert status == 2 and message in err and err.count("\n") == 1, err
    shutil.rmtree("runs/renamed/ema")
    status, _, err = cli("sample", "--ckpt", "runs/renamed", "--n", 4, "--out", "no.npy", "--ema", 0.075)
    assert status == 2 and "0000000016.pt of the averaged weights is missing. Use one of the lengths 0.05 and" in err
    assert not Path("no.npy").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--ema", "long"), "argument --ema: invalid float value: 'long'"),
        (("--ema", "0.075", "--raw"), "argument --raw: not allowed with argument --ema"),
    ],
)
def test_raw_weights_and_an_average_cannot_be_combined(cli, flags, message, capfd):
    with pytest.raises(SystemExit, match="2"):
        cli("sample", "--ckpt", "model.ckpt", *flags)
    assert message in capfd.readouterr().err


def test_a_run_without_power_function_averages_says_how_to_keep_them(cli, trained):
    status, _, err = cli("sample", "--ckpt", trained, "--n", 2, "--out", "a.npy", "--ema", 0.05)
    assert status == 2 and "model.ckpt contains no power-function averages" in err and "--power_ema.enabled true" in err


def test_a_models_own_options_are_flags(cli, trained):
    assert cli("sample", "--ckpt", trained, "--n", 2, "--out", "a.npy", "--mean", "false")[0] == 0
    assert set(np.unique(np.load("a.npy"))) == {0, 255}  # pixels drawn from the Bernoulli decoder


def test_four_lines_of_python_give_the_same_images(cli, trained):
    import torch

    from genbench.core.batch import to_uint8

    cli("sample", "--ckpt", trained, "--n", 4, "--out", "a.npy")
    model = genbench.load(trained)
    images = model.sample(torch.arange(4))
    assert np.array_equal(to_uint8(images).permute(0, 2, 3, 1).numpy(), np.load("a.npy"))
    assert genbench.show(images).size[0] >= 2 * 16


def test_a_folder_that_is_written_over_keeps_no_image_of_an_older_model(cli, trained):
    assert cli("sample", "--ckpt", trained, "--n", 9, "--out", "folder")[0] == 0
    Path("folder/notes.txt").write_text("kept")
    assert cli("sample", "--ckpt", trained, "--n", 4, "--seed", 20, "--out", "folder", "--overwrite")[0] == 0
    assert sorted(p.name for p in Path("folder").iterdir()) == [*(f"{k:06d}.png" for k in range(4)), "notes.txt"]
    cli("sample", "--ckpt", trained, "--n", 4, "--seed", 20, "--out", "a.npy")
    found = [np.asarray(Image.open(f"folder/{k:06d}.png")) for k in range(4)]
    assert np.array_equal(np.stack(found), np.load("a.npy")[..., 0])


@pytest.mark.parametrize("name", ["000064.png", "000002.png", "mine.jpg", "deep"])
def test_an_image_that_sample_did_not_write_is_never_removed(cli, trained, name):
    assert cli("sample", "--ckpt", trained, "--n", 9, "--out", "folder")[0] == 0
    if name == "deep":
        Path("folder/deep").mkdir()
    else:
        Image.new("L", (16, 16), 77).save(Path("folder", name))
    before = {p: p.is_file() and p.read_bytes() for p in Path("folder").iterdir()}
    status, _, err = cli("sample", "--ckpt", trained, "--n", 4, "--out", "folder", "--overwrite")
    assert status == 2 and f"--out folder contains {name}, which `sample` did not write" in err
    assert before == {p: p.is_file() and p.read_bytes() for p in Path("folder").iterdir()}


@pytest.mark.parametrize("out", ["full/a.npy", "full/a.npz", "full/a.png"])
def test_images_that_do_not_fit_on_the_disk_are_saved_elsewhere(cli, trained, tmp_path, elsewhere, full, out):
    Path("full").mkdir()
    full(tmp_path / "full")
    status, _, err = cli("sample", "--ckpt", trained, "--n", 4, "--out", out)
    assert status == 2 and f"{out} could not be written: No space left on device." in err
    assert cli("sample", "--ckpt", trained, "--n", 4, "--out", Path(out).name)[0] == 0
    (kept,) = elsewhere.rglob(Path(out).name)
    assert f"It was written to {kept} instead." in err and kept.read_bytes() == Path(out[5:]).read_bytes()


def test_a_folder_of_images_that_does_not_fit_on_the_disk_is_saved_elsewhere(cli, trained, elsewhere, monkeypatch):
    real, count = Image.Image.save, iter(range(99))

    def save(self, path, *args, **kwargs):
        if next(count) == 2:
            raise OSError(28, "No space left on device")
        return real(self, path, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", save)
    status, _, err = cli("sample", "--ckpt", trained, "--n", 4, "--out", "folder")
    assert status == 2 and "2 of 4 images were written to folder: No space left on device. It was written to" in err
    assert sorted(p.name for p in Path("folder").iterdir()) == ["000000.png", "000001.png"]
    cli("sample", "--ckpt", trained, "--n", 4, "--out", "a.npy")
    (kept,) = elsewhere.rglob("folder.npz")
    assert np.array_equal(np.load(kept)["images"], np.load("a.npy"))


def test_nothing_is_sampled_if_the_output_cannot_be_written(cli, trained, monkeypatch):
    Path("file").write_text("")
    os.mkfifo("pipe.npy")
    monkeypatch.setattr("genbench.load", None)
    for out, message in (("file/a.npy", "The images cannot be written to file: Not a directory"),
                         ("file", "--out file is a file; expected a folder"), ("pipe.npy", "pipe.npy is a named pipe"),
                         ("/proc/images", "cannot be written to /proc/images")):  # fmt: skip
        status, _, err = cli("sample", "--ckpt", trained, "--out", out, "--overwrite")
        assert status == 2 and message in err, err


@pytest.fixture
def conditional(cli, tmp_path):
    """Writes a checkpoint of a model of that data; returns its path."""

    def write(spec):
        run(Toned(spec), images=8, callbacks=[EMA(), Checkpoint()], folder=tmp_path / "toned", limit_val_batches=0)
        return tmp_path / "toned" / "checkpoints" / "last.ckpt"

    return write


def test_a_model_of_labels_draws_its_classes_in_turn_each_a_column_of_the_grid(cli, conditional):
    ckpt = conditional(LABELS)
    assert cli("sample", "--ckpt", ckpt, "--n", 7, "--batch-size", 2, "--out", "a.npy")[0] == 0
    assert np.load("a.npy")[:, 0, 0, 0].tolist() == [0, 10, 20, 0, 10, 20, 0]
    cli("sample", "--ckpt", ckpt, "--n", 7, "--out", "grid.png")
    assert tones(Image.open("grid.png")) == [[0, 10, 20], [0, 10, 20], [0, 40, 40]]
    for label in ("two", "2"):
        cli("sample", "--ckpt", ckpt, "--n", 4, "--label", label, "--out", f"{label}.png")
        assert tones(Image.open(f"{label}.png")) == [[20, 20], [20, 20]]


def test_a_model_of_captions_draws_what_the_prompt_says(cli, conditional):
    ckpt = conditional(CAPTIONS)
    assert cli("sample", "--ckpt", ckpt, "--n", 3, "--prompt", "Blue star", "--out", "a.npy")[0] == 0
    assert (np.load("a.npy") == 70).all() and len(np.load("a.npy")) == 3


@pytest.mark.parametrize(
    ("spec", "flags", "message"),
    [
        (LABELS, ["--prompt", "a star"], "Use `--label` with one of: zero, one, two"),
        (LABELS, ["--label", "three"], "--label: there is no class 'three'. Choose from: zero, one, two"),
        (LABELS, ["--label", "3"], "there is no class '3'"),
        (LABELS, ["--label", "1", "--prompt", "a star"], "--label and --prompt cannot be combined"),
        (CAPTIONS, [], "Toned was trained on captions. Use `--prompt '...'` with words from: a, red, blue"),
        (CAPTIONS, ["--prompt", " "], "with words from: a, red, blue, star"),
        (CAPTIONS, ["--label", "1"], "was trained on captions. Use"),
        (
            CAPTIONS,
            ["--prompt", "a pink star"],
            "The word `pink` is in no caption of this data set. Choose from: a, red, blue, star",
        ),
        (CAPTIONS, ["--prompt", "a red red star"], "at most 3 words, but `a red red star` has 4"),
    ],
)
def test_an_impossible_condition_is_refused_in_a_sentence(cli, conditional, spec, flags, message):
    status, _, err = cli("sample", "--ckpt", conditional(spec), *flags)
    assert status == 2 and " ".join(message.split()) in " ".join(err.split()) and "Traceback" not in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--label", "3"], "was trained without labels"),
        (["--prompt", "a star"], "was trained without captions, so it cannot use `--prompt 'a star'`"),
        (["--foo", "1"], "has no option --foo; its own options: --mean (default True)"),
        (["--mean", "maybe"], "'maybe' is neither true nor false"),
        (["--out", "x.jpg"], "'.jpg' is not one of the formats"),
        (["--out", "full"], "--out full contains files already"),
        (["--n", "0"], "--n is 0; it must be at least 1"),
        (["--ckpt", "none.ckpt"], "there is no checkpoint at none.ckpt"),
        (["--ckpt", "cut.ckpt"], "cut.ckpt is damaged"),
        (["--ckpt", "flipped.ckpt"], "flipped.ckpt is damaged: 'archive/data/3' in it does not match its checksum"),
        (["--ckpt", "empty.ckpt"], "empty.ckpt is damaged or not a checkpoint (it is empty)"),
        (["--ckpt", "pipe.ckpt"], "there is no checkpoint at pipe.ckpt; it is a named pipe"),
        (["--device", "cuda:99"], "--device cuda:99"),
    ],
)
def test_a_users_mistake_is_answered_in_a_sentence(cli, trained, flags, message):
    Path("cut.ckpt").write_bytes(trained.read_bytes()[:2000])
    Path("empty.ckpt").write_bytes(b"")
    os.mkfifo("pipe.ckpt")
    with zipfile.ZipFile(trained) as archive:
        place = archive.getinfo("archive/data/4").header_offset  # the bytes before it are those of the one before
    data = bytearray(trained.read_bytes())
    data[place - 20] ^= 1
    Path("flipped.ckpt").write_bytes(data)
    Path("full").mkdir()
    Path("full/mine.txt").write_text("kept")
    status, _, err = cli("sample", "--ckpt", trained, *flags)
    assert status == 2 and message in err and "Traceback" not in err
    assert Path("full/mine.txt").read_text() == "kept" and not Path("samples.png").exists()


def test_images_that_are_not_finite_are_refused_and_not_written(cli, tmp_path):
    model = RealNVP(DataSpec((2,)), levels=1, couplings=1, width=4)
    for p in model.parameters():
        torch.nn.init.constant_(p, 1.0)
    path = untrained(model, tmp_path / "points.ckpt")
    status, _, err = cli("sample", "--ckpt", path, "--temperature", "1e300", "--out", "a.png")
    assert status == 2 and "returned NaN or infinite numbers" in err and not Path("a.png").exists()
    assert "64 points of RealNVP" in cli("sample", "--ckpt", path, "--out", "a.png")[1]
