"""What can be known before training is said before training, and the commands that are printed at its end work."""

import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from lightning import Trainer
from PIL import Image
from torch import nn

from genbench.callbacks import EMA, Checkpoint, MaxImages, PowerEMA, ValidationMetrics
from genbench.cli import disk, preflight
from genbench.cli.next_steps import imports
from genbench.core import checkpoint_io
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.data import MNIST, ArrayImages, Digits, Grid, ImageFolder, PairedFolder, Shapes, Split, UnpairedFolder
from genbench.evaluation import extractor_weights, extractors
from genbench.evaluation import protocol as protocols
from genbench.models import DCGAN, VAE, ConditionalGAN, CycleGAN, SemiSupervisedGAN
from tests.helpers.toy import SPEC, ToyGAN

TINY = {"latent_dim": 2, "width": 2}


@pytest.fixture
def offline(monkeypatch):
    """No weights but those that ship, no network, and a small network in place of the random VGG16."""

    def refused(name, root):
        raise UserError(f"The weights of the extractor '{name}' are not at hand.")

    judge = extractors.build("digitsnet")
    monkeypatch.setattr(extractor_weights, "find_weights", lambda name, root=None: None)
    monkeypatch.setattr(extractor_weights, "fetch_weights", refused)
    monkeypatch.setitem(extractors.READY, "vgg-random", lambda: replace(judge, name="vgg-random"))


def pictures(path, **folders):
    """Folders of so many random pictures of 16×16; returns the path."""
    rng = np.random.default_rng(0)
    for name, count in folders.items():
        (path / name).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path / name / f"{k}.png")
    return path


