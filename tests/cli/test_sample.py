"""sample: a checkpoint alone, and the path decides what is written."""

from pathlib import Path

import numpy as np
import pytest
from conditional import CAPTIONS, LABELS, Toned, tones
from PIL import Image
from small import run

import genbench
from genbench.callbacks import EMA, Checkpoint
from genbench.core.batch import DataSpec
from genbench.models import VQVAE, Autoencoder


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
def test_an_autoencoder_says_what_makes_it_able_to_sample(cli, model, density):
    run(model(DataSpec((1, 8, 8))), 8, [EMA(), Checkpoint()], folder=Path("run"))
    status, _, err = cli("sample", "--ckpt", "run/checkpoints/last.ckpt", "--n", 2, "--out", "a.npy")
    assert status == 2 and f"makes it able to: `fit --config {density}`" in err


def test_raw_weights_differ_from_averaged_ones(cli, trained):
    cli("sample", "--ckpt", trained, "--n", 2, "--out", "a.npy")
    cli("sample", "--ckpt", trained, "--n", 2, "--out", "b.npy", "--raw")
    assert (np.load("a.npy") != np.load("b.npy")).any()


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
        (LABELS, ["--prompt", "a star"], "Its --label is one of zero, one, two"),
        (LABELS, ["--label", "three"], "There is no class 'three'; the model knows zero, one, two"),
        (LABELS, ["--label", "3"], "There is no class '3'"),
        (LABELS, ["--label", "1", "--prompt", "a star"], "--label and --prompt were given"),
        (CAPTIONS, [], "Toned draws what a caption says: give it `--prompt '...'`, made of the words a, red, blue"),
        (CAPTIONS, ["--prompt", " "], "made of the words a, red, blue, star"),
        (CAPTIONS, ["--label", "1"], "draws what a caption says"),
        (CAPTIONS, ["--prompt", "a pink star"], "has the word `pink`. Known are: a, red, blue, star"),
        (CAPTIONS, ["--prompt", "a red red star"], "at most 3 words, and `a red red star` has 4"),
    ],
)
def test_what_a_conditional_model_cannot_be_asked_for_is_answered_in_a_sentence(cli, conditional, spec, flags, message):
    status, _, err = cli("sample", "--ckpt", conditional(spec), *flags)
    assert status == 2 and " ".join(message.split()) in " ".join(err.split()) and "Traceback" not in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--label", "3"], "was trained without labels"),
        (["--prompt", "a star"], "was trained without captions, so `--prompt 'a star'` cannot be asked of it"),
        (["--foo", "1"], "has no option --foo; its own options: --mean (default True)"),
        (["--mean", "maybe"], "'maybe' is neither true nor false"),
        (["--out", "x.jpg"], "'.jpg' is none of the formats"),
        (["--out", "full"], "full holds something already"),
        (["--n", "0"], "--n is 0; it must be at least 1"),
        (["--ckpt", "none.ckpt"], "there is no checkpoint at none.ckpt"),
        (["--ckpt", "cut.ckpt"], "cut.ckpt is damaged"),
        (["--device", "cuda:99"], "--device cuda:99"),
    ],
)
def test_a_users_mistake_is_answered_in_a_sentence(cli, trained, flags, message):
    Path("cut.ckpt").write_bytes(trained.read_bytes()[:2000])
    Path("full").mkdir()
    Path("full/mine.txt").write_text("kept")
    status, _, err = cli("sample", "--ckpt", trained, *flags)
    assert status == 2 and message in err and "Traceback" not in err
    assert Path("full/mine.txt").read_text() == "kept" and not Path("samples.png").exists()
