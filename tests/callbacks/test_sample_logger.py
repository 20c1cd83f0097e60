"""Grids show samples of the EMA weights, are written to the documented files, and do not affect training."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

import genbench
from genbench.callbacks import EMA, Checkpoint, Monitor, SampleLogger, ValidationMetrics
from genbench.core.batch import DataSpec, to_uint8
from genbench.core.image_grid import enlarged, grid
from genbench.loggers import Curves
from genbench.models import DCGAN, VAE
from tests.helpers.conditional import CAPTIONS, LABELS, Toned, tones
from tests.helpers.small import RandomImages, run, same_weights
from tests.helpers.toy import SPEC, ToyAutoencoder, ToyGAN


def shown(module, folder, images=72, **arguments):
    callbacks = [EMA(every_images=8), SampleLogger(**{"every_images": 20, "n": 5} | arguments), Checkpoint()]
    run(module, images=images, callbacks=callbacks, folder=folder, limit_val_batches=0)
    return folder


def test_grids_are_written_at_the_interval_and_at_the_end_and_named_by_images(tmp_path):
    shown(ToyGAN(SPEC), tmp_path)
    names = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert names == [f"{n:010d}.png" for n in (24, 40, 64, 72)]
    assert not (tmp_path / "reconstructions").exists()


def test_a_grid_at_the_interval_that_ends_the_run_is_written_once(tmp_path):
    class Counting(SampleLogger):
        shown = 0

        def _show(self, trainer, module):
            self.shown += 1
            super()._show(trainer, module)

    pictures = Counting(every_images=20, n=5)
    run(ToyGAN(SPEC), images=40, callbacks=[EMA(), pictures], folder=tmp_path, limit_val_batches=0)
    assert pictures.shown == 2


def test_the_samples_shown_are_those_of_the_averaged_weights(tmp_path):
    torch.manual_seed(0)
    shown(DCGAN(DataSpec((3, 16, 16)), latent_dim=4, width=2, optimizer={"lr": 0.01}), tmp_path)
    sheets = []
    for raw in (False, True):
        model = genbench.load(tmp_path / "checkpoints" / "last.ckpt", raw=raw)
        sheets.append(np.array(enlarged(grid(model.sample(torch.arange(5))))).astype(int))
    drawn = np.array(Image.open(tmp_path / "samples" / f"{72:010d}.png")).astype(int)
    assert np.abs(drawn - sheets[0]).max() <= 1
    assert np.abs(drawn - sheets[1]).max() > 1


def test_classes_come_in_turn_each_a_column(tmp_path):
    shown(Toned(LABELS), tmp_path, n=7)
    sheet = Image.open(tmp_path / "samples" / f"{72:010d}.png")
    assert tones(sheet) == [[0, 10, 20], [0, 10, 20]]  # whole rows
    assert not (tmp_path / "samples" / "captions.txt").exists()


def test_captions_are_the_first_of_the_validation_split_and_are_written_to_a_file(tmp_path, monkeypatch):
    captions = torch.tensor([[1, 2, 4], [3, 4, 0]]).repeat(32, 1)
    monkeypatch.setattr(RandomImages, "targets", {"caption": captions})
    shown(Toned(CAPTIONS), tmp_path, n=4)
    assert tones(Image.open(tmp_path / "samples" / f"{72:010d}.png")) == [[70, 70], [70, 70]]
    lines = (tmp_path / "samples" / "captions.txt").read_text().splitlines()
    assert lines == ["a red star", "blue star"] * 2


def test_reconstructions_stand_beside_their_images(tmp_path):
    module = ToyAutoencoder(SPEC)
    shown(module, tmp_path)
    model, real = genbench.load(tmp_path / "checkpoints" / "last.ckpt"), RandomImages(SPEC).held_out()[:10]
    sheet = Image.open(tmp_path / "reconstructions" / f"{72:010d}.png")
    factor = sheet.width // (2 + 8 * 6)
    small = np.array(sheet)[factor // 2 :: factor, factor // 2 :: factor]
    assert small.shape == (2 + 3 * 6, 2 + 8 * 6)  # the first block of ten images: twenty tiles, eight in a row
    copies = to_uint8(model.reconstruct(real))
    for k, (image, copy) in enumerate(zip(to_uint8(real), copies, strict=True)):
        for tile, expected in ((2 * k, image), (2 * k + 1, copy)):
            top, left = 2 + tile // 8 * 6, 2 + tile % 8 * 6
            assert np.abs(small[top : top + 4, left : left + 4].astype(int) - expected[0].numpy()).max() <= 1


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_the_animation_has_a_frame_for_each_grid(tmp_path, kind):
    shown(ToyGAN(SPEC, optimizer={"lr": 0.05}), tmp_path, film=kind)
    film = Image.open(tmp_path / f"samples.{kind}")
    grids = sorted((tmp_path / "samples").iterdir())
    assert film.n_frames == len(grids) == 4 and film.info["loop"] == 0
    lasting = []
    for k, path in enumerate(grids):
        film.seek(k)
        film.load()
        lasting.append(film.info["duration"])
        difference = np.array(film.convert("L")).astype(int) - np.array(Image.open(path))
        assert np.abs(difference).mean() < 2
    assert lasting == [150, 150, 150, 2000] or kind == "webp"


def test_an_animation_in_color_has_the_grids_colors(tmp_path):
    shown(DCGAN(DataSpec((3, 16, 16)), latent_dim=4, width=2, optimizer={"lr": 0.01}), tmp_path)
    film, grids = Image.open(tmp_path / "samples.gif"), sorted((tmp_path / "samples").iterdir())
    film.seek(3)
    difference = np.array(film.convert("RGB")).astype(int) - np.array(Image.open(grids[3]))
    assert np.abs(difference).mean() < 4


def test_there_is_no_animation_if_disabled_or_for_a_single_grid(tmp_path):
    shown(ToyGAN(SPEC), tmp_path / "none", film="none")
    shown(ToyGAN(SPEC), tmp_path / "one", images=8)
    for name in ("none", "one"):
        assert not list((tmp_path / name).glob("samples.*")) and (tmp_path / name / "samples").is_dir()


def spoiled(folder):
    """Write unreadable grids, as if from an earlier part of the run. Returns their names."""
    folder.mkdir()
    Image.new("L", (5, 5)).save(folder / "0000000001.png")
    (folder / "0000000002.png").write_bytes((folder / "0000000001.png").read_bytes()[:40])
    (folder / "0000000003.png").write_bytes(b"no picture")
    (folder / "0000000004.png").touch()
    (folder / "0000000005.png").mkdir()
    os.mkfifo(folder / "0000000006.png")
    return [f"000000000{k}.png" for k in range(1, 7)]


def test_unreadable_images_are_omitted_from_the_animation_with_a_warning(tmp_path, capsys):
    names = spoiled(tmp_path / "samples")
    shown(ToyGAN(SPEC, optimizer={"lr": 0.05}), tmp_path)
    assert Image.open(tmp_path / "samples.gif").n_frames == 4
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert all(name in line for name in names[-3:]) and "and 3 more" in line
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_a_grid_of_a_different_size_is_omitted_with_both_sizes_in_a_warning(tmp_path, capsys):
    (tmp_path / "samples").mkdir()
    Image.new("L", (5, 7)).save(tmp_path / "samples" / "0000000001.png")
    shown(ToyGAN(SPEC), tmp_path)
    size = Image.open(tmp_path / "samples" / "0000000072.png").size
    said = capsys.readouterr().err
    assert f"0000000001.png (ValueError: 5×7 pixels instead of {size[0]}×{size[1]})" in said


@pytest.mark.parametrize("where", ["samples", "samples.gif", "curves.png"])
def test_an_image_that_cannot_be_written_is_reported_once_and_training_continues(tmp_path, capsys, where):
    if where == "samples":
        (tmp_path / "samples").write_text("not a folder")
    else:
        (tmp_path / where).mkdir()
    module, curves = ToyGAN(SPEC), Curves(tmp_path)
    callbacks = [
        EMA(every_images=8),
        Monitor(every_images=8, show=False),
        SampleLogger(every_images=16, n=4),
        Checkpoint(),
    ]
    run(module, images=72, callbacks=callbacks, folder=tmp_path, limit_val_batches=0, logger=[curves])
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and where.partition(".")[0] in said
    assert same_weights(genbench.load(tmp_path / "checkpoints" / "last.ckpt", raw=True), module)
    assert (tmp_path / "curves.png").is_file() == (where != "curves.png")


def test_a_failing_sample_does_not_change_training(tmp_path, capsys):
    class Shy(ToyGAN):
        def sample(self, seeds, *, condition=None):
            raise torch.OutOfMemoryError("no memory left\nfor samples")

    modules = [Shy(SPEC), Shy(SPEC)]
    modules[1].load_state_dict(modules[0].state_dict())
    for module, pictures in zip(modules, [[], [SampleLogger(every_images=16, n=4)]], strict=True):
        run(module, images=80, callbacks=[EMA(), *pictures], folder=tmp_path, limit_val_batches=0)
    assert same_weights(*modules) and modules[1].training
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "OutOfMemoryError: no memory left)" in said


@pytest.mark.parametrize("build", [lambda: ToyGAN(SPEC), lambda: VAE(DataSpec((1, 16, 16)), latent_dim=2, width=2)])
def test_a_run_killed_before_its_last_grids_makes_the_same_ones(tmp_path, build):
    def end(folder, images, ckpt=None):
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        callbacks = [EMA(every_images=8), Monitor(every_images=16, show=False), SampleLogger(every_images=40, n=4)]
        callbacks += [ValidationMetrics(every_images=40, samples=10), Checkpoint(every_images=1000)]
        run(build(), images=images, callbacks=callbacks, folder=folder, logger=[Curves(folder)], ckpt=ckpt)
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.suffix in (".png", ".gif")}

    expected = end(tmp_path / "whole", 72)
    part = tmp_path / "part"
    end(part, 72)
    last = part / "checkpoints" / "last.ckpt"
    for path in [*part.glob("*.gif"), *part.glob("*/0000000072.png"), part / "curves.png"]:
        path.unlink()
    # neither plot shows the speed, which differs between runs
    for folder in (tmp_path / "whole", part):
        text = (folder / "metrics.csv").read_text().splitlines()
        assert text[-1].split(",")[0] == "72"
    found = end(part, 72, ckpt=last)
    assert found.keys() == expected.keys() and len(found) >= 4
    assert all(found[p] == expected[p] for p in found if p.name != "curves.png")


def test_training_is_bit_for_bit_the_same_with_and_without_grids(tmp_path):
    for build in (
        lambda: DCGAN(DataSpec((1, 16, 16)), latent_dim=4, width=2),
        lambda: VAE(DataSpec((1, 16, 16)), latent_dim=2, width=2),
    ):
        modules = []
        for pictures in ([], [SampleLogger(every_images=16, n=4)]):
            torch.manual_seed(0)
            modules.append(build())
            run(modules[-1], images=80, callbacks=[EMA(), *pictures], folder=tmp_path, limit_val_batches=0)
        assert same_weights(*modules)


def test_loggers_that_take_images_are_given_the_grids(tmp_path):
    from lightning.pytorch.loggers.logger import DummyLogger

    class Takes(DummyLogger):
        def __init__(self):
            super().__init__()
            self.given = []

        def log_image(self, name, images, step):
            self.given.append((name, images[0].size, step))

    logger = Takes()
    callbacks = [EMA(), SampleLogger(every_images=20, n=4)]
    run(ToyAutoencoder(SPEC), images=40, callbacks=callbacks, folder=tmp_path, logger=[logger], limit_val_batches=0)
    assert logger.given == [("reconstructions", (50, 20), 24), ("reconstructions", (50, 20), 40)]


def test_the_validation_split_is_read_once_for_all_grids_of_a_run(tmp_path, monkeypatch):
    read, loader = [], RandomImages.val_dataloader

    def counted(self):
        read.append(1)
        return loader(self)

    monkeypatch.setattr(RandomImages, "val_dataloader", counted)
    shown(ToyAutoencoder(SPEC), tmp_path)
    assert len(list((tmp_path / "reconstructions").glob("*.png"))) > 1 and len(read) == 1
