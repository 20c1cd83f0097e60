"""tag: classes and probabilities of images, as a table."""

import csv
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import genbench
from genbench.core.batch import DataSpec
from genbench.data import Digits, Shapes
from genbench.data.shapes import CAPTION_FACTORS, COLORS, SHAPES, caption_factors, describe
from genbench.evaluation import extractors
from genbench.models import VAE, ConditionalGAN, SemiSupervisedGAN
from tests.helpers.small import untrained

SPEC = DataSpec((1, 16, 16), "label", tuple("0123456789"))
DATA = ("--data", "Digits", "--data.size", "16")


def table(path="tags.csv"):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def probabilities(rows, classes):
    return torch.tensor([[float(row[f"probability of {name}"]) for name in classes] for row in rows])


@pytest.mark.parametrize(
    "model",
    [
        lambda: SemiSupervisedGAN(SPEC, width=4),
        lambda: ConditionalGAN(SPEC, width=4, conditioning="auxiliary"),
    ],
)
def test_a_model_that_classifies_gives_its_probabilities(cli, model):
    ckpt = untrained(model(), Path("model.ckpt"))
    status, out, _ = cli("tag", "--ckpt", ckpt, *DATA, "--n", 40, "--batch-size", 16)
    rows, split = table(), Digits(size=16).source("test")
    numbers = torch.tensor([int(row["file"]) for row in rows])
    x, label = split.batch(numbers).image.float() / 127.5 - 1, split.target("label", numbers)
    expected = genbench.load(ckpt).classify(x).softmax(1)
    found = probabilities(rows, SPEC.classes)
    assert status == 0 and len(rows) == 40 and torch.allclose(found, expected, atol=1e-5)
    assert [row["label"] for row in rows] == [str(k) for k in expected.argmax(1).tolist()]
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected.amax(1).tolist(), abs=1e-5)
    accuracy = (expected.argmax(1) == label).double().mean().item()
    assert f"accuracy (class): {accuracy:.4f} of 40 labeled images" in out


def test_a_shipped_classifier_needs_no_checkpoint(cli):
    status, out, _ = cli("tag", "--classifier", "digitsnet", "--n", 100)
    assert status == 0 and float(out.partition("accuracy (class): ")[2].split()[0]) > 0.9
    assert list(table()[0]) == ["file", "label", "probability", *(f"probability of {k}" for k in range(10))]


def test_shapesnet_gives_the_factors_of_captions(cli):
    status, out, _ = cli("tag", "--classifier", "shapesnet", "--n", 60, "--data.test_images", "200")
    assert status == 0 and "accuracy: shape 1.0000, color 1.0000 of 60 images" in out
    rows, split = table(), Shapes(test_images=200).source("test")
    factors = split.batch(torch.tensor([int(row["file"]) for row in rows])).factors
    assert [row["shape"] for row in rows] == [SHAPES[int(k)] for k in factors[:, 0]]
    assert [row["color"] for row in rows] == [list(COLORS)[int(k)] for k in factors[:, 1]]
    classes = extractors.build("shapesnet").classes
    every = probabilities(rows, classes)
    for row, each in zip(rows, every, strict=True):
        for place, factor in enumerate(("shape", "color")):
            of_it = [p for name, p in zip(classes, each.tolist(), strict=True) if name.split()[place] == row[factor]]
            assert float(row[f"{factor} probability"]) == pytest.approx(sum(of_it), abs=2e-5)


def true_captions(split, rows):
    return [describe(row) for row in split.batch(torch.tensor(rows)).factors.numpy()]


def test_captionnet_gives_captions_and_their_factors(cli):
    status, out, _ = cli("tag", "--classifier", "captionnet", "--n", 60, "--data.test_images", "200")
    rows, split = table(), Shapes(test_images=200).source("test")
    header = ["file", "caption", "probability"]
    for factor in ("size", "color", "shape", "place"):
        header += [factor, f"{factor} probability"]
    assert status == 0 and list(rows[0]) == header
    captions = true_captions(split, [int(row["file"]) for row in rows])
    right = [row["caption"] == caption for row, caption in zip(rows, captions, strict=True)]
    assert sum(right) >= 58
    assert f"caption {sum(right) / 60:.4f} of 60 images" in out
    for row in rows:
        assert row["caption"] == f"a {row['size']} {row['color']} {row['shape']} {row['place']}"
        product = 1.0
        for factor in CAPTION_FACTORS:
            product *= float(row[f"{factor} probability"])
        assert float(row["probability"]) == pytest.approx(product, abs=1e-5)


