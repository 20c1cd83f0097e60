"""Grids of samples and reconstructions while a model trains; at the end an animation of them, and the curves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning import Callback
from PIL import Image
from torch import Tensor

from genbench.callbacks.conditions import columns, in_turn
from genbench.callbacks.ema import EMA
from genbench.core.arguments import Bounds, Checked
from genbench.core.batch import Batch, from_uint8, to_words
from genbench.core.capabilities import Reconstructs, Samples, Segments, Translates
from genbench.core.errors import reason, warn
from genbench.core.files import replacing
from genbench.core.image_grid import POINTS, beside, enlarged, grid, painted, picture, scatter
from genbench.core.module import GenerativeModule
from genbench.core.units import Images
from genbench.loggers import Curves


class SampleLogger(Callback, metaclass=Checked):
    """Writes grids to `<run>/samples/`, `reconstructions/`, `translations/`, `masks/`, and to loggers that take images.

    The samples' noise is the same in every grid, the reconstructed images too; the weights are the averaged ones. A
    model trained on labels is asked for its classes in turn, each a column if they are few; one trained on captions for
    the first of the validation split, which stand in `<run>/samples/captions.txt`, row by row of the grid.

    At the end it joins the grids to an animation, and draws `<run>/curves.png`. What cannot be made is said once, and
    training goes on.

    Args:
        every_images: How often; also at the end
        n: Samples in a grid, of classes only whole rows; of points as many as a plot holds
        film: At the end, join the grids to an animation: gif, webp or none
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
        self._failed: set[str] = set()  # what was said to have failed
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
        """Pictures are worth no training: whatever goes wrong with them is said, once."""
        try:
            yield
        except Exception as error:
            if what not in self._failed:
                warn(f"{what} could not be made ({reason(error)}); training does not depend on it.")
            self._failed.add(what)

    def _show(self, trainer, module: GenerativeModule) -> None:
        self._shown_at = module.images_seen
        if trainer.is_global_zero:
            with self._unfailing("a grid of pictures"):
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
                n = POINTS if points else max(self.n // by_class, 1) * by_class  # of each class the same number
                seeds = torch.arange(n, device=module.device)
                samples = module.sample(seeds, condition=self._asked(trainer, module, n))
                sheets["samples"] = picture(samples, self._real(trainer) if points else None, columns(module))
            if isinstance(module, Reconstructs):
                real = self._real(trainer).to(module.device, module.dtype)
                copies = module.reconstruct(real).to(real.dtype)
                if real.ndim == 2:
                    sheets["reconstructions"] = scatter(copies, real)
                else:  # each image left, its copy right
                    sheets["reconstructions"] = grid(torch.stack([real, copies], 1).flatten(0, 1), columns=8)
            if isinstance(module, Translates):
                sheets["translations"] = self._translations(trainer, module)
            if isinstance(module, Segments):
                sheets["masks"] = self._masks(trainer, module)
        return sheets

    def _translations(self, trainer, module: GenerativeModule) -> Image.Image:
        """What the model is shown, what it makes of it, and the true image, in turn; of a model that translates both
        ways instead of the true one what it makes of that again, and the same of an image of the other domain."""
        batch = self._validation_block(trainer)[:16]
        source, real = (x.to(module.device, module.dtype) for x in (batch.source, batch.image))
        made = module.translate(source, to="B").to(real.dtype)
        columns = [source, made, real]
        if "A" in module.domains:
            other = module.translate(real, to="A")
            columns = [source, made, module.translate(made, to="A"), real, other, module.translate(other, to="B")]
        return grid(beside([x.to(real.dtype) for x in columns]).flatten(0, 1), columns=6)

    def _masks(self, trainer, module: GenerativeModule) -> Image.Image:
        """An image, the classes that the model finds in it, and the true ones, in turn."""
        batch = self._validation_block(trainer)[:16]
        image = batch.image.to(module.device, module.dtype)
        found = module.segment(image).argmax(1)
        columns = [image.float(), *(from_uint8(painted(mask)) for mask in (found, batch.mask))]
        return grid(beside(columns).flatten(0, 1), columns=6)

    def _asked(self, trainer, module: GenerativeModule, n: int) -> Tensor | None:
        """Classes in turn, or the first captions of the validation split, which are written beside the grids."""
        if not module.conditional or module.spec.target != "caption":
            return in_turn(module, n)
        condition = in_turn(module, n, self._validation_block(trainer))
        with replacing(Path(trainer.default_root_dir) / "samples" / "captions.txt") as file:
            file.writelines(f"{to_words(caption, module.spec.vocabulary)}\n".encode() for caption in condition.tolist())
        return condition

    def _real(self, trainer) -> Tensor:
        """The first images of the validation split, or as many points as one of its blocks has."""
        found = self._validation_block(trainer).image
        return found if found.ndim == 2 else found[:32]

    def _validation_block(self, trainer) -> Batch:
        """The first block of the validation split, read once in a run."""
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
    """Join the pictures of a folder; those that cannot be read, or differ in size from the last, are named."""
    frames: list[Image.Image] = []
    left_out = []
    for path in sorted(folder.glob("*.png"), reverse=True):
        try:
            if not path.is_file():  # a named pipe would never end
                raise OSError("no regular file")
            with Image.open(path) as picture:
                if frames and picture.size != frames[0].size:
                    raise ValueError("of {}×{} pixels, not {}×{}".format(*picture.size, *frames[0].size))
                # Pillow gives each frame of a GIF 256 colors of its own; `convert("P")` would dither to the web's 216
                frames.append(picture.copy())
        except Exception as error:  # Pillow raises much else for what is damaged
            left_out.append(f"{path.name} ({reason(error)})")
    frames.reverse()
    if left_out and frames:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        warn(f"the animation of {folder} leaves out {', '.join(left_out[:3])}{more}.")
    if len(frames) < 2:
        return
    durations = [150] * (len(frames) - 1) + [2000]  # milliseconds; the last one rests
    with replacing(folder.with_suffix(f".{kind}")) as file:
        frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=durations, loop=0)
