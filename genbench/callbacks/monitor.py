"""What a person sees of a run: a progress bar, and the numbers behind it in every logger."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from genbench.callbacks.budget import Budget
from genbench.core.arguments import Checked, Weight
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.units import Images
from genbench.loggers import Curves

UNSHOWN = ("grad_norm", "real_accuracy", "fake_accuracy")  # they are in the curves; a line of all would be a wall
LAST = ("d_real", "d_fake")  # after the losses


class Monitor(Callback, metaclass=Checked):
    """Reads the loss terms every so many images, logs them, and shows a progress bar.

    Without a terminal it prints a line now and then instead. With the terms it logs `<player>/grad_norm`, the norm of
    the player's gradient at its first step after each reading: over all its networks, averaged over processes, unscaled
    and before clipping. What was read last is in `terms`, and at how many images seen in `read_at`.

    Args:
        every_images: How often the terms are read: their means since the last time, over all processes. A loss that
            is not finite is noticed then at the latest
        refresh_seconds: How often the bar moves
        line_seconds: How often a line is printed where there is no terminal
        show: Whether anything is shown; the loggers have it in any case
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
        self._bar: Progress | None = None
        self._shown = self._read = (0.0, 0)  # time, images seen
        self.terms: dict[str, float] = {}
        self.read_at = 0

    def on_train_start(self, trainer, module: GenerativeModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, Curves):  # what a stopped run logged after its last checkpoint is run again
                logger.cut(module.images_seen)
        self._read = self._shown = (time.monotonic(), module.images_seen)
        if not (self.show and trainer.is_global_zero):
            return
        budget = next((c.max_images for c in trainer.callbacks if isinstance(c, Budget)), None)
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[images]}"),
            _Speed(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("[cyan]{task.fields[terms]}"),
            console=console,
            auto_refresh=False,
        )
        name = type(module).__name__
        self._task = self._bar.add_task(
            name, total=budget, completed=module.images_seen, images="", left="", terms="", speed=0.0
        )
        if console.is_terminal:
            self._bar.start()

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer, module: GenerativeModule, optimizer: Optimizer) -> None:
        player = list(module.players)[trainer.optimizers.index(optimizer)]
        gradients = (p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
        # not at each step: a pass over all gradients would cost several percent of a small model's
        module.record_once(f"{player}/grad_norm", lambda: get_total_norm(gradients))

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        if module.due(self.every_images):
            self._log(trainer, module)
        if self._bar is not None:
            wait = self.refresh_seconds if self._bar.console.is_terminal else self.line_seconds
            if time.monotonic() - self._shown[0] >= wait:
                self._show(module)

    def _log(self, trainer, module: GenerativeModule) -> None:
        self.terms, self.read_at = module.read_terms(), module.images_seen
        now = (time.monotonic(), module.images_seen)
        speed = (now[1] - self._read[1]) / (now[0] - self._read[0])
        self._read = now
        if not trainer.is_global_zero:
            return
        rates = {
            f"{player}/lr": optimizer.param_groups[0]["lr"]
            for player, optimizer in zip(module.players, trainer.optimizers, strict=True)
        }
        for logger in trainer.loggers:
            logger.log_metrics(self.terms | rates | {"images_per_second": speed}, step=module.images_seen)

    def _show(self, module: GenerativeModule) -> None:
        task: Task = self._bar.tasks[0]
        now = (time.monotonic(), module.images_seen)
        recent = (now[1] - self._shown[1]) / (now[0] - self._shown[0])
        # smoothed, so that the time left does not jump
        speed = 0.8 * task.fields["speed"] + 0.2 * recent if task.fields["speed"] else recent
        self._shown = now
        left = f"{_clock((task.total - now[1]) / speed)} left" if task.total and speed else ""
        images = f"{now[1]:,}/{task.total:,}" if task.total else f"{now[1]:,}"
        terms = "  ".join(f"{name} {value:.3g}" for name, value in self._chosen())
        self._bar.update(task.id, completed=now[1], images=images, left=left, terms=terms, speed=speed)
        if self._bar.console.is_terminal:
            self._bar.refresh()
        else:
            line = f"{images} images  {speed:,.0f} images/s  {left}  {terms}"
            self._bar.console.print(line, highlight=False, soft_wrap=True)

    def _chosen(self) -> list[tuple[str, float]]:
        """The terms that a line has room for, by their short names, losses first."""
        short = [(name.split("/")[-1], value) for name, value in self.terms.items()]
        return sorted(((n, v) for n, v in short if n not in UNSHOWN), key=lambda term: term[0] in LAST)

    def say(self, text: str) -> None:
        """A line for the person who watches, above the bar; nothing where nothing is shown."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _stop(self) -> None:
        if self._bar is not None and self._bar.console.is_terminal:
            self._bar.stop()

    def on_train_end(self, trainer, module: GenerativeModule) -> None:
        if not module.due(self.every_images):
            self._log(trainer, module)
        if self._bar is not None:
            self._show(module)
        self._stop()

    def on_exception(self, trainer, module: GenerativeModule, exception: BaseException) -> None:
        self._stop()


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['speed']:,.0f} images/s", style="green")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def monitor_of(trainer: Any, reader: str) -> Monitor:
    """The trainer's Monitor, whose terms a callback of that name reads.

    Raises:
        UserError: it has none.
    """
    found = next((c for c in trainer.callbacks if isinstance(c, Monitor)), None)
    if found is None:  # a StopIteration would end Lightning's epoch in silence
        raise UserError(f"{reader} reads what Monitor has read: give the Trainer a Monitor, too.")
    return found
