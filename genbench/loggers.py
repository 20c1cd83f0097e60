"""Loggers of curves: a CSV file in the run's folder, and optionally Weights & Biases."""

from __future__ import annotations

import csv
import io
import itertools
import netrc
import os
import re
import shlex
import struct
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from genbench.core import history
from genbench.core.errors import some, warn
from genbench.core.files import elsewhere, replacing
from genbench.core.history import COLUMN, finite
from genbench.core.panels import SHARES, in_panels


class Curves(Logger):
    """Writes `<run>/metrics.csv`: one row each time something is logged. The first column is the number of images seen.

    A resumed run continues the same file, after rows later than its checkpoint are removed. If another program, such as
    a spreadsheet, has saved the file, it is repaired, or renamed to `metrics.csv.1` if its content is in doubt. A
    warning is printed in both cases. Rows that cannot be written are kept and written later: no error in this class
    ends training.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns: list[str] = []
        self._left_as: Any = ()  # identity, size and time of the file after our last write
        self.waiting: list[dict[str, Any]] = []  # rows that are not in the file yet
        self._warned = False

    @property
    def name(self) -> str:
        return self.path.parent.name

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        pass  # config.yaml contains them

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.waiting.append({COLUMN: step} | {name: f"{value:.6g}" for name, value in metrics.items()})
        self._try()

    def _try(self) -> None:
        """Write the waiting rows."""
        with self._unfailing():
            self._look()
            new = [name for name in dict.fromkeys(n for row in self.waiting for n in row) if name not in self._columns]
            if new:
                self._write(self.rows() + self.waiting, self._columns + new)
            else:
                self._append(self.waiting)
            self.waiting = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.waiting:
            self._try()
        if self.waiting:
            columns = list(dict.fromkeys(name for row in self.waiting for name in row))
            kept, where = elsewhere(self.path.name, lambda file: file.write(_lines(self.waiting, columns, header=True)))
            where = f"They are in {kept}." if kept else where
            warn(f"the last {len(self.waiting)} rows of {self.path} could not be written. {where}")

    def rows(self) -> list[dict[str, str]]:
        """All complete rows. A last row that a killed process has only partly written is omitted.

        Raises:
            Unreadable: the file does not contain curves.
        """
        return history.read(self.path).rows

    def series(self) -> dict[str, list[tuple[int, float]]]:
        """Curves for `plot`: column -> (images seen, value), for columns with at least two values."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in self.rows():
            for name, text in row.items():
                value = finite(text)
                if name != COLUMN and value is not None:
                    found.setdefault(name, []).append((int(row[COLUMN]), value))
        return {name: points for name, points in found.items() if len(points) > 1 and not name.endswith("/lr")}

    def _look(self) -> None:
        """Read the column names. Repair or rename the file if another program has changed it."""
        if self._left_as == self._mark():
            return
        try:
            found = history.read(self.path)
            doubts = found.doubts
        except history.Unreadable as error:
            doubts = [str(error)]
        if doubts:
            aside = next(p for k in itertools.count(1) if not (p := self.path.with_name(f"metrics.csv.{k}")).exists())
            self.path.rename(aside)
            self._columns = []
            warn(
                f"{self.path} cannot be read reliably ({some(doubts, 1)}). It was renamed to {aside}; new curves begin."
            )
        else:
            self._columns = found.columns
            if found.changes:
                warn(f"another program has saved {self.path} ({', '.join(found.changes)}). It was repaired.")
            if found.torn:
                warn(f"the last line of {self.path} may be incomplete, since it has no line ending. It was removed.")
            if found.changes or found.torn:
                self._write(found.rows, found.columns)
        self._left_as = self._mark()

    def _mark(self) -> Any:
        if not self.path.exists():
            return None
        stat = self.path.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _write(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        with replacing(self.path) as file:
            file.write(_lines(rows, columns, header=True))
        self._columns, self._left_as = columns, self._mark()

    def _append(self, rows: list[dict[str, Any]]) -> None:
        size = self.path.stat().st_size
        try:
            with open(self.path, "ab") as file:
                file.write(_lines(rows, self._columns))
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, size)  # remove the incomplete row, to which the next row would be joined
            raise
        self._left_as = self._mark()

    @contextmanager
    def _unfailing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, history.Unreadable) as error:
            if not self._warned:
                warn(f"{self.path} could not be written ({error}). Training continues; the rows will be written later.")
            self._warned = True

    @rank_zero_only
    def cut(self, images_seen: int, unread: Iterable[str] = (), today: Callable[[str], str] = str) -> None:
        """Remove the rows that were logged after a checkpoint, and add the unwritten rows stored in the checkpoint.

        Args:
            images_seen: Number of images seen at the checkpoint
            unread: Loss terms that were not logged yet at the checkpoint. A row with one of them at the same number of
                images was logged after the checkpoint
            today: Maps an old column name to the current name
        """
        with self._unfailing():
            self._look()
            self._columns = [today(name) for name in self._columns]
            rows = [{today(name): value for name, value in row.items()} for row in self.rows()]
            # among rows with the same number of images, those with an unread term were logged later
            ends = [(int(row[COLUMN]), any(row.get(name) for name in unread)) for row in rows]
            rows = [row for row, end in zip(rows, ends, strict=True) if end <= (images_seen, False)]
            there = [_values(row) for row in rows]
            rows += [row for row in self.waiting if _values(row) not in there]
            columns = list(dict.fromkeys([*self._columns, *(name for row in self.waiting for name in row)]))
            if columns:
                self._write(sorted(rows, key=lambda row: int(row[COLUMN])), columns)
            self.waiting = []

    @rank_zero_only
    def plot(self) -> Path | None:
        """Draw `<run>/curves.png`: every column over the images seen, grouped into panels by `core.panels`."""
        from matplotlib.figure import Figure  # not pyplot, whose state belongs to the user's notebook
        from matplotlib.ticker import EngFormatter

        self._look()
        series = self.series()
        if not series:
            return None
        panels = in_panels(series)
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(4.5 * columns, 3 * rows))
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis, (title, labels) in zip(axes.flat, panels.items(), strict=False):
            for name, label in labels.items():
                axis.plot(*zip(*series[name], strict=True), label=label.replace("$", "\\$"), linewidth=1.2)
            axis.set(title=title.replace("$", "\\$"), xlabel="images seen")
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
            axis.grid(alpha=0.3)
            if title == SHARES:
                axis.set_ylim(-0.03, 1.03)
            if len(labels) > 1 or not title.endswith(next(iter(labels.values()))):
                axis.legend(fontsize=8)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        figure.suptitle(self.name.replace("$", "\\$"))
        figure.tight_layout()
        path = self.path.with_name("curves.png")
        with replacing(path) as file:
            figure.savefig(file, format="png", dpi=110)
        return path


