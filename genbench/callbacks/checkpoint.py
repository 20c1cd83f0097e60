"""`last.ckpt` every so many images and at the end, `best.ckpt` when the validation score is the best so far."""

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
    """Whether validation runs after the batch that has just ended: it is due, or the batch was the last."""
    return trainer.enable_validation and (trainer.val_check_batch == 1 or trainer.should_stop)


class Checkpoint(Callback, metaclass=Checked):
    """Saves to `<run>/checkpoints/`. A file is replaced only by one that is complete and on disk.

    Args:
        every_images: How often `last.ckpt` is written
        monitor: The validation score that decides which checkpoint is `best.ckpt`. Default: what the model is for: the
            Fréchet distance of its samples, else the error of its reconstructions, else its likelihood
        mode: Whether a small or a large score is good, where `monitor` is given. Default: as is known of the score;
            of a score of the model's own it must be said
        keep_every: Also keep `<images seen>.ckpt` every so many images. Default: the last and the best alone
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
        self._best_of: str | None = None  # the score that `best` is of
        self._saved_at = -1
        self._names: list[str] = []  # files that the state at hand belongs in, besides `last.ckpt`

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
        """Write the other files that a save was to write, where a full disk left but one: `last.ckpt` is, from the
        start, what the run goes on from."""
        if folder.is_dir() and begun.parent.samefile(folder):
            for name in [*self._names, "last.ckpt"]:
                path = folder / name
                if not path.exists() or (name == "last.ckpt" and not path.samefile(begun)):
                    checkpoint_io.copy(begun, path)

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        # where validation is about to run, save after it: a checkpoint then never lacks the scores up to it
        # at the last batch too: what follows, such as the last pictures, may take long and be killed
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
        if not math.isfinite(score) and trainer.is_global_zero:  # it may be later: once some samples are good, say
            why = metrics.blank.get(monitor) or f"it is {score}"
            print(f"warning: best.ckpt stays as it is: {monitor} could not be computed ({why}).", file=sys.stderr)
        # a score of another name, direction or protocol cannot be compared with
        kind = f"{monitor} {mode} {metrics.protocol.name}"
        first = self.best is None or self._best_of not in (kind, monitor)  # the monitor alone in older checkpoints
        if math.isfinite(score) and (
            first or self.best is None or (score < self.best if mode == "min" else score > self.best)
        ):
            self.best, self._best_of = score, kind
            self.save(trainer, module, best=True)
        elif self._due(module) or trainer.should_stop:
            self.save(trainer, module)

    def on_exception(self, trainer, module: GenerativeModule, exception: BaseException) -> None:
        """Keep what was trained where validation fails: the step before it is complete."""
        failed = trainer.state.fn == "fit" and trainer.validating and isinstance(exception, Exception)
        if failed and not isinstance(exception, Interrupted) and trainer.world_size == 1:
            with suppress(UserError):  # the exception at hand is the one to be told
                self.save(trainer, module)

    def on_train_end(self, trainer, module: GenerativeModule) -> None:
        if self._saved_at != module.images_seen:
            self.save(trainer, module)

    def save(self, trainer, module: GenerativeModule, *, best: bool = False) -> None:
        """Write `last.ckpt`, if the weights are finite; on all processes alike.

        best  whether it is `best.ckpt`, too
        """
        module.check_finite()
        if isinstance(trainer.strategy, PlayersDDP):
            trainer.strategy.broadcast_state()  # batch norm statistics: all go on from those that are saved
        names = ["best.ckpt"] if best else []
        if self.keep_every is not None and module.due(self.keep_every):
            names.append(f"{module.images_seen:010d}.ckpt")
        self._names = names
        # `last.ckpt` last of all: who is killed in between goes on from the one before, and makes the others again
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