def at(folder, *callbacks, **settings):
    """A trainer that is asked and not run."""
    given = [ValidationMetrics(samples=10), Checkpoint(**settings), MaxImages(1000), *callbacks]
    return Trainer(
        callbacks=given, default_root_dir=folder, accelerator="cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def checked(folder, model, data, protocol="fid10k-test", **settings):
    torch.manual_seed(0)
    preflight.check(at(folder, **settings), model, data, protocol)


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_the_data_line_has_numbers_and_classes(tmp_path):
    cars = pictures(tmp_path / "cars", **{f"train/{c}": 400 for c in "abc"}, **{"test/a": 10})
    data = ImageFolder(str(cars), size=16, val_size=133)
    assert preflight.what_is_read(data) == (
        "ImageFolder cars: 1,067 training, 133 validation, 10 test images; 3 classes: a, b, c"
    )
    data = ImageFolder(str(cars), size=16, val_size=133, subset=30, labels=False)
    assert preflight.what_is_read(data) == "ImageFolder cars: 30 training, 133 validation, 10 test images"


def test_the_data_line_has_pairs_and_domains(tmp_path):
    path = pictures(tmp_path / "in", trainA=20, trainB=30, testA=4, testB=5)
    assert preflight.what_is_read(UnpairedFolder(str(path), size=16, direction="BtoA")) == (
        "UnpairedFolder in: 18 training, 2 validation, 4 test images of domain A; 27 training, 3 validation, 5 test of "
        "domain B"
    )
    path = pictures(tmp_path / "pairs", A=20, B=20)
    assert preflight.what_is_read(PairedFolder(str(path), size=16)) == (
        "PairedFolder pairs: 16 training, 2 validation, 2 test pairs"
    )


def test_at_most_eight_classes_are_named_and_points_are_called_so():
    said = preflight.what_is_read(Grid(train_images=1000, val_images=20, test_images=30))
    assert said == (
        "Grid: 1,000 training, 20 validation, 30 test points; 25 classes: 0, 1, 2, 3, 4, 5, 6, 7 and 17 more"
    )


def test_a_split_that_is_fetched_whole_is_counted_without_being_read(monkeypatch):
    data = MNIST(val_size=2)
    few = Split(12, np.zeros((12, 28, 28), np.uint8).__getitem__, label=torch.arange(12) % 10)
    monkeypatch.setattr(data, "split", {"train": few}.__getitem__)
    assert preflight.what_is_read(data).startswith("MNIST: 10 training, 2 validation, 10,000 test images; 10 classes")


def test_the_data_line_is_printed_before_training(tmp_path, offline, capsys):
    data = ImageFolder(str(pictures(tmp_path / "in", train=40, val=10, test=5)), size=16, batch_size=4)
    checked(tmp_path, DCGAN(data.spec, **TINY), data)
    assert "ImageFolder in: 40 training, 10 validation, 5 test images\n" in capsys.readouterr().err


# ---- scores ---------------------------------------------------------------------------------------------------------


def test_a_split_too_small_for_the_only_score_is_refused_with_what_would_give_it(tmp_path, offline):
    data = ImageFolder(str(pictures(tmp_path / "in", train=10)), size=16, batch_size=4)  # a tenth is 1
    with pytest.raises(UserError) as error:
        checked(tmp_path / "run", DCGAN(data.spec, **TINY), data)
    for part in ("Validation on 1 image", "fid-vgg-random", "needs at least 2 images", "`--data.val_size`"):
        assert part in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_split_of_its_own_is_not_made_larger_by_a_setting(tmp_path, offline):
    data = ImageFolder(str(pictures(tmp_path / "in", train=10, val=1)), size=16, batch_size=4)
    with pytest.raises(UserError, match="or add images to the validation split"):
        checked(tmp_path, DCGAN(data.spec, **TINY), data)


def test_another_score_selects_the_best_checkpoint_if_the_usual_one_cannot_with_a_note(tmp_path, offline, capsys):
    data = ImageFolder(str(pictures(tmp_path / "in", train=10)), size=16, batch_size=4)
    checked(tmp_path, VAE(data.spec, **TINY), data)
    said = capsys.readouterr().err
    assert "cannot compute val/fid-vgg-random" in said and "val/mse selects the best checkpoint" in said


def test_a_small_domain_is_enough_for_the_way_there_and_back(tmp_path, offline, capsys):
    data = UnpairedFolder(str(pictures(tmp_path / "in", trainA=14, trainB=60)), size=16, batch_size=4)
    model = CycleGAN(data.spec, width=2, blocks=1, discriminator_width=2, patch_layers=1)
    checked(tmp_path, model, data)
    said = capsys.readouterr().err
    assert "validation on 6 images of one domain and 1 of the other" in said
    assert "val/cycle_l1 selects the best checkpoint" in said


@pytest.mark.parametrize(
    ("monitor", "mode", "said"),
    [
        ("val/elb", "max", "Choose from: val/fid-digitsnet, .*val/elbo.* Did you mean 'val/elbo'?"),
        ("fid-digitsnet", None, "Did you mean 'val/fid-digitsnet'?"),
        ("val/kid-digitsnet", None, "which validation does not compute"),
        ("val/elbo", None, "Set `--checkpoint.mode min` or `max`"),
        ("val/code_bits", None, "Set `--checkpoint.mode min` or `max`"),
        ("val/psnr", "min", "large values of val/psnr are better. Use `--checkpoint.mode max`"),
        ("val/mse", "max", "small values of val/mse are better. Use `--checkpoint.mode min`"),
        ("val/lpips", None, "checkpoint.monitor is val/lpips, which validation cannot compute: needs larger images"),
    ],
)
def test_a_score_that_cannot_select_a_checkpoint_is_refused(tmp_path, monitor, mode, said):
    data = Digits(size=16)
    with pytest.raises(UserError, match=said):
        checked(tmp_path, VAE(data.spec, **TINY), data, monitor=monitor, mode=mode)


def test_a_score_of_the_models_own_may_decide_and_asking_for_its_name_changes_nothing(tmp_path):
    data = Digits(size=16)
    model = VAE(data.spec, **TINY).train()
    model.encoder[0].eval()  # a frozen part
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state = [part.training for part in model.modules()], torch.get_rng_state()
    preflight.check(at(tmp_path, monitor="val/elbo", mode="max"), model, data, "fid10k-test")
    assert torch.equal(torch.get_rng_state(), state) and [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_validation_step_that_needs_its_trainer_is_left_to_training(tmp_path):
    class Asks(VAE):
        def validation_step(self, batch, batch_idx):
            return {"own": torch.full((len(batch),), float(self.trainer.world_size))}

    data = Digits(size=16)
    checked(tmp_path, Asks(data.spec, **TINY), data, monitor="val/own", mode="min")


def test_a_model_that_no_score_is_for_is_refused(tmp_path):
    class Idle(GenerativeModule):
        def __init__(self, spec=None, **training):
            super().__init__(spec, **training)
            self.net = nn.Linear(1, 1)

    data = Digits(size=16)
    with pytest.raises(UserError, match="No metric of the protocol quick.* applies to Idle"):
        checked(tmp_path, Idle(data.spec), data)


def test_unknown_protocols_and_extractors_are_refused_before_training(tmp_path):
    data = Digits(size=16)
    with pytest.raises(UserError, match="Unknown protocol 'fid10k-tset'"):
        checked(tmp_path, DCGAN(data.spec, **TINY), data, "fid10k-tset")
    (tmp_path / "mine.yaml").write_text("extractor: inceptoin\n")
    with pytest.raises(UserError, match="Unknown extractor 'inceptoin'"):
        checked(tmp_path, DCGAN(data.spec, **TINY), data, str(tmp_path / "mine.yaml"))
    with pytest.raises(UserError, match="torchvision has no classifier 'resnet19'"):
        extractors.at_hand("torchvision:resnet19")


# ---- data -----------------------------------------------------------------------------------------------------------


def test_an_extractor_of_points_is_refused_for_images_before_training(tmp_path, offline):
    data = Digits(size=16)
    model = VAE(data.spec, **TINY)
    trainer = at(tmp_path)
    trainer.callbacks[0] = ValidationMetrics(samples=10, extractor="ring")
    with pytest.raises(UserError, match="The extractor 'ring' takes points, but the data are images"):
        preflight.check(trainer, model, data, "fid10k-test")
    why, flags = preflight.testing(protocols.load("fid10k-test").changed(extractor="grid"), model, data)
    assert "the extractor grid takes points" in why and flags == "--extractor digitsnet"


def test_a_batch_is_no_larger_than_the_training_set(tmp_path):
    data = Digits(size=16, subset=50)
    with pytest.raises(
        UserError, match="data.batch_size is 64, but Digits has only 50 training images. Use `--data.bat"
    ):
        checked(tmp_path, DCGAN(data.spec, **TINY), data)
    data = Digits(size=16, subset=50, batch_size=50)
    checked(tmp_path, DCGAN(data.spec, **TINY), data)
    data = UnpairedFolder(str(pictures(tmp_path / "in", trainA=14, trainB=60)), size=16, batch_size=16)
    model = CycleGAN(data.spec, width=2, blocks=1, discriminator_width=2, patch_layers=1)
    with pytest.raises(UserError, match="12 training images of domain A"):
        checked(tmp_path, model, data)


def test_a_class_without_an_image_is_refused_where_classes_are_learned(tmp_path):
    data = Digits(size=16, subset=5, batch_size=4)
    for model in (ConditionalGAN(data.spec, **TINY), SemiSupervisedGAN(data.spec, network="mlp", hidden=[4])):
        with pytest.raises(UserError, match="learns classes, but no training image has the class 0, 2, 5, 8, 9"):
            checked(tmp_path, model, data)
    checked(tmp_path, DCGAN(data.spec, **TINY), data)  # which looks at no label


def test_labels_out_of_range_are_refused(tmp_path, monkeypatch):
    data = Digits(size=16)
    monkeypatch.setattr(data, "classes", tuple("012345678"))
    with pytest.raises(UserError, match="Digits has 9 classes, but the labels of its training images go from 0 to 9"):
        checked(tmp_path, DCGAN(data.spec, **TINY), data)


@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_a_file_that_cannot_be_read_is_named_before_training(tmp_path, offline, stage):
    path = pictures(tmp_path / "in", train=20, val=5, test=5)
    whole = (path / stage / "3.png").read_bytes()
    (path / stage / "3.png").write_bytes(whole[:300])
    data = ImageFolder(str(path), size=16, batch_size=4)
    with pytest.raises(UserError, match=f"{stage}/3.png cannot be read as an image"):
        checked(tmp_path, DCGAN(data.spec, **TINY), data)


def test_a_test_image_that_does_not_fit_and_a_class_that_is_not_known_are_named(tmp_path, offline):
    path = pictures(tmp_path / "in", **{"train/a": 20, "train/b": 20, "test/a": 5, "test/c": 5})
    data = ImageFolder(str(path), size=16, batch_size=4)
    with pytest.raises(UserError, match="Images for `test` in .* are in the class folder `c`"):
        checked(tmp_path, DCGAN(data.spec, **TINY), data)
    (path / "test/c").rename(path / "test/b")
    Image.new("RGB", (8, 8)).save(path / "test/b/0.png")
    data = ImageFolder(str(path), size=16, batch_size=4)
    with pytest.raises(UserError, match="test/b/0.png is 8×8, smaller than data.size"):
        checked(tmp_path, DCGAN(data.spec, **TINY), data)


def test_a_bounded_number_of_files_is_read(tmp_path, offline, monkeypatch):
    data = ImageFolder(str(pictures(tmp_path / "in", train=300, test=200)), size=16, batch_size=4)
    read = []
    own = data.reader.stored
    monkeypatch.setattr(data.reader, "stored", lambda picture: read.append(picture) or own(picture))
    checked(tmp_path, DCGAN(data.spec, **TINY), data)
    assert 0 < len(read) <= 3 * preflight.FILES


def test_what_was_read_before_training_is_not_read_again(tmp_path, monkeypatch):
    data, read = Digits(size=16), []
    own = data.split
    monkeypatch.setattr(data, "split", lambda stage: read.append(stage) or own(stage))
    checked(tmp_path, DCGAN(data.spec, **TINY), data)
    data.source("train")
    assert read.count("train") == 1
    whole = Digits(size=16).source("train")
    assert torch.equal(data.source("train").everything.image, whole.everything.image)


def deep(path, **highest):
    """A folder of TIFF with values from 0 to a highest one in each; returns the path."""
    for name, high in highest.items():
        (path / name).mkdir(parents=True)
        for k in range(20):
            picture = np.random.default_rng(k).integers(0, high + 1, (16, 16), dtype=np.uint16)
            picture[0, :2] = 0, high
            tifffile.imwrite(path / name / f"{k}.tif", picture)
    return path


def test_values_outside_the_training_range_are_reported_with_a_range_that_includes_them(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "SECONDS", 60)  # all files, also on a busy machine
    data = ImageFolder(str(deep(tmp_path, train=4080, val=4100, test=8160)), size=16, batch_size=4)
    (note,) = preflight.look_at_files(data)
    for part in (
        "20 of the 20 `test` images",
        "from 0 to 8160",
        "outside 0,4080",
        "`--data.range 0,8160` includes all",
    ):
        assert part in note
    data = ImageFolder(str(tmp_path), size=16, batch_size=4, range="0,4080")
    assert preflight.look_at_files(data) == []  # as it was asked for


def test_masks_of_0_and_1_with_test_masks_of_0_and_255_are_reported(tmp_path):
    for split, white in {"train": 1, "test": 255}.items():
        (tmp_path / split).mkdir()
        for k in range(20):
            Image.fromarray(np.eye(16, dtype=np.uint8) * np.uint8(white)).save(tmp_path / split / f"{k}.png")
    (note,) = preflight.look_at_files(ImageFolder(str(tmp_path), size=16, batch_size=4))
    assert "from 0 to 255: values outside 0,1, the range" in note and "`--data.range 0,255` includes all" in note


def test_values_outside_the_range_of_one_domain_are_reported_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "SECONDS", 60)  # all files, also on a busy machine
    path = deep(tmp_path, trainA=1000, trainB=4080, testA=2000, testB=4080)
    for kind in (PairedFolder, UnpairedFolder):
        for direction in ("AtoB", "BtoA"):
            (note,) = preflight.look_at_files(kind(str(path), size=16, batch_size=4, direction=direction))
            assert f"of Domain A of {kind.__name__}" in note and "`--data.range 0,2000/0,4080` includes all" in note


def test_values_of_arrays_outside_the_range_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "SECONDS", 60)  # all files, also on a busy machine
    values = np.random.default_rng(0).integers(0, 1001, (40, 16, 16), dtype=np.uint16)
    np.savez(tmp_path / "a.npz", train_images=values, test_images=values * 3)
    (note,) = preflight.look_at_files(ArrayImages(str(tmp_path / "a.npz"), batch_size=4))
    assert "40 of the 40 `test` images" in note and "`--data.range 0,3000` includes all" in note


