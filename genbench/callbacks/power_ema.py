"""Power-function averages of the weights, from which an average of any length between can be reconstructed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning import Callback
from torch import Tensor

from genbench.core import checkpoint_io, power_averages, snapshots
from genbench.core.arguments import Bounds, Checked, Positive
from genbench.core.errors import UserError, warn
from genbench.core.module import GenerativeModule
from genbench.core.units import Images

Length = Annotated[
    float,
    Bounds(above=0, at_most=power_averages.LONGEST, words=f"a length is above 0 and at most {power_averages.LONGEST}"),
]


class PowerEMA(Callback, metaclass=Checked):
    """Keeps two power-function averages of the networks in `module.ema` during the whole training, and stores snapshots
    of both in `<run>/ema/`. `--ema 0.075` of `sample`, `evaluate` and other commands reconstructs the average of this
    length (Karras et al. 2024, section 3).

    Args:
        enabled: Whether to keep the averages. It cannot change within a run
        lengths: The two lengths σ_rel: the standard deviation of an average's weights, as a fraction of the images seen
        snapshot_every: Interval of the snapshots, as a fraction of the budget (up to 1) or in images. Each snapshot
            needs as much disk space as two copies of the averaged networks
        every_images: Images between two updates of the averages
    """

    _setting = "power_ema"

    def __init__(
        self,
        enabled: bool = False,
        lengths: Sequence[Length] = (0.05, 0.1),
        snapshot_every: Positive | Images = 0.05,
        every_images: Images = Images(500),
    ) -> None:
        self.enabled, self.lengths, self.every_images = enabled, [float(one) for one in lengths], Images(every_images)
        if len(self.lengths) != 2 or self.lengths[0] == self.lengths[1]:
            raise UserError(
                f"power_ema.lengths is {list(lengths)}; expected two different lengths, such as [0.05, 0.1]."
            )
        given = {"lengths": self.lengths == [0.05, 0.1], "snapshot_every": snapshot_every == 0.05}
        if not enabled and (unused := [name for name, default in given.items() if not default]):
            raise UserError(
                f"power_ema.{unused[0]} has no effect, since no averages are kept. Set `--power_ema.enabled true`, or "
                "remove it."
            )
        share = isinstance(snapshot_every, (int, float)) and snapshot_every <= 1
        try:
            self.snapshot_every = snapshot_every if share else Images(snapshot_every)
        except ValueError as error:
            raise UserError(f"power_ema.snapshot_every: {error}.") from error
        self.averages: list[dict[str, Tensor]] = []
        self.snapshots: list[list[Any]] = []  # images seen and hash of each snapshot
        self._exponents = [power_averages.exponent(one) for one in self.lengths]
        self._updated_at = 0
        self._restored: dict[str, Any] | None = None

    def on_fit_start(self, trainer, module: GenerativeModule) -> None:
        if not self.enabled:
            return
        if self._restored is None and module.images_seen:
            raise UserError(
                f"power_ema.enabled is true, but this run has already seen {module.images_seen:,} images without "
                "power-function averages, which cover the whole training. Remove `--power_ema.enabled`, or start a new "
                "run."
            )
        restored = self._restored or {"lengths": self.lengths, "updated_at": 0, "snapshots": []}
        if restored["lengths"] != self.lengths:
            raise UserError(
                f"power_ema.lengths is {self.lengths}, but the checkpoint contains averages of the lengths "
                f"{restored['lengths']}, which cannot change within a run."
            )
        self.averages = [
            {name: value.detach().to(_wide(value), copy=True) for name, value in snapshots.averaged(module).items()}
            for _ in self.lengths
        ]
        for average, kept in zip(self.averages, restored.get("averages", []), strict=False):
            for name, value in kept.items():
                average[name].copy_(value)
        self._updated_at, self.snapshots = restored["updated_at"], [list(one) for one in restored["snapshots"]]

    def interval(self, budget: int | None) -> int:
        """Images between two snapshots in a run of `budget` images."""
        if self.snapshot_every > 1:
            return int(self.snapshot_every)
        if budget is None:
            raise UserError(
                f"power_ema.snapshot_every is {self.snapshot_every}, a fraction of the budget, but there is no budget. "
                "Add the callback `MaxImages`, or use a number of images."
            )
        return max(1, round(self.snapshot_every * budget))

    def snapshot_bytes(self, module: GenerativeModule) -> int:
        """Approximate size of a snapshot, and of the averages in a checkpoint."""
        parameters = snapshots.averaged(module).values()
        return len(self.lengths) * sum(value.numel() * _wide(value).itemsize for value in parameters)

    def folder(self, trainer) -> Path:
        return Path(trainer.default_root_dir) / "ema"

    def on_train_start(self, trainer, module: GenerativeModule) -> None:
        if not self.enabled or not trainer.is_global_zero:
            return
        folder, known = self.folder(trainer), {snapshots.path_of(Path(), at).name for at, _ in self.snapshots}
        for path in folder.glob("*.pt"):  # of a training that went on after the checkpoint from which it is resumed
            if path.stem.isdecimal() and path.name not in known:
                path.unlink()
        missing = [name for name in sorted(known) if not (folder / name).exists()]
        if missing and trainer.ckpt_path is not None:  # a new run from the checkpoint of another one
            source = snapshots.folder_of(Path(trainer.ckpt_path))
            for name in missing:
                if (source / name).is_file():
                    checkpoint_io.copy(source / name, folder / name)
            missing = [name for name in missing if not (folder / name).exists()]
        if missing:
            warn(
                f"{len(missing)} snapshots of the averaged weights are missing in {folder}, such as {missing[0]}. "
                f"`--ema` can only use the lengths {self.lengths[0]} and {self.lengths[1]}."
            )

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        # after each batch at first, as for `EMA`
        if self.enabled and (module.due(self.every_images) or module.images_seen < self.every_images):
            before = self._updated_at
            self.update(module)
            every = self.interval(module.budget)
            if module.images_seen // every != before // every and trainer.is_global_zero:
                hashed = snapshots.write(self.folder(trainer), module.images_seen, self.lengths, self.averages)
                self.snapshots.append([module.images_seen, hashed])

    @torch.no_grad()
    def update(self, module: GenerativeModule) -> None:
        """average <- β average + (1 - β) weights, β = (1 - images since the last update / images seen)^(γ + 1)."""
        raw = snapshots.averaged(module)
        for gamma, average in zip(self._exponents, self.averages, strict=True):
            weight = 1 - power_averages.decay(gamma, self._updated_at, module.images_seen)
            values = [raw[name].detach().to(value.dtype) for name, value in average.items()]
            torch._foreach_lerp_(list(average.values()), values, weight)
        self._updated_at = module.images_seen

    def on_save_checkpoint(self, trainer, module: GenerativeModule, checkpoint: dict[str, Any]) -> None:
        if self.averages:
            checkpoint["power_ema"] = {
                "lengths": self.lengths,
                "updated_at": self._updated_at,
                "averages": self.averages,
                "snapshots": self.snapshots,
            }

    def on_load_checkpoint(self, trainer, module: GenerativeModule, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint.get("power_ema")


def _wide(value: Tensor) -> torch.dtype:
    """At least float32: in 16 bits, small changes of an average would be rounded to zero."""
    return torch.promote_types(value.dtype, torch.float32)
