"""Computes scores on the validation split during training, like the final scores. They select `best.ckpt`."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Annotated, Any

import torch
from lightning import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from genbench.core import ranks
from genbench.core.arguments import Bounds, Checked
from genbench.core.batch import to_stored
from genbench.core.capabilities import Classifies, HasLikelihood, Reconstructs, Samples, Segments, Translates
from genbench.core.errors import UserError, did_you_mean
from genbench.core.module import GenerativeModule
from genbench.core.units import Images
from genbench.data.module import DataModule
from genbench.evaluation import extractors
from genbench.evaluation import protocol as protocols
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.evaluator import Expected, Held
from genbench.evaluation.evaluators import expected
from genbench.evaluation.extractor import Extractor
from genbench.evaluation.images import TensorImages
from genbench.metrics.registry import REGISTERED
from genbench.metrics.scales import SCALES

FEW = "a distance between distributions needs at least 2"


class ValidationMetrics(Callback, metaclass=Checked):
    """Validates with the EMA weights every `every_images` images, and logs

    val/<name>   means over the split of the values that the model's `validation_step` returns for each image
    val/<score>  the scores of a protocol, from different seeds than a test protocol; and the accuracy of a classifier,
                 if the split has labels

    Args:
        every_images: Images between two validations; a last validation runs at the end
        protocol: Name of the protocol
        samples: Number of samples. Default: the number set in the protocol
        extractor: Network whose features are compared. Default: the data set's extractor. If its weights are missing, a
            random VGG16 is used, and its name is part of the names of the scores
    """

    _setting = "validation"

    def __init__(
        self,
        every_images: Images = Images(50_000),
        protocol: str = "quick",
        samples: Annotated[int, Bounds(at_least=2, words=FEW)] | None = None,
        extractor: str | None = None,
    ) -> None:
        self.every_images = Images(every_images)
        self.protocol = protocols.load(protocol).changed(generated=samples, extractor=extractor)
        if self.protocol.split != "val":
            raise UserError(
                f"validation.protocol is {protocol}, which uses the {self.protocol.split} split. The best checkpoint "
                "must be selected on images that are used neither for training nor for testing: choose a protocol "
                "with `split: val`."
            )
        self._extractor: Extractor | None = None
        self._sums: dict[str, float] = {}
        self._count = 0
        self._blocks: list[dict[str, Tensor]] = []  # batches of data that is not a DataModule and can be read only here
        self._warned: set[str] = set()
        self.scores: dict[str, float] = {}
        self.blank: dict[str, str | None] = {}  # scores that could not be computed, with the reason

    def setup(self, trainer, module: GenerativeModule, stage: str) -> None:
        # built before training, so that missing weights are reported early
        self._extractor = ranks.first_alone(lambda: self.extractor(trainer.datamodule))

    def extractor(self, data: Any) -> Extractor:
        """The network whose features are compared. It is built once.

        Raises:
            UserError: the network is unknown, or the user chose it and its weights are missing.
        """
        if self._extractor is None:
            self._extractor = self._build(data)
        return self._extractor

    def _build(self, data: Any) -> Extractor:
        try:
            usual = getattr(data, "extractor", "inception")
            name = usual if self.protocol.extractor == "default" else self.protocol.extractor
            return extractors.build(name, root=getattr(data, "root", None))
        except UserError as error:
            if self.protocol.extractor != "default":
                raise
            if ranks.rank() == 0:
                print(f"note: {error}\nValidation uses the features of a random VGG16 instead.", file=sys.stderr)
            return extractors.build("vgg-random")

    def expected(self, module: GenerativeModule, data: DataModule, held: Held) -> Expected:
        """The scores that validation will compute on such a split, without `val/`. Each value is None, or the reason
        why the score cannot be computed."""
        self.extractor(data).refuse_others(module.spec.shape)
        scores = expected(module, data, self.protocol, self.extractor(data), held)
        if isinstance(module, Classifies) and held.label is not None:
            scores["accuracy"] = None
        return scores

    def usual(self, module: GenerativeModule) -> list[str]:
        """The scores that can select the best checkpoint if the user sets none, in order of preference."""
        assert self._extractor is not None, "`setup` builds it"
        scores: dict[type, list[str]] = {
            Samples: [self._extractor.score("fid")],
            # models trained without pairs are not compared with true images
            Translates: ["translation_mse"]
            if module.spec.target == "image"
            else [self._extractor.score("translation_fid"), "cycle_l1"],
            Reconstructs: ["mse"],
            HasLikelihood: ["nats"],
            Segments: ["mean_iou"],
            Classifies: ["accuracy"],
        }
        found = [name for capability, names in scores.items() if isinstance(module, capability) for name in names]
        if not found:
            raise UserError(
                f"Validation computes no score for {type(module).__name__} by default. Select a score of the model's "
                "own with `--checkpoint.monitor val/NAME --checkpoint.mode min|max`."
            )
        return found

    def deciding(
        self, module: GenerativeModule, given: Collection[str], monitor: str | None = None, mode: str | None = None
    ) -> tuple[str, str]:
        """The score that selects the best checkpoint, and whether `min` or `max` is best.

        Args:
            module: The model that is trained
            given: Names of the scores that validation computes, with the prefix `val/`
            monitor, mode: The user's settings, if any

        Raises:
            UserError: validation does not compute `monitor`, or computes no score that can select a checkpoint; or
                `mode` contradicts the direction of the score.
        """
        if monitor is None:
            names = [f"val/{name}" for name in self.usual(module)]
            monitor = next((name for name in names if name in given), None)
            if monitor is None:
                raise UserError(
                    f"Validation does not compute {names[0]}, which selects the best checkpoint. It computes "
                    f"{', '.join(given) or 'no score'}. Select a different score with `--checkpoint.monitor val/NAME "
                    "--checkpoint.mode min|max`, or hold out more images with `--data.val_size`."
                )
        if monitor not in given:
            raise UserError(
                f"checkpoint.monitor is '{monitor}', which validation does not compute. Choose from: "
                f"{', '.join(given) or 'no score'}.{did_you_mean(monitor, given)}"
            )
        known = SCALES.get(monitor.removeprefix("val/").partition("-")[0])
        right = {"lower": "min", "higher": "max", None: None}[known.better if known else None]
        if mode is None and right is None:
            raise UserError(
                f"checkpoint.monitor is {monitor}, and it is unknown whether a small or a large value is better. Set "
                "`--checkpoint.mode min` or `max`."
            )
        if mode is not None and right is not None and mode != right:
            raise UserError(
                f"checkpoint.mode is {mode}, but {'small' if right == 'min' else 'large'} values of {monitor} are "
                f"better. Use `--checkpoint.mode {right}`, or remove `--checkpoint.mode`."
            )
        decided = mode or right
        assert decided is not None, "mode or right is known"
        return monitor, decided

    def on_train_batch_start(self, trainer, module: GenerativeModule, batch: Any, batch_idx: int) -> None:
        # Lightning validates when batch_idx + 1 is divisible by this number: 1 means now, infinity means never
        after = module.images_seen + len(batch) * trainer.world_size
        now = after // self.every_images != module.images_seen // self.every_images
        trainer.val_check_batch = 1 if now else float("inf")

    def on_validation_start(self, trainer, module: GenerativeModule) -> None:
        self._sums, self._count, self._blocks = {}, 0, []

    def on_validation_batch_end(self, trainer, module: GenerativeModule, outputs: Any, batch: Any, *_: Any) -> None:
        each = dict(outputs or {})
        if isinstance(module, Classifies) and getattr(batch, "label", None) is not None:
            each["accuracy"] = module.classify(batch.image).argmax(1) == batch.label
        for name, values in each.items():
            self._sums[name] = self._sums.get(name, 0.0) + values.double().sum().item()
        self._count += len(batch)
        if not isinstance(trainer.datamodule, DataModule):
            found = {name: getattr(batch, name) for name in ("label", "caption", "mask")}
            found["source"] = None if batch.source is None else to_stored(batch.source)
            found["images"] = to_stored(batch.image)
            self._blocks.append({name: x.cpu() for name, x in found.items() if x is not None})

    def on_validation_epoch_end(self, trainer, module: GenerativeModule) -> None:
        # gathered as objects, since a process without a batch does not know the names
        parts = ranks.gather([(self._sums, self._count)])
        count = sum(n for _, n in parts)
        names = sorted({name for sums, _ in parts for name in sums})
        scores = {name: sum(sums.get(name, 0.0) for sums, _ in parts) / count for name in names}
        data: Any = trainer.datamodule
        if not isinstance(data, DataModule):
            blocks = ranks.gather(self._blocks)
            joined = {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
            data = TensorImages("validation images", **joined)
        found = evaluate(module, data, self.protocol, extractor=self._extractor, device=module.device)
        scores |= {name: entry["value"] for name, entry in found.metrics.items() if entry["value"] is not None}
        self.scores = {f"val/{name}": value for name, value in scores.items()}
        self.blank = {f"val/{name}": entry["note"] for name, entry in found.metrics.items() if entry["value"] is None}
        for name, entry in found.metrics.items():
            if entry["value"] is None and name.partition("-")[0] in REGISTERED and name not in self._warned:
                self._warned.add(name)  # once
                rank_zero_warn(f"Validation gives no {name}: {entry['note']}")
        if trainer.state.fn != "fit":
            module.log_dict(self.scores, rank_zero_only=False)
        elif trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(self.scores, step=module.images_seen)
