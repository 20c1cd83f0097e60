"""Training ends at the set number of images, and can be stopped without loss."""

import os
import pty
import signal
import sys
import time

import pytest

from genbench.callbacks import EMA, Checkpoint, Monitor, StopSafely
from genbench.core import checkpoint_io
from genbench.core.errors import Interrupted
from tests.helpers.small import Each, run, same_weights
from tests.helpers.toy import SPEC, ToyGAN


@pytest.mark.parametrize(("budget", "seen"), [(8, 8), (17, 24), (24, 24), ("0.1k", 104)])
def test_training_ends_at_the_first_batch_that_reaches_the_budget(budget, seen):
    module = ToyGAN(SPEC)
    run(module, images=budget)
    assert module.images_seen == seen and module.updates == {"generator": seen // 8, "discriminator": seen // 8}


def test_a_finished_run_takes_no_step_and_resumes_with_a_larger_budget(tmp_path):
    run(ToyGAN(SPEC), images=24).save_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    module, ended = ToyGAN(SPEC), Each("on_train_end", lambda trainer, module: module.images_seen)
    run(module, images=20, callbacks=[ended], ckpt=tmp_path / "x.ckpt")
    assert ended.values == [24] and module.updates == {"generator": 3, "discriminator": 3}
    module = ToyGAN(SPEC)
    run(module, images=32, ckpt=tmp_path / "x.ckpt")
    assert module.images_seen == 32


def told(signum, images, times=1):
    """Sends the signal to this process during the step in which the images seen exceed `images`."""

    def send(trainer, module):
        if module.images_seen == images:
            for _ in range(times):
                os.kill(os.getpid(), signum)

    return Each("on_train_batch_start", send)


def stopped(module, folder, signum=signal.SIGINT, images=24, budget=400, ckpt=None):
    callbacks = [told(signum, images), EMA(every_images=8), Checkpoint(), StopSafely()]
    run(module, images=budget, callbacks=callbacks, folder=folder, ckpt=ckpt, limit_val_batches=0)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_the_step_and_saves(tmp_path, capfd, signum):
    module = ToyGAN(SPEC)
    with pytest.raises(Interrupted) as stop:
        stopped(module, tmp_path, signum)
    assert stop.value.signum == signum
    assert module.images_seen == 32 and module.updates == {"generator": 4, "discriminator": 4}
    saved = checkpoint_io.read(tmp_path / "checkpoints" / "last.ckpt")
    assert saved["genbench"]["images_seen"] == 32 and saved["genbench"]["updates"] == module.updates
    assert f"{signum.name}: finishing this step and saving" in capfd.readouterr().err


def test_a_stopped_run_resumes_as_if_it_had_not_been_stopped(tmp_path):
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
def test_signal_handlers_are_restored_after_training(tmp_path, how):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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


def test_a_hang_up_that_was_ignored_at_the_start_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        module = ToyGAN(SPEC)
        stopped(module, tmp_path, signal.SIGHUP, budget=48)
        assert module.images_seen == 48 and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("more", [signal.SIGHUP, signal.SIGTERM])
def test_what_follows_a_hang_up_does_not_end_at_once(tmp_path, more):
    def send(trainer, module):
        if module.images_seen == 24:
            for signum in (signal.SIGHUP, more, signal.SIGHUP):
                os.kill(os.getpid(), signum)

    callbacks = [Each("on_train_batch_start", send), EMA(every_images=8), Checkpoint(), StopSafely()]
    with pytest.raises(Interrupted) as stop:
        run(ToyGAN(SPEC), images=80, callbacks=callbacks, folder=tmp_path, limit_val_batches=0)
    assert stop.value.signum == more
    assert checkpoint_io.read(tmp_path / "checkpoints" / "last.ckpt")["genbench"]["images_seen"] == 32


def test_closing_the_terminal_does_not_disturb_training(tmp_path):
    """Runs in a process with its own terminal, which is closed during training, as when a window is closed."""
    process, terminal = pty.fork()
    if process == 0:
        status, sys.stdout = 99, os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        try:
            wait = Each("on_train_batch_start", lambda trainer, module: time.sleep(0.02))
            callbacks = [wait, EMA(), Monitor(every_images=8, refresh_seconds=0), Checkpoint(), StopSafely()]
            run(ToyGAN(SPEC), images=80_000, callbacks=callbacks, folder=tmp_path, limit_val_batches=0)
        except Interrupted as stop:
            print("said to nobody", file=sys.stderr, flush=True)
            status = 128 + stop.signum
        finally:
            os._exit(status)
    shown = b""
    while b"/80,000" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    assert checkpoint_io.read(tmp_path / "checkpoints" / "last.ckpt")["genbench"]["images_seen"] >= 8
