"""sample: a checkpoint alone, and the path decides what is written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genbench


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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--label", "3"], "was trained without labels"),
        (["--foo", "1"], "has no sampling option --foo; its own options: --mean (default True)"),
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
