"""`last.ckpt` at its interval and at the end, `best.ckpt` when the score is the best so far."""

import pytest
import torch
from lightning import Callback

import genbench
from genbench.callbacks import EMA, Checkpoint, MaxImages, ValidationMetrics
from genbench.core import checkpoint_io
from genbench.core.errors import NonFiniteLoss, UserError
from tests.helpers.small import Each, run, same_weights
from tests.helpers.toy import SPEC, ToyAutoencoder, ToyGAN


class Scores(ValidationMetrics):
    """Validation that gives these scores, one after the other."""

    def __init__(self, scores, every_images=16):
        super().__init__(every_images)
        self.given = iter(scores)

    def setup(self, trainer, module, stage):
        pass

    def on_validation_epoch_end(self, trainer, module):
        self.scores = {"val/score": next(self.given)}


def saves():
    """Images seen at every save."""
    return Each("on_save_checkpoint", lambda trainer, module: module.images_seen)


def seen(path):
    return checkpoint_io.read(path)["genbench"]["images_seen"]


def test_the_last_checkpoint_is_written_at_its_interval_and_at_the_end(tmp_path):
    written, module = saves(), ToyGAN(SPEC)
    run(module, images=80, callbacks=[Checkpoint(every_images=20), written], folder=tmp_path, limit_val_batches=0)
    assert written.values == [24, 40, 64, 80]  # the batches of 8 that reach 20, 40, 60, 80; the end not twice
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    assert seen(tmp_path / "checkpoints" / "last.ckpt") == 80
    assert same_weights(genbench.load(tmp_path / "checkpoints" / "last.ckpt"), module)


def test_more_checkpoints_are_kept_with_keep_every(tmp_path):
    keep = Checkpoint(every_images=1000, keep_every=30)
    run(ToyGAN(SPEC), images=80, callbacks=[keep], folder=tmp_path, limit_val_batches=0)
    kept = {p.name: seen(p) for p in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"0000000032.ckpt": 32, "0000000064.ckpt": 64, "last.ckpt": 80}


def test_a_run_that_ends_between_two_intervals_is_saved_at_its_end(tmp_path):
    written = saves()
    run(ToyGAN(SPEC), images=56, callbacks=[Checkpoint(every_images=40), written], folder=tmp_path, limit_val_batches=0)
    assert written.values == [40, 56]


def test_checkpoints_are_saved_at_intervals_without_validation(tmp_path):
    written = saves()
    callbacks = [ValidationMetrics(every_images=20), Checkpoint(every_images=20), written]
    run(ToyGAN(SPEC), images=80, callbacks=callbacks, folder=tmp_path, limit_val_batches=0)
    assert written.values == [24, 40, 64, 80]


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("min", [3.0, 1.0, 2.0, 1.5, 1.0], 32),
        ("max", [-3.0, 1.0, 2.0, 1.5, 2.0], 48),
        ("min", [5.0, 4.0, 3.0, 2.0, 1.0], 80),
    ],
)
def test_the_best_checkpoint_is_that_of_the_best_score(tmp_path, mode, scores, best):
    saver = Checkpoint(every_images=1000, monitor="val/score", mode=mode)
    run(ToyGAN(SPEC), images=80, callbacks=[EMA(), Scores(scores), saver], folder=tmp_path)
    folder = tmp_path / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert seen(folder / "best.ckpt") == best and seen(folder / "last.ckpt") == 80
    assert saver.best == (min if mode == "min" else max)(scores)


def test_a_save_that_is_due_with_a_validation_comes_after_it(tmp_path):
    written = saves()
    saver = Checkpoint(every_images=16, monitor="val/score", mode="min")
    callbacks = [Scores([1.0, 2.0, 3.0, 0.5], every_images=16), saver, written]
    run(ToyGAN(SPEC), images=64, callbacks=callbacks, folder=tmp_path)
    assert written.values == [16, 32, 48, 64]
    assert seen(tmp_path / "checkpoints" / "best.ckpt") == 64


