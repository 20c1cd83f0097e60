"""latents: what each action writes, and what it refuses."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm

import genbench
from genbench.analysis import latents
from genbench.callbacks import EMA, Checkpoint
from genbench.core.batch import DataSpec, from_uint8, to_uint8
from genbench.data import Digits
from genbench.evaluation.images import SplitImages
from genbench.models import DCGAN, GAN, VAE, VQVAE, ConditionalGAN, ConditionalVAE, ConvAutoencoder, PixelCNN
from tests.helpers.small import RandomImages, run

SPEC = DataSpec((1, 16, 16))
LABELS = DataSpec((1, 16, 16), "label", tuple(map(str, range(10))))
DIGITS = ("--data", "Digits", "--data.size", "16")


def saved(model, name):
    """The checkpoint of a model that was trained on 8 images."""
    run(model, 8, [EMA(), Checkpoint()], folder=Path(name))
    return Path(name, "checkpoints", "last.ckpt")


def contrasted(model):
    """A GAN that is hardly trained, but whose images differ."""
    with torch.no_grad():
        for layer in model.generator.modules():
            if isinstance(layer, torch.nn.ConvTranspose2d):
                layer.weight *= 10
    return model


@pytest.fixture
def gan(cli):
    return saved(contrasted(DCGAN(SPEC, latent_dim=6, width=4)), "gan")


@pytest.fixture
def vae(cli):
    return saved(VAE(SPEC, latent_dim=6, width=4), "vae")


@pytest.fixture
def photos(cli):
    """Five digits as files."""
    images = Digits(size=16).source("test").batch(torch.arange(5)).image
    Path("photos").mkdir()
    for k, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(f"photos/{k}.png")
    return from_uint8(images)


def tiles(path, columns, size=16, gap=2):
    """uint8 [rows, columns, size, size] of a grid, which is enlarged by a whole number."""
    sheet = np.asarray(Image.open(path))
    factor = sheet.shape[1] // (columns * (size + gap) + gap)
    sheet = sheet[::factor, ::factor]
    rows = (sheet.shape[0] - gap) // (size + gap)
    at = [[(gap + r * (size + gap), gap + c * (size + gap)) for c in range(columns)] for r in range(rows)]
    return np.array([[sheet[y : y + size, x : x + size] for y, x in row] for row in at]).astype(int)


def table(path):
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def levels(images):
    return to_uint8(images)[:, 0].numpy().astype(int)


def assert_alike(a, b):
    """Equal pixels, up to the rounding of another batch size."""
    assert a.shape == b.shape and abs(a - b).max() <= 1


def test_the_help_lists_all_actions(cli, capfd):
    with pytest.raises(SystemExit) as ended:
        cli("latents", "--help")
    out = capfd.readouterr().out
    assert ended.value.code == 0
    for action in ("interpolate", "arithmetic", "traverse", "manifold", "map", "cluster", "project"):
        assert f"\n    {action} " in out or f"\n    {action}\n" in out


def test_an_unknown_action_is_refused(cli, capfd):
    with pytest.raises(SystemExit) as ended:
        cli("latents", "interpolat", "--ckpt", "last")
    err = capfd.readouterr().err
    assert ended.value.code == 2 and "invalid choice: 'interpolat'" in err and "Did you mean 'interpolate'?" in err


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_the_ends_of_a_path_between_seeds_are_their_samples(cli, gan, path):
    status, out, _ = cli("latents", "interpolate", "--ckpt", gan, "--seeds", "3,-17,42", "--steps", 5, "--path", path,
                         "--out", "out")  # fmt: skip
    assert status == 0 and f"2 paths of 5 images ({path}) between seeds 3, -17, 42 -> out/grid.png" in out
    found, samples = tiles("out/grid.png", 5), levels(genbench.load(gan).sample(torch.tensor([3, -17, 42])))
    assert_alike(found[:, 0], samples[:2])
    assert_alike(found[:, -1], samples[1:])
    with Image.open("out/animation.gif") as animation:
        assert animation.info["loop"] == 0  # for ever
        assert 8 <= animation.n_frames <= 16  # Pillow joins equal frames
        first = np.asarray(animation.convert("L"))
    factor = first.shape[0] // 20
    assert_alike(first[::factor, ::factor][2:18, 2:18].astype(int), samples[0])


def test_paths_do_not_depend_on_the_batch_size(cli, gan):
    for size in (1, 256):
        cli("latents", "interpolate", "--ckpt", gan, "--seeds", "1,2", "--batch-size", size, "--out", f"by{size}")
    assert_alike(tiles("by1/grid.png", 10), tiles("by256/grid.png", 10))


def test_the_ends_of_a_path_between_images_are_their_reconstructions(cli, vae, photos):
    status, out, _ = cli("latents", "interpolate", "--ckpt", vae, "--images", "photos", "--n", 5, "--out", "out")
    assert status == 0 and "4 paths of 10 images (linear) between images of photos" in out
    found, expected = tiles("out/grid.png", 10), levels(genbench.load(vae).reconstruct(photos))
    assert_alike(found[:, 0], expected[:-1])
    assert_alike(found[:, -1], expected[1:])


def test_a_path_of_a_conditional_model_has_the_label(cli):
    model = contrasted(ConditionalGAN(LABELS, latent_dim=6, width=4))
    RandomImages.targets = {"label": torch.arange(64) % 10}
    try:
        ckpt = saved(model, "cgan")
    finally:
        RandomImages.targets = {}
    assert cli("latents", "interpolate", "--ckpt", ckpt, "--seeds", "0,1", "--label", "7", "--out", "out")[0] == 0
    expected = genbench.load(ckpt).sample(torch.arange(2), condition=torch.tensor([7, 7]))
    assert_alike(tiles("out/grid.png", 10)[0, [0, -1]], levels(expected))
    for action, more in (("traverse", ("--directions", "pca", "--n", 50)), ("arithmetic", ABC)):
        assert cli("latents", action, "--ckpt", ckpt, *more, "--label", "7")[0] == 0
    assert cli("latents", "project", "--ckpt", ckpt, *DIGITS, "--n", 3, "--steps", 3)[0] == 0  # with their own labels
    status, _, err = cli("latents", "interpolate", "--ckpt", ckpt, "--label", "x")
    assert status == 2 and "there is no class 'x'. Choose from: 0, 1" in err


def test_an_encoder_with_labels_gets_those_of_the_images(cli, photos):
    RandomImages.targets = {"label": torch.arange(64) % 10}
    try:
        ckpt = saved(ConditionalVAE(LABELS, latent_dim=6, width=4), "cvae")
    finally:
        RandomImages.targets = {}
    assert cli("latents", "interpolate", "--ckpt", ckpt, *DIGITS, "--n", 3, "--out", "out")[0] == 0
    model, split = genbench.load(ckpt), SplitImages(Digits(size=16), "test", 3)
    x, label = from_uint8(split.images(torch.arange(3))), split.label
    assert len(label.unique()) > 1
    expected = levels(latents.decode(model, latents.encode(model, x, label), label))  # each end with its own class
    assert_alike(tiles("out/grid.png", 10)[:, 0], expected[:-1])
    assert_alike(tiles("out/grid.png", 10)[:, -1], expected[1:])
    status, _, err = cli("latents", "interpolate", "--ckpt", ckpt, "--images", "photos", "--out", "more")
    assert status == 2 and "photos has no labels of the model's classes" in err
    assert cli("latents", "interpolate", "--ckpt", ckpt, "--images", "photos", "--label", 3, "--out", "more")[0] == 0


ABC = ("--a", "seeds:1,2", "--b", "seeds:3", "--c", "seeds:4,5,6,7")


def results(path, size=16):
    """uint8 [3, 3, size, size]: the results in the picture of `arithmetic`."""
    sheet = np.asarray(Image.open(path).convert("L"))[::4, ::4]  # tiles of 64 pixels
    side = 3 * (size + 2) + 2
    sheet = sheet[-side:, -side:]
    return np.array([[sheet[2 + 18 * r : 18 + 18 * r, 2 + 18 * c : 18 + 18 * c] for c in range(3)] for r in range(3)])


def test_the_result_of_arithmetic_is_in_the_middle_of_its_neighbors(cli, gan):
    assert cli("latents", "arithmetic", "--ckpt", gan, *ABC, "--out", "a.png")[0] == 0
    model = genbench.load(gan)
    z = [model.sample_latents(torch.tensor(seeds)).mean(0) for seeds in ([1, 2], [3], [4, 5, 6, 7])]
    found = results("a.png").astype(int)
    assert_alike(found[1, 1], levels(model.decode((z[0] - z[1] + z[2])[None]))[0])
    assert all((found[r, c] != found[1, 1]).any() for r in range(3) for c in range(3) if (r, c) != (1, 1))
    cli("latents", "arithmetic", "--ckpt", gan, *ABC, "--noise", 0, "--out", "b.png")
    assert all((results("b.png")[r, c] == results("b.png")[0, 0]).all() for r in range(3) for c in range(3))


def test_arithmetic_with_equal_b_and_c_returns_a(cli, gan):
    equal = ("--a", "seeds:5", "--b", "seeds:1,2", "--c", "seeds:1,2", "--noise", 0)
    assert cli("latents", "arithmetic", "--ckpt", gan, *equal, "--out", "a.png")[0] == 0
    assert_alike(results("a.png")[0, 0].astype(int), levels(genbench.load(gan).sample(torch.tensor([5])))[0])


def test_operands_are_images_or_mean_codes_of_classes(cli, vae, photos, monkeypatch):
    given, real = [], latents.arithmetic
    monkeypatch.setattr(latents, "arithmetic", lambda *codes: given.extend(codes) or real(*codes))
    operands = ("--a", "images:photos/2.png", "--b", "images:photos", "--c", "class:3")
    status, out, _ = cli("latents", "arithmetic", "--ckpt", vae, *operands, *DIGITS)
    assert status == 0 and "(codes: a 1, b 5, c " in out
    model, train = genbench.load(vae), Digits(size=16).source("train").everything
    torch.testing.assert_close(given[0], model.encode(photos[2:3]))
    torch.testing.assert_close(given[1], model.encode(photos))
    three = model.encode(from_uint8(train.image[train.label == 3]))
    torch.testing.assert_close(given[2].mean(0), three.mean(0))


def test_the_middle_of_a_traversal_is_the_sample_of_the_seed(cli, gan):
    status, out, _ = cli("latents", "traverse", "--ckpt", gan, "--dimensions", "4,0", "--seed", 9, "--steps", 5,
                         "--out", "t.png")  # fmt: skip
    assert status == 0 and "2 rows from -3 to 3 standard deviations -> t.png" in out
    found, model = tiles("t.png", 5), genbench.load(gan)
    z = model.sample_latents(torch.tensor([9]))
    assert_alike(found[:, 2], levels(model.decode(z.expand(2, -1))))
    z = model.sample_latents(torch.arange(10_000))
    moved = model.sample_latents(torch.tensor([9]))
    moved[0, 4] += 3 * z[:, 4].std()
    assert_alike(found[0, -1], levels(model.decode(moved))[0])


def test_an_autoencoder_is_traversed_from_the_mean_code_along_the_principal_directions(cli):
    ckpt = saved(ConvAutoencoder(SPEC, latent_dim=6, width=4), "ae")
    status, out, _ = cli("latents", "traverse", "--ckpt", ckpt, *DIGITS, "--directions", "pca", "--count", 6)
    assert status == 0 and "direction 1 " in out and "direction 6 " in out
    model, test = genbench.load(ckpt), Digits(size=16).source("test").everything.image
    assert_alike(tiles("traversal.png", 7)[0, 3], levels(model.decode(model.encode(from_uint8(test)).mean(0)[None]))[0])


def test_the_first_principal_direction_changes_the_image_more_than_the_last(cli, vae):
    images = {}
    for name, ckpt, more in (
        ("gan", saved(GAN(SPEC, latent_dim=8, hidden=[64]), "mlp"), ()),
        ("vae", vae, DIGITS),
    ):
        assert cli("latents", "traverse", "--ckpt", ckpt, *more, "--directions", "pca", "--count", 6,
                   "--out", f"{name}.png")[0] == 0  # fmt: skip
        images[name] = tiles(f"{name}.png", 7)
        change = abs(images[name][:, -1] - images[name][:, 0]).mean((1, 2))
        assert change[0] > change[-1]


def test_the_manifold_is_decoded_at_the_quantiles_of_scipy(cli):
    ckpt = saved(VAE(SPEC, latent_dim=2, width=4), "vae2")
    status, out, _ = cli("latents", "manifold", "--ckpt", ckpt, "--side", 6)
    assert status == 0 and "6×6 images at the quantiles of a standard normal distribution -> manifold.png" in out
    x = norm.ppf((np.arange(6) + 0.5) / 6)
    z = torch.tensor([[a, b] for b in x[::-1] for a in x], dtype=torch.float32)
    found = tiles("manifold.png", 6, gap=0)
    assert_alike(found.reshape(36, 16, 16), levels(genbench.load(ckpt).decode(z)))


def test_projection_writes_codes_scores_and_the_path(cli, gan):
    assert cli("sample", "--ckpt", gan, "--n", 3, "--seed", 50, "--out", "samples")[0] == 0
    status, out, _ = cli("latents", "project", "--ckpt", gan, "--images", "samples", "--steps", 40, "--out", "out")
    assert status == 0 and "3 images projected: PSNR median " in out
    assert {path.name for path in Path("out").iterdir()} == {"codes.npz", "psnr.csv", "projection.png", "path.gif"}
    rows = table("out/psnr.csv")
    assert [row["image"] for row in rows] == ["000000.png", "000001.png", "000002.png"]
    codes = torch.from_numpy(np.load("out/codes.npz")["codes"])
    assert codes.shape == (3, 6)
    images = np.stack([np.asarray(Image.open(f"samples/{row['image']}")) for row in rows])
    decoded = genbench.load(gan).decode(codes)[:, 0].numpy()
    mse = ((decoded - (images / 127.5 - 1)) ** 2).mean((1, 2))
    expected = 10 * np.log10(4 / np.maximum(mse, 255**-2.0))  # errors below half a level count as half a level
    np.testing.assert_allclose([float(row["psnr"]) for row in rows], expected, atol=0.02)
    found = tiles("out/projection.png", 3)
    assert_alike(found[0], images.astype(int))
    assert_alike(found[1], levels(torch.from_numpy(decoded)[:, None]))
    status, _, err = cli("latents", "project", "--ckpt", gan, "--images", "samples", "--out", "out")
    assert status == 2 and "--out out contains files already" in err


def test_a_single_image_is_projected_and_its_name_is_kept(cli, gan, photos):
    assert cli("latents", "project", "--ckpt", gan, "--images", "photos/3.png", "--steps", 3, "--out", "out")[0] == 0
    assert [row["image"] for row in table("out/psnr.csv")] == ["3.png"]


def test_a_name_that_is_not_utf8_keeps_its_bytes(cli, gan, photos):
    os.rename(b"photos/3.png", b"photos/\xff.png")
    assert cli("latents", "project", "--ckpt", gan, "--images", "photos", "--steps", 3, "--out", "out")[0] == 0
    assert b"\n\xff.png," in Path("out/psnr.csv").read_bytes()


def test_the_result_of_an_image_does_not_depend_on_the_batch(cli, gan, photos):
    for size in (2, 5):
        cli("latents", "project", "--ckpt", gan, "--images", "photos", "--steps", 30, "--batch-size", size,
            "--out", f"by{size}")  # fmt: skip
    a, b = (np.load(f"by{size}/codes.npz")["codes"] for size in (2, 5))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_codes_are_read_again_by_the_same_model_only(cli, gan):
    cli("latents", "project", "--ckpt", gan, *DIGITS, "--n", 3, "--steps", 3, "--out", "out")
    codes = np.load("out/codes.npz")["codes"]
    assert cli("latents", "interpolate", "--ckpt", gan, "--codes", "out/codes.npz", "--out", "path")[0] == 0
    assert_alike(tiles("path/grid.png", 10)[:, 0], levels(genbench.load(gan).decode(torch.from_numpy(codes[:2]))))
    operands = ("--a", "codes:out/codes.npz", "--b", "seeds:1", "--c", "seeds:2")
    assert cli("latents", "arithmetic", "--ckpt", gan, *operands)[0] == 0
    torch.manual_seed(5)
    other = saved(DCGAN(SPEC, latent_dim=6, width=4), "other")
    status, _, err = cli("latents", "interpolate", "--ckpt", other, "--codes", "out/codes.npz", "--out", "more")
    assert status == 2 and "out/codes.npz contains codes of a different model" in err and not Path("more").exists()


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((3, 5), np.float32), "contains float32 of the shape 3×5, but the codes of this DCGAN are floats of"),
        (np.zeros((3, 6), np.int64), "contains int64 of the shape 3×6"),
        (np.zeros((0, 6), np.float32), "contains float32 of the shape 0×6"),
        (np.float32(1), "contains float32 of the shape of a single number"),
        (np.full((3, 6), np.nan, np.float32), "contains codes that are not finite"),
        (np.array([{}], dtype=object), "is not a file of codes"),
    ],
)
def test_codes_that_do_not_fit_are_refused(cli, gan, array, sentence):
    np.save("codes.npy", array, allow_pickle=True)
    status, _, err = cli("latents", "interpolate", "--ckpt", gan, "--codes", "codes.npy", "--out", "out")
    assert status == 2 and sentence in err and not Path("out").exists()


@pytest.mark.parametrize("contents", [b"", b"PK\x03\x04 damaged", b"text"])
def test_files_that_are_no_codes_are_refused(cli, gan, contents):
    Path("codes.npz").write_bytes(contents)
    status, _, err = cli("latents", "interpolate", "--ckpt", gan, "--codes", "codes.npz", "--out", "out")
    assert status == 2 and "codes.npz is not a file of codes" in err


def test_an_array_of_other_names_is_refused(cli, gan):
    np.savez("codes.npz", z=np.zeros((3, 6)))
    status, _, err = cli("latents", "interpolate", "--ckpt", gan, "--codes", "codes.npz", "--out", "out")
    assert status == 2 and "codes.npz is not a file of codes" in err and "codes" in err


ACTIONS = {
    "interpolate": (),
    "arithmetic": ABC,
    "traverse": (),
    "manifold": (),
    "project": (),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_discrete_latents_are_refused(cli, action):
    ckpt = saved(VQVAE(DataSpec((1, 16, 16)), width=4), "vq")
    status, _, err = cli("latents", action, "--ckpt", ckpt, *ACTIONS[action])
    assert status == 2
    assert f"The latents of VQVAE are discrete (int64), but `latents {action}` needs real numbers" in err or (
        action in ("manifold", "project") and "VQVAE cannot sample latents" in err
    )


@pytest.mark.parametrize("action", ACTIONS)
def test_a_model_without_the_ability_names_those_that_have_it(cli, action):
    ckpt = saved(PixelCNN(DataSpec((1, 8, 8)), width=4, layers=1), "pixelcnn")
    status, _, err = cli("latents", action, "--ckpt", ckpt, *ACTIONS[action])
    assert status == 2 and "PixelCNN cannot decode latents" in err and "Models that can: " in err
    able = err.rpartition("Models that can: ")[2].strip().rstrip(".").split(", ")
    assert "VAE" in able and not {"VQVAE", "VQPrior"} & {*able}, "integer codes would be refused"


@pytest.mark.parametrize("action", ACTIONS)
def test_a_model_of_points_is_refused(cli, action):
    ckpt = saved(GAN(DataSpec((2,)), latent_dim=2, hidden=[8]), "points")
    status, _, err = cli("latents", action, "--ckpt", ckpt, *ACTIONS[action])
    assert status == 2 and "GAN was trained on points" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("interpolate", "--seeds", "3,x"), "--seeds is '3,x'; expected whole numbers, such as 3,17,42"),
        (("interpolate", "--seeds", "3"), "A path needs two ends, but only one was given"),
        (("interpolate", "--seeds", f"3,{2**70}"), "expected numbers of at most 63 bits"),
        (("interpolate", "--steps", 1), "--steps is 1; it must be at least 2"),
        (("interpolate", "--seeds", "1,2", "--codes", "x"), "--seeds and --codes cannot be combined"),
        (("interpolate", "--seeds", "1,2", "--data", "Digits"), "--seeds and --data cannot be combined"),
        (("interpolate", "--codes", "x", "--split", "val"), "--codes and --split cannot be combined"),
        (("interpolate", "--seeds", "1,2", "--n", 3), "--n has no effect: the paths are between seeds, not images"),
        (("interpolate", "--codes", "x", "--n", 3), "--n has no effect: the paths are between codes, not images"),
        (("interpolate", "--n", 3), "--n has no effect: the paths are between the seeds 0,1,2,3, not images"),
        (("interpolate", "--seeds", "1,2", "--data.size", 16), "--data.size has no effect: the paths are"),
        (("interpolate", "--seeds", "1,2", "--images.labels=false"), "--images.labels has no effect: the paths"),
        (("interpolate", "--codes", "nowhere.npy"), "There is no file of codes at nowhere.npy"),
        (("interpolate", "--images", "photos"), "DCGAN cannot encode images"),
        (("interpolate", "--label", "3"), "DCGAN was trained without labels"),
        (("interpolate", "--prompt", "a"), "DCGAN was trained without captions"),
        (("interpolate", "--sedes", "1,2"), "DCGAN has no option --sedes"),
        (("interpolate", "--out", "photos"), "--out photos contains files already"),
        (("interpolate", "--out", "photos/0.png"), "expected a folder"),
        (("arithmetic", "--a", "1,2", "--b", "seeds:1", "--c", "seeds:1"), "--a is '1,2'; expected `seeds:1,2,3`"),
        (("arithmetic", "--a", "seeds:", "--b", "seeds:1", "--c", "seeds:1"), "--a is 'seeds:'; expected"),
        (("arithmetic", *ABC[:4], "--c", "class:3"), "DCGAN cannot encode images"),
        (("arithmetic", *ABC, "--data.size", 16), "--data.size is for an operand `class:...`"),
        (("arithmetic", *ABC, "--noise", "nan"), "--noise is nan; expected a number of at least 0"),
        (("arithmetic", *ABC, "--out", "a.jpg"), "--out a.jpg must end in .png"),
        (("traverse", "--dimensions", "6"), "--dimensions has 6, but the codes have the dimensions 0 to 5"),
        (("traverse", "--count", 7), "--count is 7, but the codes have 6 dimensions"),
        (("traverse", "--dimensions", "1", "--directions", "pca"), "--dimensions cannot be combined with"),
        (("traverse", "--images", "photos"), "--images has no effect"),
        (("traverse", "--data.size=16"), "--data.size has no effect: these directions follow from sampled latents"),
        (("traverse", "--extent", "nan"), "--extent is nan"),
        (("traverse", "--directions", "pca", "--n", 4, "--count", 5), "expected 1 to 3"),
        (("traverse", "--seed", 2**80), "--seed is"),
        (("traverse", "--out", "photos/0.png"), "photos/0.png exists already"),
        (("manifold",), "This DCGAN has codes of 6 dimensions, but `latents manifold` needs 2 dimensions"),
        (("manifold", "--side", 0), "--side is 0; it must be at least 1"),
        (("project", "--images", "nowhere"), "nowhere does not exist"),
        (("project", "--images", "empty"), "empty is empty. Expected images (.jpg, .jpeg, "),
        (("project", "--images", "photos/note.txt"), "photos/note.txt is not a folder, zip"),
        (("project", "--lr", "inf"), "--lr is inf"),
        (("project", "--starts", 0), "--starts is 0; it must be at least 1"),
        (("project", "--prior-weight", "-1"), "--prior-weight is -1.0"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_before_anything_is_written(cli, gan, photos, arguments, sentence):
    Path("photos/note.txt").write_text("not an image")
    Path("empty").mkdir()
    before = sorted(Path().rglob("*"))
    status, _, err = cli("latents", *arguments, "--ckpt", gan)
    assert status == 2 and sentence in err and "Traceback" not in err
    assert sorted(Path().rglob("*")) == before


def test_a_seed_is_refused_for_a_traversal_whose_middle_is_the_mean_code(cli, photos):
    ckpt = saved(ConvAutoencoder(DataSpec((1, 16, 16)), latent_dim=3, width=4), "autoencoder")
    command = ("latents", "traverse", "--ckpt", ckpt, "--images", "photos")
    status, _, err = cli(*command, "--seed", 5)
    assert status == 2 and "--seed has no effect: ConvAutoencoder has no prior to sample from" in err
    assert cli(*command)[0] == 0


def test_a_class_that_does_not_exist_is_refused(cli, vae):
    operands = ("--a", "seeds:1", "--b", "class:ten", "--c", "class:1")
    status, _, err = cli("latents", "arithmetic", "--ckpt", vae, *operands, *DIGITS)
    assert status == 2 and "--b class:ten: there is no class 'ten'. Choose from: 0, 1, 2" in err


def test_images_of_another_size_are_converted_and_it_is_said(cli, gan):
    Image.fromarray(np.full((30, 40, 3), 200, np.uint8)).save("large.png")
    status, out, _ = cli("latents", "project", "--ckpt", gan, "--images", "large.png", "--steps", 2, "--out", "out")
    assert status == 0 and "converted as in training: 40×30 RGB to 16×16 gray" in out


@pytest.mark.parametrize("size", [1, 3])
def test_the_pictures_of_a_projection_do_not_depend_on_the_batch_size(cli, gan, photos, size):
    flags = ("--images", "photos", "--steps", 3)
    assert cli("latents", "project", "--ckpt", gan, *flags, "--out", "whole")[0] == 0
    assert cli("latents", "project", "--ckpt", gan, *flags, "--batch-size", size, "--out", "parts")[0] == 0
    for name in ("projection.png", "path.gif"):
        whole, parts = (np.asarray(Image.open(Path(folder, name))) for folder in ("whole", "parts"))
        assert whole.shape == parts.shape and np.abs(whole.astype(int) - parts).max() <= 1


@pytest.mark.parametrize("same", [False, True])
def test_a_traversal_of_few_images_has_as_many_principal_directions_as_they_have(cli, vae, photos, same):
    for path in Path("photos").glob("[12].png") if same else ():
        path.write_bytes(Path("photos/0.png").read_bytes())
    Path("photos/3.png").unlink()
    Path("photos/4.png").unlink()
    status, out, err = cli("latents", "traverse", "--ckpt", vae, "--directions", "pca", "--images", "photos")
    assert status == 0 and "2 rows from -3 to 3" in out and "RuntimeWarning" not in err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello", "is not a file of codes (it contains no array of numbers)"),
        (np.full((2, 6), 1e300), "contains codes that are not finite in float32"),
    ],
)
def test_codes_that_are_no_numbers_or_too_large_are_refused(cli, gan, content, words):
    if isinstance(content, bytes):
        Path("codes.npy").write_bytes(content)
    else:
        np.save("codes.npy", content)
    status, _, err = cli("latents", "interpolate", "--ckpt", gan, "--codes", "codes.npy")
    assert status == 2 and words in err and err.count("\n") == 1


def test_data_without_an_operand_that_uses_it_is_refused(cli, gan):
    operands = ("--a", "seeds:1", "--b", "seeds:2", "--c", "seeds:3")
    status, _, err = cli("latents", "arithmetic", "--ckpt", gan, *operands, "--data", "Digits")
    assert status == 2 and "--data is for an operand `class:...`, which was not set." in err
