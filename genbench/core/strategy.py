"""Several devices: every player's gradients are averaged once, when that player steps.

`DistributedDataParallel` expects one backward of the whole module per step. A game has one backward per player, and
its detached passes leave parameters without gradient, which makes plain DDP raise; with its search for unused
parameters every backward reduces the gradients of all players. Reducing at the optimizer's step needs neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch.optim import Optimizer

# as large as DDP's own first buckets grow: enough to fill the link, small beside the model
BUCKET_BYTES = 25 * 2**20


def average_gradients(parameters: list[torch.Tensor]) -> None:
    """Replace each gradient by its mean over all processes, in buckets of one dtype."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    while gradients:
        bucket, size = [], 0
        while gradients and size < BUCKET_BYTES and (not bucket or gradients[0].dtype == bucket[0].dtype):
            bucket.append(gradients.pop(0))
            size += bucket[-1].numel() * bucket[-1].element_size()
        flat = torch.cat([g.reshape(-1) for g in bucket])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        pieces = [piece.view(g.shape) for piece, g in zip(flat.split([g.numel() for g in bucket]), bucket, strict=True)]
        torch._foreach_copy_(bucket, pieces)


class PlayersDDP(DDPStrategy):
    """Data-parallel training of a `GenerativeModule`: the module stays unwrapped, its players' gradients are averaged.

    All processes must take the same turns: which player steps may depend on the images seen, not on the data.
    """

    def configure_ddp(self) -> None:
        self.broadcast_state()

    def broadcast_state(self) -> None:
        """All processes take the parameters and buffers of rank 0."""
        for tensor in (*self.lightning_module.parameters(), *self.lightning_module.buffers()):
            dist.broadcast(tensor.data, src=0)

    def pre_backward(self, closure_loss: torch.Tensor) -> None:
        pass  # nothing is prepared: no reducer waits for this backward

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], model: Any = None, **kwargs: Any) -> Any:
        # before unscaling and clipping, which the precision plugin does: an inf on one rank is then an inf on all
        average_gradients([p for group in optimizer.param_groups for p in group["params"]])
        return super().optimizer_step(optimizer, closure, model, **kwargs)
