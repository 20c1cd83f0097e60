"""The contract test that needs two processes. They must have equal weights and different noise."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from genbench.cli.flags import import_modules
from genbench.core.errors import some
from genbench.core.module import GenerativeModule
from genbench.core.strategy import PlayersDDP
from genbench.testing.contracts import require
from genbench.testing.recipe import Recipe, train


class Drift(Callback):
    """Collects the names of tensors that differ from the first process after a batch, before a save synchronizes
    them."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def on_train_batch_end(self, trainer: Trainer, module: GenerativeModule, *_: Any) -> None:
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            first = value.detach().clone()
            dist.broadcast(first, src=0)
            if not torch.equal(first, value):
                self.names.add(name)


def two_processes_agree(recipe: Recipe, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    wrong = two_processes([recipe], folder)[recipe.name]
    require(wrong is None, str(wrong))


def two_processes(recipes: list[Recipe], folder: Path) -> dict[str, str | None]:
    """Train all models on one pair of gloo processes. Returns name -> error message, or None."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [str(r.path) for r in recipes]
    modules = sorted({module for recipe in recipes for module in recipe.modules})
    command = f"from genbench.testing.processes import _worker; _worker({paths}, {str(folder)!r}, {modules})"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", command],
            env=os.environ | {
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0",
                "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
            },
            stdout=subprocess.DEVNULL, stderr=open(folder / f"rank{rank}.log", "wb"),  # noqa: SIM115
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for worker in workers:
            worker.wait(timeout=60 + 60 * len(recipes))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for worker in workers:
            worker.kill()
    return {recipe.name: _compare(recipe, folder) for recipe in recipes}


def _worker(paths: list[str], folder: str, modules: list[str]) -> None:
    import_modules([f"--import={m}" for m in modules])
    rank = int(os.environ["LOCAL_RANK"])
    for path in paths:
        recipe = Recipe(Path(path))
        strategy, drift = PlayersDDP(process_group_backend="gloo"), Drift()
        run = train(recipe, Path(folder) / recipe.name, images=48, first=drift, devices=2, strategy=strategy)
        module: Any = run.lightning_module
        noise = module.draw(torch.randn, 4, 3)
        buffers = {name for name, _ in module.named_buffers()} & drift.names
        state = {
            "weights": sorted(drift.names - buffers),
            "buffers": sorted(buffers - _may_differ(module)),
            "noise": noise,
            "images": module.images_seen,
        }
        torch.save(state, Path(folder) / f"{recipe.name}.{rank}.pt")


def _may_differ(module: GenerativeModule) -> set[str]:
    """Names of buffers that may differ between processes: `per_process`, and running statistics of normalizations."""
    norms = {name for name, m in module.named_modules() if isinstance(m, torch.nn.modules.batchnorm._NormBase)}
    buffers = [name for name, _ in module.named_buffers()]
    return {name for name in buffers if name.rpartition(".")[0] in norms or name in module.per_process}


def _compare(recipe: Recipe, folder: Path) -> str | None:
    paths = [folder / f"{recipe.name}.{rank}.pt" for rank in range(2)]
    if not all(p.is_file() for p in paths):
        last = (folder / "rank0.log").read_text(errors="replace").strip().splitlines()[-1:]
        return f"two processes did not finish: {' '.join(last) or 'timeout'}"
    a, b = (torch.load(p, weights_only=True) for p in paths)
    if b["weights"]:
        return (
            f"the weights {some(b['weights'])} differ between two processes. Check whether a loss is backpropagated "
            "outside `turn.minimize`, or a step is taken outside a turn"
        )
    if b["buffers"]:
        return (
            f"the buffers {some(b['buffers'])} differ between two processes. Compute state of the batch with "
            "`ranks.mean` or `ranks.total`, and list state that may differ in `per_process`"
        )
    if torch.equal(a["noise"], b["noise"]):
        return "two processes draw the same noise"
    return None if a["images"] == 48 else f"{a['images']} images seen instead of 48"
