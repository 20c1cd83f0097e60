"""Shows a progress bar and logs the loss terms to every logger."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning import Callback
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from genbench.callbacks.max_images import MaxImages
from genbench.core import renamed
from genbench.core.arguments import Checked, Weight
from genbench.core.class_paths import path_of
from genbench.core.errors import UserError
from genbench.core.history import Unreadable
from genbench.core.module import GenerativeModule
from genbench.core.units import Images
from genbench.loggers import Curves, Wandb

UNSHOWN = ("grad_norm", "real_accuracy", "fake_accuracy")  # logged but not shown, to keep the line short
LAST = ("d_real", "d_fake")  # shown after the losses
BAR = (15, 24)  # minimum and maximum width of the bar in characters; narrower only in a narrow terminal


class Monitor(Callback, metaclass=Checked):
    """Reads and logs the loss terms at intervals. Shows a progress bar in a terminal, otherwise prints lines.

    It also logs `<optimizer>/grad_norm`, the gradient norm at the first step of each optimizer after each reading. The
    norm is over all networks of the optimizer, averaged over processes, unscaled and before clipping. `terms` contains
    the last reading, and `read_at` the number of images seen at that reading.

    Args:
        every_images: Images between two readings. A reading is the mean since the previous reading, over all processes.
            A loss that is not finite is detected at the next reading at the latest
        refresh_seconds: Seconds between two updates of the bar
        line_seconds: Seconds between two printed lines, without a terminal
        show: Whether to show a bar or lines; the terms are logged in any case
    """

    def __init__(
        self,
        every_images: Images = Images(2000),
        refresh_seconds: Weight = 0.25,
        line_seconds: Weight = 15.0,
        show: bool = True,
    ) -> None:
        self.every_images, self.show = Images(every_images), show
        self.refresh_seconds, self.line_seconds = refresh_seconds, line_seconds
        self._console: Console | None = None
        self._live: Live | None = None
        self._line = Line()
        self._shown = self._read = (0.0, 0)  # time, images seen
        self.terms: dict[str, float] = {}
        self.read_at = 0

    def on_train_start(self, trainer, module: GenerativeModule) -> None:
        unread, cls = module.read_terms(reset=False), path_of(type(module))
        curves = [logger for logger in trainer.loggers if isinstance(logger, Curves)]
        for logger in curves:  # remove rows after the checkpoint, since they will be logged again
            logger.cut(module.images_seen, unread, lambda name: renamed.column(name, cls))
        for logger in trainer.loggers:
            if isinstance(logger, Wandb) and curves and module.images_seen:
                with suppress(Unreadable):  # the unreadable file was already reported
                    logger.catch_up(curves[0].rows())
        self._read = self._shown = (time.monotonic(), module.images_seen)
        if not (self.show and trainer.is_global_zero):
            return
        budget = next((c.max_images for c in trainer.callbacks if isinstance(c, MaxImages)), None)
        self._console = Console(stderr=True)
        self._line = Line(type(module).__name__, module.images_seen, budget)
        if self._console.is_terminal:
            self._live = Live(self._line, console=self._console, auto_refresh=False)
            self._live.start()

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer, module: GenerativeModule, optimizer: Optimizer) -> None:
        player = list(module.players)[trainer.optimizers.index(optimizer)]
        gradients = (p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
        # not computed at each step: for a small model it would take several percent of the time
        module.logged.add_once(f"{player}/grad_norm", lambda: get_total_norm(gradients))

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        if module.due(self.every_images):
            self._log(trainer, module)
        if self._console is not None:
            wait = self.refresh_seconds if self._console.is_terminal else self.line_seconds
            if time.monotonic() - self._shown[0] >= wait:
                self._show(module)

    def _log(self, trainer, module: GenerativeModule, *, reset: bool = True) -> None:
        self.terms, self.read_at = module.read_terms(reset=reset), module.images_seen
        now = (time.monotonic(), module.images_seen)
        seconds, images = now[0] - self._read[0], now[1] - self._read[1]
        self._read = now
        if not trainer.is_global_zero or not (self.terms or images):
            return
        rates = {
            f"{player}/lr": optimizer.param_groups[0]["lr"]
            for player, optimizer in zip(module.players, trainer.optimizers, strict=True)
        }
        # a run that is resumed at its end trains on no images and has no speed
        speed = {"images_per_second": images / seconds} if images else {}
        for logger in trainer.loggers:
            logger.log_metrics(self.terms | rates | speed, step=module.images_seen)

    def _show(self, module: GenerativeModule) -> None:
        now, line = (time.monotonic(), module.images_seen), self._line
        recent = (now[1] - self._shown[1]) / max(now[0] - self._shown[0], 1e-9)
        # smoothed, so that the displayed time left does not jump
        line.speed = 0.8 * line.speed + 0.2 * recent if line.speed else recent
        # short names, losses first
        short = [(name.split("/")[-1], value) for name, value in self.terms.items()]
        line.terms = sorted(((n, v) for n, v in short if n not in UNSHOWN), key=lambda term: term[0] in LAST)
        line.done, self._shown = now[1], now
        with suppress(OSError):  # the terminal or pipe may be closed
            if self._live is not None:
                self._live.refresh()
            elif self._console is not None:
                parts = [f"{line.images} images", line.rate, line.left, line.words(len(line.terms))]
                self._console.print("  ".join(parts), highlight=False, markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line above the bar. Prints nothing if `show` is False."""
        if self._console is not None:
            with suppress(OSError):
                self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def on_train_end(self, trainer, module: GenerativeModule) -> None:
        if self.read_at != module.images_seen:
            # no reset: if the run is resumed with a larger budget, the next reading includes these steps too
            self._log(trainer, module, reset=False)
        if self._console is not None:
            self._show(module)
        self.on_exception()

    def on_exception(self, *_: Any) -> None:
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()
            self._live = None


