"""Several devices: every player's gradients are averaged once, when that player steps.

`DistributedDataParallel` expects one backward of the whole module per step. A GAN has one backward per player, and
its detached passes leave parameters without gradient, which makes plain DDP raise; with its search for unused
parameters every backward reduces the gradients of all players. Reducing at the optimizer's step needs neither.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.optim import Optimizer

from genbench.core import ranks
from genbench.core.errors import LostProcess

# seconds that a process has to notice by itself that another is gone: one that waits on a GPU does not
GRACE = 10.0

PARENT = "GENBENCH_PARENT"  # number of the process that started this one


class Launcher(_SubprocessScriptLauncher):
    """Starts the processes of this machine as Lightning does, and ends them in order when one of them is gone.

    Lightning kills all of them at once and in silence; and those that it started outlive it when it is killed itself.
    """

    def launch(self, function: Callable, *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[PARENT] = str(os.getpid())
            self._call_children_scripts()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        over = threading.Event()
        threading.Thread(target=self._watch, args=(over, trainer), daemon=True, name="watch").start()
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            # a collective that failed: gloo's errors are known by their text alone
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            over.set()
            time.sleep(0.5)  # the kernel closes a dead process's connections before it reports its death
            gone = self._gone()
            if not gone and not self.procs and PARENT in os.environ:
                sys.exit(2)  # the first process lives, and says it once for all
            raise LostProcess(_last_words(trainer, gone or _reason(error))) from error
        finally:
            over.set()

    def _gone(self) -> str | None:
        """Which process of this machine has ended before its time, as far as this one can see."""
        ended = [(status, rank) for rank, process in enumerate(self.procs, start=1) if (status := process.poll())]
        if ended:
            status, rank = min(ended)  # a signal, which is below 0, before those that ended because of it
            return f"process {rank} " + (f"got signal {-status}" if status < 0 else f"ended with status {status}")
        if not self.procs and os.environ.get(PARENT, "") not in ("", str(os.getppid())):
            return "the first one is gone"
        return None

    def _watch(self, over: threading.Event, trainer: Any) -> None:
        while not over.wait(1.0):
            gone = self._gone()
            if gone and not over.wait(GRACE):
                print(f"error: {_last_words(trainer, gone)}", file=sys.stderr, flush=True)
                for process in self.procs:
                    process.kill()
                os._exit(2)


def _reason(error: RuntimeError) -> str:
    """The first sentence of gloo's or NCCL's message, without the place in its source."""
    return re.sub(r"^\[\S*\] |\. .*", "", str(error).partition("\n")[0])


def _last_words(trainer: Any, why: str) -> str:
    last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    kept = f"Go on from the last checkpoint:  python -m genbench fit --ckpt {last}"
    return (
        f"A process of this run has ended, and the others cannot go on without it ({why}). "
        f"{kept if last.is_file() else 'There is no checkpoint yet.'}"
    )


class PlayersDDP(DDPStrategy):
    """Data-parallel training of a `GenerativeModule`: the module stays unwrapped, its players' gradients are averaged.

    All processes must take the same turns: which player steps may depend on the images seen, not on the data.
    """

    def _configure_launcher(self) -> None:
        super()._configure_launcher()
        if isinstance(self._launcher, _SubprocessScriptLauncher):
            self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def configure_ddp(self) -> None:
        self.broadcast_state()

    def broadcast_state(self, leave: Collection[str] = ()) -> None:
        """All processes take the parameters and buffers of rank 0, but for the buffers named."""
        module = self.lightning_module
        buffers = [tensor for name, tensor in module.named_buffers() if name not in leave]
        for tensor in (*module.parameters(), *buffers):
            dist.broadcast(tensor.data, src=0)

    def pre_backward(self, closure_loss: torch.Tensor) -> None:
        pass  # nothing is prepared: no reducer waits for this backward

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], model: Any = None, **kwargs: Any) -> Any:
        # before unscaling and clipping, which the precision plugin does: an inf on one rank is then an inf on all
        ranks.average_([p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None])
        return super().optimizer_step(optimizer, closure, model, **kwargs)
