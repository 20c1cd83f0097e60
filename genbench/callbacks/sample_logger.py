"""Writes grids of samples and reconstructions during training, and at the end an animation and a plot of curves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning import Callback
from PIL import Image
from torch import Tensor

from genbench.callbacks.ema import EMA
from genbench.core.arguments import Bounds, Checked
from genbench.core.batch import Batch, from_uint8, to_words
from genbench.core.capabilities import Reconstructs, Samples, Segments, Translates
from genbench.core.conditions import columns, in_turn
from genbench.core.errors import reason, some, warn
from genbench.core.files import replacing
from genbench.core.image_grid import POINTS, beside, enlarged, grid, painted, picture, scatter
from genbench.core.module import GenerativeModule
from genbench.core.units import Images
from genbench.loggers import Curves


class SampleLogger(Callback, metaclass=Checked):
    """Writes grids to `<run>/samples/`, `reconstructions/`, `translations/` and `masks/`, and to loggers that log
    images.

    All grids use the same noise or the same real images, and the EMA weights. A class-conditional model samples
    its classes in turn, one column per class for at most 16 classes. A caption-conditional model uses the first
    captions of the validation split, which are written to `<run>/samples/captions.txt` in the order of the grid.

    At the end of training, the grids are joined to an animation, and `<run>/curves.png` is drawn. An error is printed
    once, and training continues.

    Args:
        every_images: Images between two grids; a last grid is written at the end
        n: Samples in a grid, rounded down to whole rows of classes; plots of points always show 2000
        film: Format of the animation: gif, webp or none
    """

    _setting = "samples"

    def __init__(
        self,
        every_images: Images = Images(50_000),
        n: Annotated[int, Bounds(at_least=1, at_most=10_000)] = 64,
        film: Literal["gif", "webp", "none"] = "gif",
    ) -> None:
        self.every_images, self.n, self.film = Images(every_images), n, film
        self._shown_at = -1
        self._failed: set[str] = set()  # outputs whose error was already printed
        self._block: Batch | None = None

    def on_train_start(self, trainer, module: GenerativeModule) -> None:
        self._block = None

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        if module.due(self.every_images):
            self._show(trainer, module)

    def on_train_end(self, trainer, module: GenerativeModule) -> None:
        if self._shown_at != module.images_seen:
            self._show(trainer, module)
        if not trainer.is_global_zero:
            return
        for name in ("samples", "reconstructions", "translations", "masks"):
            with self._unfailing(f"the animation of {name}"):
                if self.film != "none":
                    _film(Path(trainer.default_root_dir) / name, self.film)
        with self._unfailing("curves.png"):
            for logger in trainer.loggers:
                if isinstance(logger, Curves):
                    logger.plot()

    @contextmanager
    def _unfailing(self, what: str) -> Iterator[None]:
        """Print an error in an output once instead of ending training."""
        try:
            yield
        except Exception as error:
            if what not in self._failed:
                warn(f"{what} could not be written ({reason(error)}). Training continues.")
            self._failed.add(what)

    def _show(self, trainer, module: GenerativeModule) -> None:
        self._shown_at = module.images_seen
        if trainer.is_global_zero:
            with self._unfailing("a grid of images"):
                self._write(trainer, module)

    @torch.no_grad()
    def _write(self, trainer, module: GenerativeModule) -> None:
        module.eval()
        try:
            sheets = self._sheets(trainer, module)
        finally:
            module.train()
        for name, sheet in sheets.items():
            with self._unfailing(f"a grid of {name}"):
                path = Path(trainer.default_root_dir) / name / f"{module.images_seen:010d}.png"
                with replacing(path) as file:
                    enlarged(sheet).save(file, "PNG")
            for logger in trainer.loggers:
                with self._unfailing(f"a grid of {name} in {type(logger).__name__}"):
                    _log_image(logger, name, sheet, module.images_seen)

    def _sheets(self, trainer, module: GenerativeModule) -> dict[str, Image.Image]:
        average = next(c for c in trainer.callbacks if isinstance(c, EMA))
        sheets = {}
        with average.in_place(module), trainer.precision_plugin.forward_context():
            if isinstance(module, Samples):
                points = len(module.spec.shape) == 1
                by_class = columns(module) or 1
                # the same number of samples for each class
                n = POINTS if points else max(self.n // by_class, 1) * by_class
                seeds = torch.arange(n, device=module.device)
                samples = module.sample(seeds, condition=self._condition(trainer, module, n))
                sheets["samples"] = picture(samples, self._real(trainer) if points else None, columns(module))
            if isinstance(module, Reconstructs):
                real = self._real(trainer).to(module.device, module.dtype)
                copies = module.reconstruct(real).to(real.dtype)
                if real.ndim == 2:
                    sheets["reconstructions"] = scatter(copies, real)
                else:  # each image and its reconstruction
                    sheets["reconstructions"] = grid(torch.stack([real, copies], 1).flatten(0, 1), columns=8)
            if isinstance(module, Translates):
                sheets["translations"] = self._translations(trainer, module)
            if isinstance(module, Segments):
                sheets["masks"] = self._masks(trainer, module)
        return sheets

    def _translations(self, trainer, module: GenerativeModule) -> Image.Image:
        """A grid of source, translation and true image in turn. For a model that translates in both directions: image,
        translation and reconstruction (A, B, A), then the same for the other domain (B, A, B)."""
        batch = self._validation_block(trainer)[:16]
        source, real = (x.to(module.device, module.dtype) for x in (batch.source, batch.image))
        made = module.translate(source, to="B").to(real.dtype)
        columns = [source, made, real]
        if "A" in module.domains:
            other = module.translate(real, to="A")
            columns = [source, made, module.translate(made, to="A"), real, other, module.translate(other, to="B")]
        return grid(beside([x.to(real.dtype) for x in columns]).flatten(0, 1), columns=6)

    def _masks(self, trainer, module: GenerativeModule) -> Image.Image:
        """A grid of image, predicted mask and true mask in turn."""
        batch = self._validation_block(trainer)[:16]
        image = batch.image.to(module.device, module.dtype)
        found = module.segment(image).argmax(1)
        columns = [image.float(), *(from_uint8(painted(mask)) for mask in (found, batch.mask))]
        return grid(beside(columns).flatten(0, 1), columns=6)

    def _condition(self, trainer, module: GenerativeModule, n: int) -> Tensor | None:
        """Classes in turn, or the first captions of the validation split, which are also written to a file."""
        if not module.conditional or module.spec.target != "caption":
            return in_turn(module, n)
        condition = in_turn(module, n, self._validation_block(trainer))
        with replacing(Path(trainer.default_root_dir) / "samples" / "captions.txt") as file:
            file.writelines(f"{to_words(caption, module.spec.vocabulary)}\n".encode() for caption in condition.tolist())
        return condition

    def _real(self, trainer) -> Tensor:
        """The first 32 images, or the first batch of points, of the validation split."""
        found = self._validation_block(trainer).image
        return found if found.ndim == 2 else found[:32]

    def _validation_block(self, trainer) -> Batch:
        """The first batch of the validation split, read once per run."""
        if self._block is None:
            self._block = next(iter(trainer.datamodule.val_dataloader()))
        return self._block


def _log_image(logger: Any, name: str, sheet: Image.Image, images_seen: int) -> None:
    if hasattr(logger, "log_image"):  # Weights & Biases
        logger.log_image(name, [sheet], step=images_seen)
    elif hasattr(getattr(logger, "experiment", None), "add_image"):  # TensorBoard
        from torchvision.transforms.functional import pil_to_tensor

        logger.experiment.add_image(name, pil_to_tensor(sheet), global_step=images_seen)


def _film(folder: Path, kind: str) -> None:
    """Join the images of a folder to an animation. Print a warning for images that cannot be read or differ in size
    from the last image."""
    frames: list[Image.Image] = []
    left_out = []
    for path in sorted(folder.glob("*.png"), reverse=True):
        try:
            if not path.is_file():  # reading a named pipe would never end
                raise OSError("not a regular file")
            with Image.open(path) as picture:
                if frames and picture.size != frames[0].size:
                    raise ValueError("{}×{} pixels instead of {}×{}".format(*picture.size, *frames[0].size))
                # RGB, so that Pillow chooses 256 colors for each GIF frame; `convert("P")` would dither to 216
                frames.append(picture.copy())
        except Exception as error:  # Pillow raises many types of errors for damaged files
            left_out.append(f"{path.name} ({reason(error)})")
    frames.reverse()
    if left_out and frames:
        warn(f"the animation of {folder} omits {some(left_out)}.")
    if len(frames) < 2:
        return
    durations = [150] * (len(frames) - 1) + [2000]  # milliseconds; the last frame is shown longer
    with replacing(folder.with_suffix(f".{kind}")) as file:
        frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=durations, loop=0)