# ---- disk -----------------------------------------------------------------------------------------------------------


def test_the_size_of_a_checkpoint_is_estimated(tmp_path, cli, config):
    model = {"class_path": "genbench.models.VAE", "init_args": {"width": 32, "latent_dim": 32}}
    for name, optimizer in {"adam": {}, "sgd": {"class_path": "torch.optim.SGD", "lr": 0.001}}.items():
        path = config("vae", max_images=16, model=model | {"init_args": model["init_args"] | {"optimizer": optimizer}})
        assert cli("fit", "--config", path, "--name", name)[0] == 0
        built = VAE(Digits(size=16).spec, width=32, latent_dim=32, optimizer=optimizer)
        size = (tmp_path / "runs" / name / "checkpoints" / "last.ckpt").stat().st_size
        assert disk.checkpoint_bytes(built, averaged=True) == pytest.approx(size, rel=0.05)


def test_a_disk_without_room_for_two_checkpoints_and_the_one_being_written_is_refused(tmp_path, monkeypatch):
    model = ToyGAN(SPEC)
    size = disk.checkpoint_bytes(model, averaged=True)

    def room(checkpoints, **settings):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=checkpoints * size))
        return disk.room(at(tmp_path, EMA(), **settings), model, tmp_path)

    with pytest.raises(UserError, match="MB free, but this run needs about"):
        room(2.9)
    assert room(3.0) == []
    (note,) = room(12.9, keep_every=100)
    assert "checkpoint.keep_every is 100, which keeps 10 checkpoints" in note
    assert room(13.0, keep_every=100) == []
    (tmp_path / "checkpoints").mkdir()
    for name in ("last.ckpt", "best.ckpt"):
        (tmp_path / "checkpoints" / name).touch()
    assert room(1.0) == []  # they are replaced


