"""augment: what is written can be read with its labels, and what is measured is stored."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genbench
from genbench.callbacks import EMA, Checkpoint
from genbench.core.batch import DataSpec, from_uint8
from genbench.data import ArrayImages, ImageFolder
from genbench.models import DCGAN
from tests.helpers.conditional import LABELS, THIRDS, Toned, Tones
from tests.helpers.small import run

CGAN = {"class_path": "genbench.models.ConditionalGAN", "init_args": {"width": 4, "latent_dim": 4}}


@pytest.fixture
def toned():
    """Draws class k at level 10 k."""
    run(Toned(LABELS), 8, [EMA(), Checkpoint()], folder=Path("toned"))
    return "toned"


@pytest.fixture
def tones():
    """Draws random levels, and classifies them by thirds."""
    run(Tones(THIRDS), 8, [EMA(), Checkpoint()], folder=Path("tones"))
    return "tones"


@pytest.fixture
def digits(cli, config):
    """A conditional GAN, trained with the 80 labels of a subset of Digits."""

    def fit(**data):
        given = {"size": 16, "batch_size": 16, "subset": 80} | data
        cli("fit", "--config", config("dcgan", model=CGAN, data={"class_path": "Digits", "init_args": given}),
            "--name", "run", "--max_images", "32")  # fmt: skip
        return "runs/run"

    return fit


def all_of(data):
    parts = [data.source(stage).everything for stage in ("train", "val", "test")]
    return torch.cat([part.image for part in parts]), torch.cat([part.label for part in parts])


@pytest.mark.parametrize("out", ["images", "images.npz"])
def test_the_images_and_labels_are_read_as_they_were_drawn(cli, toned, out):
    status, said, _ = cli("augment", "write", "--ckpt", toned, "--n", 30, "--out", out)
    assert status == 0 and f"30 images, 10 each of zero, one, two -> {out}" in said
    data = (ArrayImages if out.endswith("npz") else ImageFolder)(path=str(Path(out).absolute()), size=4)
    assert data.classes == ("one", "two", "zero")
    images, label = all_of(data)
    level = torch.tensor([10, 20, 0])[label]
    assert len(images) == 30 and (images[:, 0, 0, 0].int() - level).abs().max() <= 1
    assert label.bincount().tolist() == [10, 10, 10]


def test_classes_that_are_numbers_keep_them(cli, digits):
    assert cli("augment", "write", "--ckpt", digits(), "--n", 40, "--out", "a.npz")[0] == 0
    assert np.array_equal(np.load("a.npz")["labels"], np.arange(40) % 10)
    drawn = genbench.load("runs/run").sample(torch.arange(40), condition=torch.arange(40) % 10)
    stored = from_uint8(torch.from_numpy(np.load("a.npz")["images"])).permute(0, 3, 1, 2)
    assert (stored - drawn).abs().max() < 1.5 / 127.5


def test_samples_without_enough_confidence_are_dropped_and_counted(cli, tones):
    status, said, _ = cli("augment", "write", "--ckpt", tones, "--n", 30, "--least-probability", 0.9, "--out", "a.npz")
    assert status == 0
    drawn, kept, unsure, extra = [int(word) for word in said.split() if word.isdecimal()][:4]
    assert kept == 30 and drawn == kept + unsure + extra and unsure > 0
    found = np.load("a.npz")
    thirds = found["images"][:, 0, 0, 0].astype(int) * 3 // 256
    assert np.array_equal(np.array(THIRDS.classes)[thirds], found["labels"])


def test_a_models_own_options_are_flags(cli, tones):
    flags = ("--n", 3, "--classes", "dark", "--most", 0.2, "--out", "a.npz")
    assert cli("augment", "write", "--ckpt", tones, *flags)[0] == 0
    assert np.load("a.npz")["images"].max() <= 51


def test_overwriting_leaves_no_old_image(cli, toned):
    assert cli("augment", "write", "--ckpt", toned, "--n", 30, "--out", "images")[0] == 0
    status, _, err = cli("augment", "write", "--ckpt", toned, "--n", 2, "--classes", "one", "--out", "images")
    assert status == 2 and "contains files already" in err
    more = ("--classes", "one", "--out", "images", "--overwrite")
    assert cli("augment", "write", "--ckpt", toned, "--n", 2, *more)[0] == 0
    assert sorted(str(path) for path in Path("images").rglob("*.png")) == [f"images/one/00000{k}.png" for k in (0, 1)]
    Path("images/mine.txt").write_text("mine")
    status, _, err = cli("augment", "write", "--ckpt", toned, "--n", 2, *more)
    assert status == 2 and "contains mine.txt, which `augment` did not write" in err
    assert len(list(Path("images").rglob("*.png"))) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--classes", "thre"], "there is no class 'thre'. Choose from: zero, one, two."),
        (["--n", "31"], "31 images cannot be divided evenly among 3 classes"),
        (["--least-probability", "2"], "--least-probability is 2.0; it must be between 0 and 1"),
        (["--least-probability", "0.5"], "Toned cannot classify its samples"),
        (["--out", "a.png"], "'.png' is neither a folder nor an .npz file"),
        (["--truncation", "1"], "Toned has no option --truncation"),
    ],
)
def test_what_cannot_be_written_is_an_error_and_writes_nothing(cli, toned, flags, message):
    status, _, err = cli("augment", "write", "--ckpt", toned, "--n", "30", *flags)
    assert status == 2 and message in err and "Traceback" not in err
    assert not Path("synthetic").exists()


@pytest.mark.parametrize("action", ["write", "measure"])
def test_a_model_without_classes_is_told_which_have_them(cli, action):
    run(DCGAN(DataSpec((1, 16, 16)), latent_dim=4, width=2), 8, [EMA(), Checkpoint()], folder=Path("run"))
    status, _, err = cli("augment", action, "--ckpt", "run", "--n", 10)
    assert status == 2 and "Samples of DCGAN have no class" in err and "SemiSupervisedGAN" in err


def test_the_models_that_the_error_names_exist():
    for name in ("ConditionalGAN", "ConditionalVAE", "PixelCNN", "VQPrior", "SemiSupervisedGAN"):
        assert hasattr(genbench.models, name)


def test_measuring_writes_the_accuracy_of_each_classifier(cli, digits):
    status, said, _ = cli("augment", "measure", "--ckpt", digits(), "--n", 20, "--labels", "20,all", "--seeds", 2,
                          "--train-images", 256)  # fmt: skip
    assert status == 0 and "trained with 80 labels, but the classifiers at 20 labels get fewer" in said
    assert "At 80 labels, real and synthetic images give" in said and "10 classifiers, 256 training images each" in said
    found = json.loads(Path("augment.json").read_text())
    assert found["labels_of_the_model"] == 80 and found["data"]["arguments"]["subset"] == 80
    cases = [(one["labels"], one["trained_on"]) for one in found["classifiers"]]
    assert cases == [(None, "synthetic"), (20, "real"), (20, "both"), (80, "real"), (80, "both")]
    for one in found["classifiers"]:
        assert len(one["accuracy"]) == 2 and one["mean"] == pytest.approx(np.mean(one["accuracy"]))
        assert one["std"] == pytest.approx(np.std(one["accuracy"], ddof=1))
        assert all(abs(value * 297 - round(value * 297)) < 1e-9 for value in one["accuracy"])  # of 297 test images


def test_a_model_that_had_the_same_labels_needs_no_note(cli, digits):
    flags = ("--n", 10, "--labels", "80", "--seeds", 1, "--train-images", 128)
    status, said, _ = cli("augment", "measure", "--ckpt", digits(), *flags)
    assert status == 0 and "note:" not in said
    status, _, err = cli("augment", "measure", "--ckpt", "runs/run", *flags)
    assert status == 2 and "augment.json exists already" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--labels", "200"], "The number of labels is 200, 20 of each class, but class"),
        (["--labels", "15"], "The number of labels is 15, which is not divisible by the 10 classes"),
        (["--labels", "few"], "'few' is not a number of labels"),
        (["--train-images", "1.5"], "--train-images: '1.5' is not a number of images"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--data.split_seed", "1"], "`--data.split_seed` cannot be set"),
        (["--data.only_classes", "1"], "`--data.only_classes` cannot be set"),
        (["--out", "results"], "--out results must end in .json"),
    ],
)
def test_what_cannot_be_measured_is_an_error_before_sampling(cli, digits, flags, message):
    status, said, err = cli("augment", "measure", "--ckpt", digits(), "--n", 20, *flags)
    assert status == 2 and message in err and "samples of" not in said and not Path("augment.json").exists()


def test_an_interrupted_write_leaves_no_part_of_the_data_set(cli, toned, monkeypatch):
    save = Image.Image.save

    def interrupted(image, path, **options):
        save(image, path, **options)
        if "two" in str(path):
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    assert cli("augment", "write", "--ckpt", toned, "--n", 30, "--out", "out")[0] == 130
    assert not Path("out").exists()
