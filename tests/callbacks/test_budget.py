"""Training ends where it was told to, and can be stopped without losing anything."""

import os
import signal

import pytest
from small import Each, run, same_weights
from toy import SPEC, ToyGAN

from genbench.callbacks import EMA, Checkpoint, StopSafely
from genbench.core import checkpoint
from genbench.core.errors import Interrupted, UserError


@pytest.mark.parametrize(("budget", "seen"), [(8, 8), (17, 24), (24, 24), ("0.1k", 104)])
def test_training_ends_at_the_first_batch_that_reaches_the_budget(budget, seen):
    module = ToyGAN(SPEC)
    run(module, images=budget)
    assert module.images_seen == seen and module.updates == {"generator": seen // 8, "discriminator": seen // 8}


def test_a_run_that_is_done_is_refused_and_goes_on_with_a_larger_budget(tmp_path):
    run(ToyGAN(SPEC), images=24).save_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    with pytest.raises(UserError, match="has seen 24 images and its budget is 20: it is done"):
        run(ToyGAN(SPEC), images=20, ckpt=tmp_path / "x.ckpt")
    module = ToyGAN(SPEC)
    run(module, images=32, ckpt=tmp_path / "x.ckpt")
    assert module.images_seen == 32


def told(signum, images, times=1):
    """Sends this process the signal while it is in the step that takes the clock past `images`."""

    def send(trainer, module):
        if module.images_seen == images:
            for _ in range(times):
                os.kill(os.getpid(), signum)

    return Each("on_train_batch_start", send)


def stopped(module, folder, signum=signal.SIGINT, images=24, budget=400, ckpt=None):
    callbacks = [told(signum, images), EMA(every_images=8), Checkpoint(), StopSafely()]
    run(module, images=budget, callbacks=callbacks, folder=folder, ckpt=ckpt, limit_val_batches=0)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves(tmp_path, capfd, signum):
    module = ToyGAN(SPEC)
    with pytest.raises(Interrupted) as stop:
        stopped(module, tmp_path, signum)
    assert stop.value.signum == signum
    assert module.images_seen == 32 and module.updates == {"generator": 4, "discriminator": 4}
    saved = checkpoint.read(tmp_path / "checkpoints" / "last.ckpt")
    assert saved["genbench"]["images_seen"] == 32 and saved["genbench"]["updates"] == module.updates
    assert f"{signum.name}: finishing this step and saving" in capfd.readouterr().err


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    whole, part, rest = ToyGAN(SPEC), ToyGAN(SPEC), ToyGAN(SPEC)
    part.load_state_dict(whole.state_dict())
    averages = [EMA(every_images=24), EMA(every_images=24)]
    run(whole, images=80, callbacks=averages[:1])
    with pytest.raises(Interrupted):
        run(
            part,
            images=80,
            callbacks=[told(signal.SIGINT, 24), EMA(every_images=24), Checkpoint(), StopSafely()],
            folder=tmp_path,
        )
    run(rest, images=80, callbacks=averages[1:], ckpt=tmp_path / "checkpoints" / "last.ckpt")
    assert same_weights(rest, whole) and not same_weights(rest, part)
    assert all((averages[0].average[name] == value).all() for name, value in averages[1].average.items())


@pytest.mark.parametrize("how", ["at the end", "by a signal", "by an error"])
def test_what_signals_did_before_training_they_do_after_it(tmp_path, how):
    numbers = (signal.SIGINT, signal.SIGTERM)
    inside = Each("on_train_batch_end", lambda trainer, module: [signal.getsignal(n) for n in numbers])
    before = [signal.getsignal(n) for n in numbers]
    callbacks = [Checkpoint(), StopSafely(), inside]
    if how == "by a signal":
        callbacks.append(told(signal.SIGTERM, 8))
    if how == "by an error":
        callbacks.append(Each("on_train_batch_end", lambda trainer, module: 1 / 0))
    try:
        run(ToyGAN(SPEC), images=24, callbacks=callbacks, folder=tmp_path)
    except (Interrupted, ZeroDivisionError):
        assert how != "at the end"
    else:
        assert how == "at the end"
    assert inside.values[0] != before
    assert [signal.getsignal(n) for n in numbers] == before


def test_a_second_signal_ends_at_once_without_saving(tmp_path, monkeypatch):
    class Gone(BaseException):
        pass

    def exit(status):
        raise Gone(status)

    monkeypatch.setattr(os, "_exit", exit)
    callbacks = [told(signal.SIGINT, 24, times=2), Checkpoint(), StopSafely()]
    with pytest.raises(Gone) as gone:
        run(ToyGAN(SPEC), images=80, callbacks=callbacks, folder=tmp_path)
    assert gone.value.args == (130,)
    assert not (tmp_path / "checkpoints").exists()