def _lines(rows: list[dict[str, Any]], columns: list[str], header: bool = False) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _values(row: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in row.items() if value != ""}


class Wandb(WandbLogger):
    """Logs to Weights & Biases, with the number of images seen as the step. Without an API key, the run is recorded
    offline and the upload command is printed.

    Offline, each part of a resumed run has its own folder. As online, a part begins after the last step of the previous
    parts: steps that are trained again after a kill are not recorded twice.

    Args:
        project: Project of the run
        entity: User or team; default: the owner of the API key
        group: Group of the run
        tags: Tags of the run
        save_dir: Folder that the client writes to; default: the run's folder
        run_name: Name of the run; default: the name of its folder
        run_id: Id of the run, stored in its checkpoints so that a resumed run continues its curves
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
        mode = os.environ.get("WANDB_MODE")
        offline = mode in ("offline", "dryrun") or (mode is None and not _has_key())
        self._why_offline = "because of WANDB_MODE" if mode else "no API key is set"
        super().__init__(
            name=run_name, save_dir=save_dir or ".", project=project, entity=entity, group=group, tags=tags,
            id=run_id, offline=offline, resume="allow",
        )  # fmt: skip
        self._wandb_init.pop("anonymous", None)  # the client warns about it
        self._last: tuple[int, set[str]] | None = None  # last step of earlier parts, with the names logged at it

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        assert step is not None, "the callbacks log with the number of images seen"
        last, names = self.last_step()
        if step < last:
            return
        new = {name: value for name, value in metrics.items() if step > last or name not in names}
        if new:
            self.experiment.log(new | {COLUMN: step}, step=step)

    def last_step(self) -> tuple[int, set[str]]:
        """The last step recorded by earlier parts of this run, and the names logged at it; (-1, set()) for a new
        run."""
        if self._last is None:
            run = self.experiment
            run.define_metric(COLUMN)
            run.define_metric("*", step_metric=COLUMN)
            before = [_recorded(folder) for folder in self._parts()[:-1]]
            # the server may have more steps than the local folders
            online: tuple[int, set[str]] = (run.starting_step - 1, set())
            self._last = max([*filter(None, before), online], key=lambda part: part[0])
        return self._last

    @rank_zero_only
    def catch_up(self, rows: list[dict[str, str]]) -> None:
        """Log rows of `metrics.csv` that no part of the run contains, since a kill loses the client's last seconds."""
        if self._id is not None and (not self._offline or len(self._parts()) == 1):
            return  # earlier parts are on the server or on another machine
        for row in rows:
            values = {name: finite(text) for name, text in row.items() if name != COLUMN}
            self.log_metrics({name: v for name, v in values.items() if v is not None}, int(row[COLUMN]))

    def _parts(self) -> list[Path]:
        """Folders of this run on this machine, oldest first. The last folder belongs to this process."""
        here = Path(self.experiment.dir).parent
        name = re.compile(rf"(?:offline-)?run-(\d+_\d+)-{re.escape(self.experiment.id)}")
        before = [(name.fullmatch(p.name), p) for p in here.parent.iterdir() if p.name != here.name]
        return [*(p for _, p in sorted((found[1], p) for found, p in before if found)), here]

    def where(self) -> str:
        """One line with the URL of the run, or with the command that uploads an offline run."""
        if not self._offline:
            return f"Weights & Biases: {self.experiment.url}"
        *before, here = self._parts()
        new = [p for p in before if _recorded(p) is not None and not list(p.glob("run-*.wandb.synced"))]
        folders = shlex.join(map(str, [*new, here]))
        return f"Weights & Biases: recorded offline ({self._why_offline}). Upload it with: wandb sync {folders}"


