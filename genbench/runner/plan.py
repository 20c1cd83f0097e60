"""What the runs of a suite need: complete configs, devices, time and disk."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning import Trainer

from genbench.callbacks import MaxImages, ValidationMetrics
from genbench.callbacks.stopwatch import Stopwatch
from genbench.cli import sentence
from genbench.cli.devices import refuse_unsupported
from genbench.cli.fit import with_configs
from genbench.cli.parser import Parser
from genbench.core.errors import Interrupted, UserError
from genbench.core.units import Images
from genbench.data.module import DataModule
from genbench.evaluation import extractors
from genbench.evaluation import protocol as protocols
from genbench.metrics.scales import SCALES
from genbench.suites.definition import Suite, error_message

ENDLESS = Images(10**12)  # a budget, for models that need one


def resolve(suite: Suite, path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return, for each experiment: its complete config, facts for the plan, and its model and data.

    Raises:
        UserError: lists every error that `fit` would report for any experiment.
    """
    faults: dict[str, list[str]] = {}  # error -> experiments with this error
    resolved, facts, built = {}, {}, {}
    parser: Any = None
    for experiment in suite.experiments:
        try:
            command = with_configs("fit", [*experiment.flags, "--seed_everything=0"])
            if parser is None:
                parser = Parser.run("fit", command)
            config = parser.parse(command)
            dump = {
                key: value
                for key, value in parser.dump(config).items()
                if key not in ("seed_everything", "name", "runs", "max_images")
            }
            refuse_unsupported(config.fit.trainer)
            facts[experiment.name] = each = _machines(dump["trainer"], suite)
            built[experiment.name] = model, data = parser.build(config)
            protocol = protocols.load(dump["protocol"])
            if isinstance(data, DataModule):
                data.check_divisible(each["devices"] * each["nodes"])
                extractor = data.extractor if protocol.extractor == "default" else protocol.extractor
                extractors.build(extractor, root=data.root)  # an error is raised now, not after hours of training
            quality, monitor = ValidationMetrics(**dump["validation"]), dump["checkpoint"]["monitor"]
            if monitor:  # `preflight` checks later, with the data, whether validation computes the score
                quality.deciding(model, [monitor], monitor, dump["checkpoint"]["mode"])
            each["parameters"] = sum(p.numel() for p in model.parameters())
            kept, images = dump["checkpoint"]["keep_every"], experiment.budget.images
            each["checkpoints"] = 2 + (images // kept if kept and images else 0)
            resolved[experiment.name] = dump
        except Exception as error:
            message = sentence(error)
            if message is None:
                raise
            faults.setdefault(message, []).append(experiment.name)
    wrong = [f"{', '.join(names)}: {message}" for message, names in faults.items()]
    if suite.by is not None and suite.by.partition("-")[0] not in SCALES:
        wrong.append(f"by is '{suite.by}', which is not a metric. Choose from: {', '.join(SCALES)}.")
    if wrong:
        raise UserError(error_message(path, wrong))
    return resolved, facts, built


def _machines(trainer: dict[str, Any], suite: Suite) -> dict[str, int]:
    """Return a run's nodes and devices per node, from its config or else the suite. Also set them in its config."""
    given = trainer["devices"]
    if given in ("auto", None):
        given = suite.launch.devices
    devices = len(given) if isinstance(given, list) else int(given) if str(given).isdecimal() else 0
    if devices < 1:
        raise UserError(f"trainer.devices is {given}; a suite needs a number of devices.")
    nodes = trainer["num_nodes"] if trainer["num_nodes"] > 1 else suite.launch.nodes
    if nodes > 1 and suite.launch.where == "local":
        raise UserError(f"trainer.num_nodes is {nodes}, but several machines need `launch: {{where: slurm}}`.")
    trainer |= {"devices": devices, "num_nodes": nodes}
    return {"devices": devices, "nodes": nodes}


def images_per_second(model: Any, data: Any) -> float:
    """Return the training images per second on this machine's default device, measured over two seconds."""
    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch(os.path.join(folder, "speed.json"), seconds=2, warmup=1)
        trainer = Trainer(
            devices=1, logger=False, callbacks=[watch, MaxImages(ENDLESS)], max_epochs=-1, default_root_dir=folder,
            limit_val_batches=0, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
            inference_mode=False,
        )  # fmt: skip
        with suppress(Interrupted):
            trainer.fit(model, datamodule=data)
        return watch.found["images_per_second"]


def bytes_of(facts: dict[str, Any]) -> float:
    """Estimate the bytes of a run on disk: checkpoints with weights, EMA and Adam's two moments, and a few images."""
    return facts["checkpoints"] * 4 * 4 * facts["parameters"] + 3e6