def test_snapshots_of_averages_need_room_too(tmp_path, monkeypatch):
    model, power = ToyGAN(SPEC), PowerEMA(enabled=True, every_images=8)
    snapshot = 2 * 4 * sum(p.numel() for p in model.generator.parameters())
    size = disk.checkpoint_bytes(model, averaged=True) + snapshot

    def room(free, power):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
        return disk.room(at(tmp_path, EMA(), power), model, tmp_path)

    assert room(3 * size + 20 * snapshot, power) == []
    (note,) = room(3 * size + 19 * snapshot, power)
    assert "power_ema stores 20 snapshots of" in note
    (note,) = room(3 * size, PowerEMA(enabled=True, snapshot_every=2000))
    assert "so no snapshot will be stored, and `--ema` can only use the lengths 0.05 and 0.1" in note
    assert room(3 * size - snapshot, PowerEMA()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=f"{tmp_path / 'file'} is not a folder. Choose a different folder with `--runs`"
    ):
        disk.refuse_unwritable(tmp_path / "file" / "run")

    def read_only(dir):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(disk.tempfile, "TemporaryFile", read_only)
    with pytest.raises(UserError, match=r"not writable \(Read-only file system\)"):
        disk.refuse_unwritable(tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- the command line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--seed_everything", "-3"],
            "--seed_everything -3: every run needs a seed. Use a whole number from 0 to 4294967295",
        ),
        (["--seed_everything", "4294967296"], "--seed_everything 4294967296: every run needs a seed"),
        (["--samples.n", "-3"], "samples.n is -3; it must be at least 1."),
        (["--model.clip_norm", "-1"], "model.clip_norm is -1.0; it must be above 0."),
        (["--data.random_crop", "999"], "data.random_crop is 999, but must be at most 16"),
        (["--model.accumulate", "21"], "a step takes 336 images, but `max_images` is 320"),
        (["--checkpoint.mode", "max"], "checkpoint.mode is max, but small values of val/fid-digitsnet are better"),
        (["--data.val_size", "1"], "Validation on 1 image cannot compute val/fid-digitsnet"),
        (["--protocol", "fid"], "Unknown protocol 'fid'"),
        (["--validation.extractor", "digitnet"], "Unknown extractor 'digitnet'"),
    ],
)
def test_an_impossible_setting_leaves_no_files(cli, config, flags, said):
    status, _, err = cli("fit", "--config", config(), "--name", "run", *flags)
    assert status == 2 and said in err and "Traceback" not in err
    assert not Path("runs/run").exists()