@dataclass
class Line:
    """The progress bar: one line that shows fewer parts in a narrow terminal."""

    name: str = ""
    done: int = 0
    total: int | None = None
    speed: float = 0.0  # images per second
    terms: list[tuple[str, float]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def images(self) -> str:
        return f"{self.done:,}/{self.total:,}" if self.total else f"{self.done:,}"

    @property
    def rate(self) -> str:
        return f"{self.speed:,.{0 if self.speed >= 10 else 1}f} images/s" if self.speed else ""

    @property
    def left(self) -> str:
        return f"{_clock(max(0, self.total - self.done) / self.speed)} left" if self.total and self.speed else ""

    def words(self, n: int) -> str:
        return "  ".join(f"{name} {value:.3g}" for name, value in self.terms[:n])

    def parts(self, width: int) -> list[ProgressBar | Text]:
        """The parts that fit into `width` columns, with a space between them."""
        name, images = Text(self.name, "bold"), Text(self.images)
        speed, left = Text(self.rate, "green"), Text(self.left)
        percent = Text(f"{self.done / self.total:.0%}") if self.total else images
        known = [images, speed, left]
        whole = [name, images, speed, Text(_clock(time.monotonic() - self.started), "dim"), left]
        choices = [(BAR[0], [*whole, Text(self.words(n), "cyan")]) for n in range(len(self.terms), 0, -1)]
        choices += [(BAR[0], whole), (BAR[0], [name, *known]), (BAR[0], known)]
        choices += [(8, [images, left]), (8, [percent, left]), (0, [percent])]
        for least, texts in choices:
            texts = [text for text in texts if text]
            room = width - sum(len(text) + 1 for text in texts)
            if room >= least:
                break
        if self.total and room > 0:
            bar = ProgressBar(self.total, self.done, width=min(room, BAR[1]))
            texts.insert(1 if texts[0] is name else 0, bar)
        return texts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
        parts = self.parts(options.max_width)
        for _ in parts:
            line.add_column(no_wrap=True, overflow="crop")
        line.add_row(*parts)
        yield line


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def monitor_of(trainer: Any, reader: str) -> Monitor:
    """The Monitor of the trainer. `reader` is the name of the callback that needs it.

    Raises:
        UserError: the trainer has no Monitor.
    """
    found = next((c for c in trainer.callbacks if isinstance(c, Monitor)), None)
    if found is None:  # not `next` without a default: its StopIteration would silently end Lightning's epoch
        raise UserError(f"{reader} needs the loss terms that Monitor reads. Add a Monitor to the Trainer's callbacks.")
    return found
