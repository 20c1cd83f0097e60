"""Saves `last.ckpt` regularly and at the end, and `best.ckpt` when the validation score is the best so far."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from lightning import Callback

from genbench.callbacks.validation_metrics import ValidationMetrics
from genbench.core import checkpoint_io
from genbench.core.arguments import Checked
from genbench.core.errors import Interrupted, UserError
from genbench.core.module import GenerativeModule
from genbench.core.strategy import PlayersDDP
from genbench.core.units import Images


def validation_follows(trainer) -> bool:
    """Whether validation runs after the current batch, because it is due or training ends with this batch."""
    return trainer.enable_validation and (trainer.val_check_batch == 1 or trainer.should_stop)


class Checkpoint(Callback, metaclass=Checked):
    """Saves checkpoints to `<run>/checkpoints/`. A file is replaced only by a complete file.

    Args:
        every_images: Images between two saves of `last.ckpt`
        monitor: The validation score that selects `best.ckpt`. Default: the Fréchet distance of samples if the model
            samples, else the error of reconstructions, else the likelihood
        mode: Whether a small (`min`) or a large (`max`) score of `monitor` is better. Default: the known direction of
            the score; must be set for a score that only the model defines
        keep_every: Images between two additional checkpoints `<images seen>.ckpt`. Default: only `last.ckpt` and
            `best.ckpt` are saved
    """

    def __init__(
        self,
        every_images: Images = Images(50_000),
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
        keep_every: Images | None = None,
    ) -> None:
        self.every_images, self.monitor, self.mode = Images(every_images), monitor, mode
        self.keep_every = None if keep_every is None else Images(keep_every)
        self.best: float | None = None
        self._best_of: str | None = None  # score, direction and protocol of `best`
        self._saved_at = -1
        self._names: list[str] = []  # files of the last save, except `last.ckpt`

    def folder(self, trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints"

    def setup(self, trainer, module: GenerativeModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = checkpoint_io.AtomicCheckpointIO()

    def on_train_start(self, trainer, module: GenerativeModule) -> None:
        if trainer.ckpt_path is not None:
            self._saved_at = module.images_seen
            if trainer.is_global_zero:
                self._complete(Path(trainer.ckpt_path), self.folder(trainer))

    def _complete(self, begun: Path, folder: Path) -> None:
        """Finish a save that a full disk interrupted: copy the resumed checkpoint to missing files and to
        `last.ckpt`."""
        if folder.is_dir() and begun.parent.samefile(folder):
            for name in [*self._names, "last.ckpt"]:
                path = folder / name
                if not path.exists() or (name == "last.ckpt" and not path.samefile(begun)):
                    checkpoint_io.copy(begun, path)

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        # If validation follows, save after it, so that the checkpoint contains the scores. Also save at the last batch:
        # the work after it, such as the last grids of samples, may take long and be killed.
        if (self._due(module) or trainer.should_stop) and not validation_follows(trainer):
            self.save(trainer, module)

    def _due(self, module: GenerativeModule) -> bool:
        return module.due(self.every_images) or (self.keep_every is not None and module.due(self.keep_every))

    def on_validation_end(self, trainer, module: GenerativeModule) -> None:
        if trainer.state.fn != "fit":
            return
        metrics = next(c for c in trainer.callbacks if isinstance(c, ValidationMetrics))
        given = [*metrics.scores, *(metrics.blank if self.monitor else ())]
        monitor, mode = metrics.deciding(module, given, self.monitor, self.mode)
        score = metrics.scores.get(monitor, math.nan)
        if not math.isfinite(score) and trainer.is_global_zero:  # a later score may be finite
            why = metrics.blank.get(monitor) or f"it is {score}"
            print(f"warning: best.ckpt was not updated: {monitor} could not be computed ({why}).", file=sys.stderr)
        # scores with other names, directions or protocols are not comparable
        kind = f"{monitor} {mode} {metrics.protocol.name}"
        comparable = self._best_of in (kind, monitor)  # older checkpoints store only the monitor
        best = self.best if comparable and self.best is not None else math.inf if mode == "min" else -math.inf
        if math.isfinite(score) and (score < best if mode == "min" else score > best):
            self.best, self._best_of = score, kind
            self.save(trainer, module, best=True)
        elif self._due(module) or trainer.should_stop:
            self.save(trainer, module)

    def on_exception(self, trainer, module: GenerativeModule, exception: BaseException) -> None:
        """Save if validation fails, since the training step before it is complete."""
        failed = trainer.state.fn == "fit" and trainer.validating and isinstance(exception, Exception)
        if failed and not isinstance(exception, Interrupted) and trainer.world_size == 1:
            with suppress(UserError):  # report the exception of validation, not this one
                self.save(trainer, module)

    def on_train_end(self, trainer, module: GenerativeModule) -> None:
        if self._saved_at != module.images_seen:
            self.save(trainer, module)

    def save(self, trainer, module: GenerativeModule, *, best: bool = False) -> None:
        """Write `last.ckpt`, and `best.ckpt` if `best`. Called in all processes. Raises NonFiniteLoss."""
        module.check_finite()
        if isinstance(trainer.strategy, PlayersDDP):
            trainer.strategy.broadcast_state()  # all processes continue with the saved batch norm statistics
        names = ["best.ckpt"] if best else []
        if self.keep_every is not None and module.due(self.keep_every):
            names.append(f"{module.images_seen:010d}.ckpt")
        self._names = names
        # `last.ckpt` is written last: a run that is killed before resumes from the old `last.ckpt` and writes all files
        # again
        first, *others = (self.folder(trainer) / name for name in [*names, "last.ckpt"])
        trainer.save_checkpoint(first, weights_only=False)
        if trainer.is_global_zero:
            for path in others:
                checkpoint_io.copy(first, path)
        self._saved_at = module.images_seen

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "of": self._best_of, "names": self._names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self._best_of, self._names = state["best"], state.get("of"), state.get("names", [])