def test_the_accuracy_of_each_factor_is_that_of_its_column(cli):
    status, out, _ = cli("tag", "--classifier", "captionnet", "--n", 40, "--data.test_images", 40, "--data.noise", 0.4)
    rows, split = table(), Shapes(test_images=40, noise=0.4).source("test")
    captions = true_captions(split, [int(row["file"]) for row in rows])
    line = re.search(r"accuracy: (.*) of 40 images", out).group(1)
    said = dict(part.rsplit(" ", 1) for part in line.split(", "))
    assert status == 0 and list(said) == ["shape", "color", "size", "place", "caption"]
    for name, value in said.items():
        found = [row[name] for row in rows]
        true = captions if name == "caption" else [caption_factors(caption)[name] for caption in captions]
        assert float(value) == pytest.approx(sum(map(str.__eq__, found, true)) / 40, abs=5e-5)
    assert float(said["caption"]) < 1  # the noise is strong enough for the test to mean something


@pytest.mark.parametrize("size", [32, 64])
def test_a_folder_of_shapes_gets_its_captions(cli, size):
    split = Shapes(size=size, test_images=40).source("test")
    Path("in").mkdir()
    for row, image in enumerate(split.batch(torch.arange(40)).image):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"in/{row:02d}.png")
    status, out, _ = cli("tag", "--classifier", "captionnet", "--images", "in")
    rows = table()
    assert status == 0 and "accuracy" not in out and len(rows) == 40
    captions = true_captions(split, [int(row["file"][:2]) for row in rows])
    assert sum(row["caption"] == caption for row, caption in zip(rows, captions, strict=True)) >= 39


def test_file_names_with_commas_quotes_and_line_breaks_survive(cli):
    names = ["a,b.png", 'say "hi".png', "two\nlines.png", "é/ü.png"]
    for name in names:
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28)).save(Path("in", name))
    status, out, _ = cli("tag", "--classifier", "mnistnet", "--images", "in")
    assert status == 0 and "converted as in the classifier's training: 28×28 gray to 32×32 gray (pad)" in out
    assert sorted(row["file"] for row in table()) == sorted(names)


def test_class_folders_give_an_accuracy_of_their_own_classes_only(cli):
    for name in ("7", "3"):
        Path("in", name).mkdir(parents=True)
        Image.new("L", (28, 28)).save(f"in/{name}/a.png")
    status, out, _ = cli("tag", "--classifier", "mnistnet", "--images", "in")
    right = sum(row["file"].split("/")[0] == row["label"] for row in table()) / 2
    assert status == 0 and f"accuracy (class): {right:.4f} of 2 labeled images" in out
    Path("in/7").rename("in/cat")
    status, out, _ = cli("tag", "--classifier", "mnistnet", "--images", "in", "--overwrite")
    assert status == 0 and "no accuracy: the classes of the images (3, cat)" in out


@pytest.mark.parametrize("model", [lambda: VAE(SPEC, width=4), lambda: ConditionalGAN(SPEC, width=4)])
def test_a_model_without_classes_is_refused_with_those_that_can(cli, model):
    ckpt = untrained(model(), Path("model.ckpt"))
    status, _, err = cli("tag", "--ckpt", ckpt, *DATA)
    assert status == 2 and "SemiSupervisedGAN" in err and "`model.conditioning` auxiliary" in err
    assert not Path("tags.csv").exists()


def test_bad_input_is_a_sentence(cli):
    Path("empty").mkdir()
    Path("there.csv").write_text("mine")
    for flags, words in (
        ((), "needs a classifier: use `--ckpt` for a trained model, or `--classifier` with one of: mnistnet, "),
        (("--classifier", "mnistnet", "--ckpt", "x"), "--ckpt is for a trained model, but --classifier mnistnet was"),
        (("--classifier", "mnistnet", "--raw"), "--raw is for a trained model, but --classifier mnistnet was set."),
        (("--classifier", "mnistnet", "--ema", "0.07"), "--ema is for a trained model, but --classifier mnistnet"),
        (("--classifier", "mnistnet", "--name", "x"), "--name is for a trained model"),
        (("--classifier", "mnistnet", "--runs", "other"), "--runs is for a trained model"),
        (("--classifier", "mnistnet", "--images", "empty"), "empty"),
        (("--classifier", "digitsnet", "--out", "tags.txt"), "must end in .csv"),
        (("--classifier", "digitsnet", "--out", "there.csv"), "exists already"),
        (("--classifier", "digitsnet", "--lable", "3"), "no option --lable"),
        (("--classifier", "digitsnet", "--n", "0"), "--n is 0"),
    ):
        status, _, err = cli("tag", *flags)
        assert status == 2 and words in err and "Traceback" not in err, (flags, err)
    assert Path("there.csv").read_text() == "mine" and not Path("tags.csv").exists()


def test_an_error_names_the_classifier(cli):
    status, _, err = cli("tag", "--classifier", "shapesnet", "--data", "Digits", "--data.size", 32)
    assert status == 2 and "but shapesnet was trained on 3×32×32" in err
