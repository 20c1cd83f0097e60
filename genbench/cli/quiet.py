"""Choose which warnings are shown, and format them."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path


def _note(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """Format a warning of genbench as a note, and a warning of another package with its file and line."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"note: {message}\n"
    return _plain_warning(message, category, filename, lineno, line)


_plain_warning = warnings.formatwarning


def quiet() -> None:
    """Hide Lightning's messages that a user of genbench cannot act on."""
    for text in (
        ".*does not have many workers.*",
        ".*`max_epochs` was not set.*",
        ".*tensorboardX.*",
        ".*LightningCLI's args parameter.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*LeafSpec.*",
        ".*Trying to infer the `batch_size`.*",
        ".*`srun` command is available.*",
        ".*module\\(s\\) in eval mode at the start of training.*",  # frozen networks stay in eval mode
    ):
        warnings.filterwarnings("ignore", text)
    warnings.formatwarning = _note
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for name in ("seed", "distributed"):
        logging.getLogger(f"lightning.fabric.utilities.{name}").setLevel(logging.WARNING)
