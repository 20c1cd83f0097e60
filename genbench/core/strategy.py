"""Training on several devices: each player's gradients are averaged once, when its optimizer steps.

`DistributedDataParallel` (DDP) expects one backward of the whole module per step. A GAN has one backward per player,
and detached forward passes leave parameters without gradient, for which plain DDP raises an error. With
`find_unused_parameters`, each backward would reduce the gradients of all players. Averaging at the optimizer's step
avoids both problems.
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

# seconds that a process gets to notice that another process has ended; a process that waits for a GPU does not notice
GRACE = 10.0

PARENT = "GENBENCH_PARENT"  # process id of the process that started this one


class Launcher(_SubprocessScriptLauncher):
    """Starts the processes of this machine like Lightning, and ends all of them with a message when one of them ends.

    Lightning's launcher kills the processes without a message, and they continue if their parent process is killed.
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
            # a collective operation failed; gloo's errors can be recognized only by their text
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            over.set()
            time.sleep(0.5)  # connections close before the kernel reports that a process has ended
            gone = self._gone()
            if not gone and not self.procs and PARENT in os.environ:
                sys.exit(2)  # the first process is running and prints the message
            raise LostProcess(_last_words(trainer, gone or _reason(error))) from error
        finally:
            over.set()

    def _gone(self) -> str | None:
        """Which process of this machine has ended too early, as text; None if this process knows of none."""
        ended = [(status, rank) for rank, process in enumerate(self.procs, start=1) if (status := process.poll())]
        if ended:
            # a signal is a negative status, so a killed process comes before processes that failed as a result
            status, rank = min(ended)
            return f"process {rank} " + (f"got signal {-status}" if status < 0 else f"ended with status {status}")
        if not self.procs and os.environ.get(PARENT, "") not in ("", str(os.getppid())):
            return "the first one has ended"
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
    """The first sentence of gloo's or NCCL's message, without file and line."""
    return re.sub(r"^\[\S*\] |\. .*", "", str(error).partition("\n")[0])


def _last_words(trainer: Any, why: str) -> str:
    last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    kept = f"To continue from the last checkpoint:  python -m genbench fit --ckpt {last}"
    return (
        f"A process of this run has ended, and the others cannot continue without it ({why}). "
        f"{kept if last.is_file() else 'There is no checkpoint yet.'}"
    )


class PlayersDDP(DDPStrategy):
    """Data-parallel training of a `GenerativeModule` without DDP's wrapper: each player's gradients are averaged.

    All processes must take the same turns. Which player steps may depend on the images seen, but not on the data.
    """

    def _configure_launcher(self) -> None:
        super()._configure_launcher()
        if isinstance(self._launcher, _SubprocessScriptLauncher):
            self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def configure_ddp(self) -> None:
        self.broadcast_state()

    def broadcast_state(self, leave: Collection[str] = ()) -> None:
        """Copy parameters and buffers of rank 0 to all processes, except for the buffers in `leave`."""
        module = self.lightning_module
        buffers = [tensor for name, tensor in module.named_buffers() if name not in leave]
        for tensor in (*module.parameters(), *buffers):
            dist.broadcast(tensor.data, src=0)

    def pre_backward(self, closure_loss: torch.Tensor) -> None:
        pass  # without DDP's wrapper, no reducer has to be prepared

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], model: Any = None, **kwargs: Any) -> Any:
        # before the precision plugin unscales and clips, so that an inf on one rank becomes an inf on all ranks
        ranks.average_([p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None])
        return super().optimizer_step(optimizer, closure, model, **kwargs)