def _recorded(folder: Path) -> tuple[int, set[str]] | None:
    """The last step in a run's folder, and the names logged at it; (-1, set()) without steps, None without a run.

    The client has no reader in Python. Its file is a LevelDB log of 32 KiB blocks. Each record in a block has a header
    of 7 bytes: checksum, length, and kind (1 whole record, 2 first, 3 middle or 4 last part).
    """
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # protobuf creates it at run time

    last: tuple[int, set[str]] | None = None
    try:
        data = next(folder.glob("run-*.wandb")).read_bytes()
        at, joined = 7, b""
        while at + 7 <= len(data):
            room = 32768 - at % 32768
            if room < 7:  # too little for a header
                at += room
                continue
            length, kind = struct.unpack_from("<HB", data, at + 4)
            part = data[at + 7 : at + 7 + length]
            joined = part if kind in (1, 2) else joined + part
            if kind in (1, 4):
                record = Record.FromString(joined)
                if record.WhichOneof("record_type") == "run":
                    last = last or (-1, set())
                elif record.WhichOneof("record_type") == "history":
                    names = {item.key or item.nested_key[0] for item in record.history.item}
                    last = (record.history.step.num, names)
            at += 7 + length
    except Exception:  # the file is truncated or has a different version: keep what was read so far
        pass
    return last


def log_table(
    name: str, columns: list[str], rows: list[list[Any]], folder: Path, *, group: str, project: str = "genbench",
    entity: str | None = None, tags: list[str] | None = None,
) -> str:  # fmt: skip
    """Log a table as a separate run in a group; later calls use the same run. Return the text of `Wandb.where`."""
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "table.id"
    logger = Wandb(
        project, entity, group, tags, save_dir=str(folder), run_name=f"{group}-{name}",
        run_id=kept.read_text() if kept.is_file() else None,
    )  # fmt: skip
    run = logger.experiment
    kept.write_text(run.id)
    run.log({name: wandb.Table([*columns], rows, allow_mixed_types=True)}, step=logger.last_step()[0] + 1)
    where = logger.where()
    run.finish()
    return where


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if name and netrc.netrc(os.path.expanduser(name)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
