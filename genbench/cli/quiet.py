"""What warnings a user sees, and how."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path


def _note(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """A warning of ours as a note; of others with the place that it comes from."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"note: {message}\n"
    return _plain_warning(message, category, filename, lineno, line)


_plain_warning = warnings.formatwarning


def quiet() -> None:
    """Silence what Lightning says to people who write their own trainers, and keep what a user can act on."""
    for text in (
        ".*does not have many workers.*",
        ".*`max_epochs` was not set.*",
        ".*tensorboardX.*",
        ".*LightningCLI's args parameter.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*LeafSpec.*",
        ".*Trying to infer the `batch_size`.*",
        ".*`srun` command is available.*",
        ".*module\\(s\\) in eval mode at the start of training.*",  # those of a frozen part are meant to be
    ):
        warnings.filterwarnings("ignore", text)
    warnings.formatwarning = _note
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for name in ("seed", "distributed"):
        logging.getLogger(f"lightning.fabric.utilities.{name}").setLevel(logging.WARNING)