def test_the_printed_evaluation_command_works_without_extractor_weights(cli, config, offline, tmp_path):
    path = pictures(tmp_path / "in", train=40, test=12)
    data = ["--data", "ImageFolder", "--data.path", path, "--data.batch_size", "16", "--data.size", "16"]
    status, _, err = cli("fit", "--config", config(), "--name", "a run", *data, "--max_images", 32)
    assert status == 0, err
    assert "note: `test` cannot evaluate this model under fid10k-test: the weights of the extractor inception" in err
    command = next(line.split(":", 1)[1].strip() for line in err.splitlines() if line.startswith("  evaluate:"))
    assert command == ("python -m genbench test --ckpt 'runs/a run/checkpoints/best.ckpt' --extractor vgg-random")
    few = ["--generated", "4", "--metrics", "fid"]
    status, out, err = cli(*shlex.split(command)[3:], *few)
    assert status == 0 and "fid-vgg-random" in out, err


def test_the_evaluation_command_fits_the_data_of_the_model(tmp_path, offline):
    def flags(model, data, protocol="fid10k-test"):
        return preflight.testing(protocols.load(protocol), model, data)

    data = Digits(size=16)
    assert flags(DCGAN(data.spec, **TINY), data) == ("", "")
    path = pictures(tmp_path / "in", **{"train/a": 20, "train/b": 20, "test": 5})
    data = ImageFolder(str(path), size=16)
    why, given = flags(ConditionalGAN(data.spec, **TINY), data)  # test images come without a class
    assert "needs labels as conditions" in why and given == "--protocol quick --extractor vgg-random"
    data = ImageFolder(str(path / "train"), size=16, test_size=0)
    why, given = flags(DCGAN(data.spec, **TINY), data, "fid5k-random")
    assert "has no images for `test`" in why and given.startswith("--protocol quick")
    data = Shapes(size=16, train_images=20, val_images=4, test_images=4, binarize="static")
    assert flags(DCGAN(data.spec, **TINY), data) == ("", "")


def test_a_class_of_a_users_own_is_imported_by_the_commands_that_are_printed():
    assert imports(ToyGAN(SPEC), Digits(size=16)) == " --import tests.helpers.toy"
    assert imports(DCGAN(Digits(size=16).spec, **TINY), Digits(size=16)) == ""


def test_a_score_that_is_blank_for_a_while_ends_nothing(tmp_path, capsys):
    from tests.helpers.small import run

    class Late(ValidationMetrics):
        def setup(self, trainer, module, stage):
            pass

        def on_validation_epoch_end(self, trainer, module):
            late = module.images_seen > 16
            self.scores = {"val/mode_kl-ring": 1.0} if late else {}
            self.blank = {} if late else {"val/mode_kl-ring": "no sample is good"}

    callbacks = [EMA(), Late(every_images=16), Checkpoint(monitor="val/mode_kl-ring")]
    run(ToyGAN(SPEC), images=32, callbacks=callbacks, folder=tmp_path)
    assert "val/mode_kl-ring could not be computed (no sample is good)" in capsys.readouterr().err
    assert checkpoint_io.read(tmp_path / "checkpoints" / "best.ckpt")["genbench"]["images_seen"] == 32
