"""Where curves go: a CSV file in the run's folder, always; Weights & Biases where asked."""

from __future__ import annotations

import csv
import io
import netrc
import os
from argparse import Namespace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from genbench.core.files import replacing

NORMS = "grad_norm"


class Curves(Logger):
    """`<run>/metrics.csv`: a row each time something is logged, the first column the images seen.

    A resumed run goes on in the same file, cut to the images of its checkpoint, so that a run has one curve.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"

    @property
    def name(self) -> str:
        return self.path.parent.name

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        pass  # they are in config.yaml

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {"images_seen": step} | {name: f"{value:.6g}" for name, value in metrics.items()}
        header = self._header()
        if not set(row) <= set(header):
            header += [name for name in row if name not in header]
            self._write(self.rows(), header)
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, header, lineterminator="\n").writerow(row)

    def rows(self) -> list[dict[str, str]]:
        """All complete rows: a process that was killed may have left half of one, which must not read as numbers."""
        if not self.path.is_file():
            return []
        with open(self.path, newline="") as file:
            return list(csv.DictReader(line for line in file if line.endswith("\n")))

    def _header(self) -> list[str]:
        if not self.path.is_file():
            return []
        with open(self.path, newline="") as file:
            return next(csv.reader(file), [])

    def _write(self, rows: list[dict[str, str]], header: list[str]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with replacing(self.path) as file:
            file.write(text.getvalue().encode())

    @rank_zero_only
    def cut(self, images_seen: int) -> None:
        """Drop what was logged after so many images."""
        if self.path.is_file():
            rows = [row for row in self.rows() if int(row["images_seen"]) <= images_seen]
            self._write(rows, self._header())

    @rank_zero_only
    def plot(self) -> Path | None:
        """`<run>/curves.png`: every column over the images seen; one panel for each group of names."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        series: dict[str, list[tuple[int, float]]] = {}
        for row in self.rows():
            for name, value in row.items():
                if name != "images_seen" and value:
                    series.setdefault(name, []).append((int(row["images_seen"]), float(value)))
        series = {name: points for name, points in series.items() if len(points) > 1 and not name.endswith("/lr")}
        if not series:
            return None
        panels = _panels(series)
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        figure, axes = plt.subplots(rows, columns, figsize=(4.5 * columns, 3 * rows), squeeze=False)
        for axis, (title, names) in zip(axes.flat, panels.items(), strict=False):
            for name in names:
                label = name.split("/")[0 if title == NORMS else -1]
                axis.plot(*zip(*series[name], strict=True), label=label, linewidth=1.2)
            axis.set(title=title, xlabel="images seen")
            axis.ticklabel_format(axis="x", style="sci", scilimits=(4, 4))
            axis.grid(alpha=0.3)
            if len(names) > 1:
                axis.legend(fontsize=8)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        figure.suptitle(self.name)
        figure.tight_layout()
        path = self.path.with_name("curves.png")
        with replacing(path) as file:
            figure.savefig(file, format="png", dpi=110)
        plt.close(figure)
        return path


def _panels(series: dict[str, Any]) -> dict[str, list[str]]:
    """A player's terms share a panel, and so do all players' gradients; validation scores differ in unit and stand
    alone."""
    panels: dict[str, list[str]] = {}
    for name in series:
        player, _, term = name.partition("/")
        group = name if player == "val" else term if term == NORMS else player
        panels.setdefault(group, []).append(name)
    return panels


class Wandb(WandbLogger):
    """Weights & Biases, counted in images seen. Without a key it records offline and says how to upload.

    Args:
        project: Project that the run belongs to
        entity: User or team; default: that of the key
        group: Group of runs that belong together
        tags: Tags of the run
        save_dir: Where the client writes; default: the run's folder
        run_name: Name of the run; default: that of its folder
        run_id: Identity of the run, kept in its checkpoints so that a resumed run goes on in its own curve
    """

    def __init__(
        self,
        project: str = "genbench",
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        save_dir: str | None = None,
        run_name: str | None = None,
        run_id: str | None = None,
    ) -> None:
        told = os.environ.get("WANDB_MODE")
        offline = told in ("offline", "dryrun") or (told is None and not _has_key())
        self._why_offline = "as WANDB_MODE says" if told else "no API key is set"
        super().__init__(
            name=run_name, save_dir=save_dir or ".", project=project, entity=entity, group=group, tags=tags,
            id=run_id, offline=offline, resume="allow",
        )  # fmt: skip
        self._wandb_init.pop("anonymous", None)  # Lightning passes it on, and the client warns that it means nothing
        self._metric_defined = False

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        if not self._metric_defined:
            self.experiment.define_metric("images_seen")
            self.experiment.define_metric("*", step_metric="images_seen")
            self._metric_defined = True
        self.experiment.log(metrics | {"images_seen": step})

    def where(self) -> str:
        """One line for the person at the keyboard: where the run is, and how to upload it if it is not."""
        if not self._offline:
            return f"Weights & Biases: {self.experiment.url}"
        folder = Path(self.experiment.dir).parent
        return f"Weights & Biases: recorded offline ({self._why_offline}). Upload it with: wandb sync {folder}"


def log_table(
    name: str, columns: list[str], rows: list[list[Any]], folder: Path, *, group: str, project: str = "genbench",
    entity: str | None = None, tags: list[str] | None = None,
) -> str:  # fmt: skip
    """A table as a run of its own in a group, the same run each time that it is logged; returns where it is."""
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "table.id"
    logger = Wandb(
        project, entity, group, tags, save_dir=str(folder), run_name=f"{group}-{name}",
        run_id=kept.read_text() if kept.is_file() else None,
    )  # fmt: skip
    run = logger.experiment
    kept.write_text(run.id)
    run.log({name: wandb.Table(columns, rows, allow_mixed_types=True)})
    where = logger.where()
    run.finish()
    return where


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if name and netrc.netrc(os.path.expanduser(name)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
