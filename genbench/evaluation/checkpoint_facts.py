"""The facts about training that a checkpoint contains, in the format of records."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

from genbench.core import checkpoint_io
from genbench.core.arguments import key_of
from genbench.core.class_paths import loaded_classes
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.data.module import DataModule
from genbench.evaluation.extractor import state_hash

# settings that do not affect training, and so are not part of `config_hash`
ELSEWHERE = (
    ("seed_everything",), ("name",), ("title",), ("runs",), ("ckpt",), ("ckpt_path",), ("protocol",),
    ("data", "init_args", "root"), ("data", "init_args", "download"), ("data", "init_args", "workers"),
    ("data", "init_args", "memory"), ("data", "init_args", "eval_batch_size"), ("trainer", "logger"),
    ("trainer", "default_root_dir"), ("samples",), ("monitor",), ("gan_monitor",), ("checkpoint", "every_images"),
    ("checkpoint", "keep_every"), ("power_ema",),
)  # fmt: skip


def facts(checkpoint: dict[str, Any], path: Path, weights: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """`run` and `training` of a record, from the contents and the path of a checkpoint, and the weights that a model
    was loaded with: `ema`, `raw` or, for example, `ema 0.075`."""
    state, about = checkpoint["genbench"], checkpoint.get("run") or {}
    config = about.get("config") or {}
    run = {
        "name": _run_folder(path)
        or about.get("name")
        or path.stem,  # a checkpoint from a user's own script contains no name
        "config": config,
        "command": about.get("command"),
        "segments": about.get("segments"),
        "config_hash": config_hash(config or {"model": checkpoint["hyper_parameters"]}),
        "seed": state["seed"],
        "images_seen": state["images_seen"],
        "updates": dict(state["updates"]),
        "checkpoint": path.stem if path.suffix == ".ckpt" else path.name,
        "checkpoint_hash": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        "weights": weights,
    }
    return run, about.get("training")


def _run_folder(path: Path) -> str | None:
    """The current name of the run's folder, if the checkpoint lies in one; the folder may have been renamed."""
    folder = path.absolute().parent.parent
    return folder.name if path.parent.name == "checkpoints" and (folder / "config.yaml").is_file() else None


def facts_of(model: GenerativeModule, weights: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The entries `run` and `training` of a model's record, from the checkpoint that the model was loaded from.

    Without a checkpoint they describe the model itself, and `weights` (`ema` or `raw`) is stored as given.
    """
    if model.origin is not None:
        path, weights = model.origin
        return facts(checkpoint_io.read(path), path, weights)
    arguments = {name: value for name, value in dict(model.hparams).items() if name != "spec"}
    run = {
        "name": "in memory",
        "config": {},
        "config_hash": key_of({"model": arguments}),
        "seed": model.seed,
        "images_seen": model.images_seen,
        "updates": dict(model.updates),
        "checkpoint": "in memory",
        "checkpoint_hash": state_hash(model.state_dict()),
        "weights": weights,
    }
    return run, None


def config_hash(config: dict[str, Any]) -> str:
    """Hash (16 hex digits) of all settings that define the experiment. Runs that differ only in their seed share it."""
    kept = copy.deepcopy(config)
    for *folders, last in ELSEWHERE:
        place: Any = kept
        for name in folders:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.pop(last, None)
    return key_of(kept)


def data_class(name: str) -> type[DataModule]:
    """The DataModule class of this full name. It must be loaded already, since a checkpoint never causes an import."""
    cls = loaded_classes(DataModule).get(name)
    if cls is None:
        raise UserError(
            f"The checkpoint was trained on {name}, which is not loaded. Import its module with `--import "
            f"{name.rpartition('.')[0]}`, or choose different data with `--data`."
        )
    return cls
