"""anomaly: scores of images, with pictures of the worst, and how well they separate normal from anomalous images."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, roc_auc_score

from genbench.cli import main
from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.models import DCGAN, VAE, Autoencoder, PixelCNN, UNet

NAMES = ["heat_maps.png", "histogram.png", "scores.csv", "worst.png"]


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    """An autoencoder of the digit 3, trained for a few seconds."""
    folder = tmp_path_factory.mktemp("threes")
    data = {"size": 16, "batch_size": 16, "only_classes": [3]}
    text = {
        "max_images": 4800,
        "model": {"class_path": "genbench.models.Autoencoder", "init_args": {
            "latent_dim": 8, "optimizer": {"class_path": "torch.optim.Adam", "lr": 0.01},
        }},
        "data": {"class_path": "genbench.data.Digits", "init_args": data},
        "ema": {"every_images": 160, "halflife": 500},
        "validation": {"every_images": 4800, "samples": 16},
        "checkpoint": {"every_images": 4800},
        "samples": {"every_images": 4800, "n": 4},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(text))
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["fit", "--config", "config.yaml", "--name", "threes"]) == 0
    finally:
        os.chdir(before)
    return folder / "runs/threes/checkpoints/last.ckpt"


def checkpoint(model, path="model.ckpt"):
    """What a run of no steps would leave; it does not record its data."""
    from genbench.callbacks import EMA, Checkpoint
    from tests.helpers.small import run

    run(model, 8, [EMA(), Checkpoint()], folder=Path("run"))
    Path("run/checkpoints/last.ckpt").rename(path)
    return path


def table(path="anomalies/scores.csv"):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def digit(number, path, size=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    found = load_digits()
    image = found.images[found.target == number][len(list(path.parent.iterdir()))]
    picture = Image.fromarray((image * 255 / 16).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    picture.save(path)


@pytest.fixture
def bottle(cli):
    """The layout of MVTec: normal images are threes, defects are sevens and zeros."""
    for k in range(12):
        digit(3, Path(f"bottle/train/good/{k:03d}.png"))
    for k in range(6):
        digit(3, Path(f"bottle/test/good/{k:03d}.png"))
        digit(7, Path(f"bottle/test/broken/{k:03d}.png"))
        digit(0, Path(f"bottle/test/scratched/{k:03d}.png"))
    return Path("bottle")


def test_the_classes_that_the_model_was_not_trained_on_are_anomalies(cli, ckpt):
    status, out, err = cli("anomaly", "--ckpt", ckpt)
    assert status == 0, err
    assert sorted(path.name for path in Path("anomalies").iterdir()) == NAMES
    rows = table()
    assert list(rows[0]) == ["row", "score", "label", "anomalous"] and len(rows) == 297
    labels = load_digits().target[1500:]
    assert [row["label"] for row in rows] == [str(label) for label in labels]
    anomalous, values = labels != 3, np.array([float(row["score"]) for row in rows])
    assert [row["anomalous"] for row in rows] == [str(int(each)) for each in anomalous]
    auroc = roc_auc_score(anomalous, values)
    assert auroc > 0.8
    assert f"AUROC {auroc:.4f}, average precision {average_precision_score(anomalous, values):.4f}: " in out
    assert f"{anomalous.sum()} anomalous and {(~anomalous).sum()} normal images" in out


def test_scores_are_the_models_squared_errors_and_do_not_depend_on_the_batch_size(cli, ckpt):
    import torch

    import genbench
    from genbench.data import Digits

    cli("anomaly", "--ckpt", ckpt, "--out", "one")
    cli("anomaly", "--ckpt", ckpt, "--out", "two", "--batch-size", 7)
    one, two = ([float(row["score"]) for row in table(f"{name}/scores.csv")] for name in ("one", "two"))
    np.testing.assert_allclose(one, two, rtol=1e-5)
    x = torch.cat([batch.image for batch in Digits(size=16).test_dataloader()])
    with torch.no_grad():
        wanted = (genbench.load(ckpt).reconstruct(x) - x).square().mean((1, 2, 3))
    np.testing.assert_allclose(one, wanted.numpy(), rtol=1e-4)


def test_normal_classes_can_be_chosen(cli, ckpt):
    assert cli("anomaly", "--ckpt", ckpt, "--normal", 3, 8, "--n", 100)[0] == 0
    rows = table()
    assert len(rows) == 100 and all((row["anomalous"] == "0") == (row["label"] in "38") for row in rows)


def test_a_threshold_marks_images(cli, ckpt):
    _, out, _ = cli("anomaly", "--ckpt", ckpt, "--threshold", 0.2)
    rows = table()
    assert all((row["above_threshold"] == "1") == (float(row["score"]) > 0.2) for row in rows)
    above = [row["anomalous"] for row in rows if row["above_threshold"] == "1"]
    assert f"{len(above)} of 297 images have a score above 0.2: {above.count('1')} of 2" in out


def test_a_quantile_of_the_validation_images_is_a_threshold(cli, ckpt):
    cli("anomaly", "--ckpt", ckpt, "--split", "val", "--data.only_classes", "3", "--out", "val")
    values = [float(row["score"]) for row in table("val/scores.csv")]
    _, out, _ = cli("anomaly", "--ckpt", ckpt, "--quantile", 0.9)
    assert f"have a score above {np.quantile(values, 0.9):.6g}: " in out


def test_the_distance_of_codes_is_to_those_of_the_training_images(cli, ckpt):
    import torch

    import genbench
    from genbench.analysis.anomaly import gaussian, mahalanobis
    from genbench.data import Digits

    status, out, err = cli("anomaly", "--ckpt", ckpt, "--by", "latent")
    assert status == 0 and "scored by latent" in out, err
    model, source = genbench.load(ckpt), Digits(size=16, only_classes=3).source("train")
    with torch.no_grad():
        codes = model.encode(source.batch(torch.arange(len(source))).image.float() / 127.5 - 1)
        x = torch.cat([batch.image for batch in Digits(size=16).test_dataloader()])
        wanted = mahalanobis(model.encode(x), *gaussian(codes))
    np.testing.assert_allclose([float(row["score"]) for row in table()], wanted.numpy(), rtol=1e-3)


@pytest.mark.parametrize("path", ["bottle/test", "bottle"])
def test_a_folder_of_good_images_and_of_defects_needs_no_flag(cli, ckpt, bottle, path):
    status, out, err = cli("anomaly", "--ckpt", ckpt, "--images", path)
    assert status == 0 and "AUROC" in out and "12 anomalous and " in out, err
    rows = table()
    assert len(rows) == (18 if path == "bottle/test" else 30)
    assert {row["label"] for row in rows if row["anomalous"] == "1"} == {"broken", "scratched"}
    assert all(row["label"] in row["file"] for row in rows)


def test_a_data_set_in_the_layout_of_mvtec_needs_no_flag(cli, ckpt, bottle):
    flags = ["--data", "ImageFolder", "--data.path", "bottle", "--data.size", 16, "--data.channels", 1]
    status, out, err = cli("anomaly", "--ckpt", ckpt, *flags, "--data.val_size", 2)
    assert status == 0 and "12 anomalous and 6 normal images" in out, err
    assert {Path(row["file"]).parent.name for row in table()} == {"good", "broken", "scratched"}


def test_images_of_another_size_are_converted_and_that_is_said(cli, ckpt):
    for k in range(3):
        digit(3, Path(f"large/{k}.png"), size=40)
    status, out, err = cli("anomaly", "--ckpt", ckpt, "--images", "large")
    assert status == 0, err
    assert "images of large are converted as in training: 40×40 gray to 16×16 gray" in out
    digit(3, Path("large/3.png"), size=16)
    for first in ("large/0.png", "large/3.png"):  # the first file is 40×40, then 16×16 as the model
        Path(first).rename("large/-.png")
        status, more, err = cli("anomaly", "--ckpt", ckpt, "--images", "large", "--out", Path(first).stem)
        assert status == 0 and "images of large are converted as in training: several sizes to 16×16 gray" in more, err
        Path("large/-.png").rename(first)
    assert "no AUROC: large has no classes, so it is not known which images are anomalous" in out
    assert list(table()[0]) == ["file", "score"]


def test_images_of_one_kind_have_no_auroc(cli, ckpt):
    for name in ("3", "8"):
        for k in range(2):
            digit(int(name), Path(f"both/{name}/{k}.png"))
    _, out, _ = cli("anomaly", "--ckpt", ckpt, "--images", "both", "--normal", 3, 8)
    assert "no AUROC: all 4 images are normal, and it compares normal with anomalous images" in out
    _, out, _ = cli("anomaly", "--ckpt", ckpt, "--images", "both", "--normal", 5, "--overwrite")
    assert "no AUROC: all 4 images are anomalous" in out


def test_classes_that_are_not_known_to_be_normal_have_no_auroc(cli, ckpt):
    for name in ("cat", "dog"):
        digit(3, Path(f"pets/{name}/0.png"))
    _, out, _ = cli("anomaly", "--ckpt", ckpt, "--images", "pets")
    assert "no AUROC: it is not known which classes are normal. Set `--normal`, from: cat, dog" in out


def test_a_gan_is_scored_by_its_discriminator_and_draws_no_heat_maps(cli):
    path = checkpoint(DCGAN(DataSpec((1, 16, 16)), width=4, latent_dim=2))
    digits = ["--data", "Digits", "--data.size", 16, "--n", 20]
    status, out, err = cli("anomaly", "--ckpt", path, *digits, "--normal", 3)
    assert status == 0 and "scored by discriminator with DCGAN" in out, err
    assert "no heat maps: DCGAN has no `reconstruct` method" in out
    assert sorted(path.name for path in Path("anomalies").iterdir()) == [n for n in NAMES if n != "heat_maps.png"]


def test_results_of_another_score_are_replaced(cli, ckpt):
    path = checkpoint(DCGAN(DataSpec((1, 16, 16)), width=4, latent_dim=2))
    cli("anomaly", "--ckpt", ckpt, "--n", 20)
    Path("anomalies/notes.txt").write_text("kept")
    cli("anomaly", "--ckpt", path, "--data", "Digits", "--data.size", 16, "--n", 20, "--overwrite")
    assert not Path("anomalies/heat_maps.png").exists() and Path("anomalies/notes.txt").read_text() == "kept"


def test_an_interruption_keeps_the_results_of_the_earlier_call(cli, ckpt, monkeypatch):
    cli("anomaly", "--ckpt", ckpt, "--n", 20)
    before = {path.name: path.read_bytes() for path in Path("anomalies").iterdir()}

    def interrupted(*arguments, **more):
        raise UserError("interrupted")

    for place in ("genbench.cli.anomaly._write_scores", "genbench.analysis.variations.reconstruct"):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupted)
            assert cli("anomaly", "--ckpt", ckpt, "--n", 10, "--overwrite")[0] == 2
        assert {path.name: path.read_bytes() for path in Path("anomalies").iterdir()} == before


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_with_the_name_of_a_result_is_refused_before_the_checkpoint_is_read(cli, name):
    Path("anomalies", name).mkdir(parents=True)
    status, _, err = cli("anomaly", "--ckpt", "nowhere", "--overwrite")
    assert status == 2 and f"anomalies/{name} is a folder, but a result has this name." in err
    assert [path.name for path in Path("anomalies").iterdir()] == [name]


def test_the_noise_of_a_likelihood_follows_from_the_seed(cli):
    path = checkpoint(VAE(DataSpec((1, 16, 16)), width=4, latent_dim=2, decoder="gaussian", sigma=0.5))
    flags = ["--data", "Digits", "--data.size", 16, "--n", 70, "--by", "likelihood", "--importance-samples", 2]
    for out, more in {"a": (), "b": ("--batch-size", 9), "c": ("--seed", 1)}.items():
        status, _, err = cli("anomaly", "--ckpt", path, *flags, "--out", out, *more)
        assert status == 0, err
    a, b, c = (np.array([float(row["score"]) for row in table(f"{out}/scores.csv")]) for out in "abc")
    assert np.array_equal(a, b) and not np.allclose(a, c)


def test_the_pictures_show_the_images_with_the_highest_scores(cli, ckpt):
    cli("anomaly", "--ckpt", ckpt, "--worst", 3, "--out", "few")
    cli("anomaly", "--ckpt", ckpt, "--worst", 1000, "--n", 30, "--out", "many")
    few, many = Image.open("few/heat_maps.png"), Image.open("many/heat_maps.png")
    few, many = (np.asarray(image.convert("RGB")).astype(int) for image in (few, many))

    def widths(image):  # of the grids, which are dark gray below the last row
        gray = np.pad((image[-1] == 40).all(-1), 1).astype(int)
        return np.flatnonzero(np.diff(gray) < 0) - np.flatnonzero(np.diff(gray) > 0)

    titles = 32
    assert widths(few) / (len(few) - titles) == pytest.approx([4 / 3], abs=0.05)  # four columns, three rows
    assert widths(many) / (len(many) - titles) == pytest.approx([4 / 15, 4 / 15], abs=0.05)
    assert abs(few[..., 0] - few[..., 2]).max() > 100  # the heat map is in color


@pytest.mark.parametrize(("most", "parts"), [(3, 1), (5, 2)])
def test_each_heat_map_has_the_name_and_score_of_its_image(cli, ckpt, bottle, monkeypatch, most, parts):
    drawn = []
    monkeypatch.setattr("genbench.core.image_grid.titled", lambda grid, _, rows: drawn.append(rows) or grid)
    for flags, name in (((), "test image {row}"), (("--images", "bottle/test"), "{file}")):
        drawn.clear()
        assert cli("anomaly", "--ckpt", ckpt, "--worst", most, "--overwrite", *flags)[0] == 0
        worst = sorted(table(), key=lambda row: -float(row["score"]))[:most]
        titles = [f"{Path(name.format(**row)).name}, score {float(row['score']):.4g}" for row in worst]
        assert drawn == [titles[k::parts] for k in range(parts)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "empty"], "empty is empty. Expected images (.jpg, "),
        (["--images", "nowhere"], "nowhere does not exist"),
        (["--normal", "cat"], "--normal: there is no class 'cat'. Choose from: 0, 1, 2"),
        (["--images", "plain", "--normal", "3"], "--normal 3 needs the class of each image, but plain has no classes"),
        (["--by", "likelihood"], "Autoencoder cannot compute likelihoods (it has no `log_likelihood` method)"),
        (["--by", "likelihood"], "Models that can: ConditionalVAE, DDPM, FlowMatching, Glow, PixelCNN, RealNVP, VAE"),
        (["--by", "likelihood"], "It can be used with `--by reconstruction` or `--by latent`."),
        (["--by", "discriminator"], "Autoencoder cannot discriminate real images from generated ones"),
        (["--steps", "5"], "--steps is for `--by projection`, but the score is reconstruction"),
        (["--quantile", "95"], "--quantile is 95.0; it must be from 0 to 1, such as 0.95"),
        (["--quantile", "0.9", "--threshold", "1"], "--threshold and --quantile both set the threshold"),
        (["--worst", "0"], "--worst is 0; it must be at least 1"),
        (["--smooth", "-1"], "--smooth is -1.0; it must be at least 0"),
        (["--n", "0"], "--n is 0"),
        (["--out", "used"], "--out used contains files already. Use a different folder, or add `--overwrite`"),
        (["--importance-samples", "3"], "Autoencoder has no option --importance-samples"),
        (["--data", "Ring"], "has the shape 2, but Autoencoder was trained on 1×16×16"),
    ],
)
def test_a_users_mistake_is_answered_in_a_sentence(cli, ckpt, flags, message):
    Path("empty").mkdir()
    digit(3, Path("plain/0.png"))
    Path("used").mkdir()
    Path("used/notes.txt").write_text("kept")
    status, _, err = cli("anomaly", "--ckpt", ckpt, *flags)
    assert status == 2 and message in err and "Traceback" not in err, err
    assert not Path("anomalies").exists() and os.listdir("used") == ["notes.txt"]


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        (
            UNet(DataSpec((1, 16, 16), "image", source=(1, 16, 16)), width=2, depth=2),
            [],
            "no `log_likelihood` method; `--by",
        ),
        (Autoencoder(DataSpec((1, 16, 16)), latent_dim=2), ["--by", "latent"], "does not record its data"),
        (Autoencoder(DataSpec((1, 16, 16)), latent_dim=2), ["--quantile", "0.9"], "does not record its data"),
        (
            PixelCNN(DataSpec((1, 16, 16), binary=True), width=2, layers=1),
            [],
            "these images have gray pixels. Use binary images",
        ),
    ],
)
def test_a_model_that_cannot_score_is_refused_in_a_sentence(cli, monkeypatch, model, flags, message):
    from tests.helpers import small

    if isinstance(model, UNet):
        import torch

        monkeypatch.setattr(small.RandomImages, "targets", {"source": torch.zeros(64, 1, 16, 16, dtype=torch.uint8)})
    path = checkpoint(model)
    status, _, err = cli("anomaly", "--ckpt", path, "--data", "Digits", "--data.size", 16, *flags)
    assert status == 2 and message in err and "Traceback" not in err, err
    assert not Path("anomalies").exists()


def test_names_that_are_not_utf8_or_have_no_glyph_are_scored_without_a_warning(cli, ckpt):
    Path("in").mkdir()
    names = [b"caf\xe9.png", "日本.png".encode(), b"new\nline.png"]
    for name in names:
        Image.new("L", (16, 16)).save("in/x.png")
        os.rename(b"in/x.png", b"in/" + name)
    status, _, err = cli("anomaly", "--ckpt", ckpt, "--images", "in")
    assert status == 0 and "Glyph" not in err
    with open("anomalies/scores.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert {os.fsencode(row["file"]) for row in csv.DictReader(file)} == set(names)


@pytest.mark.parametrize("flag", ["--threshold", "--smooth"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_setting_that_is_not_finite_is_refused(cli, ckpt, flag, value):
    status, _, err = cli("anomaly", "--ckpt", ckpt, flag, value)
    assert status == 2 and f"{flag} is {value}; it must be a finite number." in err
    assert not Path("anomalies").exists()
