"""The end of training: by the number of images, or by a signal."""

from __future__ import annotations

import os
import signal
import stat
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback

from genbench.callbacks.checkpoint import Checkpoint, validation_follows
from genbench.core.arguments import Checked
from genbench.core.errors import Interrupted
from genbench.core.module import GenerativeModule
from genbench.core.units import Images


class MaxImages(Callback, metaclass=Checked):
    """Ends training after the batch in which `images_seen` reaches `max_images`.

    Args:
        max_images: Number of real images to train on, summed over all devices
    """

    def __init__(self, max_images: Images) -> None:
        self.max_images = Images(max_images)

    def setup(self, trainer, module: GenerativeModule, stage: str) -> None:
        module.budget = self.max_images  # for schedules in fractions of the budget

    def on_train_start(self, trainer, module: GenerativeModule) -> None:
        # a run that was killed after its last step takes no more steps
        if module.images_seen >= self.max_images:
            trainer.should_stop = True

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        if module.images_seen >= self.max_images:
            trainer.should_stop = True


class StopSafely(Callback):
    """On a signal, finishes the step, saves a checkpoint and ends training; a second signal ends the process at once.

    The signals are SIGINT (Ctrl-C), SIGTERM, SIGUSR2 (sent by Slurm before a time limit) and SIGHUP (the terminal was
    closed).

    SIGHUP does not count as a second signal, since a closed terminal sends it several times. If SIGHUP was ignored at
    the start, for example under `nohup`, it stays ignored. All processes stop after the same step, even if only one of
    them receives the signal.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer, module: GenerativeModule) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: Any) -> None:
        if self._signal and signum == signal.SIGHUP:
            return
        if self._signal not in (0, signal.SIGHUP):
            os._exit(128 + signum)
        self._signal = signum
        name = signal.Signals(signum).name
        _say(f"\n{name}: finishing this step and saving. Send the signal again to stop at once without saving.\n")

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        signum = self._signal
        if trainer.world_size > 1:
            largest = torch.tensor(signum, device=module.device)
            dist.all_reduce(largest, op=dist.ReduceOp.MAX)
            signum = int(largest)
        if signum and not validation_follows(trainer):  # a resumed run would skip this validation
            self._end(trainer, module, signum)
        self._signal = signum

    def on_validation_end(self, trainer, module: GenerativeModule) -> None:
        if self._signal and trainer.state.fn == "fit" and not trainer.should_stop:  # otherwise training ends anyway
            self._end(trainer, module, self._signal)

    def _end(self, trainer, module: GenerativeModule, signum: int) -> None:
        next(c for c in trainer.callbacks if isinstance(c, Checkpoint)).save(trainer, module)
        if signum == signal.SIGHUP:
            _say("Saved.\n")  # the terminal may be closed by now
        raise Interrupted(signum)

    def on_train_end(self, trainer, module: GenerativeModule) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def on_exception(self, trainer, module: GenerativeModule, exception: BaseException) -> None:
        self.on_train_end(trainer, module)


def _say(text: str) -> None:
    """Write to the terminal. If it is closed, redirect later output to /dev/null, so that writing raises no error."""
    try:
        os.write(2, text.encode())
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            if descriptor == 2 or _is_dead_terminal(descriptor):
                os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _is_dead_terminal(descriptor: int) -> bool:
    try:
        return stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor)
    except OSError:  # the descriptor was never open
        return False