def test_the_best_score_survives_a_resume(tmp_path):
    def part(scores, images, ckpt=None):
        callbacks = [Scores(scores), Checkpoint(monitor="val/score", mode="min")]
        run(ToyGAN(SPEC), images=images, callbacks=callbacks, folder=tmp_path, ckpt=ckpt)
        return seen(tmp_path / "checkpoints" / "best.ckpt")

    last = tmp_path / "checkpoints" / "last.ckpt"
    assert part([2.0, 1.0], 32) == 32
    assert part([1.5, 1.2], 64, last) == 32  # the first scores of a new process, and not the best of the run
    assert part([0.9], 80, last) == 80


@pytest.mark.parametrize("left", ["best.ckpt", "0000000032.ckpt"])
def test_a_resumed_run_writes_the_checkpoints_that_a_full_disk_left_out(tmp_path, left):
    def part(images, ckpt=None):
        saver = Checkpoint(every_images=16, monitor="val/score", mode="min", keep_every=32)
        run(ToyGAN(SPEC), images=images, callbacks=[EMA(), Scores([2.0, 1.0, 3.0]), saver], folder=tmp_path, ckpt=ckpt)

    part(32)
    folder = tmp_path / "checkpoints"
    states = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(states) == {"best.ckpt", "0000000032.ckpt", "last.ckpt"}
    for name in states:
        if name != left:
            (folder / name).unlink()
    part(32, folder / left)  # its budget is reached
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == states


def test_the_resumed_checkpoint_is_last_ckpt_from_the_start(tmp_path):
    def part(images, ckpt=None, stop=None):
        callbacks = [Checkpoint(every_images=16, keep_every=16), *([stop] if stop else [])]
        run(ToyGAN(SPEC), images=images, callbacks=callbacks, folder=tmp_path, ckpt=ckpt, limit_val_batches=0)

    folder = tmp_path / "checkpoints"
    part(48)
    last = Each("on_train_batch_start", lambda *_: seen(folder / "last.ckpt"))
    part(64, folder / "0000000016.ckpt", last)
    assert last.values[0] == 16 and seen(folder / "0000000016.ckpt") == 16 and seen(folder / "last.ckpt") == 64


def test_a_score_that_validation_does_not_compute_is_rejected_with_those_it_computes(tmp_path):
    callbacks = [ValidationMetrics(every_images=16), Checkpoint(monitor="val/fid")]
    with pytest.raises(
        UserError, match="monitor is 'val/fid', which validation does not compute. Choose from: .*val/mse"
    ):
        run(ToyAutoencoder(SPEC), images=16, callbacks=callbacks, folder=tmp_path)


def test_weights_that_are_not_finite_do_not_replace_the_last_good_ones(tmp_path):
    def poison(trainer, module):
        if module.images_seen == 24:
            module.decoder[0].bias.data[0] = torch.nan

    module = ToyAutoencoder(SPEC)
    with pytest.raises(NonFiniteLoss, match="optimizer 'train' are no longer finite at 24 images"):
        callbacks = [Each("on_train_batch_end", poison), Checkpoint(every_images=8)]
        run(module, images=80, callbacks=callbacks, folder=tmp_path, limit_val_batches=0)
    assert seen(tmp_path / "checkpoints" / "last.ckpt") == 16


@pytest.mark.parametrize("fails", [RuntimeError("out of memory"), UserError("held-out image 3 cannot be read")])
def test_a_checkpoint_is_saved_if_validation_fails(tmp_path, fails):
    class Fails(Scores):
        def on_validation_epoch_end(self, trainer, module):
            raise fails

    module, average = ToyGAN(SPEC), EMA(every_images=8)
    with pytest.raises(type(fails), match=str(fails)):
        run(module, images=80, callbacks=[average, Fails([], every_images=24), Checkpoint()], folder=tmp_path)
    path = tmp_path / "checkpoints" / "last.ckpt"
    assert seen(path) == 24
    assert same_weights(genbench.load(path, raw=True), module)  # not the averages, which validation looks at
    assert not same_weights(genbench.load(path), module)


def test_the_last_step_is_saved_before_anything_else_that_ends_a_run(tmp_path):
    class Dies(Callback):
        def on_train_end(self, trainer, module):
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(
            ToyGAN(SPEC),
            images=40,
            callbacks=[MaxImages(40), Dies(), Checkpoint()],
            folder=tmp_path,
            limit_val_batches=0,
        )
    assert seen(tmp_path / "checkpoints" / "last.ckpt") == 40
